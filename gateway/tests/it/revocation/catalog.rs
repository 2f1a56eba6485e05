//! Access that ends by a change of the catalog: policies, grants, row-level security itself, functions, roles.

use serde_json::Value;

use super::ended;
use crate::support::{
    Channel, Client, TestDatabase, TestGateway,
    chat::{A1, ADA, chat, messages_of, say},
    token::{authenticated, token},
};

/// Ada's subscription to her session, with one change to show that it is live.
async fn listening(database: &TestDatabase, gateway: &TestGateway) -> (Client, Channel) {
    let mut ada = Client::v2(gateway, &authenticated(ADA)).await;
    let channel = ada.subscribe("a1", messages_of("*", A1)).await;
    say(database, A1, "before").await;
    assert_eq!(ada.change(&channel).await["record"]["content"], "before");
    (ada, channel)
}

/// The statement ends Ada's subscription, and what is written right after it does not reach her.
async fn ends(statement: &str) {
    let (database, gateway) = chat().await;
    prepare(&database).await;
    let (mut ada, channel) = listening(&database, &gateway).await;
    database.execute(statement).await;
    say(&database, A1, "after").await;
    assert_eq!(
        ended(&mut ada, &channel).await,
        Vec::<Value>::new(),
        "{statement}"
    );
}

/// Hangs the policy for owners on a function.
async fn prepare(database: &TestDatabase) {
    database
        .execute(
            "create function owns(session uuid) returns boolean language sql stable security definer
               as $$ select exists (select from public.chat_sessions s where s.id = session and s.user_id = auth.jwt() ->> 'sub') $$;
             alter policy \"messages of own sessions\" on chat_messages using (owns(session_id))",
        )
        .await;
}

#[tokio::test]
async fn a_policy_that_is_dropped_ends_what_it_allowed() {
    ends("drop policy \"messages of own sessions\" on chat_messages").await;
}

#[tokio::test]
async fn a_policy_that_says_no_now_ends_what_it_allowed() {
    ends("alter policy \"messages of own sessions\" on chat_messages using (false)").await;
}

#[tokio::test]
async fn a_policy_for_somebody_else_ends_what_it_allowed() {
    ends("alter policy \"messages of own sessions\" on chat_messages to service_role").await;
}

#[tokio::test]
async fn a_new_restrictive_policy_ends_what_it_forbids() {
    ends(
        "create policy shut on chat_messages as restrictive for select using (session_id is null)",
    )
    .await;
}

#[tokio::test]
async fn a_policy_of_a_table_that_policies_read_counts_as_well() {
    let (database, gateway) = chat().await;
    let (mut ada, channel) = listening(&database, &gateway).await;
    database
        .execute("alter policy \"own sessions\" on chat_sessions using (false)")
        .await;
    say(&database, A1, "after").await;
    assert_eq!(ended(&mut ada, &channel).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_grant_that_is_revoked_ends_what_it_allowed() {
    ends("revoke select on chat_messages from authenticated").await;
    ends("revoke usage on schema public from authenticated, public").await;
}

#[tokio::test]
async fn a_function_that_says_no_now_ends_what_it_allowed() {
    ends(
        "create or replace function owns(session uuid) returns boolean language sql stable security definer
           as $$ select false $$",
    )
    .await;
    ends("revoke execute on function owns(uuid) from public").await;
}

#[tokio::test]
async fn a_column_that_is_revoked_is_missing_from_the_next_record() {
    let (database, gateway) = chat().await;
    let (mut ada, channel) = listening(&database, &gateway).await;
    database
        .execute(
            "begin; revoke select on chat_messages from authenticated;
             grant select (id, session_id, role, created_at) on chat_messages to authenticated; commit",
        )
        .await;
    say(&database, A1, "after").await;
    let change = ada.change(&channel).await;
    let columns: Vec<_> = change["record"]
        .as_object()
        .expect("a record")
        .keys()
        .collect();
    assert_eq!(columns, ["created_at", "id", "role", "session_id"]);
    assert_eq!(change["columns"].as_array().map(Vec::len), Some(4));

    // And comes back.
    database
        .execute("grant select on chat_messages to authenticated")
        .await;
    say(&database, A1, "once more").await;
    assert_eq!(ada.change(&channel).await["record"]["content"], "once more");
}

#[tokio::test]
async fn row_level_security_that_is_switched_on_ends_what_was_open() {
    let (database, gateway) = chat().await;
    database
        .execute("alter table chat_messages disable row level security")
        .await;
    let mut stranger = Client::v2(&gateway, &authenticated("usr_nobody")).await;
    let channel = stranger.subscribe("a1", messages_of("*", A1)).await;
    say(&database, A1, "open").await;
    assert_eq!(stranger.change(&channel).await["record"]["content"], "open");
    database
        .execute("alter table chat_messages enable row level security")
        .await;
    say(&database, A1, "shut").await;
    assert_eq!(ended(&mut stranger, &channel).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_role_that_is_taken_out_of_another_is_noticed_without_any_event() {
    let (database, gateway) = chat().await;
    // Roles are the cluster's: these carry the database's name.
    let name = database.text("select current_database()").await;
    database
        .execute(&format!(
            "create role {name}_readers; create role {name}_reader; grant {name}_readers to {name}_reader;
             grant {name}_reader to tidings_server; grant usage on schema public to {name}_readers;
             grant select on chat_messages to {name}_reader;
             create policy readers on chat_messages for select to {name}_readers using (true)"
        ))
        .await;
    let reader = token(serde_json::json!({"role": format!("{name}_reader"), "sub": "r"}));
    let mut client = Client::v2(&gateway, &reader).await;
    let channel = client.subscribe("a1", messages_of("*", A1)).await;
    say(&database, A1, "before").await;
    assert_eq!(client.change(&channel).await["record"]["content"], "before");
    // Event triggers do not fire for it: the gateway compares the catalog every two seconds.
    let began = tokio::time::Instant::now();
    database
        .execute(&format!("revoke {name}_readers from {name}_reader"))
        .await;
    ended(&mut client, &channel).await;
    let took = began.elapsed();
    assert!(took.as_secs() < 6, "ended only after {took:?}");
}
