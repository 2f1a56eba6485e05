//! Waiting for changes (protocol §13), and quirks that are not repeated (§14).

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway, binding,
    chat::{A1, ADA, chat, messages_of, say},
    token::{anon, authenticated, service_role},
};

fn waiting(bindings: Value, timeout: u32) -> Value {
    json!({"config": {
        "postgres_changes": bindings,
        "postgres_changes_options": {"wait": true, "timeout": timeout},
        "presence": {"enabled": false},
    }})
}

#[tokio::test]
async fn a_join_that_waits_for_its_bindings_is_refused_when_the_time_is_over() {
    let (database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    // The policies of chat_messages read chat_sessions: who holds that lock holds up the verdict.
    let holder = database.connect().await;
    let lock = "begin; lock table chat_sessions in access exclusive mode";
    holder.batch_execute(lock).await.expect("a lock");
    let (_, reply) = client.join("a1", waiting(messages_of("*", A1), 300)).await;
    let reason = reply["response"]["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("PostgresChangesSubscribeTimeout: "),
        "{reply}"
    );
    // Without bindings there is nothing to wait for.
    let (_, reply) = client.join("room", waiting(json!([]), 300)).await;
    assert_eq!(
        reply,
        json!({"status": "ok", "response": {"postgres_changes": []}})
    );
    holder.batch_execute("rollback").await.expect("no lock");

    // It has left nothing behind, and the next one is live with its reply.
    let join = waiting(messages_of("*", A1), 20_000);
    let (channel, reply) = client.join("a1", join).await;
    assert_eq!(reply["status"], "ok", "{reply}");
    say(&database, A1, "after the reply").await;
    client.live(&channel).await;
    let change = client.change(&channel).await;
    assert_eq!(change["record"]["content"], "after the reply");
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn no_letter_of_a_table_s_name_stands_for_others() {
    let (database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for table in [
        "chat_message_",
        "chat%",
        "%",
        "CHAT_MESSAGES",
        "chat\\_messages",
    ] {
        let bindings = json!([binding("*", table, None)]);
        let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
        let channel = client.joined(table, config).await;
        let told = client.event(&channel, "system").await.payload;
        assert_eq!(told["status"], "error", "{table}");
        let message = told["message"].as_str().expect("text");
        let expected = "Unable to subscribe to changes with given parameters. ";
        assert!(message.starts_with(expected), "{table}: {message}");
    }
    let all = client
        .subscribe(
            "all",
            json!([{"event": "*", "schema": "public", "table": "*"}]),
        )
        .await;
    say(&database, A1, "heard by one").await;
    client.change(&all).await;
    let rest = client.until_heartbeat().await;
    let heard = |incoming: &Incoming| matches!(incoming, Incoming::Message(message) if message.event == "postgres_changes");
    assert!(!rest.iter().any(heard), "{rest:?}");
}

#[tokio::test]
async fn patterns_match_texts_of_every_type() {
    let database = TestDatabase::new(None).await;
    database
        .execute("create table words (id int primary key, v varchar(9), c char(3), n name); grant select on words to anon; alter publication supabase_realtime add table words")
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let mut channels = Vec::new();
    for column in ["v", "c", "n"] {
        for pattern in ["like.a%", "ilike.A_%", "match.^a", "imatch.^A"] {
            let filter = format!("{column}={pattern}");
            let bindings = json!([binding("INSERT", "words", Some(&filter))]);
            channels.push(client.subscribe(&filter, bindings).await);
        }
    }
    database
        .execute("insert into words values (1, 'bee', 'bee', 'bee'), (2, 'ant', 'ant', 'ant')")
        .await;
    for channel in &channels {
        let change = client.change(channel).await;
        assert_eq!(change["record"]["id"], 2, "{}", channel.topic);
    }
    assert_eq!(client.until_heartbeat().await, []);
}

/// Python's client joins again when its channel was told an error, and takes any `phx_close` for the end of the new one.
#[tokio::test]
async fn python_joins_again_after_an_error_and_is_not_closed_for_it() {
    let (_database, gateway) = chat().await;
    let wrong = json!([binding("*", "no_such_table", None)]);
    let config = json!({"postgres_changes": wrong, "presence": {"enabled": false}});
    for (version, closes) in [(Version::V1, false), (Version::V2, true)] {
        let mut client = Client::connect(&gateway, version, &anon()).await;
        let old = client.joined("room", config.clone()).await;
        client.event(&old, "system").await;
        let new = client.joined("room", config.clone()).await;
        let told = client.event(&new, "system").await.payload;
        assert_eq!(told["status"], "error");
        let close = closes.then(|| Incoming::Message(old.closed(version)));
        assert_eq!(client.until_heartbeat().await, Vec::from_iter(close));
    }
}

#[tokio::test]
async fn an_insert_that_is_deleted_again_is_delivered_before_its_delete() {
    let (database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = client.subscribe("a1", messages_of("*", A1)).await;
    database
        .execute(&format!(
            "begin;
             insert into chat_messages (session_id, role, content) values ('{A1}', 'user', 'here and gone');
             delete from chat_messages where content = 'here and gone';
             commit"
        ))
        .await;
    for (kind, row) in [("INSERT", "record"), ("DELETE", "old_record")] {
        let change = client.change(&channel).await;
        assert_eq!(change["type"], kind);
        assert_eq!(change[row]["content"], "here and gone");
    }
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn what_clients_say_to_each_other_is_not_replayed() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start(&database).await;
    let config = json!({"private": true, "broadcast": {"ack": true, "replay": {"since": 0}}, "presence": {"enabled": false}});
    let mut sender = Client::v1(&gateway, &service_role()).await;
    let channel = sender.joined("room", config.clone()).await;
    let said = json!({"type": "broadcast", "event": "said", "payload": {}});
    let reference = sender.push(&channel, "broadcast", said).await;
    assert_eq!(sender.reply(&reference).await.payload["status"], "ok");
    database
        .execute("select realtime.send('{}', 'stored', 'room')")
        .await;
    sender.event(&channel, "broadcast").await;
    let mut late = Client::v1(&gateway, &service_role()).await;
    let channel = late.joined("room", config).await;
    let replayed = late.event(&channel, "broadcast").await.payload;
    assert_eq!(
        (&replayed["event"], &replayed["meta"]["replayed"]),
        (&json!("stored"), &json!(true))
    );
    assert_eq!(late.until_heartbeat().await, []);
}
