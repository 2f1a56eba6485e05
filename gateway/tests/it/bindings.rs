//! What a join asks for: the echo of its bindings, wrong ones, and what filters match.

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway, binding,
    chat::{A1, ADA, chat, say},
    token::{anon, authenticated, token},
};

#[tokio::test]
async fn the_reply_echoes_each_binding_in_its_order_with_an_id_and_nothing_else() {
    let (_database, gateway) = chat().await;
    let filter = format!("session_id=eq.{A1}");
    let bindings = json!([
        {"event": "INSERT", "schema": "public", "table": "chat_messages", "filter": filter, "select": ["content"], "mine": {"x": [1.50, null]}},
        null,
        {"events": "*", "table": "chat_messages", "filter": filter, "schema": "public"},
        {"event": "delete", "schema": "public", "table": "chat_messages"},
        {"schema": "*"}
    ]);
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &anon()).await;
        let payload = json!({"config": {"postgres_changes": bindings}});
        let (channel, reply) = client.join("echo", payload).await;
        assert_eq!(reply["status"], "ok", "{reply}");
        let echoed = reply["response"]["postgres_changes"]
            .as_array()
            .expect("a list");
        let sent: Vec<_> = bindings
            .as_array()
            .expect("a list")
            .iter()
            .filter(|item| !item.is_null())
            .collect();
        assert_eq!(echoed.len(), sent.len());
        let mut ids = Vec::new();
        for (echoed, sent) in echoed.iter().zip(sent) {
            let mut expected = sent.clone();
            expected["id"] = echoed["id"].clone();
            assert_eq!(*echoed, expected);
            let id = echoed["id"].as_u64().expect("an integer");
            assert!(id > 0 && id < 1 << 53);
            assert!(!ids.contains(&id), "ids are unique in a channel");
            ids.push(id);
        }
        client.live(&channel).await;
    }
}

