//! Messages between clients, in both versions and every form that they come in.

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{Channel, Client, Incoming, TestDatabase, TestGateway, token::anon};

async fn gateway() -> TestGateway {
    TestGateway::start(&TestDatabase::new(None).await).await
}

fn config(to_self: bool, ack: bool) -> Value {
    json!({"broadcast": {"self": to_self, "ack": ack}, "presence": {"enabled": false}})
}

async fn member(gateway: &TestGateway, version: Version) -> (Client, Channel) {
    let mut client = Client::connect(gateway, version, &anon()).await;
    let channel = client.joined("room", config(false, false)).await;
    (client, channel)
}

/// A frame of kind 3.
fn kind_3(channel: &Channel, reference: &str, event: &str, json: bool, payload: &[u8]) -> Vec<u8> {
    let size = |text: &str| u8::try_from(text.len()).expect("a short text");
    let (join_ref, topic) = (channel.join_ref.as_str(), channel.topic.as_str());
    let header = [
        3,
        size(join_ref),
        size(reference),
        size(topic),
        size(event),
        0,
        u8::from(json),
    ];
    let names = [join_ref, reference, topic, event].concat();
    [&header, names.as_bytes(), payload].concat()
}

/// A frame of kind 4.
fn kind_4(event: &str, json: bool, payload: &[u8]) -> Incoming {
    let topic = "realtime:room";
    let size = |text: &str| u8::try_from(text.len()).expect("a short text");
    let header = [4, size(topic), size(event), 0, u8::from(json)];
    Incoming::Binary([&header, topic.as_bytes(), event.as_bytes(), payload].concat())
}

