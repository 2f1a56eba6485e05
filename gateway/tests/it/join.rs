//! Joining and leaving channels.

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway,
    chat::{A1, ADA, BOB, chat, chat_with, messages_of, say},
    token::{anon, authenticated},
};

#[tokio::test]
async fn topics_are_refused_by_the_texts_of_the_protocol() {
    let (_database, gateway) = chat().await;
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &anon()).await;
        let own = |join_ref: &str| {
            if version == Version::V2 {
                json!(join_ref)
            } else {
                Value::Null
            }
        };
        for (topic, reason, join_ref) in [
            (
                "realtime:",
                "TopicNameRequired: You must provide a topic name",
                own("j"),
            ),
            ("room", "unmatched topic", Value::Null),
            ("Realtime:room", "unmatched topic", Value::Null),
            ("", "unmatched topic", Value::Null),
        ] {
            client
                .send(json!("j"), json!("r"), topic, "phx_join", json!({}))
                .await;
            let reply = client.reply("r").await;
            assert_eq!(
                reply.payload,
                json!({"status": "error", "response": {"reason": reason}}),
                "{topic}"
            );
            assert_eq!((reply.topic.as_str(), reply.join_ref), (topic, join_ref));
        }
        // Pushes on a channel that is not joined.
        for event in ["broadcast", "presence", "access_token", "whatever"] {
            client
                .send(json!("j"), json!("u"), "realtime:nowhere", event, json!({}))
                .await;
            let reply = client.reply("u").await;
            assert_eq!(
                reply.payload,
                json!({"status": "error", "response": {"reason": "unmatched topic"}})
            );
            assert_eq!(reply.join_ref, Value::Null);
        }
        // Names of any kind, which differ by case.
        client.joined("a:b:c \u{1f600} *", json!({})).await;
        client.joined("A:b:c \u{1f600} *", json!({})).await;
    }
}

#[tokio::test]
async fn no_type_in_the_configuration_refuses_a_join() {
    let (_database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for payload in [
        json!({}),
        json!(null),
        json!([]),
        json!("text"),
        json!({"config": null}),
        json!({"config": []}),
        json!({"config": {"broadcast": null, "presence": null, "postgres_changes": null, "private": null}}),
        json!({"config": {"broadcast": 1, "presence": "x", "postgres_changes": {}, "private": "no"}}),
        json!({"config": {"broadcast": {"self": "yes", "ack": []}, "presence": {"key": {}, "enabled": 7}}}),
        json!({"config": {"postgres_changes": []}, "access_token": null, "user_token": 3}),
        json!({"config": {"private": "FALSE"}, "access_token": "sb_publishable_key"}),
    ] {
        let (_, reply) = client.join("lenient", payload.clone()).await;
        assert_eq!(
            reply,
            json!({"status": "ok", "response": {"postgres_changes": []}}),
            "{payload}"
        );
    }
    // As text, booleans count.
    let config =
        json!({"broadcast": {"self": "TRUE", "ack": "true"}, "presence": {"enabled": "False"}});
    let channel = client.joined("flexible", config).await;
    let reference = client
        .push(
            &channel,
            "broadcast",
            json!({"type": "broadcast", "event": "e", "payload": {}}),
        )
        .await;
    assert_eq!(client.reply(&reference).await.payload["status"], "ok");
    client.event(&channel, "broadcast").await;
}

#[tokio::test]
async fn a_heartbeat_is_answered_while_a_join_waits_and_what_is_pushed_meanwhile_is_done_after_it()
{
    let (database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    // The policies of chat_messages read chat_sessions: who holds that lock holds up the verdict.
    let holder = database.connect().await;
    holder
        .batch_execute("begin; lock table chat_sessions in access exclusive mode")
        .await
        .expect("a lock");
    let config =
        json!({"postgres_changes": messages_of("*", A1), "broadcast": {"self": true, "ack": true}});
    let (channel, join) = client
        .begin_join("pending", json!({"config": config}))
        .await;
    let said = json!({"type": "broadcast", "event": "early", "payload": {}});
    let push = client.push(&channel, "broadcast", said.clone()).await;
    assert_eq!(client.until_heartbeat().await, []);
    holder
        .batch_execute("rollback")
        .await
        .expect("the lock is released");

    let first = client.next().await;
    assert!(
        matches!(&first, Incoming::Message(message) if message.reference == *join),
        "{first:?}"
    );
    client.live(&channel).await;
    assert_eq!(client.reply(&push).await.payload["status"], "ok");
    assert_eq!(client.event(&channel, "broadcast").await.payload, said);
}

#[tokio::test]
async fn leaving_is_answered_and_closed_and_ends_delivery() {
    let (database, gateway) = chat().await;
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &authenticated(ADA)).await;
        let left = client.subscribe("left", messages_of("*", A1)).await;
        let kept = client.subscribe("kept", messages_of("*", A1)).await;
        if version == Version::V2 {
            // A leave of an older self of the channel is ignored.
            client
                .send(
                    json!("10"),
                    json!("old"),
                    &left.topic,
                    "phx_leave",
                    json!({}),
                )
                .await;
            let before = client.until_heartbeat().await;
            assert!(before.iter().all(|incoming| !matches!(incoming, Incoming::Message(message) if message.reference == "old")), "{before:?}");
        }
        let reference = client.push(&left, "phx_leave", json!({})).await;
        assert_eq!(
            client.reply(&reference).await.payload,
            json!({"status": "ok", "response": {}})
        );
        assert_eq!(client.event(&left, "phx_close").await, left.closed(version));
        say(&database, A1, "after").await;
        client.change(&kept).await;
        let rest = client.until_heartbeat().await;
        assert!(rest.iter().all(|incoming| !matches!(incoming, Incoming::Message(message) if message.topic == left.topic && message.event == "postgres_changes")), "{rest:?}");
        // Leaving what is not joined is fine.
        client
            .send(
                json!("77"),
                json!("gone"),
                &left.topic,
                "phx_leave",
                json!({}),
            )
            .await;
        let reply = client.reply("gone").await;
        assert_eq!(reply.payload, json!({"status": "ok", "response": {}}));
        if version == Version::V2 {
            assert_eq!(reply.join_ref, "77");
        }
    }
}

