//! Wellness chat: messages inherit access from their conversation, and policies name no role.

use serde_json::{Value, json};

use super::{unauthorized, watched};
use crate::support::{
    Client, TestGateway, binding,
    token::{anon, authenticated},
};

const A: &str = "10000000-0000-4000-8000-00000000000a";
const B: &str = "10000000-0000-4000-8000-00000000000b";
const CONVERSATION_A: &str = "70000000-0000-4000-8000-00000000000a";
const CONVERSATION_B: &str = "70000000-0000-4000-8000-00000000000b";

fn of(conversation: &str) -> Value {
    json!([binding(
        "*",
        "messages",
        Some(&format!("conversation_id=eq.{conversation}"))
    )])
}

fn insert(conversation: &str, content: &str) -> String {
    format!(
        "insert into messages (conversation_id, role, content) values ('{conversation}', 'user', '{content}')"
    )
}

#[tokio::test]
async fn anon_is_refused_for_want_of_a_grant_though_the_policies_hold_for_everybody() {
    let database = watched("wbot", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    // Even with the claim that the policies ask for.
    for token in [
        anon(),
        crate::support::token::token(json!({"role": "anon", "sub": A})),
    ] {
        let mut client = Client::v2(&gateway, &token).await;
        assert_eq!(
            client.refused("a", of(CONVERSATION_A)).await,
            unauthorized("a")
        );
    }
}

#[tokio::test]
async fn a_user_may_subscribe_before_the_first_message_exists() {
    let database = watched("wbot", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    assert_eq!(database.text("select count(*) from messages").await, "0");
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let own = a.subscribe("a", of(CONVERSATION_A)).await;
    assert_eq!(a.refused("b", of(CONVERSATION_B)).await, unauthorized("b"));
    database.execute(&insert(CONVERSATION_B, "for b")).await;
    database.execute(&insert(CONVERSATION_A, "for a")).await;
    assert_eq!(a.change(&own).await["record"]["content"], "for a");
}

#[tokio::test]
async fn a_message_that_is_edited_or_deleted_arrives_with_the_old_record_at_its_owner_alone() {
    let database = watched("wbot", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let mut b = Client::v2(&gateway, &authenticated(B)).await;
    let own = a.subscribe("a", of(CONVERSATION_A)).await;
    let everything = b
        .subscribe("all", json!([binding("*", "messages", None)]))
        .await;

    database.execute(&insert(CONVERSATION_A, "draft")).await;
    let whole_row = "select row_to_json(m) from messages m";
    let draft: Value = serde_json::from_str(&database.text(whole_row).await).expect("JSON");
    database
        .execute("update messages set content = 'final', metadata = '{\"edited\": true}'")
        .await;
    let edited: Value = serde_json::from_str(&database.text(whole_row).await).expect("JSON");
    database.execute("delete from messages").await;
    database.execute(&insert(CONVERSATION_B, "end")).await;

    let inserted = a.change(&own).await;
    assert_eq!(
        (&inserted["type"], &inserted["record"]),
        (&json!("INSERT"), &draft)
    );
    assert!(inserted.get("old_record").is_none());
    let updated = a.change(&own).await;
    assert_eq!(updated["type"], "UPDATE");
    assert_eq!(updated["record"], edited);
    assert_eq!(updated["old_record"], draft);
    let deleted = a.change(&own).await;
    assert_eq!(deleted["type"], "DELETE");
    assert_eq!(deleted["old_record"], edited);
    assert!(deleted.get("record").is_none());
    assert_eq!(a.until_heartbeat().await, []);

    assert_eq!(
        b.changes_until(&everything, "content", "end").await,
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn a_filter_on_any_column_matches_a_delete() {
    let database = watched("wbot", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let deletes = json!([binding("DELETE", "messages", Some("role=eq.assistant"))]);
    let channel = a.subscribe("deletes", deletes).await;
    database
        .execute(&format!(
            "insert into messages (conversation_id, role, content) values
               ('{CONVERSATION_A}', 'user', 'one'), ('{CONVERSATION_A}', 'assistant', 'two'),
               ('{CONVERSATION_B}', 'assistant', 'of b'), ('{CONVERSATION_A}', 'assistant', 'three');
             delete from messages where content in ('one', 'two', 'of b');
             delete from messages where content = 'three'"
        ))
        .await;
    for content in ["two", "three"] {
        assert_eq!(a.change(&channel).await["old_record"]["content"], content);
    }
    assert_eq!(a.until_heartbeat().await, []);
}
