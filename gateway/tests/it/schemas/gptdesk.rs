//! Team assistants: roles and teams live in a table that policies read through SECURITY DEFINER helpers.

use serde_json::{Value, json};

use super::{unauthorized, watched};
use crate::support::{Client, TestDatabase, TestGateway, binding, token::authenticated};

const A: &str = "10000000-0000-4000-8000-00000000000a";
const SUPER: &str = "10000000-0000-4000-8000-0000000000ff";
const A1: &str = "00000000-0000-4000-8000-0000000000a1";
const B1: &str = "00000000-0000-4000-8000-0000000000b1";
const TEAM_A: &str = "50000000-0000-4000-8000-00000000000a";
const TEAM_B: &str = "50000000-0000-4000-8000-00000000000b";
const GPT_B: &str = "60000000-0000-4000-8000-00000000000b";

fn session(session: &str) -> Value {
    json!([binding(
        "INSERT",
        "chat_messages",
        Some(&format!("session_id=eq.{session}"))
    )])
}

fn team(team: &str) -> Value {
    json!([binding("*", "gpts", Some(&format!("team_id=eq.{team}")))])
}

async fn say(database: &TestDatabase, session: &str, content: &str) {
    database
        .execute(&format!(
            "insert into chat_messages (session_id, sender, content) values ('{session}', 'gpt', '{content}')"
        ))
        .await;
}

#[tokio::test]
async fn a_member_may_subscribe_to_the_own_session_and_team() {
    let database = watched("gptdesk", &["public.gpts"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let own = a.subscribe("a1", session(A1)).await;
    let of_team = a.subscribe("team a", team(TEAM_A)).await;
    assert_eq!(a.refused("b1", session(B1)).await, unauthorized("b1"));

    say(&database, B1, "not for a").await;
    say(&database, A1, "for a").await;
    let change = a.change(&own).await;
    assert_eq!(change["record"]["content"], "for a");
    // An enum is its label.
    assert_eq!(change["record"]["sender"], "gpt");
    database
        .execute("update gpts set rating = 4.50, tags = '{x,\"y z\"}' where name = 'Helper of A'")
        .await;
    let change = a.change(&of_team).await;
    assert_eq!(change["type"], "UPDATE");
    assert_eq!(change["record"]["tags"], json!(["x", "y z"]));
    assert_eq!(change["old_record"]["tags"], json!([]));
    assert_eq!(a.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_super_admin_may_subscribe_to_every_session_and_team() {
    let database = watched("gptdesk", &["public.gpts"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut admin = Client::v2(&gateway, &authenticated(SUPER)).await;
    for (name, id) in [("a1", A1), ("b1", B1)] {
        let channel = admin.subscribe(name, session(id)).await;
        say(&database, id, name).await;
        assert_eq!(admin.change(&channel).await["record"]["content"], name);
    }
    for (name, id) in [("team a", TEAM_A), ("team b", TEAM_B)] {
        let channel = admin.subscribe(name, team(id)).await;
        database
            .execute(&format!(
                "update gpts set usage_count = usage_count + 1 where team_id = '{id}'"
            ))
            .await;
        assert_eq!(admin.change(&channel).await["record"]["team_id"], id);
    }
    assert_eq!(admin.until_heartbeat().await, []);
}

#[tokio::test]
async fn another_teams_gpt_reaches_a_member_while_it_is_public_and_where_the_filter_matches() {
    let database = watched("gptdesk", &["public.gpts"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let of_a = a.subscribe("team a", team(TEAM_A)).await;
    let of_b = a.subscribe("team b", team(TEAM_B)).await;
    let all = a
        .subscribe("all", json!([binding("*", "gpts", None)]))
        .await;

    let set = |change: &str| format!("update gpts set {change} where id = '{GPT_B}'");
    database.execute(&set("name = 'private before'")).await;
    database
        .execute(&set("is_public = true, name = 'public'"))
        .await;
    database.execute(&set("name = 'still public'")).await;
    database
        .execute(&set("is_public = false, name = 'private again'"))
        .await;
    database
        .execute(&format!(
            "insert into gpts (name, team_id) values ('new and private', '{TEAM_B}')"
        ))
        .await;
    database
        .execute("delete from gpts where name in ('new and private', 'private again')")
        .await;
    database
        .execute(&format!(
            "insert into gpts (name, team_id, is_public) values ('end', '{TEAM_B}', true), ('end', '{TEAM_A}', false)"
        ))
        .await;

    let names = |changes: Vec<Value>| {
        changes
            .iter()
            .map(|change| change["record"]["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(a.changes_until(&of_a, "name", "end").await),
        Vec::<Value>::new()
    );
    assert_eq!(
        names(a.changes_until(&of_b, "name", "end").await),
        ["public", "still public"]
    );
    assert_eq!(
        names(a.changes_until(&all, "name", "end").await),
        ["public", "still public"]
    );
}
