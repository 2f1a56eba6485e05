//! Cursors: signed text that says how far a client has come.

use std::{hint::black_box, sync::Arc};

use gateway::feed::{mark::Mark, snapshot::Snapshot};

use super::{Amount, Prepared, world};

/// The first of a read, whose snapshots are written.
pub(super) fn encode_first() -> Prepared {
    let (source, mark) = (world::source(), mark());
    Prepared::new(Amount::Elements(1), move || {
        black_box(source.cursor(black_box(&mark), 1 << 30));
    })
}

/// One more of the same read: one for each change that somebody wants a cursor with.
pub(super) fn encode_next() -> Prepared {
    let read = world::read();
    let mut sequence = 0;
    read.cursor(sequence);
    Prepared::new(Amount::Elements(1), move || {
        sequence += 1;
        black_box(read.cursor(black_box(sequence)));
    })
}

/// For each binding that says where it wants to go on.
pub(super) fn decode() -> Prepared {
    let (source, mark) = (world::source(), mark());
    let cursor = source.cursor(&mark, 1 << 30);
    let decoded = source.parse(&cursor).expect("a cursor");
    assert_eq!(decoded, (mark, 1 << 30));
    Prepared::new(Amount::Elements(1), move || {
        drop(black_box(source.parse(black_box(&cursor))));
    })
}

/// In the middle of a read.
fn mark() -> Mark {
    let snapshot = |from| {
        let text = world::snapshot_text(from);
        Arc::new(Snapshot::parse(&text).expect("a snapshot"))
    };
    Mark::at(snapshot(1_000_000)).and_of(&snapshot(1_000_100), 12_345)
}
