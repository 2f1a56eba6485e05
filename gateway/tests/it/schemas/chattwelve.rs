//! AI chat with BetterAuth logins: text subjects, an open policy for `anon` beside the one for owners.

use serde_json::json;

use super::unauthorized;
use crate::support::{
    Client, binding,
    chat::{A1, ADA, B1, BOB, chat, messages_of, say},
    token::{anon, authenticated, token},
};

#[tokio::test]
async fn an_owner_may_subscribe_to_her_session_and_is_refused_another() {
    let (database, gateway) = chat().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let own = ada
        .subscribe("messages:a1", messages_of("INSERT", A1))
        .await;
    assert_eq!(
        ada.refused("messages:b1", messages_of("INSERT", B1)).await,
        unauthorized("messages:b1")
    );

    say(&database, A1, "first").await;
    say(&database, B1, "not hers").await;
    say(&database, A1, "second").await;
    for content in ["first", "second"] {
        let change = ada.change(&own).await;
        assert_eq!(change["record"]["content"], content);
        assert_eq!(change["record"]["session_id"], A1);
    }
    assert_eq!(ada.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_refused_channel_gets_nothing_even_when_one_of_its_bindings_was_allowed() {
    let (database, gateway) = chat().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let both = json!([messages_of("INSERT", A1)[0], messages_of("INSERT", B1)[0]]);
    assert_eq!(ada.refused("both", both).await, unauthorized("both"));
    let mut witness = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = witness.subscribe("a1", messages_of("INSERT", A1)).await;
    say(&database, A1, "who hears it").await;
    witness.change(&channel).await;
    assert_eq!(ada.until_heartbeat().await, []);
}

#[tokio::test]
async fn anon_may_subscribe_to_every_session() {
    let (database, gateway) = chat().await;
    let mut anyone = Client::v1(&gateway, &anon()).await;
    let a1 = anyone.subscribe("a1", messages_of("INSERT", A1)).await;
    let b1 = anyone.subscribe("b1", messages_of("INSERT", B1)).await;
    say(&database, A1, "for a").await;
    say(&database, B1, "for b").await;
    assert_eq!(anyone.change(&a1).await["record"]["content"], "for a");
    assert_eq!(anyone.change(&b1).await["record"]["content"], "for b");
    assert_eq!(anyone.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_token_without_a_subject_is_refused_both_sessions() {
    let (_database, gateway) = chat().await;
    let mut nobody = Client::v2(&gateway, &token(json!({"role": "authenticated"}))).await;
    assert_eq!(
        nobody.refused("a1", messages_of("*", A1)).await,
        unauthorized("a1")
    );
    assert_eq!(
        nobody.refused("b1", messages_of("*", B1)).await,
        unauthorized("b1")
    );
}

#[tokio::test]
async fn deleting_a_session_delivers_one_delete_per_message_to_its_owner_alone() {
    let (database, gateway) = chat().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
    let adas = ada.subscribe("a1", messages_of("DELETE", A1)).await;
    let bobs = bob.subscribe("b1", messages_of("*", B1)).await;
    // Without a filter each row is judged, and the session that made it visible goes in the same transaction.
    let all = bob
        .subscribe("all", json!([binding("*", "chat_messages", None)]))
        .await;

    let expected: Vec<String> = database
        .text(&format!("select string_agg(id::text, ' ' order by id) from chat_messages where session_id = '{A1}'"))
        .await
        .split(' ')
        .map(str::to_owned)
        .collect();
    assert_eq!(expected.len(), 2);
    database
        .execute(&format!("delete from chat_sessions where id = '{A1}'"))
        .await;

    let mut deleted = Vec::new();
    for _ in &expected {
        let change = ada.change(&adas).await;
        assert_eq!(change["type"], "DELETE");
        assert_eq!(change["old_record"]["session_id"], A1);
        assert!(change.get("record").is_none());
        deleted.push(
            change["old_record"]["id"]
                .as_str()
                .expect("an id")
                .to_owned(),
        );
    }
    deleted.sort();
    assert_eq!(deleted, expected);
    say(&database, B1, "later").await;
    for channel in [&bobs, &all] {
        let first = bob.change(channel).await;
        assert_eq!(
            first["record"]["content"], "later",
            "Bob hears nothing of session a1"
        );
    }
    // With the session goes the right to hear of it.
    let told = ada.event(&adas, "system").await;
    assert_eq!(told.payload["status"], "error");
    ada.event(&adas, "phx_close").await;
    assert_eq!(ada.until_heartbeat().await, []);
}
