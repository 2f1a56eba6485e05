//! What writers do, how often, and to which rows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use uuid::Uuid;

/// Rows that updates and deletions choose from.
const POOL: usize = 4_000;

/// One thing that a writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Insert,
    Update,
    Delete,
    /// Many rows by one statement.
    Several,
    UpdateSeveral,
    /// A row that grows word by word, as a bot's answer does.
    Stream,
    /// What happens to a chat at every message, and is of no interest to anybody.
    Touch,
    Transaction(Shape),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Short,
    /// Others commit meanwhile.
    Long,
    RolledBack,
    RepeatableRead,
    /// A row goes and comes back under the same key.
    Replace,
}

/// Of 100 deeds.
const DEEDS: [(Deed, u32); 12] = [
    (Deed::Insert, 34),
    (Deed::Update, 15),
    (Deed::Delete, 6),
    (Deed::Several, 6),
    (Deed::UpdateSeveral, 4),
    (Deed::Stream, 4),
    (Deed::Touch, 4),
    (Deed::Transaction(Shape::Short), 12),
    (Deed::Transaction(Shape::Long), 3),
    (Deed::Transaction(Shape::RolledBack), 5),
    (Deed::Transaction(Shape::RepeatableRead), 3),
    (Deed::Transaction(Shape::Replace), 4),
];

impl Deed {
    pub(super) fn draw(random: &mut StdRng) -> Self {
        let deed = DEEDS.choose_weighted(random, |(_, weight)| *weight);
        // The table is a constant with weights above zero.
        deed.map_or(Self::Insert, |(deed, _)| *deed)
    }
}

/// Rows that are there, as far as anybody knows.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Uuid>>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Vec<Uuid>> {
        // Nobody panics while it holds the lock; and if somebody did, the list would still be one of rows.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, rows: impl IntoIterator<Item = Uuid>, random: &mut StdRng) {
        let mut pool = self.lock();
        for row in rows {
            if pool.len() < POOL {
                pool.push(row);
            } else {
                let place = random.random_range(0..POOL);
                pool[place] = row;
            }
        }
    }

    /// Mostly a young one: that is where writers meet.
    pub(super) fn choose(&self, random: &mut StdRng) -> Option<Uuid> {
        let pool = self.lock();
        let young = &pool[pool.len().saturating_sub(20)..];
        let rows = if random.random_bool(0.5) {
            young
        } else {
            &pool
        };
        rows.choose(random).copied()
    }

    pub(super) fn remove(&self, row: Uuid) {
        self.lock().retain(|one| *one != row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deeds_are_percentages() {
        assert_eq!(DEEDS.iter().map(|(_, weight)| weight).sum::<u32>(), 100);
    }
}
