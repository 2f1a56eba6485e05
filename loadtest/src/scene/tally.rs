//! Times that many tasks record at once, from two starts: when something was due, and when it was really sent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::meter::{histogram, micros};

/// Enough that two threads rarely meet, few enough that the histograms stay small.
const SHARDS: usize = 8;

pub(crate) struct Tally {
    next: AtomicUsize,
    shards: Vec<Mutex<Times>>,
}

pub(crate) struct Times {
    pub(crate) from_due: Histogram<u64>,
    pub(crate) from_sent: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Times::new())).collect();
        Self {
            next: AtomicUsize::new(0),
            shards,
        }
    }

    /// Something that was due and sent then has come about now.
    pub(crate) fn record(&self, due: Instant, sent: Instant, now: Instant) {
        let shard = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut times = lock(&self.shards[shard]);
        let since = |start| micros(now.saturating_duration_since(start));
        times.from_due.saturating_record(since(due));
        times.from_sent.saturating_record(since(sent));
    }

    pub(crate) fn total(&self) -> Times {
        let mut total = Times::new();
        for shard in &self.shards {
            let shard = lock(shard);
            // Equal bounds always add.
            let _ = total.from_due.add(&shard.from_due);
            let _ = total.from_sent.add(&shard.from_sent);
        }
        total
    }
}

impl Times {
    fn new() -> Self {
        Self {
            from_due: histogram(),
            from_sent: histogram(),
        }
    }
}

/// A task that panicked while it held the lock has left times that are still right.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_sent_late_is_later_from_its_due_time() {
        let tally = Tally::new();
        let due = Instant::now();
        let sent = due + Duration::from_millis(30);
        for _ in 0..20 {
            tally.record(due, sent, sent + Duration::from_millis(10));
        }
        // A clock that has not moved on yet counts as no time.
        tally.record(sent, sent, due);
        let total = tally.total();
        assert_eq!((total.from_due.len(), total.from_sent.len()), (21, 21));
        assert!(total.from_due.max() >= 40_000 && total.from_sent.max() < 11_000);
        assert_eq!(total.from_sent.min(), 0);
    }
}
