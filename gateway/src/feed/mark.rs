//! How far a reader of the log has come.
//!
//! Transactions do not commit in the order of their numbers, so no number says it. A mark is a set of changes: all that some
//! snapshots see, each as far as a sequence number. One snapshot is the usual case; a read that is under way adds a second.

use std::sync::Arc;

use super::snapshot::Snapshot;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub snapshot: Arc<Snapshot>,
    /// Sequence numbers up to this one.
    pub reached: i64,
}

/// No sequence number is higher.
pub const ALL: i64 = i64::MAX;

impl Mark {
    /// All that the snapshot sees.
    pub fn at(snapshot: Arc<Snapshot>) -> Mark {
        Mark {
            parts: vec![Part {
                snapshot,
                reached: ALL,
            }],
        }
    }

    /// What stands before everything.
    pub fn nothing() -> Mark {
        Mark { parts: Vec::new() }
    }

    /// None without parts: such a mark would stand before everything.
    pub fn of(parts: Vec<Part>) -> Option<Mark> {
        (!parts.is_empty()).then_some(Mark { parts })
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether the change has been handed on.
    pub fn covers(&self, xid: u64, sequence: i64) -> bool {
        self.parts
            .iter()
            .any(|part| sequence <= part.reached && part.snapshot.sees(xid))
    }

    /// Whether it covers all that the other one covers. May say no where that is so by several parts together.
    pub fn includes(&self, other: &Mark) -> bool {
        other
            .parts
            .iter()
            .all(|part| self.parts.iter().any(|own| own.includes(part)))
    }

    /// What one of the two covers.
    pub fn and(&self, other: &Mark) -> Mark {
        let mut parts: Vec<Part> = Vec::with_capacity(self.parts.len() + other.parts.len());
        for part in self.parts.iter().chain(&other.parts) {
            if parts.iter().any(|kept| kept.includes(part)) {
                continue;
            }
            parts.retain(|kept| !part.includes(kept));
            parts.push(part.clone());
        }
        Mark { parts }
    }

    /// The same, and what the snapshot sees up to a sequence number.
    pub fn and_of(&self, snapshot: &Arc<Snapshot>, reached: i64) -> Mark {
        let part = Part {
            snapshot: snapshot.clone(),
            reached,
        };
        self.and(&Mark { parts: vec![part] })
    }

    /// Only what comes up to a sequence number.
    pub fn up_to(&self, sequence: i64) -> Mark {
        let cut = |part: &Part| Part {
            snapshot: part.snapshot.clone(),
            reached: part.reached.min(sequence),
        };
        Mark {
            parts: self.parts.iter().map(cut).collect(),
        }
    }

    /// Only transactions before this one.
    pub fn before(&self, xid: u64) -> Mark {
        let cut = |part: &Part| Part {
            snapshot: match part.snapshot.xmax() <= xid {
                true => part.snapshot.clone(),
                false => Arc::new(part.snapshot.before(xid)),
            },
            reached: part.reached,
        };
        Mark {
            parts: self.parts.iter().map(cut).collect(),
        }
    }

    /// A snapshot that sees nothing that is not covered: where to look for the rest. None if no part is whole.
    pub fn whole(&self) -> Option<&Arc<Snapshot>> {
        self.parts
            .iter()
            .filter(|part| part.reached == ALL)
            .map(|part| &part.snapshot)
            .max_by_key(|snapshot| snapshot.xmax())
    }

    /// No transaction from this one on is covered.
    pub fn end(&self) -> u64 {
        let ends = self.parts.iter().map(|part| part.snapshot.xmax());
        ends.max().unwrap_or(0)
    }
}

impl Part {
    fn includes(&self, other: &Part) -> bool {
        self.reached >= other.reached
            && (Arc::ptr_eq(&self.snapshot, &other.snapshot)
                || self.snapshot.includes(&other.snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Arc<Snapshot> {
        Arc::new(Snapshot::parse(text).unwrap())
    }

    #[test]
    fn a_read_under_way_covers_what_it_has_reached() {
        let mark = Mark::at(snapshot("10:12:10")).and_of(&snapshot("14:20:14"), 50);
        for (xid, sequence, covered) in [
            (9, 99, true),
            (11, 99, true),
            (10, 50, true),
            (10, 51, false),
            (13, 50, true),
            (14, 1, false),
            (20, 1, false),
        ] {
            assert_eq!(mark.covers(xid, sequence), covered, "{xid} {sequence}");
        }
        assert_eq!(mark.end(), 20);
        assert_eq!(mark.whole(), Some(&snapshot("10:12:10")));
    }

    #[test]
    fn what_is_included_is_not_kept_twice() {
        let early = Mark::at(snapshot("10:12:10"));
        let late = Mark::at(snapshot("14:20:14"));
        assert_eq!(early.and(&late), late);
        assert_eq!(late.and(&early), late);
        assert!(late.includes(&early) && !early.includes(&late));
        let under_way = early.and_of(&snapshot("14:20:14"), 50);
        assert!(late.includes(&under_way) && !under_way.includes(&late));
        assert_eq!(under_way.and(&late), late);
        assert_eq!(
            under_way.and_of(&snapshot("14:20:14"), 60),
            early.and_of(&snapshot("14:20:14"), 60)
        );
    }

    #[test]
    fn up_to_leaves_out_what_comes_later() {
        let mark = Mark::at(snapshot("10:12:10")).up_to(7);
        assert!(mark.covers(9, 7) && !mark.covers(9, 8));
        assert_eq!(mark.whole(), None);
    }
}