#[tokio::test]
async fn a_second_join_replaces_the_first_reply_first_then_the_close_of_the_old() {
    let (database, gateway) = chat().await;
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &authenticated(ADA)).await;
        let quiet =
            json!({"postgres_changes": messages_of("*", A1), "presence": {"enabled": false}});
        let old = client.joined("room", quiet.clone()).await;
        client.live(&old).await;
        let (new, reference) = client.begin_join("room", json!({"config": quiet})).await;
        assert_ne!(old.join_ref, new.join_ref);
        let (first, second) = (client.next().await, client.next().await);
        assert!(
            matches!(&first, Incoming::Message(message) if message.event == "phx_reply" && message.reference == *reference),
            "{first:?}"
        );
        assert_eq!(second, Incoming::Message(old.closed(version)));
        client.live(&new).await;
        say(&database, A1, "once").await;
        client.change(&new).await;
        assert_eq!(client.until_heartbeat().await, [], "a change comes once");

        // A replacement that fails does not bring the old channel back.
        let (_, reply) = client
            .join("room", json!({"config": {}, "access_token": "nonsense"}))
            .await;
        assert_eq!(
            reply,
            json!({"status": "error", "response": {"reason": "MalformedJWT: The token provided is not a valid JWT"}})
        );
        assert_eq!(client.event(&new, "phx_close").await, new.closed(version));
        let reference = client.push(&new, "broadcast", json!({})).await;
        assert_eq!(
            client.reply(&reference).await.payload["response"]["reason"],
            "unmatched topic"
        );
    }
}

#[tokio::test]
async fn a_socket_may_hold_so_many_channels_and_no_more() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start_with(&database, &[("max_channels", "3")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let mut last = client.joined("0", json!({})).await;
    for name in ["1", "2"] {
        last = client.joined(name, json!({})).await;
    }
    let (_, reply) = client.join("3", json!({})).await;
    assert_eq!(
        reply["response"]["reason"],
        "ChannelRateLimitReached: Too many channels"
    );
    // Joining one again is no further channel; leaving one makes room.
    last = client
        .joined(last.topic.trim_start_matches("realtime:"), json!({}))
        .await;
    let reference = client.push(&last, "phx_leave", json!({})).await;
    client.reply(&reference).await;
    client.joined("3", json!({})).await;
}

#[tokio::test]
async fn a_refusal_can_be_a_system_message_instead_by_a_setting() {
    let (database, gateway) = chat_with(&[("unauthorized_join", "system")]).await;
    let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
    let channel = bob
        .joined(
            "a1",
            json!({"postgres_changes": messages_of("*", A1), "broadcast": {"self": true}}),
        )
        .await;
    let told = bob.event(&channel, "system").await;
    assert_eq!(told.payload["status"], "error");
    say(&database, A1, "not for bob").await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let adas = ada.subscribe("a1 of ada", messages_of("*", A1)).await;
    say(&database, A1, "end").await;
    ada.change(&adas).await;
    let said = json!({"type": "broadcast", "event": "e", "payload": {}});
    bob.push(&channel, "broadcast", said).await;
    bob.event(&channel, "broadcast").await;
    let rest = bob.until_heartbeat().await;
    assert!(rest.iter().all(|incoming| !matches!(incoming, Incoming::Message(message) if message.event == "postgres_changes")), "{rest:?}");
}

#[tokio::test]
async fn private_channels_are_refused_while_there_are_no_policies_for_them() {
    let (_database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let (_, reply) = client
        .join("secret", json!({"config": {"private": true}}))
        .await;
    let reason =
        "Unauthorized: You do not have permissions to read from this Channel topic: secret";
    assert_eq!(reply["response"]["reason"], reason);
    let replay = json!({"config": {"broadcast": {"replay": {"since": 0}}}});
    let (_, reply) = client.join("replay", replay).await;
    let reason = "UnableToReplayMessages: Replay is not allowed for public channels";
    assert_eq!(reply["response"]["reason"], reason);
}
