//! Broadcast from SQL: `realtime.send`, `send_binary`, `broadcast_changes`, and rows that are inserted.

use std::future::poll_fn;

use tokio_postgres::AsyncMessage;

use super::*;
use crate::support::Incoming;

async fn members(gateway: &TestGateway) -> [(Client, Channel); 2] {
    let mut v1 = Client::v1(gateway, &authenticated(ADA)).await;
    let c1 = v1.joined("room", config(false, false)).await;
    let mut v2 = Client::v2(gateway, &authenticated(BOB)).await;
    let c2 = v2.joined("room", config(false, false)).await;
    [(v1, c1), (v2, c2)]
}

/// A kind 4 frame, read: event, metadata, encoding, payload.
fn kind_4(incoming: Incoming) -> (String, Value, u8, Vec<u8>) {
    let Incoming::Binary(bytes) = incoming else {
        panic!("no binary frame: {incoming:?}");
    };
    let [4, topic, event, metadata, encoding, ref rest @ ..] = bytes[..] else {
        panic!("no frame of kind 4: {bytes:?}");
    };
    let (topic, rest) = rest.split_at(topic.into());
    assert!(topic.starts_with(b"realtime:"));
    let (event, rest) = rest.split_at(event.into());
    let (metadata, payload) = rest.split_at(metadata.into());
    let metadata = serde_json::from_slice(metadata).unwrap_or_default();
    let event = String::from_utf8(event.to_vec()).expect("text");
    (event, metadata, encoding, payload.to_vec())
}

#[tokio::test]
async fn what_is_sent_is_heard_with_the_id_of_its_row() {
    let (database, gateway) = rooms().await;
    let [(mut v1, c1), (mut v2, _)] = members(&gateway).await;
    database
        .execute("select realtime.send('{\"text\": \"hi\", \"n\": 1.50}', 'cursor', 'room')")
        .await;
    let id = database
        .text("select id::text from realtime.messages where event = 'cursor'")
        .await;
    let got = v1.event(&c1, "broadcast").await;
    assert_eq!((got.join_ref, got.reference), (Value::Null, Value::Null));
    assert_eq!(
        got.payload.to_string(),
        json!({"event": "cursor", "type": "broadcast", "meta": {"id": id},
               "payload": {"text": "hi", "n": 1.50, "id": id}})
        .to_string()
    );
    let (event, metadata, encoding, payload) = kind_4(v2.next().await);
    assert_eq!((event.as_str(), encoding), ("cursor", 1));
    assert_eq!(metadata, json!({"id": id}));
    let payload = String::from_utf8(payload).expect("JSON");
    assert!(
        payload.contains("1.50"),
        "numbers keep their digits: {payload}"
    );

    // An id of the payload's own is left alone.
    database
        .execute("select realtime.send('{\"id\": \"mine\"}', 'own', 'room', true)")
        .await;
    assert_eq!(
        v1.event(&c1, "broadcast").await.payload["payload"],
        json!({"id": "mine"})
    );
    assert_eq!(kind_4(v2.next().await).0, "own");

    // Bytes cannot be said in version 1.
    database
        .execute("select realtime.send_binary('\\x01ff00', 'bytes', 'room')")
        .await;
    let (event, metadata, encoding, payload) = kind_4(v2.next().await);
    assert_eq!(
        (event.as_str(), encoding, payload),
        ("bytes", 0, vec![1, 255, 0])
    );
    assert!(metadata["id"].is_string());
    assert_eq!(v1.until_heartbeat().await, []);
}

#[tokio::test]
async fn public_and_private_messages_go_to_their_own_members() {
    let (database, gateway) = rooms().await;
    let [(mut private, c), _] = members(&gateway).await;
    let mut public = Client::v1(&gateway, &authenticated(ADA)).await;
    let p = public
        .joined("room", json!({"presence": {"enabled": false}}))
        .await;
    database
        .execute(
            "select realtime.send('{\"text\": \"public\"}', 'e', 'room', false), realtime.send('{\"text\": \"private\"}', 'e', 'room', true)",
        )
        .await;
    assert_eq!(heard(&mut private, &c).await, "private");
    assert_eq!(heard(&mut public, &p).await, "public");
    assert_eq!(private.until_heartbeat().await, []);
    assert_eq!(public.until_heartbeat().await, []);
}

