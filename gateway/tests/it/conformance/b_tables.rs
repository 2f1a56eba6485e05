//! Which tables a binding covers (protocol §5.1), and what is told of one that is wrong.

use serde_json::{Value, json};

use crate::support::{Channel, Client, TestDatabase, TestGateway, binding, token::anon};

const NO_TABLE: &str = "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: ";

/// Tables of one name in two schemas, names that differ by case, one that is not published, and one whose row is the end.
async fn tables() -> TestDatabase {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            r#"create schema other; grant usage on schema other to anon;
               create table t (id int primary key); create table "T" (id int primary key); create table u (id int primary key);
               create table hidden (id int primary key); create table the_end (id int primary key);
               create table other.t (id int primary key); create table other.u (id int primary key);
               grant select on t, "T", u, hidden, the_end, other.t, other.u to anon;
               alter publication supabase_realtime add table t, "T", u, the_end, other.t"#,
        )
        .await;
    database
}

async fn bound(client: &mut Client, topic: &str, bindings: Value) -> Channel {
    let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
    client.joined(topic, config).await
}

/// What a channel with this one binding is told of it, which is an error.
async fn told(client: &mut Client, binding: Value) -> String {
    let channel = bound(client, "wrong", json!([binding])).await;
    let told = client.event(&channel, "system").await.payload;
    assert_eq!(
        (&told["status"], &told["extension"]),
        (&json!("error"), &json!("postgres_changes"))
    );
    told["message"].as_str().expect("a message").to_owned()
}

/// The tables of the changes up to the one that is the end.
async fn tables_until_the_end(client: &mut Client, channel: &Channel) -> Vec<String> {
    let mut tables = Vec::new();
    loop {
        let change = client.change(channel).await;
        let name = |key: &str| change[key].as_str().expect("a name").to_owned();
        if name("table") == "the_end" {
            tables.sort();
            return tables;
        }
        tables.push(format!("{}.{}", name("schema"), name("table")));
    }
}

#[tokio::test]
async fn a_binding_covers_the_tables_that_its_names_say() {
    let database = tables().await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let public = ["public.T", "public.t", "public.u"];
    let all = ["other.t", "public.T", "public.t", "public.u"];
    let cases: [(Value, &[&str]); 10] = [
        (json!({"schema": "public", "table": "t"}), &["public.t"]),
        (json!({"schema": "public", "table": "T"}), &["public.T"]),
        (
            json!({"schema": "*", "table": "t"}),
            &["other.t", "public.t"],
        ),
        (json!({"schema": "public", "table": "*"}), &public),
        (json!({"schema": "public"}), &public),
        (json!({"schema": "other"}), &["other.t"]),
        (json!({"schema": "*"}), &all),
        (json!({"schema": "*", "table": "*"}), &all),
        (json!({"table": "t"}), &["public.t"]),
        (json!({"table": "*"}), &public),
    ];
    let end = json!({"schema": "public", "table": "the_end"});
    let mut channels = Vec::new();
    for (wanted, expected) in cases {
        let channel = bound(&mut client, &wanted.to_string(), json!([wanted, end])).await;
        client.live(&channel).await;
        channels.push((channel, expected));
    }
    database
        .execute(
            r#"insert into hidden values (1); insert into t values (1); insert into "T" values (1); insert into u values (1);
               insert into other.t values (1); insert into other.u values (1); insert into the_end values (1)"#,
        )
        .await;
    for (channel, expected) in channels {
        let got = tables_until_the_end(&mut client, &channel).await;
        assert_eq!(got, expected, "{}", channel.topic);
    }
}

#[tokio::test]
async fn what_no_published_table_matches_is_an_error() {
    let database = tables().await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for (wanted, shown) in [
        // It is there, and anybody may read it.
        (
            json!({"schema": "public", "table": "hidden"}),
            "schema: public, table: hidden",
        ),
        (
            json!({"schema": "Public", "table": "t"}),
            "schema: Public, table: t",
        ),
        (
            json!({"schema": "public", "table": "\"t\""}),
            "schema: public, table: \"t\"",
        ),
        (
            json!({"schema": "public", "table": "TT"}),
            "schema: public, table: TT",
        ),
        (json!({"schema": "nowhere"}), "schema: nowhere, table: *"),
        (
            json!({"schema": "*", "table": "nothing"}),
            "schema: *, table: nothing",
        ),
        (
            json!({"schema": "other", "table": "u"}),
            "schema: other, table: u",
        ),
        (
            json!({"table": "nothing"}),
            "schema: public, table: nothing",
        ),
    ] {
        let expected = format!("{NO_TABLE}[event: *, {shown}, filters: [], select: nil]");
        assert_eq!(told(&mut client, wanted).await, expected);
    }
    for wanted in [
        json!({"event": "*"}),
        json!({"event": "*", "filter": "id=eq.1"}),
        json!({"event": "*", "table": "t", "filter": "id=eq.1"}),
        json!({"event": "*", "schema": "public", "filter": "id=eq.1"}),
        json!({"event": "*", "schema": 7, "table": "t"}),
        json!({"event": "*", "schema": "public", "table": 7}),
        json!({"event": "*", "schema": "public", "table": "t", "filter": 7}),
    ] {
        let message = told(&mut client, wanted.clone()).await;
        assert!(
            message.starts_with(
                "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
            ),
            "{wanted}: {message}"
        );
    }
}

