//! When things are due. An open loop: whatever became of those before, the next one is due at its time.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// A schedule of equal steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start: Instant,
    nanos: f64,
}

impl Pace {
    /// So many a second.
    pub(crate) fn new(start: Instant, rate: f64) -> Self {
        Self {
            start,
            nanos: 1e9 / rate,
        }
    }

    /// So many within this time, the first at its beginning.
    pub(crate) fn within(start: Instant, count: usize, spread: Duration) -> Self {
        Self {
            start,
            nanos: spread.as_nanos() as f64 / count.max(1) as f64,
        }
    }

    pub(crate) fn due(&self, index: u64) -> Instant {
        self.start + Duration::from_nanos((self.nanos * index as f64) as u64)
    }

    /// Waits until it is due, and says when that was.
    pub(crate) async fn wait(&self, index: u64) -> Instant {
        let due = self.due(index);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        due
    }
}

/// Gives each of these its jobs when they are due, in turns. Blocks, for a thread of its own: the runtime's timers are no finer
/// than a millisecond, which is as long as what is measured.
pub(crate) fn hand_out(pace: Pace, jobs: u64, takers: &[mpsc::Sender<u64>]) {
    for job in 0..jobs {
        let wait = pace.due(job).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        // One that has ended says so itself.
        let _ = takers[job as usize % takers.len()].blocking_send(job);
    }
}

/// How many fall into a time at a rate.
pub(crate) fn count(rate: f64, seconds: f64) -> u64 {
    (rate * seconds).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_does_not_drift() {
        let start = Instant::now();
        let pace = Pace::new(start, 3000.0);
        assert_eq!(pace.due(0), start);
        // A third of a millisecond is no whole number of nanoseconds; after a million steps that must not show.
        let late = pace.due(3_000_000) - start;
        assert!(late.abs_diff(Duration::from_secs(1000)) < Duration::from_micros(1));
        let spread = Pace::within(start, 4, Duration::from_secs(2));
        assert_eq!(spread.due(3) - start, Duration::from_millis(1500));
        assert_eq!(Pace::within(start, 0, Duration::from_secs(2)).due(0), start);
        assert_eq!(count(2.5, 3.0), 8);
    }

    #[test]
    fn jobs_are_handed_out_in_turns() {
        let (senders, mut takers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(4)).unzip();
        let past = Instant::now() - Duration::from_secs(10);
        hand_out(Pace::new(past, 1000.0), 5, &senders);
        drop(senders);
        let mut taken = |index: usize| {
            let taker: &mut mpsc::Receiver<u64> = &mut takers[index];
            std::iter::from_fn(|| taker.blocking_recv()).collect::<Vec<_>>()
        };
        assert_eq!((taken(0), taken(1)), (vec![0, 2, 4], vec![1, 3]));
    }

    #[tokio::test]
    async fn what_is_late_does_not_wait() {
        let start = Instant::now() - Duration::from_secs(10);
        let pace = Pace::new(start, 1.0);
        assert_eq!(pace.wait(3).await, start + Duration::from_secs(3));
    }
}