#[tokio::test]
async fn it_comes_when_it_is_committed_and_in_that_order() {
    let (database, gateway) = rooms().await;
    let [(mut v1, c1), _] = members(&gateway).await;
    let other = database.connect().await;
    let send =
        |text: &str| format!("select realtime.send('{{\"text\": \"{text}\"}}', 'e', 'room')");
    other.batch_execute("begin").await.expect("a transaction");
    other
        .batch_execute(&send("late"))
        .await
        .expect("it is sent");
    other
        .batch_execute(&send("later"))
        .await
        .expect("it is sent");
    database.execute(&send("early")).await;
    assert_eq!(heard(&mut v1, &c1).await, "early");
    database
        .execute(&format!("begin; {}; rollback", send("never")))
        .await;
    other.batch_execute("commit").await.expect("the commit");
    assert_eq!(heard(&mut v1, &c1).await, "late");
    assert_eq!(heard(&mut v1, &c1).await, "later");
    assert_eq!(v1.until_heartbeat().await, []);
}

#[tokio::test]
async fn rows_that_say_nothing_are_not_sent() {
    let (database, gateway) = rooms().await;
    let [(mut v1, c1), (mut v2, _)] = members(&gateway).await;
    database
        .execute(
            "insert into realtime.messages (topic, extension, payload, event, private) values
               ('room', 'broadcast', '{}', null, true),
               ('room', 'broadcast', null, 'e', true),
               ('room', 'broadcast', '{}', 'e', null),
               ('room', 'anything', '{\"text\": \"end\"}', 'e', true)",
        )
        .await;
    assert_eq!(heard(&mut v1, &c1).await, "end");
    assert_eq!(kind_4(v2.next().await).0, "e");
    assert_eq!(v1.until_heartbeat().await, []);
    assert_eq!(v2.until_heartbeat().await, []);
}

/// The warnings that PostgreSQL gives for a statement, which must not fail.
async fn warnings(database: &TestDatabase, sql: &str) -> Vec<String> {
    let (client, mut connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls)
        .await
        .expect("a connection");
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = tell.send(format!("{}: {}", notice.severity(), notice.message()));
            }
        }
    });
    client.batch_execute(sql).await.expect("no error");
    drop(client);
    let mut warnings = Vec::new();
    while let Some(warning) = told.recv().await {
        warnings.push(warning);
    }
    warnings
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_is_a_warning() {
    let (database, _gateway) = rooms().await;
    for (call, problem) in [
        (
            "realtime.send('[1]', 'e', 'room')",
            "the payload must be a JSON object, this is a JSON array",
        ),
        (
            "realtime.send('{}', 'e', null)",
            "null value in column \"topic\" of relation \"messages_default\" violates not-null constraint",
        ),
        (
            "realtime.send_binary('\\x00', 'e', 'room', true), set_config('role', 'authenticated', true), realtime.send('{}', 'e', 'room')",
            "new row violates row-level security policy for table \"messages\"",
        ),
    ] {
        let warned = warnings(&database, &format!("select {call}")).await;
        let [warning] = &warned[..] else {
            panic!("{call}: {warned:?}");
        };
        let text = warning
            .strip_prefix("WARNING: WarnSendingBroadcastMessage: ")
            .expect(warning);
        // The partition is that of the day.
        let same = |text: &str| {
            text.replace(|c: char| c.is_ascii_digit(), "")
                .replace("messages___", "messages_default")
        };
        assert_eq!(same(text), problem, "{call}");
    }
    database.execute("delete from realtime.messages").await;
    // As a member, by realtime.topic(), which the function sets.
    let member = format!(
        "set role authenticated; set request.jwt.claims = '{{\"sub\": \"{ADA}\"}}';
         select realtime.send('{{}}', 'e', 'room'); reset role"
    );
    database.execute(&member).await;
    assert_eq!(
        database.text("select topic from realtime.messages").await,
        "room"
    );
}