#[tokio::test]
async fn a_change_names_all_bindings_that_it_matches_and_comes_once_for_each_list_of_columns() {
    let (database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let filter = format!("session_id=eq.{A1}");
    let bindings = json!([
        {"event": "INSERT", "schema": "public", "table": "chat_messages", "filter": filter},
        {"event": "*", "schema": "public", "table": "chat_messages", "filter": filter},
        {"event": "DELETE", "schema": "public", "table": "chat_messages", "filter": filter},
        {"event": "*", "schema": "public", "table": "chat_messages", "filter": filter, "select": ["content"]}
    ]);
    let (channel, reply) = client
        .join(
            "ids",
            json!({"config": {"postgres_changes": bindings, "presence": {"enabled": false}}}),
        )
        .await;
    let id = |place: usize| reply["response"]["postgres_changes"][place]["id"].clone();
    client.live(&channel).await;
    say(&database, A1, "hello").await;

    let mut messages = [
        client.event(&channel, "postgres_changes").await,
        client.event(&channel, "postgres_changes").await,
    ];
    messages.sort_by_key(|message| message.payload["ids"].as_array().map_or(0, Vec::len));
    let [selected, whole] = messages;
    assert_eq!(selected.payload["ids"], json!([id(3)]));
    // What was selected, and the primary key.
    let record = selected.payload["data"]["record"]
        .as_object()
        .expect("a record");
    assert_eq!(record.keys().collect::<Vec<_>>(), ["content", "id"]);
    let names: Vec<_> = selected.payload["data"]["columns"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["id", "content"]);

    let mut ids = whole.payload["ids"].as_array().expect("ids").clone();
    ids.sort_by_key(Value::as_u64);
    let mut expected = vec![id(0), id(1)];
    expected.sort_by_key(Value::as_u64);
    assert_eq!(ids, expected);
    assert_eq!(
        (whole.join_ref, whole.reference),
        (Value::Null, Value::Null)
    );
    let data = &whole.payload["data"];
    assert_eq!(
        (&data["schema"], &data["table"], &data["type"]),
        (&json!("public"), &json!("chat_messages"), &json!("INSERT"))
    );
    assert_eq!(data["errors"], Value::Null);
    assert!(data.as_object().expect("data").contains_key("errors"));
    let at = data["commit_timestamp"].as_str().expect("a time");
    assert_eq!(
        (at.len(), &at[10..11], &at[19..20], &at[23..]),
        (24, "T", ".", "Z"),
        "{at}"
    );
    assert_eq!(data["columns"][0], json!({"name": "id", "type": "uuid"}));
    assert_eq!(
        data["columns"][5],
        json!({"name": "metadata", "type": "jsonb"})
    );
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_wrong_binding_is_told_by_a_system_message_and_the_channel_lives_on() {
    let (database, gateway) = chat().await;
    database
        .execute(
            "create type mood as enum ('fine'); create table typed (id int primary key, mood mood, flag bool, body text);
             grant select (id, mood, flag) on typed to anon; grant select on typed to authenticated;
             select tidings.watch('typed')",
        )
        .await;
    let on = |table: &str, filter: &str| json!({"event": "*", "schema": "public", "table": table, "filter": filter});
    let given = |table: &str, filters: &str, error: &str| {
        format!(
            "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: \
             [event: *, schema: public, table: {table}, filters: {filters}, select: nil]. Exception: {error}"
        )
    };
    let cases = [
        (on("typed", "wrong"), "Error parsing `filter` params: [\"wrong\"]".to_owned()),
        (on("typed", "id=eq"), "Error parsing `filter` params: [\"eq\"]".to_owned()),
        (on("typed", "id=foo.hey"), "Error parsing `filter` params: [\"foo\", \"hey\"]".to_owned()),
        (
            on("typed", "id=in.1,2"),
            "Error parsing `filter` params: `in` filter value must be wrapped by parentheses".to_owned(),
        ),
        (
            on("typed", "id=eq.1,"),
            "Error parsing `filter` params: filter must not contain empty segments (check for extra commas)".to_owned(),
        ),
        (
            on("typed", "id=eq.hey"),
            given(
                "typed",
                r#"[{"id", "eq", "hey", false}]"#,
                "ERROR 22P02 (invalid_text_representation) invalid input syntax for type integer: \"hey\"",
            ),
        ),
        (
            on("typed", "mood=eq.sad"),
            given(
                "typed",
                r#"[{"mood", "eq", "sad", false}]"#,
                "ERROR 22P02 (invalid_text_representation) invalid input value for enum public.mood: \"sad\"",
            ),
        ),
        (
            on("typed", "nothing=eq.1"),
            given(
                "typed",
                r#"[{"nothing", "eq", "1", false}]"#,
                "ERROR P0001 (raise_exception) invalid column for filter nothing",
            ),
        ),
        // A column that the role may not SELECT is as good as none.
        (
            on("typed", "body=eq.x"),
            given(
                "typed",
                r#"[{"body", "eq", "x", false}]"#,
                "ERROR P0001 (raise_exception) invalid column for filter body",
            ),
        ),
        (
            json!({"event": "INSERT", "schema": "public", "table": "absent"}),
            "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect \
             parameters: [event: INSERT, schema: public, table: absent, filters: [], select: nil]"
                .to_owned(),
        ),
        (
            json!({"event": "*", "schema": "public", "table": "typed", "select": "id"}),
            "Error parsing `select` params: expected a list of column name strings, e.g. select: [\"col1\", \"col2\"]".to_owned(),
        ),
        (
            json!({"event": "*", "schema": "public", "select": ["id"]}),
            "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.".to_owned(),
        ),
    ];
    let mut client = Client::v2(&gateway, &anon()).await;
    for (wrong, expected) in cases {
        let good = json!({"event": "*", "schema": "public", "table": "typed"});
        let config = json!({"postgres_changes": [good, wrong], "broadcast": {"self": true}, "presence": {"enabled": false}});
        let channel = client.joined("wrong", config).await;
        let told = client.event(&channel, "system").await;
        let expected = json!({"message": expected, "status": "error", "extension": "postgres_changes", "channel": "wrong"});
        assert_eq!(told.payload, expected);
        assert_eq!(
            (told.join_ref, told.reference),
            (json!(channel.join_ref), Value::Null)
        );
        // The good binding is not live, either; broadcast works.
        database
            .execute("insert into typed (id) values (1); delete from typed")
            .await;
        let said = json!({"type": "broadcast", "event": "still here", "payload": {}});
        client.push(&channel, "broadcast", said.clone()).await;
        assert_eq!(client.event(&channel, "broadcast").await.payload, said);
    }
    let mut witness = Client::v2(&gateway, &anon()).await;
    let live = witness
        .subscribe("good", json!([binding("*", "typed", None)]))
        .await;
    database.execute("insert into typed (id) values (2)").await;
    let seen = witness
        .expect("the row", |message| {
            message.topic == live.topic && message.payload["data"]["record"]["id"] == 2
        })
        .await;
    let seen = &seen.payload["data"];
    // Neither does the value of a column that the role may not SELECT go along.
    assert_eq!(seen["record"], json!({"id": 2, "mood": null, "flag": null}));
    assert!(client.until_heartbeat().await.iter().all(|incoming| !matches!(incoming, Incoming::Message(message) if message.event == "postgres_changes")));

    let mut unknown = Client::v2(&gateway, &token(json!({"role": "no_such_role"}))).await;
    let channel = unknown
        .joined(
            "role",
            json!({"postgres_changes": [binding("*", "typed", None)]}),
        )
        .await;
    let told = unknown.event(&channel, "system").await;
    let message = told.payload["message"].as_str().expect("text").to_owned();
    assert!(
        message.ends_with(
            "Exception: ERROR 42704 (undefined_object) role \"no_such_role\" does not exist"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn operators_of_filters_are_those_of_postgresql() {
    let database = TestDatabase::new(None).await;
    database
        .execute("create table things (id int primary key, price numeric, name text, at timestamptz); grant select on things to anon; select tidings.watch('things')")
        .await;
    let gateway = TestGateway::start(&database).await;
    let cases: [(&str, &[i64]); 12] = [
        ("price=eq.1.5", &[1, 2]),
        ("price=neq.1.5", &[3]),
        ("price=gt.1.5", &[3]),
        ("price=not.gt.1.5", &[1, 2]),
        ("name=in.(red,\"a,b\")", &[1, 3]),
        ("name=not.in.(red)", &[2, 3]),
        ("name=like.%e%", &[1, 2]),
        ("name=imatch.^BLUE$", &[2]),
        ("name=is.null", &[4]),
        ("name=isdistinct.red", &[2, 3, 4]),
        ("at=eq.2026-01-01 12:00:00+02", &[1]),
        ("price=gte.1.5,name=neq.red", &[2, 3]),
    ];
    let mut client = Client::v2(&gateway, &anon()).await;
    let mut channels = Vec::new();
    for (filter, expected) in cases {
        let channel = client
            .subscribe(
                filter,
                json!([
                    binding("INSERT", "things", Some(filter)),
                    binding("INSERT", "things", Some("id=eq.99"))
                ]),
            )
            .await;
        channels.push((channel, expected));
    }
    database
        .execute(
            "insert into things values (1, 1.5, 'red', '2026-01-01 10:00:00+00'), (2, 1.50, 'blue', null), (3, 2, 'a,b', null), (4, null, null, null), (99, null, null, null)",
        )
        .await;
    for (channel, expected) in channels {
        let mut ids = Vec::new();
        loop {
            match client.change(&channel).await["record"]["id"]
                .as_i64()
                .expect("an id")
            {
                99 => break,
                id => ids.push(id),
            }
        }
        let but_the_end: Vec<_> = expected.to_vec();
        assert_eq!(ids, but_the_end, "{}", channel.topic);
    }
}

/// `SUBSCRIBED` means live here for everybody; who waits hears of wrong bindings in the reply as well.
#[tokio::test]
async fn who_waits_for_the_bindings_is_refused_if_they_are_wrong() {
    let (_database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let config = |filter: &str| {
        json!({"config": {
            "postgres_changes": [binding("*", "chat_messages", Some(filter))],
            "postgres_changes_options": {"wait": true, "timeout": 15000},
        }})
    };
    let (channel, reply) = client
        .join("a", config(&format!("session_id=eq.{A1}")))
        .await;
    assert_eq!(reply["status"], "ok");
    client.live(&channel).await;
    let (_, reply) = client.join("b", config("wrong")).await;
    assert_eq!(
        reply,
        json!({"status": "error", "response": {"reason": "RealtimeDisabledForConfiguration: Error parsing `filter` params: [\"wrong\"]"}})
    );
}
