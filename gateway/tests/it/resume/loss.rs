//! What is being delivered in the moment of a subscription, and what comes after changes were lost.

use std::time::Duration;

use super::*;
use crate::support::{Incoming, TestDatabase, TestGateway, token::token};

/// While the verdicts on a batch are awaited, somebody comes back whom nobody has asked about.
#[tokio::test]
async fn who_comes_while_a_batch_is_judged_gets_all_of_it() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table notes (id int primary key, room text, body text);
             alter table notes enable row level security;
             grant select on notes to authenticated;
             -- Whoever is asked about waits while the test holds the lock.
             create function slow(body text) returns boolean language plpgsql as $$
             begin
               perform pg_advisory_xact_lock(77);
               return true;
             end $$;
             create policy p on notes for select to authenticated using (slow(body));
             select tidings.watch('notes')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let member = |sub: &str| token(json!({"role": "authenticated", "sub": sub}));
    let binding = |more: Value| {
        let mut binding =
            json!({"event": "*", "schema": "public", "table": "notes", "filter": "room=eq.a"});
        binding
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("keys").clone());
        json!([binding])
    };
    let mut early = Client::v2(&gateway, &member("early")).await;
    let (early_channel, _, cursor) = join(&mut early, "a", binding(json!({"cursor": true}))).await;

    let holder = database.connect().await;
    holder
        .batch_execute("begin; select pg_advisory_xact_lock(77)")
        .await
        .expect("the lock");
    database
        .execute("insert into notes select n, 'a', 'x' from generate_series(1, 200) n")
        .await;
    wait_for("the question", || async {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'";
        match &*database.text(waiting).await {
            "0" => Err("nobody waits"),
            _ => Ok(()),
        }
    })
    .await;

    // Two that come now: the one from before, the other from now on.
    let release = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        holder.batch_execute("commit").await.expect("the end");
    };
    let mut late = Client::v2(&gateway, &member("late")).await;
    let (since, ()) = tokio::join!(
        join(&mut late, "a", binding(json!({"since": cursor}))),
        release
    );
    let (late_channel, mut got, _) = since;
    while got.len() < 200 {
        got.push(late.change(&late_channel).await);
    }
    let ids = |changes: &[Value]| -> Vec<i64> {
        changes
            .iter()
            .map(|change| change["record"]["id"].as_i64().expect("an id"))
            .collect()
    };
    let expected: Vec<i64> = (1..=200).collect();
    assert_eq!(ids(&got), expected);
    let mut live = Vec::new();
    while live.len() < 200 {
        live.push(early.change(&early_channel).await);
    }
    assert_eq!(ids(&live), expected);
}

/// A client that is told to come back because changes were lost must not be given a cursor that hides the loss.
#[tokio::test]
async fn nothing_follows_a_loss_on_the_same_socket() {
    let (database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let binding = messages(A1, json!({"cursor": true}));
    let (_, _, cursor) = join(&mut client, "a", json!([binding])).await;
    // The database becomes another one while the feed is away.
    database
        .execute(
            "update tidings.installation set id = gen_random_uuid(), stamp = pg_current_xact_id();
             select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'tidings'",
        )
        .await;
    for _ in 0..20 {
        say(&database, A1, "after").await;
    }
    let mut changes = 0;
    let code = loop {
        match client.next().await {
            Incoming::Closed(code) => break code,
            Incoming::Message(message) if message.event == "postgres_changes" => changes += 1,
            _ => {}
        }
    };
    assert_eq!((code, changes), (Some(1012), 0));
    let mut client = ada(&gateway).await;
    let refused = client
        .refused("a", json!([messages(A1, json!({"since": cursor}))]))
        .await;
    assert!(refused.starts_with("cursor_foreign"), "{refused}");
}
