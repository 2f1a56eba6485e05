//! Refs, and the metadata of binary frames (protocol §2).

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{Client, Incoming, TestDatabase, TestGateway, client::Message, token::anon};

async fn gateway() -> TestGateway {
    TestGateway::start(&TestDatabase::new(None).await).await
}

fn ok(response: Value) -> Value {
    json!({"status": "ok", "response": response})
}

#[tokio::test]
async fn a_join_without_a_join_ref_is_answered_without_and_pushes_with_its_ref() {
    let gateway = gateway().await;
    let topic = "realtime:room";
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &anon()).await;
        let of_join = match version {
            Version::V1 => Value::Null,
            Version::V2 => json!("41"),
        };
        let config =
            json!({"config": {"broadcast": {"ack": true}, "presence": {"enabled": false}}});
        client
            .send(json!(null), json!("41"), topic, "phx_join", config)
            .await;
        let reply = client.reply("41").await;
        assert_eq!(reply.join_ref, Value::Null);
        assert_eq!(reply.payload, ok(json!({"postgres_changes": []})));
        let said = json!({"type": "broadcast", "event": "e", "payload": {}});
        client
            .send(json!(null), json!("42"), topic, "broadcast", said)
            .await;
        let reply = client.reply("42").await;
        assert_eq!(
            (reply.join_ref, reply.payload),
            (of_join.clone(), ok(json!({})))
        );
        client
            .send(json!(null), json!("43"), topic, "phx_leave", json!({}))
            .await;
        assert_eq!(client.reply("43").await.join_ref, of_join);
        let close = Message {
            join_ref: Value::Null,
            reference: Value::Null,
            topic: topic.to_owned(),
            event: "phx_close".to_owned(),
            payload: json!({}),
        };
        assert_eq!(client.next().await, Incoming::Message(close));
        assert_eq!(client.until_heartbeat().await, []);
    }
}

/// A client that does not know its `join_ref` any more can leave all the same.
#[tokio::test]
async fn a_leave_without_a_join_ref_is_a_leave() {
    let gateway = gateway().await;
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &anon()).await;
        let config = json!({"presence": {"enabled": false}});
        let channel = client.joined("room", config).await;
        client
            .send(
                json!(null),
                json!("l"),
                &channel.topic,
                "phx_leave",
                json!({}),
            )
            .await;
        assert_eq!(client.reply("l").await.payload, ok(json!({})));
        assert_eq!(
            client.event(&channel, "phx_close").await,
            channel.closed(version)
        );
    }
}

/// Refs are whatever JSON says they are, also where they are repeated twice.
#[tokio::test]
async fn refs_come_back_as_they_came() {
    let gateway = gateway().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for (join_ref, reference) in [
        (json!(7), json!(8)),
        (json!("a\"\\é\u{1f600}"), json!("")),
        (json!("00"), json!(1.5)),
    ] {
        let config = json!({"config": {"presence": {"enabled": false}}});
        let topic = "realtime:refs";
        client
            .send(
                join_ref.clone(),
                reference.clone(),
                topic,
                "phx_join",
                config,
            )
            .await;
        let reply = client.expect("a reply", |message| message.event == "phx_reply");
        let reply = reply.await;
        assert_eq!((&reply.join_ref, &reply.reference), (&join_ref, &reference));
        client
            .send(
                join_ref.clone(),
                json!("bye"),
                topic,
                "phx_leave",
                json!({}),
            )
            .await;
        assert_eq!(client.reply("bye").await.join_ref, join_ref);
        let close = client.expect("a close", |message| message.event == "phx_close");
        let close = close.await;
        assert_eq!((&close.join_ref, &close.reference), (&join_ref, &join_ref));
    }
}

/// Whatever a client says about its message: to others goes only what the server itself knows about it.
#[tokio::test]
async fn metadata_of_a_client_is_not_passed_on() {
    let gateway = gateway().await;
    let config = json!({"broadcast": {"ack": true}, "presence": {"enabled": false}});
    let mut sender = Client::v2(&gateway, &anon()).await;
    let channel = sender.joined("room", config.clone()).await;
    let mut v1 = Client::v1(&gateway, &anon()).await;
    let c1 = v1.joined("room", config.clone()).await;
    let mut v2 = Client::v2(&gateway, &anon()).await;
    v2.joined("room", config).await;
    let size = |text: &str| u8::try_from(text.len()).expect("a short text");
    let (join_ref, topic) = (&*channel.join_ref, &*channel.topic);
    for (reference, metadata) in [
        ("m1", r#"{"x":1,"id":"forged","replayed":true}"#),
        ("m2", "7"),
        // To be stored only where messages are stored, which is not here.
        ("m3", r#"{"persist":true}"#),
    ] {
        let sizes = [join_ref, reference, topic, "e", metadata].map(size);
        let names = [join_ref, reference, topic, "e", metadata].concat();
        let frame = [&[3], &sizes[..], &[1], names.as_bytes(), b"{}"].concat();
        sender.send_binary(frame).await;
        assert_eq!(sender.reply(reference).await.payload, ok(json!({})));
        let expected = [&[4, size(topic), 1, 0, 1], topic.as_bytes(), b"e{}"].concat();
        assert_eq!(v2.next().await, Incoming::Binary(expected));
        assert_eq!(
            v1.event(&c1, "broadcast").await.payload,
            json!({"type": "broadcast", "event": "e", "payload": {}})
        );
    }
}
