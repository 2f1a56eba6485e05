//! How much there was within the last minute, counted by everybody at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time over which a rate is the average.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(5);
/// The step that is running and those before it that still count.
const STEPS: u64 = WINDOW.as_secs() / STEP.as_secs();

/// The low bits of a cell are an amount, the high ones the number of the step to which it belongs. So a cell that is given to
/// a new step is emptied and filled by one exchange, and needs no lock.
const AMOUNT_BITS: u32 = 40;
const MOST: u64 = (1 << AMOUNT_BITS) - 1;
/// Numbers of steps begin again after two and a half years; they are compared modulo this.
const NUMBERS: u64 = 1 << (u64::BITS - AMOUNT_BITS);

/// A sum over the last minute, in steps of five seconds. Adding is one atomic addition, asking two loads; the other steps are
/// looked at once in five seconds.
///
/// Memory is ordered by nothing: what somebody else adds at the same moment may count a moment later.
#[derive(Debug)]
pub(super) struct Rolling {
    begun: Instant,
    cells: [AtomicU64; STEPS as usize],
    /// What the steps before the present one amount to.
    before: AtomicU64,
}

impl Rolling {
    pub(super) fn new(begun: Instant) -> Rolling {
        Rolling {
            begun,
            cells: Default::default(),
            before: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, amount: u64, now: Instant) {
        let step = self.step(now);
        // Far above what a process can do within a step, so that amounts do not run over into the number.
        let amount = amount.min(u32::MAX.into());
        let cell = self.cell(step);
        let mut seen = cell.load(Ordering::Relaxed);
        loop {
            let age = age(step, seen);
            // The cell may also be newer: this caller has read the clock long ago, and was put to sleep.
            if age == 0 || age >= NUMBERS - STEPS {
                cell.fetch_add(amount, Ordering::Relaxed);
                return;
            }
            match cell.compare_exchange_weak(
                seen,
                packed(step, amount),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// The sum over the last 55 to 60 seconds.
    pub(super) fn total(&self, now: Instant) -> u64 {
        let step = self.step(now);
        let before = self.before.load(Ordering::Relaxed);
        let before = match age(step, before) {
            0 => before & MOST,
            _ => self.sum_before(step),
        };
        let present = self.cell(step).load(Ordering::Relaxed);
        match age(step, present) {
            0 => before + (present & MOST),
            _ => before,
        }
    }

    /// The average of a second.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        self.total(now) / WINDOW.as_secs()
    }

    fn sum_before(&self, step: u64) -> u64 {
        let sum = self
            .cells
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .filter(|cell| (1..STEPS).contains(&age(step, *cell)))
            .map(|cell| cell & MOST)
            .sum::<u64>()
            .min(MOST);
        self.before.store(packed(step, sum), Ordering::Relaxed);
        sum
    }

    /// The first number is not 0, which is that of an empty cell.
    fn step(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.begun);
        STEPS + elapsed.as_secs() / STEP.as_secs()
    }

    fn cell(&self, step: u64) -> &AtomicU64 {
        &self.cells[(step % STEPS) as usize]
    }
}

fn packed(step: u64, amount: u64) -> u64 {
    (step % NUMBERS) << AMOUNT_BITS | amount
}

/// How many steps ago a cell was in use.
fn age(step: u64, cell: u64) -> u64 {
    step.wrapping_sub(cell >> AMOUNT_BITS) % NUMBERS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let begun = Instant::now();
        let rolling = Rolling::new(begun);
        assert_eq!(rolling.total(begun), 0);
        rolling.add(600, begun);
        rolling.add(60, begun + seconds(4));
        rolling.add(6, begun + seconds(31));
        assert_eq!(rolling.total(begun + seconds(31)), 666);
        assert_eq!(rolling.rate(begun + seconds(31)), 11);
        assert_eq!(rolling.total(begun + seconds(59)), 666);
        // The first step is gone as a whole.
        assert_eq!(rolling.total(begun + seconds(60)), 6);
        assert_eq!(rolling.total(begun + seconds(89)), 6);
        assert_eq!(rolling.total(begun + seconds(90)), 0);
        // A cell is used again, and an old amount is not found in it.
        rolling.add(1, begun + seconds(120));
        assert_eq!(rolling.total(begun + seconds(124)), 1);
        assert_eq!(rolling.total(begun + seconds(1_000_000)), 0);
    }

    #[test]
    fn a_steady_flow_has_a_steady_rate() {
        let begun = Instant::now();
        let rolling = Rolling::new(begun);
        for second in 0..300 {
            rolling.add(100, begun + seconds(second));
            let rate = rolling.rate(begun + seconds(second));
            assert!(rate <= 100, "{rate} at {second}");
            if second >= 60 {
                assert!(rate >= 91, "{rate} at {second}");
            }
        }
    }

    #[test]
    fn numbers_of_steps_may_begin_again() {
        let begun = Instant::now();
        let rolling = Rolling::new(begun);
        let last = begun + STEP * (NUMBERS - STEPS - 1) as u32;
        assert_eq!(packed(rolling.step(last), 0), packed(NUMBERS - 1, 0));
        assert_eq!(packed(rolling.step(last + STEP), 0), 0);
        for step in 0..60 {
            let now = last - STEP * 29 + STEP * step;
            assert_eq!(rolling.total(now), 10 * u64::from(step.min(11)), "{step}");
            rolling.add(10, now);
        }
    }

    #[test]
    fn whoever_comes_late_takes_nothing_from_the_present() {
        let begun = Instant::now();
        let rolling = Rolling::new(begun);
        rolling.add(10, begun + seconds(60));
        rolling.add(1, begun);
        assert_eq!(rolling.total(begun + seconds(60)), 11);
        // Nor does an amount that no process reaches.
        rolling.add(u64::MAX, begun + seconds(60));
        rolling.add(1, begun + seconds(65));
        assert_eq!(rolling.total(begun + seconds(65)), u64::from(u32::MAX) + 12);
    }

    #[test]
    fn nothing_is_lost_when_many_add_at_once() {
        let begun = Instant::now();
        let rolling = Rolling::new(begun);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for at in 0..60_000 {
                        rolling.add(1, begun + Duration::from_millis(at));
                        rolling.total(begun + Duration::from_millis(at));
                    }
                });
            }
        });
        // Threads are at most a window apart, so none has met a cell that was used again.
        assert_eq!(rolling.total(begun + seconds(59)), 240_000);
    }
}
