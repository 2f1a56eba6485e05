//! Values of every type, as the protocol writes them, whatever the writer's settings are.

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{
    Client, TestDatabase, TestGateway, binding,
    chat::{A1, ADA, chat_with, messages_of, say},
    token::{anon, authenticated},
};

/// Type, a literal as any session reads it, and the JSON.
fn values() -> Vec<(&'static str, &'static str, Value)> {
    let exact = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    vec![
        ("int8", "9007199254740993", exact("9007199254740993")),
        ("numeric", "12.50", exact("12.50")),
        ("numeric", "'NaN'", Value::Null),
        (
            "float8",
            "0.1::float8 + 0.2::float8",
            exact("0.30000000000000004"),
        ),
        ("float8", "'-Infinity'", Value::Null),
        ("float4", "0.1", exact("0.1")),
        ("bool", "true", json!(true)),
        ("varchar(9)", "'a\"b\\\\c'", json!("a\"b\\\\c")),
        ("char(3)", "'ab'", json!("ab ")),
        ("bytea", "decode('00ff5c', 'hex')", json!("00ff5c")),
        ("bytea[]", "array[decode('01', 'hex')]", json!(["\\x01"])),
        (
            "uuid",
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        (
            "jsonb",
            "'{\"b\": 1, \"a\": [null, 2.50]}'",
            exact(r#"{"a": [null, 2.50], "b": 1}"#),
        ),
        ("date", "make_date(2024, 2, 29)", json!("2024-02-29")),
        ("time", "make_time(13, 14, 15.5)", json!("13:14:15.5")),
        (
            "timestamp",
            "make_timestamp(2024, 2, 1, 3, 4, 5.678)",
            json!("2024-02-01T03:04:05.678"),
        ),
        (
            "timestamptz",
            "make_timestamptz(2024, 2, 1, 3, 4, 5.678, 'UTC')",
            json!("2024-02-01T03:04:05.678+00:00"),
        ),
        (
            "interval",
            "make_interval(days => 1, hours => 2, mins => 3, secs => 4.5)",
            json!("1 day 02:03:04.5"),
        ),
        ("int[]", "array[[1,2],[3,null]]", json!([[1, 2], [3, null]])),
        (
            "text[]",
            "array['a b', 'c,d', null]",
            json!(["a b", "c,d", null]),
        ),
        (
            "timestamptz[]",
            "array[make_timestamptz(2024, 2, 1, 0, 0, 0, 'UTC')]",
            json!(["2024-02-01T00:00:00+00:00"]),
        ),
        (
            "tstzrange",
            "tstzrange(make_timestamptz(2024, 2, 1, 0, 0, 0, 'UTC'), null)",
            json!("[\"2024-02-01 00:00:00+00\",)"),
        ),
        (
            "daterange",
            "daterange(make_date(2024, 2, 1), make_date(2024, 2, 3))",
            json!("[2024-02-01,2024-02-03)"),
        ),
        ("mood", "'fine'", json!("fine")),
        ("small", "7", json!(7)),
        ("pair", "row(1, 'x,y')", json!({"a": 1, "b": "x,y"})),
        ("inet", "'10.0.0.1/8'", json!("10.0.0.1/8")),
        ("money", "12.34", json!("$12.34")),
        ("text", "null", Value::Null),
        (
            "text",
            "E'line\\n\u{1f600}\\u0001'",
            json!("line\n\u{1f600}\u{1}"),
        ),
        ("text", "repeat('é', 5000)", json!("é".repeat(5000))),
    ]
}

#[tokio::test]
async fn values_are_written_as_the_protocol_says_whatever_the_writers_settings() {
    let database = TestDatabase::new(None).await;
    let columns: Vec<_> = values()
        .iter()
        .enumerate()
        .map(|(n, (kind, ..))| format!("c{n} {kind}"))
        .collect();
    let literals: Vec<_> = values()
        .iter()
        .map(|(kind, literal, _)| format!("({literal})::{kind}"))
        .collect();
    database
        .execute(&format!(
            "create type mood as enum ('fine', 'sad');
             create domain small as int check (value < 10);
             create type pair as (a int, b text);
             create table things (id int primary key, {});
             grant select on things to anon;
             select tidings.watch('things')",
            columns.join(", ")
        ))
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut v1 = Client::v1(&gateway, &anon()).await;
    let mut v2 = Client::v2(&gateway, &anon()).await;
    let channels = [
        v1.subscribe("things", json!([binding("*", "things", None)]))
            .await,
        v2.subscribe("things", json!([binding("*", "things", None)]))
            .await,
    ];
    let settings = [
        "",
        "set timezone = 'Asia/Kathmandu'; set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601'",
        "set bytea_output = 'escape'; set extra_float_digits = -10; set intervalstyle = 'sql_standard'; set datestyle = 'German'",
        "set lc_monetary = 'C.utf8'; set lc_numeric = 'POSIX'; set timezone = '-07:30'; set client_encoding = 'LATIN1'; set xmloption = 'document'",
    ];
    for (id, settings) in settings.into_iter().enumerate() {
        let writer = database.connect().await;
        // What is sent is in UTF-8; the encoding concerns what comes back.
        let encoding = "set client_encoding = 'UTF8'";
        let statement = format!("insert into things values ({id}, {})", literals.join(", "));
        writer
            .batch_execute(&format!("{settings}; {encoding}"))
            .await
            .expect("settings");
        writer.batch_execute(&statement).await.expect("an insert");
        writer
            .batch_execute(&format!(
                "update things set c0 = c0 where id = {id}; delete from things where id = {id}"
            ))
            .await
            .expect("changes");
        for (client, channel) in [(&mut v1, &channels[0]), (&mut v2, &channels[1])] {
            for kind in ["INSERT", "UPDATE", "DELETE"] {
                let change = client.change(channel).await;
                assert_eq!(change["type"], kind);
                for row in ["record", "old_record"]
                    .into_iter()
                    .filter_map(|row| change.get(row))
                {
                    assert_eq!(row["id"], id);
                    for (n, (kind, literal, expected)) in values().into_iter().enumerate() {
                        assert_eq!(
                            row[format!("c{n}")],
                            expected,
                            "{kind} {literal} with {settings}"
                        );
                    }
                }
            }
        }
    }
}

/// The search path of whoever writes decides how these are rendered: not the settings that are compared.
#[tokio::test]
async fn tables_whose_values_follow_the_search_path_keep_the_trigger_with_settings() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create type place as (what regclass);
             create domain kinds as regtype[];
             create table plain (id int primary key, at timestamptz[], during daterange, pay money);
             create table named (id int primary key, what place[]);
             create table typed (id int primary key, what kinds);
             select tidings.watch('plain'), tidings.watch('named'), tidings.watch('typed')",
        )
        .await;
    let client = database.connect().await;
    let functions = async || {
        // One table at a time.
        client
            .batch_execute("select tidings.lighten_capture() from generate_series(1, 3)")
            .await
            .expect("a look at the triggers");
        let rows = client
            .query(
                "select tgrelid::regclass::text, tgfoid::regproc::text from pg_trigger
                  where tgname = 'tidings_capture' order by 1",
                &[],
            )
            .await
            .expect("triggers");
        rows.iter()
            .map(|row| format!("{}: {}", row.get::<_, &str>(0), row.get::<_, &str>(1)))
            .collect::<Vec<_>>()
    };
    let named = "named: tidings.capture";
    let typed = "typed: tidings.capture";
    assert_eq!(
        functions().await,
        [named, "plain: tidings.capture_plainly", typed]
    );
    database
        .execute("alter table plain add column owner regrole")
        .await;
    assert_eq!(functions().await, [named, "plain: tidings.capture", typed]);
    database
        .execute("alter table plain drop column owner")
        .await;
    assert_eq!(
        functions().await,
        [named, "plain: tidings.capture_plainly", typed]
    );
}

