//! Changes of tables (protocol §5): when they come, whose filter they match, and how much of the old row.

use serde_json::json;

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway, binding,
    token::{anon, authenticated},
};

#[tokio::test]
async fn the_time_of_a_change_is_in_utc_whatever_the_time_zone_of_the_database() {
    let database = TestDatabase::new(None).await;
    let name = database.text("current_database()").await;
    database
        .execute(&format!(
            "alter database {name} set timezone = 'Asia/Kathmandu';
             create table t (id int primary key); grant select on t to anon; select tidings.watch('t')"
        ))
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client
        .subscribe("t", json!([binding("*", "t", None)]))
        .await;
    let now = r#"to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#;
    let writer = database.connect().await;
    let before = database.text(now).await;
    writer
        .batch_execute("insert into t values (1)")
        .await
        .expect("an insert");
    let after = database.text(now).await;
    let change = client.change(&channel).await;
    let at = change["commit_timestamp"].as_str().expect("a time");
    assert!(
        *before <= *at && *at <= *after,
        "{before} <= {at} <= {after}"
    );
}

#[tokio::test]
async fn changes_come_in_the_order_of_commits_and_within_one_of_statements() {
    let database = TestDatabase::new(None).await;
    database
        .execute("create table t (id int primary key, n int); grant select on t to anon; select tidings.watch('t')")
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client
        .subscribe("t", json!([binding("*", "t", None)]))
        .await;
    let other = database.connect().await;
    let run = |sql: &'static str| async { other.batch_execute(sql).await.expect("a statement") };
    run("begin; insert into t values (1, 1)").await;
    database.execute("insert into t values (2, 1)").await;
    let mut seen = Vec::new();
    let mut next = async |client: &mut Client| {
        let change = client.change(&channel).await;
        let row = change.get("record").unwrap_or(&change["old_record"]);
        seen.push(format!(
            "{} {} {}",
            change["type"].as_str().expect("a type"),
            row["id"],
            row["n"]
        ));
    };
    next(&mut client).await;
    run("update t set n = 2 where id = 1; insert into t values (3, 1); delete from t where id = 1; insert into t values (1, 3); commit").await;
    for _ in 0..5 {
        next(&mut client).await;
    }
    assert_eq!(
        seen,
        [
            "INSERT 2 1",
            "INSERT 1 1",
            "UPDATE 1 2",
            "INSERT 3 1",
            "DELETE 1 2",
            "INSERT 1 3"
        ]
    );
}

