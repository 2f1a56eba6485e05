//! Clients that come back with a cursor, or join with history, get each change exactly once and in order.

mod history;
mod loss;
mod refused;
mod rights;

use serde_json::{Value, json};

use crate::support::{
    Channel, Client, TestDatabase, TestGateway,
    chat::{A1, ADA, B1, chat, chat_with, say},
    token::authenticated,
    wait::wait_for,
};

/// A binding on the messages of a session, with keys of our own.
fn messages(session: &str, more: Value) -> Value {
    let mut binding = json!({
        "event": "*", "schema": "public", "table": "chat_messages", "filter": format!("session_id=eq.{session}"),
    });
    for (key, value) in more.as_object().expect("keys") {
        binding[key] = value.clone();
    }
    binding
}

/// Joins and returns what came before the client was told that it is up to date, and the cursor that it was told.
async fn join(client: &mut Client, topic: &str, bindings: Value) -> (Channel, Vec<Value>, String) {
    let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
    let channel = client.joined(topic, config).await;
    let mut changes = Vec::new();
    loop {
        let message = client
            .expect("a change or the end of them", |message| {
                message.topic == channel.topic
                    && ["postgres_changes", "system"].contains(&&*message.event)
            })
            .await;
        if message.event == "system" {
            assert_eq!(message.payload["status"], "ok", "{message:?}");
            assert_eq!(message.payload["message"], "Subscribed to PostgreSQL");
            let cursor = message.payload["cursor"].as_str().expect("a cursor");
            return (channel, changes, cursor.to_owned());
        }
        changes.push(message.payload["data"].clone());
    }
}

/// Waits until the gateway has delivered all that is in the log now: what comes later would be live. The newest by its number need
/// not be the last that was committed.
async fn caught_up(database: &TestDatabase, gateway: &TestGateway) {
    let newest = "select string_agg(xid || ' ' || seq, ',') from (select * from tidings.changes order by seq desc limit 500) newest";
    let newest: Vec<(u64, i64)> = database
        .text(newest)
        .await
        .split(',')
        .map(|change| {
            let (xid, sequence) = change.split_once(' ').expect("a change");
            (
                xid.parse().expect("a number"),
                sequence.parse().expect("a number"),
            )
        })
        .collect();
    wait_for("the hub", || async {
        let mark = gateway.app.hub.place().ok_or("no place yet")?.mark();
        let mut covered = newest
            .iter()
            .map(|(xid, sequence)| mark.covers(*xid, *sequence));
        covered
            .all(|covered| covered)
            .then_some(())
            .ok_or("not yet")
    })
    .await;
}

fn row_of(change: &Value) -> &Value {
    match change["type"].as_str() {
        Some("DELETE") => &change["old_record"],
        _ => &change["record"],
    }
}

fn contents(changes: &[Value]) -> Vec<&str> {
    changes
        .iter()
        .map(|change| row_of(change)["content"].as_str().expect("content"))
        .collect()
}

fn cursor_of(change: &Value) -> String {
    row_of(change)["tidings_cursor"]
        .as_str()
        .expect("a cursor")
        .to_owned()
}

