//! The unmodified Python package `realtime` drives the gateway: the newest, and the last before its versions became those of
//! supabase-py. The scenarios and their assertions are in `tests/sdk/python/scenarios`.

use crate::driver::{drive, host::Host, install, recorder};

async fn scenarios(older: Option<&str>, names: &[&str]) {
    let mut host = Host::with_gateway().await;
    let mut python = install::python(older, &[&["driver.py"], names].concat()).await;
    python.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    drive(python, &mut host).await;
}

#[tokio::test]
async fn the_chat_hook() {
    scenarios(None, &["hook"]).await;
}

#[tokio::test]
async fn presence() {
    scenarios(None, &["presence"]).await;
}

#[tokio::test]
async fn broadcast() {
    scenarios(None, &["broadcast"]).await;
}

#[tokio::test]
async fn tokens_are_replaced_and_expire() {
    scenarios(None, &["token"]).await;
}

#[tokio::test]
async fn a_client_comes_back_by_itself() {
    scenarios(None, &["reconnect"]).await;
}

#[tokio::test]
async fn what_is_synchronous_refuses_by_itself() {
    scenarios(None, &["sync"]).await;
}

/// All in one process: most of the time of one scenario is that of its gateway and its database.
#[tokio::test]
async fn line_2_7() {
    let all = [
        "hook",
        "presence",
        "broadcast",
        "token",
        "reconnect",
        "sync",
    ];
    scenarios(Some("2.7"), &all).await;
}

/// One gateway for both: each comes alone.
#[tokio::test]
async fn the_tour_with_each_line() {
    let mut host = Host::with_gateway().await;
    for (line, older) in [("2.34", None), ("2.7", Some("2.7"))] {
        let python = install::python(older, &["driver.py", "tour"]).await;
        let name = format!("realtime-py-{line}/serializer-1");
        recorder::tour(python, &mut host, &name).await;
    }
}
