//! What the readers of one thread have seen: counts, times and reasons. Only their thread writes to it.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::frame::Label;
use crate::meter::{Meter, histogram};

/// The width of a step of the time line, in microseconds.
pub(crate) const STEP: u64 = 100_000;

/// An hour.
const MOST_STEPS: usize = 36_000;

/// A frame that is longer is no sample.
const SAMPLE_BYTES: usize = 64 << 10;

pub(crate) struct Seen {
    pub(crate) deliveries: u64,
    /// A number that the reader had got before, or that an earlier one should have preceded.
    pub(crate) doubled: u64,
    /// Numbers that were left out.
    pub(crate) missed: u64,
    /// Labels of another run, or of no writer.
    pub(crate) foreign: u64,
    /// Deliveries that arrived before the writer's client knew of the commit. They count as 0 from the commit.
    pub(crate) early: u64,
    pub(crate) from_due: Histogram<u64>,
    pub(crate) from_commit: Histogram<u64>,
    /// Deliveries in each step since the start.
    pub(crate) steps: Vec<u64>,
    /// Of the first and the last delivery, in microseconds since the start.
    pub(crate) first: Option<u64>,
    pub(crate) last: Option<u64>,
    /// Why readers ended before the end of the run, and how many each.
    pub(crate) ends: BTreeMap<String, usize>,
    /// The first frame with a label.
    pub(crate) sample: Option<Vec<u8>>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            deliveries: 0,
            doubled: 0,
            missed: 0,
            foreign: 0,
            early: 0,
            from_due: histogram(),
            from_commit: histogram(),
            steps: Vec::new(),
            first: None,
            last: None,
            ends: BTreeMap::new(),
            sample: None,
        }
    }
}

impl Seen {
    /// A reader that expects these numbers next, one of each writer, got this label now.
    pub(crate) fn note(
        &mut self,
        meter: &Meter,
        run: u32,
        next: &mut [u64],
        label: Label,
        now: u64,
    ) {
        let expected = match next.get_mut(label.writer) {
            Some(expected) if label.run == run => expected,
            _ => {
                self.foreign += 1;
                return;
            }
        };
        if label.number < *expected {
            self.doubled += 1;
        } else {
            self.missed += label.number - *expected;
            *expected = label.number + 1;
        }
        self.count(meter, label.job, now);
    }

    /// Of a message that has its number already.
    pub(crate) fn count(&mut self, meter: &Meter, job: u64, now: u64) {
        self.deliveries += 1;
        self.first = Some(self.first.map_or(now, |first| first.min(now)));
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
        let step = usize::try_from(now / STEP).unwrap_or(usize::MAX);
        if step < MOST_STEPS {
            if self.steps.len() <= step {
                self.steps.resize(step + 1, 0);
            }
            self.steps[step] += 1;
        }
        let Some((due, commit)) = meter.times(job) else {
            return;
        };
        self.from_due.saturating_record(now.saturating_sub(due));
        if commit.is_none() {
            self.early += 1;
        }
        let waited = commit.map_or(0, |commit| now.saturating_sub(commit));
        self.from_commit.saturating_record(waited);
    }

    pub(super) fn keep_sample(&mut self, frame: &[u8]) {
        if self.sample.is_none() && frame.len() <= SAMPLE_BYTES {
            self.sample = Some(frame.to_vec());
        }
    }

    pub(super) fn end(&mut self, reason: String) {
        *self.ends.entry(reason).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.deliveries += other.deliveries;
        self.doubled += other.doubled;
        self.missed += other.missed;
        self.foreign += other.foreign;
        self.early += other.early;
        // Equal bounds always add.
        let _ = self.from_due.add(&other.from_due);
        let _ = self.from_commit.add(&other.from_commit);
        if self.steps.len() < other.steps.len() {
            self.steps.resize(other.steps.len(), 0);
        }
        for (sum, more) in self.steps.iter_mut().zip(&other.steps) {
            *sum += more;
        }
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
        for (reason, count) in &other.ends {
            *self.ends.entry(reason.clone()).or_default() += count;
        }
        if self.sample.is_none() {
            self.sample.clone_from(&other.sample);
        }
    }

    /// What was not as promised.
    pub(crate) fn faults(&self, expected: u64) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |count: u64, what: &str| {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        };
        fault(
            expected.saturating_sub(self.deliveries),
            "messages did not arrive",
        );
        fault(
            self.deliveries.saturating_sub(expected),
            "messages too many arrived",
        );
        fault(self.doubled, "messages came twice, or too late");
        fault(self.missed, "messages were left out of a reader's order");
        fault(self.foreign, "messages of somebody else arrived");
        for (reason, count) in &self.ends {
            faults.push(format!("{count} readers ended early: {reason}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn label(writer: usize, number: u64) -> Label {
        Label {
            run: 1,
            writer,
            job: number,
            number,
        }
    }

    #[test]
    fn knows_what_came_twice_and_what_did_not_come() {
        let meter = Meter::new(Duration::from_millis(1), 10, Duration::ZERO);
        let (mut seen, mut next) = (Seen::default(), [1, 1]);
        for (writer, number) in [(0, 1), (1, 1), (0, 2), (0, 2), (0, 5), (0, 4), (1, 2)] {
            seen.note(&meter, 1, &mut next, label(writer, number), 250_000);
        }
        seen.note(&meter, 1, &mut next, label(2, 1), 0);
        seen.note(&meter, 2, &mut next, label(0, 6), 0);
        assert_eq!((seen.deliveries, seen.doubled, seen.missed), (7, 2, 2));
        assert_eq!((seen.foreign, seen.early), (2, 7));
        assert_eq!((next, seen.steps.as_slice()), ([6, 3], &[0, 0, 7][..]));
        assert_eq!(seen.faults(7).len(), 3);
        assert_eq!(seen.faults(8)[0], "1 messages did not arrive");
    }

    #[test]
    fn sums_are_those_of_all_threads() {
        let meter = Meter::new(Duration::from_millis(1), 10, Duration::ZERO);
        let mut all = Seen::default();
        for at in [200_000, 50_000] {
            let mut one = Seen::default();
            one.note(&meter, 1, &mut [1], label(0, 1), at);
            one.end("gone".to_owned());
            all.add(&one);
        }
        assert_eq!((all.first, all.last), (Some(50_000), Some(200_000)));
        assert_eq!(all.steps, [1, 0, 1]);
        assert_eq!(all.from_due.len(), 2);
        assert_eq!(all.ends["gone"], 2);
        assert_eq!(all.faults(2), ["2 readers ended early: gone"]);
    }
}
