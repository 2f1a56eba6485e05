//! Messages that were sent before: replay, and broadcasts that clients ask to be stored.

use super::*;
use crate::support::Incoming;

fn replay(since: Value, limit: Value) -> Value {
    let mut config = config(false, false);
    config["broadcast"]["replay"] = json!({"since": since, "limit": limit});
    config
}

/// Five messages, a minute apart, the last one just now.
async fn five(database: &TestDatabase) {
    database
        .execute(
            "insert into realtime.messages (topic, extension, payload, event, private, inserted_at)
             select 'room', 'broadcast', jsonb_build_object('text', n::text), 'e', true,
                    (now() at time zone 'utc') - (5 - n) * interval '1 minute'
               from generate_series(1, 5) n;
             -- What is not of this channel.
             insert into realtime.messages (topic, extension, payload, event, private) values
               ('room', 'broadcast', '{\"text\": \"public\"}', 'e', false),
               ('room', 'presence', '{\"text\": \"presence\"}', 'e', true),
               ('other', 'broadcast', '{\"text\": \"other\"}', 'e', true)",
        )
        .await;
}

#[tokio::test]
async fn the_last_messages_come_first_the_oldest_of_them_before_the_others() {
    let (database, gateway) = rooms().await;
    five(&database).await;
    for version in [Version::V1, Version::V2] {
        let mut ada = Client::connect(&gateway, version, &authenticated(ADA)).await;
        for (limit, expected) in [
            (json!(25), vec!["1", "2", "3", "4", "5"]),
            (json!(2), vec!["4", "5"]),
            (json!(0), vec!["5"]),
            (json!(1000), vec!["1", "2", "3", "4", "5"]),
        ] {
            let channel = ada.joined("room", replay(json!(0), limit)).await;
            for text in expected {
                let got = ada.event(&channel, "broadcast").await;
                assert_eq!(got.payload["payload"]["text"], text);
                assert_eq!(got.payload["meta"]["replayed"], true);
                assert_eq!(
                    (&got.payload["event"], &got.payload["type"]),
                    (&json!("e"), &json!("broadcast"))
                );
                assert_eq!(got.reference, Value::Null);
                if version == Version::V2 {
                    assert_eq!(got.join_ref, *channel.join_ref);
                }
            }
            for incoming in ada.until_heartbeat().await {
                let Incoming::Message(message) = incoming else {
                    panic!("{incoming:?}")
                };
                assert_eq!(
                    message.event, "phx_close",
                    "of the channel before: {message:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn since_is_a_time_in_milliseconds() {
    let (database, gateway) = rooms().await;
    five(&database).await;
    let since = database
        .text("select ((extract(epoch from now()) - 150) * 1000)::bigint::text")
        .await;
    let since: i64 = since.parse().expect("a number");
    let mut ada = Client::v1(&gateway, &authenticated(ADA)).await;
    let channel = ada.joined("room", replay(since.into(), json!(25))).await;
    for text in ["3", "4", "5"] {
        assert_eq!(heard(&mut ada, &channel).await, text);
    }
    assert_eq!(ada.until_heartbeat().await, []);
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused() {
    let (_database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let refused = |reason: &str| json!({"status": "error", "response": {"reason": reason}});
    for wrong in [
        json!({}),
        json!(null),
        json!({"since": "0"}),
        json!({"since": 0.5}),
        json!({"since": 0, "limit": "1"}),
        json!({"since": 253_402_300_800_000_i64}),
    ] {
        let mut config = config(false, false);
        config["broadcast"]["replay"] = wrong.clone();
        let (_, reply) = ada.join("room", json!({"config": config})).await;
        assert_eq!(
            reply,
            refused("UnableToReplayMessages: Replay params are not valid"),
            "{wrong}"
        );
        config["private"] = false.into();
        let (_, reply) = ada.join("room", json!({"config": config})).await;
        assert_eq!(
            reply,
            refused("UnableToReplayMessages: Replay is not allowed for public channels"),
            "{wrong}"
        );
    }
    let stranger = authenticated("cccccccc-0000-4000-8000-000000000003");
    let mut stranger = Client::v2(&gateway, &stranger).await;
    let join = json!({"config": replay(json!(0), json!(1))});
    assert_eq!(stranger.join("room", join).await.1, unauthorized("room"));
}

#[tokio::test]
async fn bytes_are_replayed_where_the_version_can_say_them() {
    let (database, gateway) = rooms().await;
    database
        .execute("select realtime.send_binary('\\xdead', 'e', 'room')")
        .await;
    let mut v1 = Client::v1(&gateway, &authenticated(ADA)).await;
    v1.joined("room", replay(json!(0), json!(5))).await;
    assert_eq!(v1.until_heartbeat().await, []);
    let mut v2 = Client::v2(&gateway, &authenticated(ADA)).await;
    v2.joined("room", replay(json!(0), json!(5))).await;
    let Incoming::Binary(frame) = v2.next().await else {
        panic!("no binary frame")
    };
    let text = String::from_utf8_lossy(&frame);
    assert!(text.contains("{\"replayed\":true,\"id\":\""), "{text}");
    assert!(frame.ends_with(&[0xde, 0xad]));
}

#[tokio::test]
async fn a_replay_brings_no_more_than_half_an_outbox_holds() {
    let (database, gateway) = rooms_with(&[("outbox_bytes", "2MiB")]).await;
    for number in 1..=5 {
        let send = format!(
            "select realtime.send(jsonb_build_object('text', '{number}', 'more', repeat('x', 300000)), 'e', 'room')"
        );
        database.execute(&send).await;
    }
    let mut ada = Client::v1(&gateway, &authenticated(ADA)).await;
    let channel = ada.joined("room", replay(json!(0), json!(25))).await;
    // The newest three fit.
    for text in ["3", "4", "5"] {
        assert_eq!(heard(&mut ada, &channel).await, text);
    }
    assert_eq!(ada.until_heartbeat().await, []);
    // One that is larger by itself comes all the same.
    database
        .execute("select realtime.send(jsonb_build_object('text', 'large', 'more', repeat('x', 1500000)), 'e', 'room')")
        .await;
    assert_eq!(heard(&mut ada, &channel).await, "large");
    let channel = ada.joined("room", replay(json!(0), json!(25))).await;
    assert_eq!(heard(&mut ada, &channel).await, "large");
}

/// Everybody who joins while messages are sent gets each of them, replayed or live, and none twice.
#[tokio::test]
async fn between_replay_and_live_nothing_is_lost_or_doubled() {
    const MESSAGES: usize = 200;
    let (database, gateway) = rooms().await;
    let writer = database.connect().await;
    let writing = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let send = format!("select realtime.send('{{\"text\": \"{number}\"}}', 'e', 'room')");
            writer.batch_execute(&send).await.expect("it is sent");
        }
    });
    let mut clients = Vec::new();
    while !writing.is_finished() {
        let mut client = Client::v1(&gateway, &authenticated(ADA)).await;
        let channel = client.joined("room", replay(json!(0), json!(25))).await;
        clients.push((client, channel));
        if clients.len() == 40 {
            break;
        }
    }
    writing.await.expect("all is sent");
    database
        .execute("select realtime.send('{\"text\": \"end\"}', 'e', 'room')")
        .await;
    assert!(clients.len() > 3, "they came while messages were sent");
    for (mut client, channel) in clients {
        let mut got = Vec::new();
        loop {
            let text = heard(&mut client, &channel).await;
            if text == "end" {
                break;
            }
            got.push(
                text.as_str()
                    .expect("text")
                    .parse::<usize>()
                    .expect("a number"),
            );
        }
        let Some(first) = got.first() else { continue };
        let expected: Vec<_> = (*first..MESSAGES).collect();
        assert_eq!(got, expected);
    }
}

/// A frame of kind 3 with metadata.
pub(super) fn kind_3(channel: &Channel, reference: &str, metadata: &str, text: &str) -> Vec<u8> {
    let size = |text: &str| u8::try_from(text.len()).expect("a short text");
    let (join_ref, topic) = (channel.join_ref.as_str(), channel.topic.as_str());
    let header = [
        3,
        size(join_ref),
        size(reference),
        size(topic),
        1,
        size(metadata),
        1,
    ];
    let names = [join_ref, reference, topic, "e", metadata].concat();
    let payload = json!({"text": text}).to_string();
    [&header, names.as_bytes(), payload.as_bytes()].concat()
}

#[tokio::test]
async fn a_client_may_ask_for_its_message_to_be_stored() {
    let (database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, false)).await;
    let mut bob = Client::v1(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(true, false)).await;

    ada.send_binary(kind_3(&a, "s1", r#"{"persist":true}"#, "kept"))
        .await;
    assert_eq!(ada.reply("s1").await.payload, ok());
    let got = bob.event(&b, "broadcast").await.payload;
    let id = database
        .text("select id::text from realtime.messages where private and topic = 'room'")
        .await;
    assert_eq!(
        got,
        json!({"event": "e", "type": "broadcast", "payload": {"text": "kept"}, "meta": {"id": id}})
    );
    ada.send_binary(kind_3(&a, "s2", r#"{"persist":{"ttl":60}}"#, "a minute"))
        .await;
    assert_eq!(ada.reply("s2").await.payload, ok());
    assert_eq!(heard(&mut bob, &b).await, "a minute");
    assert_eq!(ada.until_heartbeat().await, [], "not its own");

    let mut later = Client::v1(&gateway, &authenticated(BOB)).await;
    let l = later.joined("room", replay(json!(0), json!(25))).await;
    assert_eq!(heard(&mut later, &l).await, "kept");
    assert_eq!(heard(&mut later, &l).await, "a minute");
    database
        .execute("update tidings.expiring_messages set expires_at = now() - interval '1 second'")
        .await;
    let l = later.joined("room", replay(json!(0), json!(25))).await;
    assert_eq!(heard(&mut later, &l).await, "kept");
    database.execute("select tidings.keep_messages()").await;
    assert_eq!(
        database
            .text("select count(*)::text from realtime.messages")
            .await,
        "1"
    );

    // Who may not send may not store.
    database
        .execute(&format!(
            "update members set muted = true where person = '{ADA}'"
        ))
        .await;
    crate::support::wait::wait_for("a refusal", || async {
        let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
        let a = ada.joined("room", config(false, false)).await;
        ada.send_binary(kind_3(&a, "s3", r#"{"persist":true}"#, "no"))
            .await;
        match ada.reply("s3").await.payload["status"] == "error" {
            true => Ok(()),
            false => Err("it may"),
        }
    })
    .await;
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_after_72_hours() {
    let (database, _gateway) = rooms().await;
    let partitions = "select string_agg(replace(c.relname, to_char(now() at time zone 'utc', 'YYYY_MM'), 'M'), ' ' order by c.relname)
        from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'realtime.messages'::regclass";
    let count =
        "select count(*)::text from pg_inherits where inhparent = 'realtime.messages'::regclass";
    assert_eq!(
        database.text(count).await,
        "6",
        "{}",
        database.text(partitions).await
    );
    database
        .execute(
            "create table realtime.messages_2020_01_01 partition of realtime.messages for values from ('2020-01-01') to ('2020-01-02');
             insert into realtime.messages (topic, extension, inserted_at) values ('t', 'broadcast', '2020-01-01 12:00'), ('t', 'broadcast', '2020-02-01')",
        )
        .await;
    database.execute("select tidings.keep_messages()").await;
    assert_eq!(database.text(count).await, "6");
    assert_eq!(
        database
            .text("select count(*)::text from realtime.messages")
            .await,
        "0"
    );
}
