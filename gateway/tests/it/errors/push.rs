//! Error replies to what is pushed on a channel.

use super::*;

#[tokio::test]
async fn every_error_reply_to_a_push_is_on_the_page() {
    let (_database, world) = private().await;
    walk("Reply to a push", [1], async |[response]| {
        [Box::pin(refused(&world, response)).await]
    })
    .await;
}

fn config(private: bool) -> Value {
    json!({"private": private, "broadcast": {"ack": true}, "presence": {"enabled": false}})
}

/// The response of an error reply, as it came.
async fn response(client: &mut Client, reference: &str) -> String {
    let reply = client.reply(reference).await.payload;
    let response = reply["response"].clone();
    assert_eq!(reply, json!({"status": "error", "response": response}));
    response.to_string()
}

async fn push(
    gateway: &TestGateway,
    private: bool,
    topic: &str,
    event: &str,
    payload: Value,
) -> String {
    let mut client = Client::v2(gateway, &ada()).await;
    let channel = client.joined(topic, config(private)).await;
    let reference = client.push(&channel, event, payload).await;
    response(&mut client, &reference).await
}

/// Sends a message that is to be stored, and meets this SQLSTATE.
async fn store(gateway: &TestGateway, sqlstate: &str) -> String {
    let mut client = Client::v2(gateway, &ada()).await;
    let channel = client.joined("room", config(true)).await;
    let event = format!("sqlstate-{sqlstate}");
    let metadata = r#"{"persist":true}"#;
    let size = |text: &str| u8::try_from(text.len()).expect("a short text");
    let (join_ref, topic) = (&*channel.join_ref, &*channel.topic);
    let sizes = [join_ref, "s", topic, &*event, metadata].map(size);
    let names = [join_ref, "s", topic, &*event, metadata].concat();
    let frame = [&[3][..], &sizes, &[1], names.as_bytes(), b"{}"].concat();
    client.send_binary(frame).await;
    response(&mut client, "s").await
}

async fn refused(world: &TestGateway, what: &str) -> String {
    match what {
        r#"{"reason":"unmatched topic"}"# => {
            let mut client = Client::v2(world, &ada()).await;
            let channel = Channel {
                topic: "realtime:elsewhere".to_owned(),
                join_ref: "1".to_owned(),
            };
            let reference = client.push(&channel, "broadcast", saying("x")).await;
            response(&mut client, &reference).await
        }
        r#"{"reason":"payload_size_exceeded"}"# => {
            let gateway = gateway(&[("max_payload_bytes", "1KiB")]).await;
            let long = saying(&"x".repeat(1024));
            push(&gateway, false, "room", "broadcast", long).await
        }
        r#"{"reason":"Unauthorized: You do not have permissions to write to this Channel topic: …"}"# => {
            push(world, true, "mute", "broadcast", saying("x")).await
        }
        r#"{"reason":"too many messages wait to be sent on this channel"}"# => {
            let mut client = Client::v2(world, &ada()).await;
            let channel = client.joined("slow", config(true)).await;
            for _ in 0..256 {
                client.push(&channel, "broadcast", saying("x")).await;
            }
            let reference = client.push(&channel, "broadcast", saying("x")).await;
            response(&mut client, &reference).await
        }
        r#"{"error":"the database refused it: …"}"# => store(world, "P0001").await,
        r#"{"error":"the database took too long: try again with less, or raise statement_timeout"}"# => {
            store(world, "57014").await
        }
        r#"{"error":"no database connection became free in time: try again"}"# => {
            store(world, "55P03").await
        }
        r#"{"error":"the database cannot be reached"}"# => store(world, "53300").await,
        r#"{"error":"the database failed"}"# => store(world, "XX000").await,
        r#"{"reason":"Presence track payload must be a map"}"# => {
            let track = json!({"event": "track", "payload": 7});
            push(world, false, "room", "presence", track).await
        }
        r#"{"reason":"Presence is full: too many bytes are tracked"}"# => {
            let gateway = gateway(&[("max_presence_bytes", "1KiB")]).await;
            let track = json!({"event": "track", "payload": {"text": "x".repeat(2000)}});
            push(&gateway, false, "room", "presence", track).await
        }
        "{}" => {
            let track = json!({"event": "track", "payload": {}});
            let denied = push(world, true, "mute", "presence", track).await;
            let unknown = json!({"event": "vanish"});
            assert_eq!(
                push(world, false, "room", "presence", unknown).await,
                denied
            );
            denied
        }
        other => panic!("no provoker for {other}"),
    }
}
