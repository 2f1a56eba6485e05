//! The log is kept short for as long as it runs: what has been kept for long enough goes, nothing else does, and nobody waits
//! for that.
//!
//! Time passes by the marks that the log has of it. With a retention of a year no slot's turn ends by itself during a test.

mod clock;
mod locks;
mod promises;
mod ring;

use std::time::Duration;

use tokio_postgres::Client;

use crate::support::TestDatabase;

/// A migrated database with a watched table, which keeps its log for a year.
async fn logged() -> TestDatabase {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table notes (id int generated always as identity, body text);
             select tidings.watch('notes');
             select tidings.set_retention('366 days');
             -- What has been noted until now is in a slot of another ring.
             truncate tidings.changes",
        )
        .await;
    database
}

/// Writes a change and moves it into the slot that is so far ahead of the one being written.
async fn write_into(client: &Client, ahead: i32) {
    let statements = format!(
        "insert into notes (body) values ('{ahead}');
         update tidings.changes set slot = (tidings.slot_at(clock_timestamp()) + {ahead}) % 10
          where new_record ->> 'body' = '{ahead}'"
    );
    client.batch_execute(&statements).await.expect("a change");
}

/// So much time passes, in which gateways look after the log.
async fn pass(database: &TestDatabase, time: &str) {
    let mark = "insert into tidings.log_marks (noted_at, seen) values (clock_timestamp(), pg_current_snapshot())";
    let statements = format!(
        "{mark}; update tidings.log_marks set noted_at = noted_at - interval '{time}'; {mark}"
    );
    database.execute(&statements).await;
}

async fn trim(client: &Client) -> i32 {
    let row = client.query_one("select tidings.trim_changes()", &[]).await;
    row.expect("an attempt to trim").get(0)
}

/// Trims until nothing is left to do; returns how many slots that emptied.
async fn trim_all(client: &Client) -> i32 {
    let (mut emptied, mut in_vain) = (0, 0);
    // An attempt is also in vain if somebody else holds a lock for a moment, and the machine has other tests to run.
    while in_vain < 5 {
        if trim(client).await == 1 {
            (emptied, in_vain) = (emptied + 1, 0);
        } else {
            in_vain += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    emptied
}

/// Empties so many slots, while others are in use: which one is tried is chance.
async fn trim_beside(client: &Client, slots: i32) {
    let mut emptied = 0;
    for _ in 0..200 {
        emptied += trim(client).await;
        if emptied == slots {
            return;
        }
    }
    panic!("{emptied} of {slots} slots were emptied");
}

/// The bodies of the changes that are in the log.
async fn kept(database: &TestDatabase) -> String {
    let bodies = "select string_agg(new_record ->> 'body', ' ' order by seq) from tidings.changes where op = 'I'";
    database.text(bodies).await
}
