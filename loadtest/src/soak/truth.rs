//! What was really committed, and what must have come before what: read from the audit table, which Tidings knows nothing of.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, bail};
use uuid::Uuid;

use crate::channel::Kind;

/// One version of one row, or its deletion. The number is given by a trigger and is in the row itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) fn new(number: u64, kind: Kind) -> Self {
        Self(number << 1 | u64::from(kind == Kind::Delete))
    }
}

/// A row of the audit table, as it is read.
#[derive(Clone, Debug)]
pub(crate) struct Audited {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) message: Uuid,
    pub(crate) session: Uuid,
    pub(crate) transaction: u64,
    /// What was committed when this change was made.
    pub(crate) snapshot: String,
    /// Of the row: microseconds since 1970.
    pub(crate) created: i64,
    /// When it was made, in milliseconds since the start of the run.
    pub(crate) at: u32,
}

#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) message: Uuid,
    pub(crate) session: Uuid,
    pub(crate) transaction: u64,
    pub(crate) created: i64,
    pub(crate) at: u32,
    /// How many transactions were committed when it was made.
    pub(crate) saw: u32,
}

/// Snapshots of one database can be ordered: of two, one sees all that the other sees. So a snapshot is known by how many of
/// the audited transactions it sees, and a transaction by the least such number among the snapshots that see it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// In the order in which they were made: for the changes of one row, or of one transaction, the only right one.
    pub(crate) changes: Vec<Committed>,
    by_key: HashMap<Key, usize>,
    transactions: Vec<u64>,
    /// For each transaction. Who saw so many saw this one.
    seen_by: HashMap<u64, u32>,
}

/// Nobody's snapshot saw it: nothing had to come after it.
pub(crate) const NEVER_SEEN: u32 = u32::MAX;

impl Truth {
    /// `marks` are further snapshots, that were taken by readers.
    pub(crate) fn new<'a>(
        audited: Vec<Audited>,
        marks: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<Self> {
        let transactions: BTreeSet<u64> = audited.iter().map(|row| row.transaction).collect();
        let mut truth = Self {
            transactions: transactions.into_iter().collect(),
            ..Self::default()
        };
        let mut snapshots = HashMap::new();
        for row in audited {
            let snapshot = Snapshot::parse(&row.snapshot, Some(row.transaction))?;
            let saw = truth.count(&snapshot);
            snapshots.insert(saw, snapshot);
            let key = Key::new(row.number, row.kind);
            if truth.by_key.insert(key, truth.changes.len()).is_some() {
                bail!("the audit has change {} twice", row.number);
            }
            truth.changes.push(Committed {
                key,
                kind: row.kind,
                number: row.number,
                message: row.message,
                session: row.session,
                transaction: row.transaction,
                created: row.created,
                at: row.at,
                saw,
            });
        }
        for mark in marks {
            let snapshot = Snapshot::parse(mark, None)?;
            snapshots.insert(truth.count(&snapshot), snapshot);
        }
        truth.rank(snapshots);
        Ok(truth)
    }

    pub(crate) fn find(&self, key: Key) -> Option<usize> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn seen_by(&self, change: &Committed) -> u32 {
        self.seen_by
            .get(&change.transaction)
            .copied()
            .unwrap_or(NEVER_SEEN)
    }

    /// How many transactions a reader's mark saw.
    pub(crate) fn saw(&self, mark: &str) -> anyhow::Result<u32> {
        Ok(self.count(&Snapshot::parse(mark, None)?))
    }

    pub(crate) fn transactions(&self) -> usize {
        self.transactions.len()
    }

    fn count(&self, snapshot: &Snapshot) -> u32 {
        let before = self.transactions.partition_point(|xid| *xid < snapshot.end);
        let running = snapshot
            .running
            .iter()
            .filter(|xid| **xid < snapshot.end && self.transactions.binary_search(xid).is_ok());
        (before - running.count()) as u32
    }

    fn rank(&mut self, snapshots: HashMap<u32, Snapshot>) {
        let mut snapshots: Vec<(u32, Snapshot)> = snapshots.into_iter().collect();
        snapshots.sort_unstable_by_key(|(saw, _)| *saw);
        let mut next = 0;
        let mut unseen: Vec<u64> = Vec::new();
        for (saw, snapshot) in snapshots {
            let end = self.transactions.partition_point(|xid| *xid < snapshot.end);
            unseen.extend(&self.transactions[next.min(end)..end]);
            next = next.max(end);
            unseen.retain(|xid| {
                let seen = *xid < snapshot.end && !snapshot.running.contains(xid);
                if seen {
                    self.seen_by.insert(*xid, saw);
                }
                !seen
            });
        }
    }
}

/// `pg_snapshot`: transactions from `end` on, and these, were not committed.
#[derive(Debug)]
struct Snapshot {
    end: u64,
    running: BTreeSet<u64>,
}

impl Snapshot {
    /// PostgreSQL leaves the own transaction out of the list, although it is running.
    fn parse(text: &str, own: Option<u64>) -> anyhow::Result<Self> {
        let mut parts = text.split(':');
        let (Some(_), Some(end), Some(running), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("not a snapshot: {text}");
        };
        let number = |text: &str| {
            text.parse::<u64>()
                .with_context(|| format!("not a transaction: {text}"))
        };
        let running = running.split(',').filter(|xid| !xid.is_empty());
        Ok(Self {
            end: number(end)?,
            running: running
                .map(number)
                .chain(own.map(Ok))
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(number: u64, transaction: u64, snapshot: &str) -> Audited {
        Audited {
            kind: Kind::Insert,
            number,
            message: Uuid::from_u128(u128::from(number)),
            session: Uuid::nil(),
            transaction,
            snapshot: snapshot.to_owned(),
            created: number as i64,
            at: 0,
        }
    }

    fn ranks(truth: &Truth) -> Vec<(u32, u32)> {
        let both = |change: &Committed| (change.saw, truth.seen_by(change));
        truth.changes.iter().map(both).collect()
    }

    #[test]
    fn who_comes_after_whom() {
        // 10 commits; 11 begins, and 12 while 11 is running; 12 commits; 13 sees both 10 and 12, and not 11.
        let truth = Truth::new(
            vec![
                audited(1, 10, "10:10:"),
                audited(2, 11, "11:11:"),
                audited(3, 12, "11:12:11"),
                audited(4, 13, "11:13:11"),
            ],
            std::iter::empty(),
        )
        .unwrap();
        assert_eq!(
            ranks(&truth),
            [(0, 1), (1, NEVER_SEEN), (1, 2), (2, NEVER_SEEN)]
        );
        assert_eq!(truth.saw("14:14:").unwrap(), 4);
    }

    #[test]
    fn the_own_transaction_is_not_seen() {
        // 11 has committed when 10 makes its second change; 10 is not in the list of its own snapshot.
        let truth = Truth::new(
            vec![
                audited(1, 10, "10:10:"),
                audited(2, 11, "10:11:10"),
                audited(3, 10, "10:12:"),
            ],
            ["12:12:"].into_iter(),
        )
        .unwrap();
        assert_eq!(ranks(&truth), [(0, 2), (0, 1), (1, 2)]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "1:2", "1:x:", "1:2:3:4", "1:2:y"] {
            assert!(Snapshot::parse(text, None).is_err(), "{text}");
        }
        let twice = vec![audited(1, 10, "10:10:"), audited(1, 11, "11:11:")];
        assert!(Truth::new(twice, std::iter::empty()).is_err());
    }
}
