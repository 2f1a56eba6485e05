//! What comes from the log, from the bytes of a row to a change.
//!
//! The row itself cannot be made without a connection, so these cases begin with the bytes of its JSON column, where the work is.

use std::hint::black_box;

use gateway::feed::{
    JsonText,
    change::{Change, Operation, Record},
    snapshot::Snapshot,
};
use tokio_postgres::types::{FromSql, Type};

use super::{Amount, Prepared, world};

/// A row whose text has this length, and what is let go of when nobody needs it any more.
pub(super) fn row(content: usize) -> Prepared {
    let bytes = world::row(1, &"x".repeat(content)).into_bytes();
    let decode = |bytes: &[u8]| {
        let JsonText(text) = JsonText::from_sql(&Type::JSON, bytes).expect("UTF-8");
        Change {
            sequence: 1,
            xid: 50,
            table: world::MESSAGES,
            operation: Operation::Insert,
            committed_at: world::COMMITTED_AT.into(),
            age: 0.001,
            new: Some(Record::parse(text).expect("a record")),
            old: None,
        }
    };
    assert_eq!(
        decode(&bytes).image().map(Record::len),
        Some(world::COLUMNS.len())
    );
    Prepared::new(Amount::Bytes(bytes.len()), move || {
        drop(black_box(decode(black_box(&bytes))));
    })
}

/// One of each read: read, compared, and written for the next.
pub(super) fn snapshot() -> Prepared {
    let before = Snapshot::parse(&world::snapshot_text(1_000_000)).expect("a snapshot");
    let text = world::snapshot_text(1_000_100);
    Prepared::new(Amount::Elements(1), move || {
        let now = Snapshot::parse(black_box(&text)).expect("a snapshot");
        assert!(now.includes(black_box(&before)));
        black_box(now.to_string());
    })
}
