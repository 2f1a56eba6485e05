//! The unmodified Python package `realtime` drives the gateway. The scenarios and their assertions are in
//! `tests/sdk/python/scenarios`.

use crate::driver::{drive, host::Host, install};

async fn scenario(name: &str) {
    let mut host = Host::with_gateway().await;
    let mut python = install::python(name).await;
    python.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    drive(python, &mut host).await;
}

#[tokio::test]
async fn the_chat_hook() {
    scenario("hook").await;
}

#[tokio::test]
async fn presence() {
    scenario("presence").await;
}

#[tokio::test]
async fn broadcast() {
    scenario("broadcast").await;
}

#[tokio::test]
async fn tokens_are_replaced_and_expire() {
    scenario("token").await;
}

#[tokio::test]
async fn a_client_comes_back_by_itself() {
    scenario("reconnect").await;
}