#[tokio::test]
async fn by_a_setting_the_replica_identity_says_how_much_of_the_old_row_comes() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table usual (id int primary key, name text, note text); create table whole (id int primary key, name text, note text);
             alter table whole replica identity full;
             create table keyless (id int primary key, name text); create table guarded (id int primary key, name text);
             alter table guarded enable row level security; create policy open on guarded for select using (true);
             grant select on usual, whole, guarded to anon; grant select (name) on keyless to anon;
             select tidings.watch('usual'), tidings.watch('whole'), tidings.watch('keyless'), tidings.watch('guarded')",
        )
        .await;
    let gateway = TestGateway::start_with(&database, &[("old_record", "identity")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for (table, updated, deleted) in [
        ("usual", json!({"id": 1}), json!({"id": 2})),
        (
            "whole",
            json!({"id": 1, "name": "a", "note": null}),
            json!({"id": 2, "name": "b", "note": null}),
        ),
        // Nothing is left of the key for those who may not SELECT it.
        ("keyless", json!({}), json!({})),
        ("guarded", json!({"id": 1}), json!({"id": 2})),
    ] {
        let channel = client
            .subscribe(table, json!([binding("*", table, None)]))
            .await;
        database
            .execute(&format!(
                "insert into {table} (id, name) values (1, 'a'); update {table} set id = 2, name = 'b'; delete from {table}"
            ))
            .await;
        let inserted = client.change(&channel).await;
        assert_eq!(inserted.get("old_record"), None);
        assert_eq!(inserted["record"]["name"], "a");
        let change = client.change(&channel).await;
        assert_eq!(
            (&change["type"], &change["old_record"]),
            (&json!("UPDATE"), &updated),
            "{table}"
        );
        assert_eq!(change["record"]["name"], "b");
        let change = client.change(&channel).await;
        assert_eq!(
            (&change["type"], &change["old_record"]),
            (&json!("DELETE"), &deleted),
            "{table}"
        );
        assert_eq!(change.get("record"), None);
    }
}

/// An UPDATE is judged by its new row alone, a DELETE by the old one.
#[tokio::test]
async fn a_row_that_stops_matching_is_no_event_and_one_that_begins_to_is_an_update() {
    let database = TestDatabase::new(None).await;
    database
        .execute("create table t (id int primary key, room text, n int); grant select on t to anon; select tidings.watch('t')")
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    // The gateway evaluates one of these by itself, PostgreSQL the other.
    for (number, filter) in ["room=eq.a", "room=like.a%"].into_iter().enumerate() {
        let channel = client
            .subscribe(filter, json!([binding("*", "t", Some(filter))]))
            .await;
        database
            .execute(&format!(
                "insert into t values ({number}, 'a', 1); update t set room = 'b', n = 2; update t set n = 3; update t set room = 'a', n = 4;
                 update t set room = 'b', n = 5; delete from t;
                 insert into t values ({number}, 'a', 6); delete from t"
            ))
            .await;
        for (kind, n) in [("INSERT", 1), ("UPDATE", 4), ("INSERT", 6), ("DELETE", 6)] {
            let change = client.change(&channel).await;
            let row = change.get("record").unwrap_or(&change["old_record"]);
            assert_eq!(
                (&change["type"], &row["n"]),
                (&json!(kind), &json!(n)),
                "{filter}"
            );
        }
        let reference = client.push(&channel, "phx_leave", json!({})).await;
        client.reply(&reference).await;
    }
    let rest = client.until_heartbeat().await;
    assert!(rest.iter().all(
        |incoming| matches!(incoming, Incoming::Message(message) if message.event == "phx_close")
    ));
}

#[tokio::test]
async fn a_delete_is_found_by_any_column_of_a_full_identity_under_row_level_security_or_not() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table open (id int primary key, room text); create table guarded (id int primary key, room text);
             alter table open replica identity full; alter table guarded replica identity full;
             alter table guarded enable row level security; create policy all_rows on guarded for select using (true);
             grant select on open, guarded to anon; select tidings.watch('open'), tidings.watch('guarded')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for table in ["open", "guarded"] {
        let bindings = json!([
            binding("DELETE", table, Some("room=eq.a")),
            binding("DELETE", table, Some("room=not.is.null,id=gt.2"))
        ]);
        let channel = client.subscribe(table, bindings).await;
        database
            .execute(&format!(
                "insert into {table} values (1, 'a'), (2, 'b'), (3, null), (4, 'c'); delete from {table}"
            ))
            .await;
        for id in [1, 4] {
            assert_eq!(client.change(&channel).await["old_record"]["id"], id);
        }
    }
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_change_that_is_too_large_has_all_but_its_long_values() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table t (id int primary key, longest text, longer text, nothing text, body text); grant select on t to anon; select tidings.watch('t')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v1(&gateway, &anon()).await;
    let channel = client
        .subscribe("t", json!([binding("*", "t", None)]))
        .await;
    // With its quotes a text of 62 letters has 64 bytes.
    database
        .execute(
            "insert into t values (1, repeat('x', 62), repeat('x', 63), null, repeat('x', 1048576)); update t set id = 2; delete from t",
        )
        .await;
    for (kind, new, old) in [
        ("INSERT", Some(1), None),
        ("UPDATE", Some(2), Some(1)),
        ("DELETE", None, Some(2)),
    ] {
        let change = client.change(&channel).await;
        assert_eq!(change["type"], kind);
        assert_eq!(change["errors"], json!(["Error 413: Payload Too Large"]));
        assert_eq!(change["columns"].as_array().map(Vec::len), Some(5));
        assert!(change["commit_timestamp"].is_string());
        let row = |id: i32| json!({"id": id, "longest": "x".repeat(62)});
        assert_eq!(change.get("record").cloned(), new.map(row), "{kind}");
        assert_eq!(change.get("old_record").cloned(), old.map(row), "{kind}");
    }
}

#[tokio::test]
async fn rows_are_judged_by_the_claims_of_the_channels_present_token() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table notes (id int primary key generated always as identity, owner text, n int);
             alter table notes enable row level security;
             create policy own on notes for select to authenticated using (owner = auth.jwt() ->> 'sub');
             grant select on notes to authenticated; select tidings.watch('notes')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &authenticated("ada")).await;
    let channel = client
        .subscribe("notes", json!([binding("*", "notes", None)]))
        .await;
    let both = async |n: i32| {
        database
            .execute(&format!(
                "insert into notes (owner, n) values ('bob', {n}), ('ada', {n}), ('nobody', {n}), (null, {n}), ('bob', {n} + 1), ('ada', {n} + 1)"
            ))
            .await;
    };
    let seen = async |client: &mut Client| {
        let record = client.change(&channel).await["record"].take();
        (record["owner"].clone(), record["n"].clone())
    };
    both(1).await;
    for n in [1, 2] {
        assert_eq!(seen(&mut client).await, (json!("ada"), json!(n)));
    }
    let renewed = json!({"access_token": authenticated("bob")});
    client.push(&channel, "access_token", renewed).await;
    client.live(&channel).await;
    both(3).await;
    for n in [3, 4] {
        assert_eq!(seen(&mut client).await, (json!("bob"), json!(n)));
    }
    assert_eq!(client.until_heartbeat().await, []);
}
