//! Compares what a reader was told with what was committed.

use std::collections::HashMap;

use super::story::{Beginning, Entry, History, Interest, Life};
use super::truth::{Committed, Key, NEVER_SEEN, Truth};
use crate::channel::Kind;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Milliseconds since the start of the run: when it came, or when it was passed over.
    pub(crate) at: u32,
    pub(crate) connection: Option<u32>,
    pub(crate) what: String,
    /// The change in question, by its place in the truth.
    pub(crate) change: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) deliveries: u64,
    pub(crate) histories: u64,
    pub(crate) differences: Vec<Difference>,
}

/// Judges one life of a reader.
pub(crate) fn check(truth: &Truth, interest: &Interest, life: &Life) -> anyhow::Result<Verdict> {
    let mut follower = Follower {
        truth,
        interest,
        got: Vec::new(),
        place: HashMap::new(),
        rows: HashMap::new(),
        transactions: HashMap::new(),
        saw: 0,
        before: None,
        after: None,
        verdict: Verdict::default(),
    };
    if let Beginning::Between {
        before,
        after,
        history,
    } = &life.beginning
    {
        // Without a history the past is nobody's concern: a gateway that is behind may still have it to deliver.
        if history.is_some() {
            follower.before = Some(truth.saw(before)?);
        }
        // Without it, nothing can be said about what must have come: as if the join was confirmed only at the end.
        let after = after.as_deref().map(|mark| truth.saw(mark)).transpose()?;
        follower.after = Some(after.unwrap_or(NEVER_SEEN));
    }
    for entry in &life.entries {
        match *entry {
            Entry::Got {
                key,
                at,
                connection,
            } => follower.take(key, at, connection),
            Entry::Back { keep } => {
                follower.find_missing(false);
                follower.back(keep);
            }
        }
    }
    follower.find_missing(life.complete);
    if let Beginning::Between {
        history: Some(history),
        ..
    } = &life.beginning
    {
        follower.check_history(history, life.complete);
    }
    let mut verdict = follower.verdict;
    verdict.differences.sort_by_key(|difference| difference.at);
    Ok(verdict)
}

struct Follower<'a> {
    truth: &'a Truth,
    interest: &'a Interest,
    got: Vec<Got>,
    /// Where in `got` a change is.
    place: HashMap<usize, usize>,
    /// The newest change of each row, and of each transaction.
    rows: HashMap<uuid::Uuid, usize>,
    transactions: HashMap<u64, usize>,
    /// The most that any delivered change saw: whatever that saw had to come before.
    saw: u32,
    before: Option<u32>,
    after: Option<u32>,
    verdict: Verdict,
}

/// A delivery, and what stood in the follower before it.
struct Got {
    change: usize,
    at: u32,
    connection: u32,
    row: Option<usize>,
    transaction: Option<usize>,
    saw: u32,
}

