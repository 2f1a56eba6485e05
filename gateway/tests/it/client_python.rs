//! The module of `clients/python` with the unmodified package `realtime` against the gateway, for the newest version and the
//! oldest that it works with. The scenarios and their assertions are in `clients/python/test`.

use crate::driver::{drive, host::Host, install};

const OLDEST: Option<&str> = Some("2.28");

async fn scenario(name: &str, older: Option<&str>) {
    let mut host = Host::with_process(&[]).await;
    let mut python = install::client_python(name, older).await;
    python.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    drive(python, &mut host).await;
}

#[tokio::test]
async fn resumes() {
    scenario("resume", None).await;
}

#[tokio::test]
async fn resumes_on_the_oldest_version() {
    scenario("resume", OLDEST).await;
}

#[tokio::test]
async fn reads_anew_when_a_cursor_is_refused() {
    scenario("refused", None).await;
}

#[tokio::test]
async fn reads_anew_on_the_oldest_version() {
    scenario("refused", OLDEST).await;
}

#[tokio::test]
async fn versions_that_work_in_another_way_are_refused() {
    scenario("unknown", None).await;
}
