//! Unmodified supabase-js: `httpSend()`, and `send()` on a channel that has not joined.

use crate::driver::{drive, host::Host, install};

#[tokio::test]
async fn supabase_js_sends_over_http() {
    let mut host = Host::with_gateway().await;
    let mut node = install::node("http_broadcast").await;
    node.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    drive(node, &mut host).await;
}
