//! When the floor's messages are due. Whatever becomes of one, the next is due when it would have been.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    /// Zero: all are due at once.
    interval: Duration,
}

impl Schedule {
    pub(super) fn new(start: Instant, rate: Option<f64>) -> Self {
        let interval = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Self { start, interval }
    }

    pub(super) fn due(&self, message: u64) -> Instant {
        // Not `interval * message`: Duration multiplies by u32 only.
        let nanos = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        self.start + Duration::from_nanos(nanos.saturating_mul(message))
    }

    /// How long until a message is due; nothing if it is.
    pub(super) fn wait(&self, message: u64, now: Instant) -> Option<Duration> {
        let wait = self.due(message).saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_moves_nothing_that_comes_after_it() {
        let start = Instant::now();
        let schedule = Schedule::new(start, Some(100.0));
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(250), at(2500));
        assert_eq!(schedule.wait(3, at(10)), Some(Duration::from_millis(20)));
        // 35 ms late: messages 1 to 4 are due at once, and message 5 when it always was.
        for message in 1..=4 {
            assert_eq!(schedule.wait(message, at(45)), None);
        }
        assert_eq!(schedule.wait(5, at(45)), Some(Duration::from_millis(5)));
    }

    #[test]
    fn without_a_rate_all_are_due_at_the_start() {
        let start = Instant::now();
        let schedule = Schedule::new(start, None);
        assert_eq!(schedule.due(1_000_000), start);
        assert_eq!(schedule.wait(9, start), None);
    }
}
