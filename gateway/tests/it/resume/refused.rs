//! Cursors that are good for nothing: each kind has its word.

use super::*;
use crate::support::{TestDatabase, TestGateway};

async fn reason(gateway: &TestGateway, since: Value) -> String {
    let mut client = ada(gateway).await;
    let reason = client
        .refused("a", json!([messages(A1, json!({"since": since}))]))
        .await;
    let (word, _) = reason.split_once(": ").expect("a word and a text");
    word.to_owned()
}

#[tokio::test]
async fn forged_and_foreign_cursors_are_refused() {
    let (_one, gateway) = chat().await;
    let (_other, another) = chat().await;
    let mut client = ada(&gateway).await;
    let (_, _, cursor) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    for forged in [
        json!("x"),
        json!(""),
        json!(7),
        json!({}),
        json!(cursor[..cursor.len() - 2]),
        json!(format!("{}A", &cursor[..cursor.len() - 1])),
    ] {
        // The last character may have been that one.
        if forged != *cursor {
            assert_eq!(
                reason(&gateway, forged.clone()).await,
                "cursor_invalid",
                "{forged}"
            );
        }
    }
    assert_eq!(reason(&another, json!(cursor)).await, "cursor_foreign");
}

#[tokio::test]
async fn a_cursor_from_before_the_log_was_emptied_has_expired() {
    let (database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let (_, _, cursor) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    say(&database, A1, "1").await;
    say(&database, A1, "2").await;
    // A gateway that remembers it can still give it.
    database.execute("truncate tidings.changes").await;
    gateway.app.lifecycle.stop_now();
    let gateway = TestGateway::start(&database).await;
    assert_eq!(reason(&gateway, json!(cursor)).await, "cursor_expired");
    // What comes after is there, and so is a way to go on from it.
    let mut client = ada(&gateway).await;
    let (_, _, cursor) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    say(&database, A1, "3").await;
    caught_up(&database, &gateway).await;
    let mut client = ada(&gateway).await;
    let (_, missed, _) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"since": cursor}))]),
    )
    .await;
    assert_eq!(contents(&missed), ["3"]);
}

/// A copy has other transactions than its original: what its log holds was never committed there.
#[tokio::test]
async fn a_copy_of_the_database_begins_anew() {
    let (original, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let (_, _, cursor) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    say(&original, A1, "1").await;
    gateway.stop().await;
    let copy = TestDatabase::copy_of(original).await;
    let gateway = TestGateway::start(&copy).await;
    assert_eq!(copy.text("select count(*) from tidings.changes").await, "0");
    assert_eq!(reason(&gateway, json!(cursor)).await, "cursor_foreign");
}
