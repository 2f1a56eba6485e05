//! A standby takes over that lacks the end of what its primary had written.

use super::*;
use crate::faults::failover::caught_up;

/// A primary and a standby that has not followed it to the end, and a gateway that has read to the end.
async fn behind() -> (Server, Server, Scene) {
    let primary = Server::start().await;
    let standby = primary.standby(&[]).await;
    let mut scene = Scene::on(&primary).await;
    say(&primary, "kept").await;
    assert_eq!(scene.ada.next().await, "kept");
    caught_up(&primary, &standby).await;
    standby.set("primary_conninfo", "").await;
    wait_for("a standby that follows nobody", || async {
        let receivers = standby
            .text("(select count(*) from pg_stat_wal_receiver)")
            .await;
        (receivers == "0").then_some(()).ok_or(receivers)
    })
    .await;
    (primary, standby, scene)
}

/// The standby takes over, and messages get the numbers of the lost transactions.
async fn take_over(primary: &Server, standby: &Server, scene: &Scene) -> Vec<String> {
    primary.kill().await;
    standby.promote().await;
    let messages: Vec<String> = (0..5).map(|number| format!("after {number}")).collect();
    for message in &messages {
        say(standby, message).await;
    }
    scene.lead_to(standby);
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_what_was_delivered_is_a_loss() {
    let (primary, standby, mut scene) = behind().await;
    let kept = scene.ada.cursor.clone();
    say(&primary, "lost").await;
    assert_eq!(scene.ada.next().await, "lost");
    let newest = scene.ada.cursor.clone();
    let after = take_over(&primary, &standby, &scene).await;
    scene.is_loud("rewound").await;
    let missed = scene.comes_back(&standby, &newest).await;
    assert_eq!(missed, Err("cursor_foreign".to_owned()));
    // Nothing that this one covers was lost: it may be good, and then it is exact.
    match scene.comes_back(&standby, &kept).await {
        Ok(missed) => assert_eq!(missed[..after.len()], after),
        Err(refused) => assert_eq!(refused, "cursor_foreign"),
    }
    scene.goes_on(&standby).await;
}

/// Here the log of changes lacks nothing. And yet what comes next has numbers that the gateway believes to have seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_what_nobody_was_told_of_hides_nothing() {
    let (primary, standby, mut scene) = behind().await;
    for number in 0..20 {
        let other = format!("insert into truth values (9, {number}, '{A1}')");
        primary.run(&other).await;
    }
    scene.has_read(&primary).await;
    let after = take_over(&primary, &standby, &scene).await;
    say(&standby, "last").await;
    if let Some(messages) = scene.arrives_or_is_loud("last").await {
        assert_eq!(messages, after);
    }
    scene.goes_on(&standby).await;
}
