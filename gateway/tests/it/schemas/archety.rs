//! A phone assistant: the policy walks from the message over the conversation to the user.

use serde_json::{Value, json};

use super::{unauthorized, watched};
use crate::support::{
    Client, TestGateway, binding,
    token::{anon, authenticated, service_role},
};

const AUTH_A: &str = "10000000-0000-4000-8000-00000000000a";
const AUTH_B: &str = "10000000-0000-4000-8000-00000000000b";
const USER_A: &str = "20000000-0000-4000-8000-00000000000a";
const USER_B: &str = "20000000-0000-4000-8000-00000000000b";
const CONVERSATION: [&str; 3] = [
    "30000000-0000-4000-8000-00000000000a",
    "30000000-0000-4000-8000-00000000000b",
    "30000000-0000-4000-8000-00000000000c",
];

fn of(conversation: &str) -> Value {
    json!([binding(
        "INSERT",
        "messages",
        Some(&format!("conversation_id=eq.{conversation}"))
    )])
}

fn insert(conversation: &str, body: &str) -> String {
    format!(
        "insert into messages (conversation_id, direction, body) values ('{conversation}', 'inbound', '{body}')"
    )
}

#[tokio::test]
async fn a_user_may_subscribe_to_the_own_conversation_alone() {
    let database = watched("archety", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut a = Client::v2(&gateway, &authenticated(AUTH_A)).await;
    let own = a.subscribe("own", of(CONVERSATION[0])).await;
    for foreign in &CONVERSATION[1..] {
        assert_eq!(
            a.refused("foreign", of(foreign)).await,
            unauthorized("foreign")
        );
    }
    database.execute(&insert(CONVERSATION[1], "for b")).await;
    database.execute(&insert(CONVERSATION[0], "for a")).await;
    let change = a.change(&own).await;
    assert_eq!(change["record"]["body"], "for a");
    // A bigint stays a number.
    assert!(change["record"]["id"].is_i64());
    assert_eq!(a.until_heartbeat().await, []);
}

#[tokio::test]
async fn linking_a_user_to_a_login_lets_that_login_join_from_then_on() {
    let database = watched("archety", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut a = Client::v2(&gateway, &authenticated(AUTH_A)).await;
    assert_eq!(a.refused("c", of(CONVERSATION[2])).await, unauthorized("c"));
    let link = format!(
        "update users set supabase_user_id = '{AUTH_A}' where id = '20000000-0000-4000-8000-00000000000c'"
    );
    database.execute(&link).await;
    let linked = a.subscribe("c", of(CONVERSATION[2])).await;
    database
        .execute(&insert(CONVERSATION[2], "now for a"))
        .await;
    assert_eq!(a.change(&linked).await["record"]["body"], "now for a");
}

#[tokio::test]
async fn a_token_row_reaches_its_owner_and_the_service_role_alone() {
    let database = watched("archety", &["public.oauth_tokens"]).await;
    let gateway = TestGateway::start(&database).await;
    let all = || json!([binding("*", "oauth_tokens", None)]);
    let mut clients = Vec::new();
    for token in [authenticated(AUTH_A), authenticated(AUTH_B), service_role()] {
        let mut client = Client::v2(&gateway, &token).await;
        let channel = client.subscribe("tokens", all()).await;
        clients.push((client, channel));
    }
    let mut stranger = Client::v2(&gateway, &anon()).await;
    assert_eq!(
        stranger.refused("tokens", all()).await,
        unauthorized("tokens")
    );
    let mut b = Client::v2(&gateway, &authenticated(AUTH_B)).await;
    let of_a = json!([binding(
        "*",
        "oauth_tokens",
        Some(&format!("user_id=eq.{USER_A}"))
    )]);
    assert_eq!(b.refused("of a", of_a).await, unauthorized("of a"));

    // Insert, a change of hands, delete: of each user's, in turn, and at the end one row that each may see.
    for user in [USER_A, USER_B] {
        database
            .execute(&format!(
                "insert into oauth_tokens (user_id, provider, secret) values ('{user}', 'p', 'secret of {user}');
                 update oauth_tokens set secret = secret || '!' where user_id = '{user}';
                 delete from oauth_tokens where user_id = '{user}'"
            ))
            .await;
    }
    database
        .execute(&format!(
            "insert into oauth_tokens (user_id, provider, secret) values ('{USER_A}', 'p', 'moved');
             update oauth_tokens set user_id = '{USER_B}' where secret = 'moved';
             insert into oauth_tokens (user_id, provider, secret) values ('{USER_A}', 'end', 'a'), ('{USER_B}', 'end', 'b')"
        ))
        .await;

    let mut seen = Vec::new();
    for (client, channel) in &mut clients {
        let changes = client.changes_until(channel, "provider", "end").await;
        let text = serde_json::to_string(&changes).expect("JSON");
        seen.push((text, changes));
    }
    let kinds = |changes: &[Value]| {
        changes
            .iter()
            .map(|change| change["type"].clone())
            .collect::<Vec<_>>()
    };
    let (of_a, of_b, of_service) = (&seen[0], &seen[1], &seen[2]);
    assert_eq!(kinds(&of_a.1), ["INSERT", "UPDATE", "DELETE", "INSERT"]);
    assert!(
        !of_a.0.contains(USER_B),
        "a saw something of b's: {}",
        of_a.0
    );
    assert_eq!(kinds(&of_b.1), ["INSERT", "UPDATE", "DELETE", "UPDATE"]);
    assert!(
        !of_b.0.contains(USER_A),
        "b saw something of a's: {}",
        of_b.0
    );
    assert_eq!(of_service.1.len(), 8);
}
