//! Clients from before 2022, which name a table in the topic of a join that has no `config`: supabase-js 1.x, and the Python
//! package `realtime` 1.0, the last one for programs without asyncio.

use tokio::process::Command;

use crate::driver::{drive, host::Host, install};

async fn run(mut driver: Command) {
    let mut host = Host::with_gateway().await;
    driver.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    drive(driver, &mut host).await;
}

#[tokio::test]
async fn supabase_js_1() {
    run(install::node_with("1.35", &["old_style"]).await).await;
}

#[tokio::test]
async fn realtime_py_1() {
    run(install::python(Some("1.0"), &["old_style.py"]).await).await;
}
