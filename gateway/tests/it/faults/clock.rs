//! The clock of the database's machine is set: back, forward, and right again.
//!
//! PostgreSQL's own clock cannot be moved from here, so the log is given another one. What is ahead of a clock that is then set
//! right is the same as what was before one that jumps back.

use std::time::{Duration, Instant};

use super::{server::Server, stand::Stand};

/// As long as it takes to empty a slot, when the retention is short.
const WHILE_TRIMMING: Duration = Duration::from_secs(3);

/// What is written from now on carries this time.
async fn set_clock(server: &Server, ahead: &str) {
    let statement = format!(
        "alter table tidings.changes alter at set default clock_timestamp() + interval '{ahead}';
         create or replace function tidings.slot_at(at timestamptz) returns smallint language sql stable
           as $$ select ((extract(epoch from at + interval '{ahead}')::bigint / tidings.slot_seconds()) % 10)::smallint $$"
    );
    server.run(&statement).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_young_is_lost_when_the_clock_jumps() {
    let server = Server::start().await;
    // Nothing that is written here becomes so old.
    server.run("select tidings.set_retention('1 minute')").await;
    let mut stand = Stand::on(&server).await;
    // Not a whole number of turns of the ring.
    for ahead in ["-72:00:40", "0", "72:00:40", "-00:10:40", "0"] {
        set_clock(&server, ahead).await;
        stand.written(50).await;
    }
    let begun = Instant::now();
    while begun.elapsed() < WHILE_TRIMMING {
        stand.written(20).await;
        server.run("select tidings.trim_changes()").await;
    }
    stand.rest().await;
    let kept = server
        .text("(select count(*) from tidings.changes where op <> 'C')")
        .await;
    let written = server.text("(select count(*) from truth)").await;
    assert_eq!(kept, written, "changes that are seconds old were removed");
    stand.finish().await;
}
