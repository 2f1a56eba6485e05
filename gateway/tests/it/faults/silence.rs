//! The network between the gateway and PostgreSQL goes silent without closing anything: a router that has forgotten its
//! connections, a virtual machine that is gone.

use std::time::Duration;

use faultproxy::{Flow, Proxy, Way};

use super::{
    server::{Server, gateway_url},
    stand::Stand,
};
use crate::support::{
    Client,
    chat::{A1, ADA, messages_of},
    token::authenticated,
};

/// From the silence to the arrival of what is committed then: the feed waits 15 s for an answer, and whoever judges rows 10 s.
const BOUND: Duration = Duration::from_secs(28);

/// Connections that exist die in silence; new ones find their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_network_forgets_connections() {
    let server = Server::start().await;
    let silent = Proxy::start(server.address()).await.expect("a proxy");
    let proxy = Proxy::start(silent.address()).await.expect("a proxy");
    let mut stand = Stand::start(&server, &gateway_url(proxy.address()), &[]).await;
    proxy.lead_to(server.address());
    silent.set(Way::Both, Flow::Swallowed);
    let took = stand.mark().await;
    assert!(took < BOUND, "{took:?}");
    stand.until_ready().await;
    // Nobody has to wait for connections that are given up one after the other.
    for _ in 0..10 {
        let mut late = Client::v2(&stand.gateway, &authenticated(ADA)).await;
        late.subscribe("a1", messages_of("INSERT", A1)).await;
    }
    stand.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_network_is_away_for_a_while() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.address()).await.expect("a proxy");
    let mut stand = Stand::start(&server, &gateway_url(proxy.address()), &[]).await;
    for flow in [Flow::Hung, Flow::Swallowed] {
        proxy.set(Way::Both, flow);
        stand.written(100).await;
        let problems = stand.until_not_ready().await;
        assert!(problems.contains("database"), "{problems}");
        proxy.mend();
        stand.mark().await;
        stand.until_ready().await;
    }
    stand.finish().await;
}