#[tokio::test]
async fn changes_of_a_table_are_broadcast_by_its_trigger() {
    let (database, gateway) = rooms().await;
    let [(mut v1, c1), _] = members(&gateway).await;
    database
        .execute(
            "create table notes (id int primary key, body text, raw bytea, amount numeric, at timestamptz);
             create function tell() returns trigger language plpgsql security definer as $$
             begin
               perform realtime.broadcast_changes('room', tg_op, tg_op, tg_table_name, tg_table_schema, new, old, tg_level);
               return null;
             end $$;
             create trigger tell after insert or update or delete on notes for each row execute function tell();
             set timezone = 'UTC';
             insert into notes values (1, 'hi', '\\x00ff', 1.50, '2024-01-02 01:04:05Z');
             update notes set body = 'ho';
             delete from notes",
        )
        .await;
    let row = |body: &str| json!({"id": 1, "body": body, "raw": "\\x00ff", "amount": 1.50, "at": "2024-01-02T01:04:05+00:00"});
    for (operation, new, old) in [
        ("INSERT", row("hi"), Value::Null),
        ("UPDATE", row("ho"), row("hi")),
        ("DELETE", Value::Null, row("ho")),
    ] {
        let got = v1.event(&c1, "broadcast").await.payload;
        let id = got["meta"]["id"].clone();
        assert_eq!(
            got,
            json!({"event": operation, "type": "broadcast", "meta": {"id": id},
                   "payload": {"id": id, "operation": operation, "schema": "public", "table": "notes",
                               "record": new, "old_record": old}})
        );
    }
    for (arguments, problem) in [
        (
            "'room', 'e', 'INSERT', 't', 'public', null::notes, null::notes, 'STATEMENT'",
            "Failed to process the row: function can only be triggered for each row, not for each statement",
        ),
        (
            "'room', 'e', 'TRUNCATE', 't', 'public', null::notes, null::notes",
            "Failed to process the row: Unexpected operation type: TRUNCATE",
        ),
    ] {
        let call = format!("select realtime.broadcast_changes({arguments})");
        let error = database.connect().await.batch_execute(&call).await;
        let error = error.expect_err("an error");
        assert_eq!(
            error.as_db_error().expect("PostgreSQL's").message(),
            problem
        );
    }
}

#[tokio::test]
async fn messages_are_no_changes_to_subscribe_to() {
    let (database, gateway) = rooms().await;
    database
        .execute("create table notes (id int primary key); grant select on notes to service_role; alter publication supabase_realtime add table notes")
        .await;
    let mut service = Client::v2(&gateway, &token(json!({"role": "service_role"}))).await;
    let all = json!([{"event": "*", "schema": "*"}]);
    let channel = service.subscribe("all", all).await;
    database
        .execute("select realtime.send('{}', 'e', 'room'); insert into notes values (1)")
        .await;
    assert_eq!(service.change(&channel).await["table"], "notes");
    let config =
        json!({"postgres_changes": [{"event": "*", "schema": "realtime", "table": "messages"}]});
    let channel = service.joined("messages", config).await;
    let told = service.event(&channel, "system").await.payload;
    assert_eq!(told["status"], "error", "{told}");
}

#[tokio::test]
async fn who_asks_hears_that_messages_from_the_database_arrive() {
    let (_database, gateway) = rooms().await;
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &authenticated(ADA)).await;
        let mut wants = config(false, false);
        wants["broadcast"]["replication_ready"] = true.into();
        let channel = client.joined("room", wants).await;
        assert_eq!(
            client.event(&channel, "system").await.payload,
            json!({"message": "Replication connection established", "status": "ok", "extension": "system", "channel": "room"})
        );
        assert_eq!(client.until_heartbeat().await, []);
        // Who does not ask, or says no, hears nothing.
        for not in [json!(false), json!("false"), json!(null)] {
            let mut wants = config(false, false);
            wants["broadcast"]["replication_ready"] = not;
            client.joined("room", wants).await;
            let told = client.until_heartbeat().await;
            assert!(told.iter().all(|incoming| matches!(incoming, Incoming::Message(message) if message.event == "phx_close")), "{told:?}");
        }
    }
}
