//! Whoever uses a slot keeps it from being emptied, and nobody waits for that.

use std::time::{Duration, Instant};

use super::*;

/// The machine may be busy: of so many tries one must be quick. A wait that is built in is in all of them.
const TRIES: usize = 4;
const QUICK: Duration = Duration::from_millis(300);

/// While somebody uses an old slot in this way, there are attempts to empty it.
async fn nobody_waits_for(usage: &str) {
    let database = logged().await;
    for ahead in 4..8 {
        write_into(&database.client, ahead).await;
    }
    let slot = database
        .text("select (tidings.slot_at(clock_timestamp()) + 4) % 10")
        .await;
    pass(&database, "400 days").await;
    let user = database.connect().await;
    let usage = usage.replace("$slot", &slot);
    user.batch_execute(&format!("begin; {usage}"))
        .await
        .expect("a user");

    let (trimmer, writer, reader) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    let since = database.text("select pg_current_snapshot()").await;
    let read = format!("select count(*) from tidings.read('{since}')");
    let mut slowest = Vec::new();
    for _ in 0..TRIES {
        let begun = Instant::now();
        let trimming = async {
            // More often than there are slots: each has been tried.
            for _ in 0..3 {
                trim(&trimmer).await;
            }
            begun.elapsed() / 3
        };
        let writing = timed(&writer, "insert into notes (body) values ('new')");
        let reading = timed(&reader, &read);
        let (trimming, writing, reading) = tokio::join!(trimming, writing, reading);
        slowest.push(trimming.max(writing).max(reading));
    }
    let best = slowest.iter().min().expect("tries");
    assert!(*best < QUICK, "{usage}: {slowest:?}");

    user.batch_execute("rollback").await.expect("the end");
    trim_all(&database.client).await;
    let left =
        "select count(*) from tidings.changes where new_record ->> 'body' <> 'new' and op = 'I'";
    assert_eq!(database.text(left).await, "0");
}

/// The slowest of some that follow each other.
async fn timed(client: &Client, statement: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let begun = Instant::now();
        client.batch_execute(statement).await.expect("a statement");
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

#[tokio::test]
async fn a_writer() {
    nobody_waits_for("insert into tidings.changes (watch_id, slot, op) values (1, $slot, 'I')")
        .await;
}

#[tokio::test]
async fn a_reader() {
    nobody_waits_for("select count(*) from tidings.changes").await;
}

/// As pg_dump does, on every table that it finds.
#[tokio::test]
async fn a_dump() {
    nobody_waits_for("lock table tidings.changes in access share mode").await;
}

#[tokio::test]
async fn a_vacuum() {
    nobody_waits_for("lock table tidings.changes in share update exclusive mode").await;
}

/// What is in use is left, and what is not in use does not wait for that.
#[tokio::test]
async fn one_slot_in_use_does_not_keep_the_others() {
    let database = logged().await;
    for ahead in 2..10 {
        write_into(&database.client, ahead).await;
    }
    pass(&database, "400 days").await;
    let writer = database.connect().await;
    writer
        .batch_execute(
            "begin;
             insert into tidings.changes (watch_id, slot, op)
             values (1, (tidings.slot_at(clock_timestamp()) + 5) % 10, 'I')",
        )
        .await
        .expect("a writer");
    trim_beside(&database.client, 7).await;
    assert_eq!(kept(&database).await, "5");
}

/// Under the lock, every reader of the log would wait for a scan, and a slot may have a hundred gigabytes.
#[tokio::test]
async fn no_slot_is_scanned() {
    let database = logged().await;
    database
        .execute(
            "insert into tidings.changes (watch_id, slot, op)
             select 1, (tidings.slot_at(clock_timestamp()) + 2 + n % 8) % 10, 'I' from generate_series(1, 40000) n",
        )
        .await;
    pass(&database, "400 days").await;
    for statistics in ["", "analyze tidings.changes;"] {
        let scanned = database.connect().await;
        scanned
            .batch_execute(&format!(
                "{statistics} begin; select tidings.trim_changes(); select tidings.log_state()"
            ))
            .await
            .expect("a slot is emptied");
        let rows = "select coalesce(sum(seq_tup_read), 0)::bigint, (select count(*) from tidings.changes where op = 'I')
                      from pg_stat_xact_all_tables where schemaname = 'tidings' and relname like 'changes%'";
        let row = scanned.query_one(rows, &[]).await.expect("statistics");
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 35_000));
    }
}
