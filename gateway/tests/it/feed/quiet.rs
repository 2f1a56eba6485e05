//! The doorbell falls silent under load and rings again after it, and nobody is late for that: hand-overs while commits are
//! under way, locks and connections and gateways that go at the wrong moment.
//!
//! The safety poll is off in these tests. Whoever misses a ring is late by a minute, and nothing else rings meanwhile.

mod stand;

use std::time::Duration;

use rand::{RngExt, seq::SliceRandom};

use self::stand::{Ear, Listener, Stand};
use crate::support::{process::GatewayProcess, wait::wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_many_hand_overs_every_change_comes_once_and_in_time() {
    let stand = Stand::start().await;
    let gateway = stand.gateway(&[]).await;
    let listener = Listener::at(gateway.address).await;
    stand.ringing().await;
    let mut left_over = Vec::new();
    for round in 0..4 {
        let burst = stand.burst().await;
        stand.silent(true).await;
        // These have passed by the bell. Some are committed before it is back, some after, and some under the next silence.
        let mut held = Vec::new();
        for _ in 0..12 {
            held.push(stand.hold().await);
        }
        burst.stop().await;
        held.append(&mut left_over);
        held.shuffle(&mut rand::rng());
        if round % 2 == 0 {
            left_over = held.split_off(10);
        }
        let after = held.split_off(4);
        for held in held {
            held.commit().await;
        }
        stand.silent(false).await;
        for held in after {
            let pause = rand::rng().random_range(0..50);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            held.commit().await;
        }
        // No other ring helps those that are late.
        stand.arrived(&listener).await;
    }
    for held in left_over {
        held.commit().await;
    }
    stand.arrived(&listener).await;
    stand.ringing().await;
    stand.say().await;
    let slowest = stand.arrived(&listener).await;
    println!("the slowest came {slowest:?} after its commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_passed_by_the_bell_is_waited_for_however_long_it_takes() {
    let stand = Stand::start().await;
    let gateway = stand.gateway(&[]).await;
    let listener = Listener::at(gateway.address).await;
    let burst = stand.burst().await;
    stand.silent(true).await;
    burst.stop().await;
    // Nobody has a higher number: the `xmax` of any snapshot is its own.
    let held = stand.hold().await;
    stand.silent(false).await;
    stand.arrived(&listener).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    held.commit().await;
    stand.arrived(&listener).await;

    // Then there is nobody left to wait for.
    stand.ringing().await;
    let ear = Ear::on(&stand.database).await;
    stand.say().await;
    stand.arrived(&listener).await;
    wait_for("a ring", || async {
        match ear.rings() {
            0 => Err("silence"),
            _ => Ok(()),
        }
    })
    .await;
}

/// The lock is asked for, and cannot be had while somebody runs who has rung. Nobody else rings meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_lock_is_waited_for_nobody_is_late() {
    let stand = Stand::start().await;
    let gateway = stand.gateway(&[]).await;
    let listener = Listener::at(gateway.address).await;
    stand.ringing().await;
    let has_rung = stand.hold().await;
    let burst = stand.burst().await;
    wait_for("a lock that is waited for", || async {
        match &*stand.silencing("not granted").await {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stand.say().await;
    }
    stand.arrived(&listener).await;
    assert_eq!(stand.silencing("granted").await, "0");
    has_rung.commit().await;
    stand.silent(true).await;
    burst.stop().await;
    stand.silent(false).await;
    stand.arrived(&listener).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_lost_is_the_end_of_a_silence_and_comes_back_under_load() {
    let stand = Stand::start().await;
    let gateway = stand.gateway(&[]).await;
    let listener = Listener::at(gateway.address).await;
    let burst = stand.burst().await;
    for _ in 0..2 {
        stand.silent(true).await;
        stand
            .terminate("objid = 1 and mode = 'ExclusiveLock'")
            .await;
        stand.silent(false).await;
    }
    stand.silent(true).await;
    let held = stand.hold().await;
    burst.stop().await;
    stand
        .terminate("objid = 1 and mode = 'ExclusiveLock'")
        .await;
    stand.arrived(&listener).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    held.commit().await;
    stand.arrived(&listener).await;
    stand.ringing().await;
    stand.say().await;
    stand.arrived(&listener).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_loses_its_connection_in_silence_waits_for_those_who_do_not_ring() {
    let stand = Stand::start().await;
    let gateway = stand.gateway(&[]).await;
    let listener = Listener::at(gateway.address).await;
    let burst = stand.burst().await;
    stand.silent(true).await;
    let held = [stand.hold().await, stand.hold().await];
    burst.stop().await;
    stand.terminate("objid = 3").await;
    // It takes its lock with it.
    stand.silent(false).await;
    for held in held {
        stand.arrived(&listener).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        held.commit().await;
    }
    stand.arrived(&listener).await;
    stand.ringing().await;
    stand.say().await;
    stand.arrived(&listener).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_ends_the_silence_and_hears_what_was_begun_in_it() {
    let stand = Stand::start().await;
    let first = stand.gateway(&[]).await;
    let listener = Listener::at(first.address).await;
    let burst = stand.burst().await;
    stand.silent(true).await;

    let held = [stand.hold().await, stand.hold().await];
    let second = stand.gateway(&[]).await;
    let other = Listener::at(second.address).await;
    stand.silent(false).await;
    // Not even under load.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stand.silencing("true").await, "0");
    burst.stop().await;
    for held in held {
        stand.arrived(&listener).await;
        stand.arrived(&other).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        held.commit().await;
    }
    stand.arrived(&listener).await;
    stand.arrived(&other).await;
    stand.ringing().await;
    stand.say().await;
    stand.arrived(&listener).await;
    stand.arrived(&other).await;

    // Alone again, it may be silent again.
    drop(other);
    second.stop().await;
    let burst = stand.burst().await;
    stand.silent(true).await;
    burst.stop().await;
    stand.arrived(&listener).await;
}

/// Of another gateway, or of one that is gone and does not know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_silence_of_somebody_else_the_log_is_polled() {
    let stand = Stand::start().await;
    let other = stand.database.connect().await;
    let execute = async |statement| other.batch_execute(statement).await.expect("the lock");
    execute("select pg_advisory_lock(1953064037, 1)").await;
    let gateway = stand.gateway(&[]).await;
    let listener = Listener::at(gateway.address).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stand.say().await;
    }
    stand.arrived(&listener).await;
    let held = stand.hold().await;
    execute("select pg_advisory_unlock(1953064037, 1)").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    held.commit().await;
    stand.arrived(&listener).await;

    // One that began when it had looked already. It is told when that is over.
    stand.ringing().await;
    execute("select pg_advisory_lock(1953064037, 1)").await;
    stand.say().await;
    let held = stand.hold().await;
    execute("select pg_advisory_unlock(1953064037, 1); notify tidings, 'silence over'").await;
    stand.arrived(&listener).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    held.commit().await;
    stand.arrived(&listener).await;
    stand.ringing().await;
}

/// Killed while it holds the lock, and while it waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_in_silence_leaves_the_bell_to_the_next_one() {
    let stand = Stand::start().await;
    let environment = stand.environment();
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    for granted in [true, false] {
        let process = GatewayProcess::start(&environment).await;
        let has_rung = match granted {
            true => None,
            false => Some(stand.hold().await),
        };
        let burst = stand.burst().await;
        let state = if granted { "granted" } else { "not granted" };
        wait_for("a silence", || async {
            match &*stand.silencing(state).await {
                "1" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        if granted {
            assert_eq!(process.metric("tidings_doorbell_quiet").await, 1.0);
        }
        let held = [stand.hold().await, stand.hold().await];
        process.signal("KILL").await;
        burst.stop().await;

        let next = stand.gateway(&[]).await;
        let listener = Listener::at(next.address).await;
        wait_for("the end of the silence", || async {
            match &*stand.silencing("true").await {
                "0" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        for held in held.into_iter().chain(has_rung) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            held.commit().await;
            stand.arrived(&listener).await;
        }
        stand.ringing().await;
        stand.say().await;
        stand.arrived(&listener).await;
        drop(listener);
        next.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doorbell_that_is_on_and_one_that_cannot_be_silenced_go_on_ringing() {
    let stand = Stand::start().await;
    for doorbell in ["on", "auto"] {
        let gateway = stand.gateway(&[("doorbell", doorbell)]).await;
        let listener = Listener::at(gateway.address).await;
        stand.ringing().await;
        if doorbell == "auto" {
            // No more connections for the gateway's login.
            stand
                .database
                .execute("alter role tidings_server connection limit 1")
                .await;
        }
        let ear = Ear::on(&stand.database).await;
        let burst = stand.burst().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(stand.silencing("true").await, "0");
        burst.stop().await;
        assert!(ear.rings() > 10, "{} rings", ear.rings());
        stand.arrived(&listener).await;
        stand.ringing().await;
        stand.say().await;
        stand.arrived(&listener).await;
        drop(listener);
        gateway.stop().await;
    }
}
