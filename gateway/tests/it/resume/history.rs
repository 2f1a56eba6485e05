//! The last rows, then everything after them.

use super::*;

#[tokio::test]
async fn the_last_rows_come_first_and_each_change_after_them_once() {
    let (database, gateway) = chat().await;
    for number in 1..=5 {
        say(&database, A1, &number.to_string()).await;
        say(&database, B1, "not for Ada").await;
    }
    let mut client = ada(&gateway).await;
    let binding = messages(A1, json!({"history": 3}));
    let (channel, rows, _) = join(&mut client, "a", json!([binding])).await;
    assert_eq!(contents(&rows), ["3", "4", "5"]);
    assert!(rows.iter().all(|row| row["type"] == "INSERT"), "{rows:?}");
    let cursors: Vec<_> = rows
        .iter()
        .map(|row| row["record"].get("tidings_cursor").is_some())
        .collect();
    assert_eq!(cursors, [false, false, true]);
    say(&database, A1, "6").await;
    assert_eq!(client.change(&channel).await["record"]["content"], "6");
    caught_up(&database, &gateway).await;

    // From the last of them it goes on.
    let mut other = ada(&gateway).await;
    let binding = messages(A1, json!({"since": cursor_of(&rows[2]), "history": 3}));
    let (_, missed, _) = join(&mut other, "a", json!([binding])).await;
    assert_eq!(contents(&missed), ["6"]);
}

#[tokio::test]
async fn a_row_of_history_is_written_as_the_change_was() {
    let (database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let live = client
        .subscribe("live", json!([messages(A1, json!({}))]))
        .await;
    say(&database, A1, "ü \" \\ 1").await;
    let mut change = client.change(&live).await;
    let binding = messages(A1, json!({"history": 1, "cursor": false}));
    let config = json!({"postgres_changes": [binding], "presence": {"enabled": false}});
    let channel = client.joined("history", config).await;
    let mut row = client.change(&channel).await;
    // The one has the time of the commit, the other that of the row.
    assert!(row["commit_timestamp"].take().is_string());
    change["commit_timestamp"].take();
    assert_eq!(row, change);
}

/// The statement that fetches them is remembered for those who ask for the same, as long as the table is the same.
#[tokio::test]
async fn history_follows_the_table_when_that_changes() {
    let (database, gateway) = chat().await;
    say(&database, A1, "before").await;
    let mut client = ada(&gateway).await;
    let binding = json!([messages(A1, json!({"history": 1}))]);
    for topic in ["a", "b"] {
        let (_, rows, _) = join(&mut client, topic, binding.clone()).await;
        assert_eq!(contents(&rows), ["before"]);
        assert!(rows[0]["record"].get("mood").is_none());
    }
    database
        .execute("alter table chat_messages add column mood text default 'fine'")
        .await;
    wait_for("the new column", || async {
        let table = gateway.app.catalog.table("public", "chat_messages");
        let known = table.is_some_and(|table| table.column("mood").is_some());
        known.then_some(()).ok_or("not yet")
    })
    .await;
    let (_, rows, _) = join(&mut client, "c", binding).await;
    assert_eq!(rows[0]["record"]["mood"], "fine");
}

/// Rows come and go while people join: what they are given adds up to what there is.
#[tokio::test]
async fn history_and_live_add_up_under_load() {
    let (database, gateway) = chat().await;
    let writer = database.connect().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writing = {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                writer
                    .batch_execute(&format!(
                        "insert into chat_messages (session_id, role, content) values ('{A1}', 'user', '{number}')"
                    ))
                    .await
                    .expect("an insert");
            }
            number
        })
    };
    let mut joined = Vec::new();
    for _ in 0..12 {
        let mut client = ada(&gateway).await;
        let binding = messages(A1, json!({"history": 5}));
        let (channel, rows, _) = join(&mut client, "a", json!([binding])).await;
        joined.push((client, channel, rows));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let last = writing.await.expect("the writer").to_string();
    for (mut client, channel, mut rows) in joined {
        while rows
            .last()
            .is_none_or(|row| row["record"]["content"] != *last)
        {
            rows.push(client.change(&channel).await);
        }
        let numbers: Vec<u32> = contents(&rows)
            .iter()
            .map(|content| content.parse().expect("a number"))
            .collect();
        let first = numbers.first().copied().unwrap_or(0);
        let expected: Vec<u32> = (first..first + numbers.len() as u32).collect();
        assert_eq!(numbers, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let (_database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    for (keys, table, reason) in [
        (
            json!({"history": 1001}),
            "chat_messages",
            "`history` may ask for 1000 rows in all",
        ),
        (
            json!({"history": 1, "order": "nonsense"}),
            "chat_messages",
            "invalid column for order nonsense",
        ),
    ] {
        let mut binding = messages(A1, keys);
        binding["table"] = table.into();
        let refused = client.refused("a", json!([binding])).await;
        assert_eq!(refused, format!("history_invalid: {reason}"));
    }
}