#[tokio::test]
async fn a_row_of_megabytes_is_whole_in_version_2_and_short_with_an_error_in_version_1() {
    let (database, gateway) = chat_with(&[("outbox_bytes", "64MiB")]).await;
    let mut v1 = Client::connect(&gateway, Version::V1, &authenticated(ADA)).await;
    let mut v2 = Client::connect(&gateway, Version::V2, &authenticated(ADA)).await;
    let small = v1.subscribe("a1", messages_of("*", A1)).await;
    let large = v2.subscribe("a1", messages_of("*", A1)).await;
    let row = |size: usize| {
        format!(
            "insert into chat_messages (session_id, role, content) values ('{A1}', 'user', repeat('m', {size}))"
        )
    };
    database.execute(&row(1_000_000)).await;
    database.execute(&row(3_000_000)).await;
    // Its value is not touched, and lies outside the row.
    database
        .execute("update chat_messages set model = 'x' where length(content) = 3000000")
        .await;
    database
        .execute("delete from chat_messages where length(content) = 3000000")
        .await;
    say(&database, A1, "end").await;

    let length = |row: &Value| row["content"].as_str().map(str::len);
    for size in [1_000_000, 3_000_000] {
        assert_eq!(length(&v2.change(&large).await["record"]), Some(size));
    }
    let updated = v2.change(&large).await;
    assert_eq!(
        (length(&updated["record"]), length(&updated["old_record"])),
        (Some(3_000_000), Some(3_000_000))
    );
    assert_eq!(
        (&updated["record"]["model"], &updated["old_record"]["model"]),
        (&json!("x"), &Value::Null)
    );
    assert_eq!(
        length(&v2.change(&large).await["old_record"]),
        Some(3_000_000)
    );

    // A client that speaks version 1 closes its socket on a message of more than 1 MiB.
    assert_eq!(length(&v1.change(&small).await["record"]), Some(1_000_000));
    for kind in ["INSERT", "UPDATE", "DELETE"] {
        let change = v1.change(&small).await;
        assert_eq!(
            (&change["type"], &change["errors"]),
            (&json!(kind), &json!(["Error 413: Payload Too Large"]))
        );
        let row = change.get("record").unwrap_or(&change["old_record"]);
        assert_eq!((&row["session_id"], row.get("content")), (&json!(A1), None));
    }
    for (client, channel) in [(&mut v1, &small), (&mut v2, &large)] {
        assert_eq!(client.change(channel).await["record"]["content"], "end");
    }
}