#[tokio::test]
async fn each_form_reaches_each_version_as_the_protocol_says() {
    let gateway = gateway().await;
    let (mut sender, s) = member(&gateway, Version::V2).await;
    let (mut sender_v1, s1) = member(&gateway, Version::V1).await;
    let (mut v1, c1) = member(&gateway, Version::V1).await;
    let (mut v2, c2) = member(&gateway, Version::V2).await;

    // Text is relayed whole, whatever is in it, from either version to either.
    for payload in [
        json!({"type": "broadcast", "event": "cursor", "payload": {"x": 1.50, "é": [null]}, "more": true}),
        json!({}),
    ] {
        sender.push(&s, "broadcast", payload.clone()).await;
        sender_v1.push(&s1, "broadcast", payload.clone()).await;
        for (client, channel) in [(&mut v1, &c1), (&mut v2, &c2)] {
            for _ in 0..2 {
                let got = client.event(channel, "broadcast").await;
                assert_eq!(got.payload, payload);
                assert_eq!((got.join_ref, got.reference), (Value::Null, Value::Null));
            }
        }
        // Each sender has heard the other.
        sender.event(&s, "broadcast").await;
        sender_v1.event(&s1, "broadcast").await;
    }

    // Kind 3 with JSON: text for version 1, kind 4 for version 2. The example of the protocol.
    sender
        .send_binary(kind_3(&s, "7", "e", true, br#"{"a":1}"#))
        .await;
    let got = v1.event(&c1, "broadcast").await;
    assert_eq!(
        got.payload,
        json!({"event": "e", "payload": {"a": 1}, "type": "broadcast"})
    );
    assert_eq!(v2.next().await, kind_4("e", true, br#"{"a":1}"#));
    // An event that is not ASCII; any JSON value.
    sender
        .send_binary(kind_3(&s, "", "é", true, b"[1,2]"))
        .await;
    assert_eq!(
        v1.event(&c1, "broadcast").await.payload["payload"],
        json!([1, 2])
    );
    assert_eq!(v2.next().await, kind_4("é", true, b"[1,2]"));

    // Kind 3 with bytes: version 1 cannot say it.
    sender
        .send_binary(kind_3(&s, "8", "e", false, &[0x01, 0xff]))
        .await;
    assert_eq!(v2.next().await, kind_4("e", false, &[0x01, 0xff]));
    sender.push(&s, "broadcast", json!({"event": "end"})).await;
    assert_eq!(
        v1.event(&c1, "broadcast").await.payload,
        json!({"event": "end"})
    );
    assert_eq!(v1.until_heartbeat().await, []);
    assert_eq!(
        sender.until_heartbeat().await,
        [],
        "no ack was asked for, and nothing comes back"
    );
}

#[tokio::test]
async fn a_payload_that_is_no_object_goes_to_nobody_and_the_channel_lives_on() {
    let gateway = gateway().await;
    let (mut sender, s) = member(&gateway, Version::V2).await;
    let (mut v1, c1) = member(&gateway, Version::V1).await;
    for payload in [json!(null), json!("text"), json!([1]), json!(7)] {
        sender.push(&s, "broadcast", payload).await;
    }
    sender.push(&s, "broadcast", json!({"event": "end"})).await;
    assert_eq!(
        v1.event(&c1, "broadcast").await.payload,
        json!({"event": "end"})
    );
    assert_eq!(v1.until_heartbeat().await, []);
}

#[tokio::test]
async fn the_sender_gets_its_own_and_an_answer_if_it_asked_for_them() {
    let gateway = gateway().await;
    for version in [Version::V1, Version::V2] {
        for (to_self, ack) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut client = Client::connect(&gateway, version, &anon()).await;
            let channel = client.joined("own", config(to_self, ack)).await;
            let payload = json!({"type": "broadcast", "event": "e", "payload": {}});
            let reference = client.push(&channel, "broadcast", payload.clone()).await;
            if to_self {
                assert_eq!(client.event(&channel, "broadcast").await.payload, payload);
            }
            if ack {
                let reply = client.reply(&reference).await;
                assert_eq!(reply.payload, json!({"status": "ok", "response": {}}));
                if version == Version::V2 {
                    assert_eq!(reply.join_ref, *channel.join_ref);
                }
            }
            assert_eq!(
                client.until_heartbeat().await,
                [],
                "self {to_self}, ack {ack}"
            );
        }
    }
    // The same for kind 3.
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client.joined("room", config(true, true)).await;
    client
        .send_binary(kind_3(&channel, "b7", "e", true, b"{}"))
        .await;
    assert_eq!(client.reply("b7").await.payload["status"], "ok");
    assert_eq!(client.until_heartbeat().await, [kind_4("e", true, b"{}")]);
}

#[tokio::test]
async fn only_members_of_the_topic_hear_it_and_another_socket_of_the_sender_does() {
    let gateway = gateway().await;
    let token = anon();
    let mut one = Client::v2(&gateway, &token).await;
    let mut two = Client::v2(&gateway, &token).await;
    let room = one.joined("room", config(false, false)).await;
    one.joined("rooms", config(true, false)).await;
    let other = two.joined("room", config(false, false)).await;
    let left = two.joined("left", config(false, false)).await;
    let reference = two.push(&left, "phx_leave", json!({})).await;
    two.reply(&reference).await;
    two.event(&left, "phx_close").await;

    // A join_ref that is stale or missing does not matter on a joined channel.
    for (n, join_ref) in [json!(null), json!("3"), json!(room.join_ref)]
        .into_iter()
        .enumerate()
    {
        one.send(
            join_ref,
            json!("x"),
            &room.topic,
            "broadcast",
            json!({"event": "e", "n": n}),
        )
        .await;
        assert_eq!(two.event(&other, "broadcast").await.payload["n"], n);
    }
    one.send(
        json!(null),
        json!("y"),
        &left.topic,
        "broadcast",
        json!({"event": "e"}),
    )
    .await;
    assert_eq!(
        one.reply("y").await.payload["response"]["reason"],
        "unmatched topic"
    );
    assert_eq!(one.until_heartbeat().await, []);
    assert_eq!(two.until_heartbeat().await, []);
}

#[tokio::test]
async fn what_one_sender_says_arrives_in_its_order() {
    let gateway = gateway().await;
    let (mut v1, c1) = member(&gateway, Version::V1).await;
    let (mut a, ca) = member(&gateway, Version::V2).await;
    let (mut b, cb) = member(&gateway, Version::V1).await;
    for n in 0..300 {
        a.push(&ca, "broadcast", json!({"event": "a", "n": n}))
            .await;
        b.push(&cb, "broadcast", json!({"event": "b", "n": n}))
            .await;
    }
    let mut next = [0, 0];
    for _ in 0..600 {
        let payload = v1.event(&c1, "broadcast").await.payload;
        let of = usize::from(payload["event"] == "b");
        assert_eq!(payload["n"], next[of]);
        next[of] += 1;
    }
    assert_eq!(v1.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_payload_that_is_too_big_is_refused_by_the_ack_and_reaches_nobody() {
    let gateway = gateway().await;
    let (mut v2, c2) = member(&gateway, Version::V2).await;
    let mut sender = Client::v2(&gateway, &anon()).await;
    let channel = sender.joined("room", config(false, true)).await;
    let big = json!({"event": "big", "payload": {"text": "x".repeat(3_100_000)}});
    let reference = sender.push(&channel, "broadcast", big).await;
    let refused = json!({"status": "error", "response": {"reason": "payload_size_exceeded"}});
    assert_eq!(sender.reply(&reference).await.payload, refused);
    let reference = sender
        .push(&channel, "broadcast", json!({"event": "small"}))
        .await;
    assert_eq!(sender.reply(&reference).await.payload["status"], "ok");
    assert_eq!(
        v2.event(&c2, "broadcast").await.payload,
        json!({"event": "small"})
    );
    assert_eq!(v2.until_heartbeat().await, []);
}

#[tokio::test]
async fn an_event_that_nobody_knows_gets_no_answer() {
    let gateway = gateway().await;
    let (mut client, channel) = member(&gateway, Version::V2).await;
    for event in [
        "shout",
        "phx_reply",
        "postgres_changes",
        "system",
        "phx_close",
    ] {
        client.push(&channel, event, json!({"a": 1})).await;
    }
    assert_eq!(client.until_heartbeat().await, []);
    let reference = client.push(&channel, "presence", json!({})).await;
    assert_eq!(client.reply(&reference).await.payload["status"], "ok");
}
