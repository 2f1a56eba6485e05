//! Another server takes over: a standby that has everything, and one that lacks the last changes.

use faultproxy::{Cut, Proxy};

use super::{
    server::{Server, gateway_url},
    stand::Stand,
};
use crate::support::wait::wait_for;

/// Waits until the standby has what the primary has.
pub(super) async fn caught_up(primary: &Server, standby: &Server) {
    let written = primary.text("pg_current_wal_flush_lsn()").await;
    wait_for("the standby to catch up", || async {
        let question = format!("pg_last_wal_replay_lsn() >= '{written}'");
        match standby.text(&question).await.as_str() {
            "true" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// The primary is stopped in good order.
    Planned,
    /// It is gone, at a moment when nobody writes.
    Quiet,
    /// It is gone while many write.
    Busy,
}

async fn nothing_is_lost_when_a_standby_takes_over(end: End) {
    let primary = Server::start().await;
    let standby = primary.standby(&[]).await;
    // What is committed is on the standby, too: nothing is missing when it takes over.
    primary.set("synchronous_standby_names", "*").await;
    let proxy = Proxy::start(primary.address()).await.expect("a proxy");
    let mut stand = Stand::start(&primary, &gateway_url(proxy.address()), &[]).await;
    stand.written(200).await;
    match end {
        End::Planned => primary.stop().await,
        End::Quiet => {
            stand.rest().await;
            stand.mark().await;
            caught_up(&primary, &standby).await;
            primary.kill().await;
        }
        End::Busy => primary.kill().await,
    }
    proxy.lead_to(standby.address());
    proxy.cut(Cut::Reset);
    proxy.mend();
    if end == End::Quiet {
        // The standby answers. That is not yet the database that the feed is to follow, and it asks again.
        stand.has_reconnected(3).await;
    }
    standby.promote().await;
    stand.write_to(&standby);
    if end == End::Busy && stand.mark_unless_closed().await.is_none() {
        // While many write, a gateway cannot always know that the standby had come as far as itself. Then it says so.
        return stand.check_until_closed().await;
    }
    stand.mark().await;
    if end != End::Quiet {
        stand.written(200).await;
    }
    stand.until_ready().await;
    stand.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_standby_takes_over_as_planned() {
    Box::pin(nothing_is_lost_when_a_standby_takes_over(End::Planned)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_standby_takes_over_after_a_crash() {
    Box::pin(nothing_is_lost_when_a_standby_takes_over(End::Quiet)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_silence_when_a_standby_takes_over_while_many_write() {
    Box::pin(nothing_is_lost_when_a_standby_takes_over(End::Busy)).await;
}
