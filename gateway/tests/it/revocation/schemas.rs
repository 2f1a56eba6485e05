//! What the five schemas say of access that ends.

use serde_json::{Value, json};

use super::{ended, to_bob};
use crate::support::{
    Client, TestDatabase, TestGateway, binding,
    chat::{A1, ADA, BOB, chat, messages_of, say},
    token::authenticated,
    wait::wait_for,
};

const A: &str = "10000000-0000-4000-8000-00000000000a";

async fn watched(schema: &str, table: &str) -> TestDatabase {
    let database = TestDatabase::new(Some(schema)).await;
    database
        .execute(&format!("select tidings.watch('public.{table}')"))
        .await;
    database
}

fn of(table: &str, column: &str, value: &str) -> Value {
    json!([binding("*", table, Some(&format!("{column}=eq.{value}")))])
}

#[tokio::test]
async fn a_session_that_changes_hands_ends_the_old_owners_subscription_and_nothing_else() {
    let (database, gateway) = chat().await;
    let second = "00000000-0000-4000-8000-0000000000a2";
    database
        .execute(&format!(
            "insert into chat_sessions (id, user_id) values ('{second}', '{ADA}')"
        ))
        .await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let mut bob = Client::v1(&gateway, &authenticated(BOB)).await;
    let moved = ada.subscribe("a1", messages_of("*", A1)).await;
    let kept = ada.subscribe("a2", messages_of("*", second)).await;
    let chatter = ada
        .joined("chatter", json!({"presence": {"enabled": false}}))
        .await;

    to_bob(&database, A1).await;
    assert_eq!(ended(&mut ada, &moved).await, Vec::<Value>::new());
    let of_bob = bob.subscribe("a1", messages_of("*", A1)).await;
    say(&database, A1, "for bob").await;
    say(&database, second, "for ada").await;
    assert_eq!(bob.change(&of_bob).await["record"]["content"], "for bob");
    assert_eq!(ada.change(&kept).await["record"]["content"], "for ada");
    // The socket and its other channels have gone on all the time.
    ada.push(
        &chatter,
        "broadcast",
        json!({"type": "broadcast", "event": "e", "payload": {}}),
    )
    .await;
    assert_eq!(ada.until_heartbeat().await, []);
    ada.refused("a1", messages_of("*", A1)).await;
}

#[tokio::test]
async fn unlinking_a_user_from_a_login_ends_what_the_login_may_see() {
    let database = watched("archety", "messages").await;
    let gateway = TestGateway::start(&database).await;
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let conversation = "30000000-0000-4000-8000-00000000000c";
    let link = |to: &str| {
        format!(
            "update users set supabase_user_id = {to} where id = '20000000-0000-4000-8000-00000000000c'"
        )
    };
    for _ in 0..3 {
        let bindings = of("messages", "conversation_id", conversation);
        a.refused("c", bindings.clone()).await;
        database.execute(&link(&format!("'{A}'"))).await;
        let channel = a.subscribe("c", bindings).await;
        database.execute(&link("null")).await;
        database
            .execute(&format!(
                "insert into messages (conversation_id, direction, body) values ('{conversation}', 'inbound', 'too late')"
            ))
            .await;
        assert_eq!(ended(&mut a, &channel).await, Vec::<Value>::new());
    }
    // The conversation itself may go, too.
    let own = "30000000-0000-4000-8000-00000000000a";
    let channel = a
        .subscribe("own", of("messages", "conversation_id", own))
        .await;
    database
        .execute(&format!("delete from conversations where id = '{own}'"))
        .await;
    assert_eq!(ended(&mut a, &channel).await, Vec::<Value>::new());
}

#[tokio::test]
async fn what_functions_hide_is_noticed_within_the_recheck_interval() {
    let database = watched("gptdesk", "gpts").await;
    let gateway = TestGateway::start_with(&database, &[("recheck_interval", "1s")]).await;
    let demoted = "10000000-0000-4000-8000-0000000000ff";
    let session = "00000000-0000-4000-8000-0000000000b1";
    let mut admin = Client::v2(&gateway, &authenticated(demoted)).await;
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let chat = admin
        .subscribe("b1", of("chat_messages", "session_id", session))
        .await;
    let gpts = json!([binding("*", "gpts", None)]);
    let of_admin = admin.subscribe("gpts", gpts.clone()).await;
    let of_a = a.subscribe("gpts", gpts).await;
    let touch =
        |name: &str| format!("update gpts set usage_count = usage_count + 1 where name = '{name}'");
    for name in ["Helper of A", "Helper of B"] {
        database.execute(&touch(name)).await;
        assert_eq!(admin.change(&of_admin).await["record"]["name"], name);
    }
    assert_eq!(a.change(&of_a).await["record"]["name"], "Helper of A");

    database
        .execute(&format!(
            "update users set role = 'user' where id = '{demoted}';
             update users set team_id = '50000000-0000-4000-8000-00000000000b' where id = '{A}'"
        ))
        .await;
    // Rows that are judged one by one are judged by what holds now.
    for name in ["Helper of A", "Helper of B"] {
        database.execute(&touch(name)).await;
    }
    assert_eq!(a.change(&of_a).await["record"]["name"], "Helper of B");
    let began = tokio::time::Instant::now();
    ended(&mut admin, &chat).await;
    let took = began.elapsed();
    assert!(took.as_secs() < 4, "ended only after {took:?}");
    let seen: Vec<_> = admin
        .until_heartbeat()
        .await
        .into_iter()
        .filter(|incoming| format!("{incoming:?}").contains("postgres_changes"))
        .collect();
    assert_eq!(seen, []);
}

#[tokio::test]
async fn a_busy_chat_that_touches_its_conversation_makes_nobody_be_asked_again() {
    let database = watched("wbot", "messages").await;
    let gateway = TestGateway::start(&database).await;
    let conversation = "70000000-0000-4000-8000-00000000000a";
    let mut a = Client::v2(&gateway, &authenticated(A)).await;
    let channel = a
        .subscribe("a", of("messages", "conversation_id", conversation))
        .await;
    // Re-checks start with a control row in the log.
    let control = "select count(*) from tidings.changes where op = 'C' and watch_id <> 0";
    // The triggers are made when a gateway reads the catalog.
    let followed =
        "select string_agg(relation || ' ' || columns::text, ', ') from tidings.depended";
    wait_for("the dependency triggers", || async {
        match &*database.text(followed).await {
            "conversations {id,user_id}" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let before = database.text(control).await;
    let touched = "select updated_at from conversations where title = 'Breathing'";
    let touched_before = database.text(touched).await;
    for number in 0..20 {
        database
            .execute(&format!(
                "insert into messages (conversation_id, role, content) values ('{conversation}', 'user', '{number}')"
            ))
            .await;
        assert_eq!(
            a.change(&channel).await["record"]["content"],
            number.to_string()
        );
    }
    assert_ne!(database.text(touched).await, touched_before);
    // A new conversation and a new title take nothing away from anybody either.
    database
        .execute(&format!(
            "update conversations set title = 'Breathe'; insert into conversations (user_id) values ('{A}')"
        ))
        .await;
    assert_eq!(database.text(control).await, before);

    let other = "10000000-0000-4000-8000-00000000000b";
    database
        .execute(&format!(
            "update conversations set user_id = '{other}' where id = '{conversation}'"
        ))
        .await;
    assert_ne!(database.text(control).await, before);
    ended(&mut a, &channel).await;
}