impl Follower<'_> {
    fn take(&mut self, key: Key, at: u32, connection: u32) {
        self.verdict.deliveries += 1;
        let Some(change) = self.truth.find(key) else {
            return self.differ(at, connection, None, "was never committed".to_owned());
        };
        let one = &self.truth.changes[change];
        if !expected(self.interest, one) {
            return self.differ(at, connection, Some(change), "was not asked for".to_owned());
        }
        if let Some(place) = self.place.get(&change) {
            let first = &self.got[*place];
            let what = format!(
                "came twice: first at {:.3} s, as number {} over connection {}",
                seconds(first.at),
                place + 1,
                first.connection
            );
            return self.differ(at, connection, Some(change), what);
        }
        let seen_by = self.truth.seen_by(one);
        if self.before.is_some_and(|before| seen_by <= before) {
            let what = "was committed before the join, and came as a change".to_owned();
            self.differ(at, connection, Some(change), what);
        }
        let newer = |newest: Option<&usize>| newest.copied().filter(|newest| *newest > change);
        if let Some(newer) = newer(self.rows.get(&one.message)) {
            let what = format!(
                "came after a later change of its row ({})",
                self.tell(newer)
            );
            self.differ(at, connection, Some(change), what);
        } else if let Some(newer) = newer(self.transactions.get(&one.transaction)) {
            let what = format!(
                "came after a later change of its transaction ({})",
                self.tell(newer)
            );
            self.differ(at, connection, Some(change), what);
        } else if seen_by <= self.saw {
            let what = format!(
                "came after one that was made when it was committed already ({})",
                self.passed(seen_by)
                    .map_or_else(String::new, |place| self.tell(self.got[place].change))
            );
            self.differ(at, connection, Some(change), what);
        }
        self.place.insert(change, self.got.len());
        self.got.push(Got {
            change,
            at,
            connection,
            row: self.rows.insert(one.message, change),
            transaction: self.transactions.insert(one.transaction, change),
            saw: self.saw,
        });
        self.saw = self.saw.max(one.saw);
    }

    fn back(&mut self, keep: usize) {
        while self.got.len() > keep {
            let Some(last) = self.got.pop() else { return };
            let one = &self.truth.changes[last.change];
            self.place.remove(&last.change);
            restore(&mut self.rows, one.message, last.row);
            restore(&mut self.transactions, one.transaction, last.transaction);
            self.saw = last.saw;
        }
    }

    /// The first delivery that proves that a change which so many saw had to be there already.
    fn passed(&self, seen_by: u32) -> Option<usize> {
        self.got
            .iter()
            .position(|got| self.truth.changes[got.change].saw >= seen_by)
    }

    fn find_missing(&mut self, complete: bool) {
        let mut missing = Vec::new();
        for (index, change) in self.truth.changes.iter().enumerate() {
            let seen_by = self.truth.seen_by(change);
            let due = complete || seen_by <= self.saw;
            // What was committed while the join was under way may have come or not.
            let open = self.after.is_some_and(|after| seen_by <= after);
            if due && !open && expected(self.interest, change) && !self.place.contains_key(&index) {
                missing.push(index);
            }
        }
        for index in missing {
            let change = &self.truth.changes[index];
            let passed = self.passed(self.truth.seen_by(change));
            let (at, connection, what) = match passed.map(|place| (place, &self.got[place])) {
                Some((place, got)) => (
                    got.at,
                    Some(got.connection),
                    format!(
                        "is missing: passed over at the latest when number {} came ({})",
                        place + 1,
                        self.tell(got.change)
                    ),
                ),
                None => (change.at, None, "is missing".to_owned()),
            };
            self.verdict.differences.push(Difference {
                at,
                connection,
                what,
                change: Some(index),
            });
        }
    }

    /// What did not come as a change was there before, so its rows, as they were then, end with the history.
    fn check_history(&mut self, history: &History, complete: bool) {
        let Some(after) = self.after.filter(|after| *after != NEVER_SEEN) else {
            return;
        };
        if !complete && self.saw < after {
            // The reader left before it could be known what still belonged to the past.
            return;
        }
        let mut rows = HashMap::new();
        for (index, change) in self.truth.changes.iter().enumerate() {
            let past = complete || self.truth.seen_by(change) <= self.saw;
            if past
                && self.interest.sessions.contains(&change.session)
                && !self.place.contains_key(&index)
            {
                rows.insert(change.message, change);
            }
        }
        let mut rows: Vec<&Committed> = rows
            .into_values()
            .filter(|change| change.kind != Kind::Delete)
            .collect();
        rows.sort_unstable_by_key(|change| (change.created, change.message));
        let last = rows.split_off(rows.len().saturating_sub(history.asked));
        self.verdict.histories += 1;
        let wanted: Vec<Key> = last
            .iter()
            .map(|change| Key::new(change.number, Kind::Insert))
            .collect();
        if wanted == history.rows {
            return;
        }
        // A row that is in neither of the two says more than one that moved because of it.
        let lost = last.iter().rev().find(|change| {
            !history
                .rows
                .contains(&Key::new(change.number, Kind::Insert))
        });
        let what = match lost {
            Some(_) => "is in neither the history nor what came after it".to_owned(),
            None => "the rows of the history are not in their order".to_owned(),
        };
        let what = format!(
            "{what} (got {} of {} rows, {} of them wrong)",
            history.rows.len(),
            wanted.len(),
            history
                .rows
                .iter()
                .filter(|row| !wanted.contains(row))
                .count(),
        );
        self.verdict.differences.push(Difference {
            at: self.got.first().map_or(0, |got| got.at),
            connection: self.got.first().map(|got| got.connection),
            what,
            change: lost.and_then(|change| self.truth.find(change.key)),
        });
    }

    fn tell(&self, change: usize) -> String {
        tell(&self.truth.changes[change])
    }

    fn differ(&mut self, at: u32, connection: u32, change: Option<usize>, what: String) {
        self.verdict.differences.push(Difference {
            at,
            connection: Some(connection),
            what,
            change,
        });
    }
}

fn expected(interest: &Interest, change: &Committed) -> bool {
    interest.sessions.contains(&change.session)
        && interest.only.is_none_or(|kind| kind == change.kind)
}

fn restore<K: std::hash::Hash + Eq>(map: &mut HashMap<K, usize>, key: K, before: Option<usize>) {
    match before {
        Some(before) => map.insert(key, before),
        None => map.remove(&key),
    };
}

pub(crate) fn tell(change: &Committed) -> String {
    format!(
        "{:?} {} of message {} in transaction {}",
        change.kind, change.number, change.message, change.transaction
    )
}

pub(crate) fn seconds(milliseconds: u32) -> f64 {
    f64::from(milliseconds) / 1000.0
}

#[cfg(test)]
mod tests;
