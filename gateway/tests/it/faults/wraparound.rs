//! Transaction numbers have 32 bits almost everywhere in PostgreSQL, and begin again after four thousand million.

use super::{server::Server, stand::Stand};

const ROUND: u64 = 1 << 32;
/// A number must not be this far after the oldest that is in use.
const STEP: u64 = 2_000_000_000;

/// Moves the next transaction to this number, in steps that PostgreSQL allows.
async fn move_to(server: &Server, number: u64) {
    let mut next = 0;
    while next < number {
        next = number.min(next + STEP - 1_000_000);
        server.stop().await;
        let moved = server
            .with(move |cluster| cluster.set_next_transaction(next))
            .await;
        moved.expect("the numbers are moved");
        server.start_again().await;
        server.freeze().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_transaction_numbers_begin_again() {
    let server = Server::start_with(&[("autovacuum", "off")]).await;
    let has_tool =
        |cluster: &mut devpg::Cluster| cluster.installation().program("pg_resetwal").is_some();
    if !server.with(has_tool).await {
        eprintln!("left out: this PostgreSQL comes without pg_resetwal");
        return;
    }
    move_to(&server, ROUND - 400).await;
    let mut stand = Stand::on(&server).await;
    let open = server.session().await;
    let late = super::stand::said(7, 1, crate::support::chat::A1);
    open.batch_execute(&format!("begin; {late}"))
        .await
        .expect("a message");
    let before: u64 = server
        .text("pg_snapshot_xmax(pg_current_snapshot())")
        .await
        .parse()
        .expect("a number");
    assert!(
        before < ROUND,
        "{before}: the writers were faster than the gateway"
    );
    stand.mark().await;
    while server
        .text("pg_snapshot_xmax(pg_current_snapshot())")
        .await
        .parse::<u64>()
        .expect("a number")
        < ROUND + 200
    {
        stand.written(50).await;
    }
    stand.mark().await;
    // Begun before the numbers began again.
    open.batch_execute("commit").await.expect("a commit");
    // A restart on the other side, and a crash.
    server.stop().await;
    server.start_again().await;
    stand.mark().await;
    stand.written(100).await;
    server.kill().await;
    server.start_again().await;
    stand.mark().await;
    stand.finish().await;
}