#[tokio::test]
async fn the_binding_and_the_publication_both_say_which_events_come() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table t (id int primary key, n int); grant select on t to anon;
             alter publication supabase_realtime set (publish = 'insert, delete');
             alter publication supabase_realtime add table t",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let end = binding("INSERT", "t", Some("id=eq.9"));
    let mut channels = Vec::new();
    for (event, expected) in [
        ("*", vec!["INSERT", "DELETE"]),
        ("INSERT", vec!["INSERT"]),
        ("insert", vec!["INSERT"]),
        ("DELETE", vec!["DELETE"]),
    ] {
        let bindings = json!([binding(event, "t", Some("id=eq.1")), end]);
        let channel = client.subscribe(&format!("on {event}"), bindings).await;
        channels.push((channel, expected));
    }
    database
        .execute("insert into t values (1, 1); update t set n = 2; delete from t; insert into t values (9)")
        .await;
    for (channel, expected) in channels {
        let mut kinds = Vec::new();
        loop {
            let change = client.change(&channel).await;
            if change["record"]["id"] == 9 {
                break;
            }
            kinds.push(change["type"].clone());
        }
        assert_eq!(kinds, expected, "{}", channel.topic);
    }
}

#[tokio::test]
async fn a_publication_may_name_all_tables_or_those_of_a_schema() {
    let database = tables().await;
    let gateway = TestGateway::start(&database).await;
    let version = database.text("current_setting('server_version_num')").await;
    for (publication, published, unpublished) in [
        ("for all tables", ["public.hidden", "other.u"], None),
        (
            "for tables in schema other",
            ["other.t", "other.u"],
            Some("public.t"),
        ),
        (
            "for table t, hidden",
            ["public.t", "public.hidden"],
            Some("other.t"),
        ),
    ] {
        if publication.contains("in schema") && *version < *"150000" {
            continue;
        }
        database
            .execute(&format!(
                "drop publication supabase_realtime; create publication supabase_realtime {publication}"
            ))
            .await;
        let wanted = |name: &str| {
            let (schema, table) = name.split_once('.').expect("two names");
            json!({"event": "*", "schema": schema, "table": table})
        };
        let mut client = Client::v2(&gateway, &anon()).await;
        for name in published {
            let channel = bound(&mut client, name, json!([wanted(name)])).await;
            // A table that is busy is watched a moment later, and then the channel hears of it.
            while client.event(&channel, "system").await.payload["status"] != "ok" {}
            database
                .execute(&format!(
                    "insert into {name} select coalesce(max(id), 0) + 1 from {name}"
                ))
                .await;
            let change = client.change(&channel).await;
            assert_eq!(change["table"], wanted(name)["table"], "{publication}");
        }
        let Some(unpublished) = unpublished else {
            continue;
        };
        // What was published before is taken off when the catalog is compared.
        crate::support::wait::wait_for("the end of a publication", || async {
            let mut client = Client::v2(&gateway, &anon()).await;
            let channel = bound(&mut client, "gone", json!([wanted(unpublished)])).await;
            let told = client.event(&channel, "system").await.payload;
            match told["message"].as_str() {
                Some(message) if message.starts_with(NO_TABLE) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_words_of_filters_are_lower_case() {
    let database = tables().await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for filter in ["id=is.NULL", "id=is.Null", "id=is.", "id=is.null "] {
        // Blanks at the end of a condition are cut off.
        let wrong = binding("*", "t", Some(filter));
        if filter.ends_with(' ') {
            client.subscribe("good", json!([wrong])).await;
            continue;
        }
        let message = told(&mut client, wrong).await;
        assert!(
            message.ends_with("invalid value for is filter: must be null, true, false, or unknown"),
            "{filter}: {message}"
        );
    }
    let message = told(&mut client, binding("*", "t", Some("id=EQ.1"))).await;
    assert_eq!(message, r#"Error parsing `filter` params: ["EQ", "1"]"#);
    let message = told(&mut client, binding("*", "t", Some("id=NOT.eq.1"))).await;
    assert_eq!(message, r#"Error parsing `filter` params: ["NOT", "eq.1"]"#);
}
