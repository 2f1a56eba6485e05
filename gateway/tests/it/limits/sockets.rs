//! What clients hear that ask for too much once they are connected.

use super::*;
use crate::support::{Channel, token::service_role};

async fn ended(client: &mut Client, channel: &Channel, message: &str) {
    let told = client.event(channel, "system").await.payload;
    let sub_topic = channel.topic.strip_prefix("realtime:");
    assert_eq!(
        told,
        json!({"message": message, "status": "error", "extension": "system", "channel": sub_topic})
    );
    client.event(channel, "phx_close").await;
}

fn say(text: &str) -> Value {
    json!({"type": "broadcast", "event": "e", "payload": {"text": text}})
}

#[tokio::test]
async fn a_socket_that_floods_is_closed_and_another_is_not() {
    for (setting, frame, count) in [
        ("max_socket_messages_per_second", "{}".to_owned(), 300),
        ("max_socket_bytes_per_second", "x".repeat(100_000), 120),
    ] {
        let gateway = gateway(&[(setting, "20"), ("max_channels", "2")]).await;
        let mut flood = Client::v2(&gateway, &anon()).await;
        let mut other = Client::v2(&gateway, &anon()).await;
        for _ in 0..count {
            // It may be closed before the last one.
            if flood.try_send_text(&frame).await.is_err() {
                break;
            }
        }
        assert_eq!(flood.closed().await, Some(1008), "{setting}");
        assert!(hits(&gateway, setting).await > 0);
        assert_eq!(other.until_heartbeat().await, []);
    }
}

#[tokio::test]
async fn who_joins_too_often_is_answered_and_closed() {
    for setting in ["max_socket_joins_per_second", "max_joins_per_second"] {
        let gateway = gateway(&[(setting, "1"), ("max_channels", "5")]).await;
        let mut client = Client::v2(&gateway, &anon()).await;
        let reason = loop {
            let (_, reply) = client.join("room", json!({})).await;
            if reply["status"] == "error" {
                break reply["response"].clone();
            }
        };
        assert_eq!(
            reason,
            json!({"reason": "ClientJoinRateLimitReached: Too many joins per second"})
        );
        assert_eq!(client.closed().await, Some(1001));
        assert!(hits(&gateway, setting).await > 0);
    }
}

#[tokio::test]
async fn a_channel_too_many_is_refused() {
    let gateway = gateway(&[("max_channels", "2")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for topic in ["a", "b", "a"] {
        client.joined(topic, json!({})).await;
    }
    let (_, reply) = client.join("c", json!({})).await;
    assert_eq!(
        reply["response"]["reason"],
        "ChannelRateLimitReached: Too many channels"
    );
    assert!(hits(&gateway, "max_channels").await > 0);
}

#[tokio::test]
async fn the_channel_that_sends_ends_when_all_events_are_used_up() {
    let gateway = gateway(&[("max_events_per_second", "1")]).await;
    let mut reader = Client::v2(&gateway, &anon()).await;
    let r = reader
        .joined("room", json!({"presence": {"enabled": false}}))
        .await;
    let mut sender = Client::v2(&gateway, &anon()).await;
    let s = sender
        .joined("room", json!({"presence": {"enabled": false}}))
        .await;
    let other = sender
        .joined("other", json!({"presence": {"enabled": false}}))
        .await;
    // A minute's worth, half of it deliveries.
    for number in 0..31 {
        sender.push(&s, "broadcast", say(&number.to_string())).await;
    }
    ended(&mut sender, &s, "Too many messages per second").await;
    for number in 0..30 {
        let got = reader.event(&r, "broadcast").await.payload;
        assert_eq!(got["payload"]["text"], number.to_string());
    }
    // Unknown events count, too; the socket goes on.
    sender.push(&other, "anything", json!({})).await;
    ended(&mut sender, &other, "Too many messages per second").await;
    assert_eq!(sender.until_heartbeat().await, []);
    assert_eq!(reader.until_heartbeat().await, []);
}

#[tokio::test]
async fn messages_of_the_database_are_dropped_when_all_events_are_used_up() {
    let database = TestDatabase::new(None).await;
    let settings = [
        ("max_events_per_second", "1"),
        ("max_payload_bytes", "2KiB"),
    ];
    let gateway = TestGateway::start_with(&database, &settings).await;
    // The tests of this process count together.
    let before = hits(&gateway, "max_events_per_second").await;
    let too_large = hits(&gateway, "max_payload_bytes").await;
    let mut service = Client::v1(&gateway, &service_role()).await;
    let config = json!({"private": true, "presence": {"enabled": false}});
    let channel = service.joined("room", config).await;
    database
        .execute(
            "select realtime.send(jsonb_build_object('text', repeat('x', 3000)), 'e', 'room');
             select realtime.send(jsonb_build_object('text', n::text), 'e', 'room') from generate_series(1, 40) n",
        )
        .await;
    for number in 1..30 {
        let got = service.event(&channel, "broadcast").await.payload;
        assert_eq!(got["payload"]["text"], number.to_string());
    }
    crate::support::wait::wait_for("the limit", || async {
        match hits(&gateway, "max_events_per_second").await > before {
            false => Err("it was not hit"),
            true => Ok(()),
        }
    })
    .await;
    assert!(hits(&gateway, "max_payload_bytes").await > too_large);
}

#[tokio::test]
async fn presence_has_limits_of_its_own() {
    let gateway = gateway(&[("max_presence_calls", "5"), ("max_payload_bytes", "1KiB")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client.joined("room", json!({})).await;
    // What has no event is no call.
    for _ in 0..10 {
        client.push(&channel, "presence", json!({})).await;
    }
    for number in 0..5 {
        let track = json!({"event": "track", "payload": {"n": number}});
        let reference = client.push(&channel, "presence", track).await;
        assert_eq!(client.reply(&reference).await.payload["status"], "ok");
    }
    let untrack = json!({"event": "untrack"});
    client.push(&channel, "presence", untrack).await;
    ended(&mut client, &channel, "Client presence rate limit exceeded").await;

    let channel = client.joined("large", json!({})).await;
    let track = json!({"event": "track", "payload": {"text": "x".repeat(1024)}});
    client.push(&channel, "presence", track).await;
    ended(&mut client, &channel, "Track message size exceeded").await;
    // A broadcast of that size is dropped, and its channel lives on.
    let channel = client
        .joined("room", json!({"broadcast": {"ack": true}}))
        .await;
    let reference = client
        .push(&channel, "broadcast", say(&"x".repeat(1024)))
        .await;
    assert_eq!(
        client.reply(&reference).await.payload,
        json!({"status": "error", "response": {"reason": "payload_size_exceeded"}})
    );
}

#[tokio::test]
async fn presence_of_all_channels_together_may_be_limited() {
    let gateway = gateway(&[
        ("max_presence_events_per_second", "1"),
        ("max_presence_calls", "0"),
    ])
    .await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client.joined("room", json!({})).await;
    for number in 0..61 {
        let track = json!({"event": "track", "payload": {"n": number}});
        client.push(&channel, "presence", track).await;
    }
    ended(
        &mut client,
        &channel,
        "Too many presence messages per second",
    )
    .await;
}
