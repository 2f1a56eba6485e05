//! The module of `clients/python` with the unmodified package `realtime` against the gateway, for the newest version and the
//! oldest that it works with. The scenarios and their assertions are in `clients/python/test`.

use futures::{FutureExt, future::join_all};

use crate::driver::{drive, host::Host, install};

/// None is the one that the other tests have.
const VERSIONS: [Option<&str>; 2] = [None, Some("2.28")];

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
    join_all(VERSIONS.map(|version| scenario("resume", version).boxed())).await;
}

#[tokio::test]
async fn reads_anew_when_a_cursor_is_refused() {
    join_all(VERSIONS.map(|version| scenario("refused", version).boxed())).await;
}

#[tokio::test]
async fn versions_that_work_in_another_way_are_refused() {
    scenario("unknown", None).await;
}