async fn ada(gateway: &TestGateway) -> Client {
    Client::v2(gateway, &authenticated(ADA)).await
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_and_goes_on_live() {
    let (database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let (channel, before, start) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    assert_eq!(before, Vec::<Value>::new());
    say(&database, A1, "1").await;
    let first = client.change(&channel).await;
    drop(client);

    say(&database, A1, "2").await;
    say(&database, B1, "not for Ada").await;
    say(&database, A1, "3").await;
    database
        .execute("update chat_messages set content = '3b' where content = '3'; delete from chat_messages where content = '2'")
        .await;
    caught_up(&database, &gateway).await;

    let mut clients = Vec::new();
    for (since, expected) in [
        (start, vec!["1", "2", "3", "3b", "2"]),
        (cursor_of(&first), vec!["2", "3", "3b", "2"]),
    ] {
        let mut client = ada(&gateway).await;
        let (channel, missed, _) = join(
            &mut client,
            "a",
            json!([messages(A1, json!({"since": since}))]),
        )
        .await;
        assert_eq!(contents(&missed), expected);
        assert_eq!(missed.last().expect("a change")["type"], "DELETE");
        // Each of them is a place to go on from.
        for (place, change) in missed.iter().enumerate() {
            let mut other = ada(&gateway).await;
            let binding = messages(A1, json!({"since": cursor_of(change)}));
            let (_, rest, _) = join(&mut other, "a", json!([binding])).await;
            assert_eq!(contents(&rest), expected[place + 1..]);
        }
        clients.push((client, channel));
    }
    say(&database, A1, "live").await;
    for (mut client, channel) in clients {
        let live = client.change(&channel).await;
        assert_eq!(live["record"]["content"], "live");
    }
}

#[tokio::test]
async fn cursors_are_only_for_those_who_ask() {
    let (database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let plain = client
        .subscribe("plain", json!([messages(A1, json!({}))]))
        .await;
    let (with, ..) = join(
        &mut client,
        "with",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    say(&database, A1, "1").await;
    let (plain, with) = (client.change(&plain).await, client.change(&with).await);
    assert!(plain["record"].get("tidings_cursor").is_none(), "{plain}");
    let mut without = with.clone();
    without["record"]
        .as_object_mut()
        .expect("a record")
        .remove("tidings_cursor");
    assert_eq!(without, plain);
}

#[tokio::test]
async fn another_gateway_goes_on_where_the_first_was_killed() {
    let (database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let (channel, _, start) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    for number in 1..=5 {
        say(&database, A1, &number.to_string()).await;
    }
    let mut seen = Vec::new();
    for _ in 1..=5 {
        seen.push(client.change(&channel).await);
    }
    // As a killed process would: nothing of its memory is left.
    gateway.app.lifecycle.stop_now();
    drop(client);
    for number in 6..=9 {
        say(&database, A1, &number.to_string()).await;
    }

    let gateway = TestGateway::start(&database).await;
    for (since, expected) in [
        (
            start,
            &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"][..],
        ),
        (
            cursor_of(&seen[2]),
            &["4", "5", "6", "7", "8", "9", "10", "11"],
        ),
        (cursor_of(&seen[4]), &["6", "7", "8", "9", "10", "11", "12"]),
    ] {
        // One more that the new gateway has in memory: the log and the memory are put together.
        say(&database, A1, expected.last().expect("one")).await;
        caught_up(&database, &gateway).await;
        let mut client = ada(&gateway).await;
        let (_, missed, _) = join(
            &mut client,
            "a",
            json!([messages(A1, json!({"since": since}))]),
        )
        .await;
        assert_eq!(contents(&missed), expected);
        let sequence: Vec<_> = missed.iter().map(cursor_of).collect();
        for (place, cursor) in sequence.iter().enumerate() {
            let mut client = ada(&gateway).await;
            let binding = messages(A1, json!({"since": cursor}));
            let (_, rest, _) = join(&mut client, "a", json!([binding])).await;
            assert_eq!(contents(&rest), expected[place + 1..], "after {place}");
        }
    }
}

#[tokio::test]
async fn what_memory_does_not_hold_comes_from_the_log_page_by_page() {
    // No more than a change or two fits.
    let (database, gateway) = chat_with(&[("recent_bytes", "1KiB")]).await;
    let mut client = ada(&gateway).await;
    let (_, _, start) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    drop(client);
    let many = 5_000;
    database
        .execute(&format!(
            "insert into chat_messages (session_id, role, content) select '{A1}', 'user', n::text from generate_series(1, {many}) n"
        ))
        .await;
    say(&database, A1, "last").await;
    caught_up(&database, &gateway).await;
    let mut client = ada(&gateway).await;
    let (_, missed, _) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"since": start}))]),
    )
    .await;
    let expected: Vec<String> = (1..=many)
        .map(|n| n.to_string())
        .chain(["last".into()])
        .collect();
    // Not with assert_eq: it would print all of them.
    assert!(contents(&missed) == expected, "{} changes", missed.len());
    let (half, mut other) = (cursor_of(&missed[many / 2]), ada(&gateway).await);
    let (_, rest, _) = join(
        &mut other,
        "a",
        json!([messages(A1, json!({"since": half}))]),
    )
    .await;
    assert!(
        contents(&rest) == expected[many / 2 + 1..],
        "{} changes",
        rest.len()
    );
}

/// Transactions that commit in another order than they began, while somebody comes and goes.
#[tokio::test]
async fn comings_and_goings_under_load_lose_and_double_nothing() {
    let (database, gateway) = chat_with(&[("recent_bytes", "64KiB")]).await;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let connecting = database.connect();
            async move {
                let client = connecting.await;
                for number in 0..60 {
                    let pause = (writer * 7 + number * 3) % 11;
                    client
                        .batch_execute(&format!(
                            "begin; insert into chat_messages (session_id, role, content) values ('{A1}', 'user', '{writer}:{number}a'); \
                             select pg_sleep({pause} / 1000.0); \
                             insert into chat_messages (session_id, role, content) values ('{A1}', 'user', '{writer}:{number}b'); commit"
                        ))
                        .await
                        .expect("a transaction");
                }
            }
        })
        .collect();
    let mut client = ada(&gateway).await;
    let (_, _, mut since) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    drop(client);
    let mut writing = std::pin::pin!(futures::future::join_all(writers));
    let mut seen: Vec<String> = Vec::new();
    let mut done = false;
    let mut round = 0;
    while !done {
        round += 1;
        let visit = async {
            let mut client = ada(&gateway).await;
            let binding = messages(A1, json!({"since": since}));
            let (channel, missed, cursor) = join(&mut client, "a", json!([binding])).await;
            let mut got = missed;
            since = cursor;
            // Now and then one leaves in the middle of what is live.
            for _ in 0..round % 4 {
                let live = tokio::time::timeout(
                    std::time::Duration::from_millis(300),
                    client.change(&channel),
                );
                match live.await {
                    Ok(change) => {
                        since = cursor_of(&change);
                        got.push(change);
                    }
                    Err(_) => break,
                }
            }
            got
        };
        let mut visit = std::pin::pin!(visit);
        let got = loop {
            tokio::select! {
                got = &mut visit => break got,
                _ = &mut writing, if !done => done = true,
            }
        };
        seen.extend(contents(&got).into_iter().map(str::to_owned));
    }
    caught_up(&database, &gateway).await;
    let mut client = ada(&gateway).await;
    let (_, rest, _) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"since": since}))]),
    )
    .await;
    seen.extend(contents(&rest).into_iter().map(str::to_owned));

    assert!(round > 5, "only {round} visits");
    for writer in 0..6 {
        let own: Vec<_> = seen
            .iter()
            .filter(|content| content.starts_with(&format!("{writer}:")))
            .collect();
        let expected: Vec<_> = (0..60)
            .flat_map(|number| ["a", "b"].map(|part| format!("{writer}:{number}{part}")))
            .collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>(), "writer {writer}");
    }
}
