//! Latencies and counts of the whole run, filled by many tasks at once.
//!
//! Every delivery is measured twice: from the moment at which the message was *due* (so that a stall of the database or
//! the harness shows in every message that it held up: no coordinated omission), and from the moment at which the writer's
//! client knew it to be committed, which leaves out the insert itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Enough that two threads rarely meet, few enough that the histograms stay small.
const SHARDS: usize = 16;

/// Ten minutes in microseconds; what is slower counts as this slow.
const SLOWEST: u64 = 600_000_000;

/// One for the run. Times are microseconds since `start`.
pub(crate) struct Meter {
    /// Set when all subscribers are there.
    start: OnceLock<Instant>,
    interval: Duration,
    warm_up: u64,
    /// When each message was known to be committed, plus one; 0 = not yet.
    commits: Vec<AtomicU64>,
    shards: Vec<Mutex<Latencies>>,
}

#[derive(Clone)]
pub(crate) struct Latencies {
    pub(crate) received: u64,
    /// Deliveries that arrived before the writer's client knew of the commit. They count as 0 from the commit.
    pub(crate) early: u64,
    pub(crate) from_due: Histogram<u64>,
    pub(crate) from_commit: Histogram<u64>,
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, SLOWEST, 3).expect("the bounds are constants that fit each other")
}

impl Latencies {
    fn new() -> Self {
        Self {
            received: 0,
            early: 0,
            from_due: histogram(),
            from_commit: histogram(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.early += other.early;
        // Equal bounds always add.
        let _ = self.from_due.add(&other.from_due);
        let _ = self.from_commit.add(&other.from_commit);
    }
}

impl Meter {
    pub(crate) fn new(interval: Duration, messages: u64, warm_up: Duration) -> Self {
        Self {
            start: OnceLock::new(),
            interval,
            warm_up: micros(warm_up),
            commits: (0..messages).map(|_| AtomicU64::new(0)).collect(),
            shards: (0..SHARDS).map(|_| Mutex::new(Latencies::new())).collect(),
        }
    }

    /// Message 0 is due at this moment. Only the first call counts.
    pub(crate) fn start_at(&self, at: Instant) {
        self.start.get_or_init(|| at);
    }

    /// When a message is to be sent.
    pub(crate) fn due(&self, job: u64) -> Instant {
        self.started_at() + self.offset(job)
    }

    pub(crate) fn is_warm(&self, job: u64) -> bool {
        micros(self.offset(job)) >= self.warm_up
    }

    pub(crate) fn committed(&self, job: u64, at: Instant) {
        if let Some(commit) = self.commits.get(job as usize) {
            commit.store(self.since_start(at) + 1, Ordering::Release);
        }
    }

    /// When a message was due and when it was known to be committed, in microseconds since the start. Nothing for one that
    /// is not measured.
    pub(crate) fn times(&self, job: u64) -> Option<(u64, Option<u64>)> {
        let commit = self.commits.get(job as usize)?.load(Ordering::Acquire);
        let due = micros(self.offset(job));
        (due >= self.warm_up).then_some((due, commit.checked_sub(1)))
    }

    /// A subscriber got this message now.
    pub(crate) fn received(&self, subscriber: usize, job: u64) {
        let now = self.since_start(Instant::now());
        let commit = self
            .commits
            .get(job as usize)
            .map_or(0, |commit| commit.load(Ordering::Acquire));
        let mut shard = lock(&self.shards[subscriber % SHARDS]);
        shard.received += 1;
        if !self.is_warm(job) {
            return;
        }
        shard
            .from_due
            .saturating_record(now.saturating_sub(micros(self.offset(job))));
        match commit.checked_sub(1) {
            Some(commit) => shard
                .from_commit
                .saturating_record(now.saturating_sub(commit)),
            None => {
                shard.early += 1;
                shard.from_commit.saturating_record(0);
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).received).sum()
    }

    pub(crate) fn total(&self) -> Latencies {
        let mut total = Latencies::new();
        for shard in &self.shards {
            total.add(&lock(shard));
        }
        total
    }

    fn offset(&self, job: u64) -> Duration {
        // Not `interval * job`: Duration multiplies by u32 only.
        Duration::from_nanos((self.interval.as_nanos() as u64).saturating_mul(job))
    }

    fn started_at(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    pub(crate) fn since_start(&self, at: Instant) -> u64 {
        // Whoever asks before the start must not make this moment the start.
        let start = self.start.get();
        start.map_or(0, |start| micros(at.saturating_duration_since(*start)))
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A task that panicked while it held the lock has left counts that are still right.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_from_the_due_time_and_from_the_commit() {
        let start = Instant::now() - Duration::from_millis(500);
        let meter = Meter::new(Duration::from_millis(100), 3, Duration::from_millis(100));
        meter.start_at(start);
        meter.committed(1, start + Duration::from_millis(400));
        meter.received(0, 0);
        meter.received(1, 1);
        meter.received(2, 2);
        let total = meter.total();
        assert_eq!((total.received, meter.count()), (3, 3));
        // Message 0 was sent while warming up; message 2 came before its commit was known.
        assert_eq!((total.from_due.len(), total.early), (2, 1));
        assert!(total.from_due.max() >= 400_000 && total.from_due.min() >= 299_000);
        assert!(total.from_commit.max() >= 100_000 && total.from_commit.max() < 400_000);
        assert_eq!(total.from_commit.min(), 0);
    }

    #[test]
    fn asking_for_the_time_does_not_start_the_clock() {
        let meter = Meter::new(Duration::from_millis(10), 2, Duration::ZERO);
        let asked = Instant::now();
        assert_eq!(meter.since_start(asked), 0);
        meter.start_at(asked + Duration::from_secs(3));
        assert_eq!(meter.due(1), asked + Duration::from_millis(3010));
        assert_eq!(meter.since_start(asked + Duration::from_secs(4)), 1_000_000);
    }

    #[test]
    fn a_job_number_from_nowhere_is_harmless() {
        let meter = Meter::new(Duration::from_millis(1), 1, Duration::ZERO);
        meter.received(0, u64::MAX);
        meter.committed(u64::MAX, Instant::now());
        assert_eq!(meter.count(), 1);
    }
}
