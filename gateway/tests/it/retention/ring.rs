//! The ring turns, and turns, and the log stays as long as it should be.

use super::*;

/// Steps while a slot is being written: fewer than marks have distance, or the time would count as one in which nobody looked.
const STEPS: usize = 8;
const SLOTS: usize = 10;
const TURNS: usize = 3;
const CHANGES: usize = 20;

#[tokio::test]
async fn the_log_stays_bounded_while_it_is_written_all_the_time() {
    let database = logged().await;
    let seconds = "select tidings.slot_seconds()";
    let step: usize = database.text(seconds).await.parse().expect("a number");
    let step = step / STEPS;
    let (mut longest, mut largest) = (0, 0);
    for round in 0..TURNS * SLOTS * STEPS {
        // The clock goes on, for whoever writes and for whoever trims.
        let ahead = round * step;
        database
            .execute(&format!(
                "create or replace function tidings.slot_at(at timestamptz) returns smallint language sql stable as $$
                   select (((extract(epoch from at)::bigint + {ahead}) / tidings.slot_seconds()) % 10)::smallint $$;
                 update tidings.log_marks set noted_at = noted_at - interval '{step} seconds';
                 insert into notes (body) select {round} || repeat(' ', 500) from generate_series(1, {CHANGES})"
            ))
            .await;
        trim(&database.client).await;
        let state = "select count(*), min((new_record ->> 'body')::int), (select bytes from tidings.log_state())
                       from tidings.changes where op = 'I'";
        let row = database.client.query_one(state, &[]).await;
        let row = row.expect("the log");
        let (changes, oldest, bytes) = (
            row.get::<_, i64>(0) as usize,
            row.get::<_, Option<i32>>(1).unwrap_or_default() as usize,
            row.get::<_, i64>(2),
        );
        let kept = round - oldest + 1;
        assert_eq!(changes, kept * CHANGES, "a gap in round {round}");
        // Six slots are the retention. The one that it ends in goes when all of it is too old, and a mark has told so.
        assert!(
            kept >= 6 * STEPS || oldest == 0,
            "{kept} steps are kept in round {round}"
        );
        longest = longest.max(kept);
        // The first turn fills it.
        if round == SLOTS * STEPS {
            largest = 0;
        }
        largest = largest.max(bytes);
        assert!(
            round < 2 * SLOTS * STEPS || bytes <= largest,
            "it grows from turn to turn"
        );
    }
    assert!(longest <= 7 * STEPS + 3, "{longest} steps were kept");
    assert!(largest < 4 << 20, "{largest} bytes");
    // Nothing is left to freeze.
    let age = "select max(age(relfrozenxid)) < 2 * 240 * 3 from pg_class where relname like 'changes_%' and relkind = 'r'";
    assert_eq!(database.text(age).await, "true");
}
