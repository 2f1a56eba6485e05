//! What was committed against what was received: pure bookkeeping, no clock, no I/O.
//!
//! Each writer numbers its messages to each session 1, 2, 3, … A subscriber that gets everything once and in order sees
//! each writer's numbers without a gap, so loss, doubles and disorder are numbers and not feelings.

use std::collections::HashSet;

/// What the writers know to have been committed.
#[derive(Debug)]
pub(crate) struct Committed {
    sessions: usize,
    /// The highest number that each writer gave out for each session.
    last: Vec<u64>,
    /// The numbers among those that never became a row.
    failed: HashSet<Stamp>,
}

/// One message: the `number`-th of `writer` to `session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    pub(crate) writer: usize,
    pub(crate) session: usize,
    pub(crate) number: u64,
}

impl Committed {
    pub(crate) fn new(writers: usize, sessions: usize) -> Self {
        Self {
            sessions,
            last: vec![0; writers * sessions],
            failed: HashSet::new(),
        }
    }

    /// A writer's final numbers, one for each session.
    pub(crate) fn set_writer(&mut self, writer: usize, last: &[u64]) {
        let start = writer * self.sessions;
        self.last[start..start + self.sessions].copy_from_slice(last);
    }

    /// This one was sent and is not in the table.
    pub(crate) fn set_failed(&mut self, stamp: Stamp) {
        self.failed.insert(stamp);
    }

    /// How many messages of a session are in the table.
    pub(crate) fn of_session(&self, session: usize) -> u64 {
        let given: u64 = self.last.iter().skip(session).step_by(self.sessions).sum();
        let failed = self.failed.iter().filter(|stamp| stamp.session == session);
        given - failed.count() as u64
    }

    pub(crate) fn total(&self) -> u64 {
        self.last.iter().sum::<u64>() - self.failed.len() as u64
    }

    fn last(&self, writer: usize, session: usize) -> u64 {
        self.last[writer * self.sessions + session]
    }
}

/// What one subscriber received of its session.
#[derive(Debug)]
pub(crate) struct Received {
    session: usize,
    writers: Vec<Sequence>,
    doubled: u64,
    reordered: u64,
    unknown_writer: u64,
    order: u64,
}

/// The numbers of one writer: all up to `highest`, except the gaps.
#[derive(Clone, Debug, Default)]
struct Sequence {
    highest: u64,
    /// Inclusive ranges, ascending. A gap of any width is one entry, so that a wild number costs no memory.
    gaps: Vec<(u64, u64)>,
}

#[derive(PartialEq, Eq, Debug)]
enum Arrival {
    InOrder,
    Late,
    Again,
}

impl Received {
    pub(crate) fn new(session: usize, writers: usize) -> Self {
        Self {
            session,
            writers: vec![Sequence::default(); writers],
            doubled: 0,
            reordered: 0,
            unknown_writer: 0,
            order: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub(crate) fn record(&mut self, writer: usize, number: u64) {
        let Some(sequence) = self.writers.get_mut(writer) else {
            self.unknown_writer += 1;
            return;
        };
        match sequence.arrive(number) {
            Arrival::InOrder => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Again => self.doubled += 1,
        }
        // FNV over what came, in the order in which it came.
        for word in [writer as u64, number] {
            self.order = (self.order ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn session(&self) -> usize {
        self.session
    }

    /// Equal for two subscribers that saw the same messages in the same order, also across writers.
    pub(crate) fn order(&self) -> u64 {
        self.order
    }

    pub(crate) fn compare(&self, committed: &Committed) -> Verdict {
        let mut verdict = Verdict {
            expected: committed.of_session(self.session),
            doubled: self.doubled,
            reordered: self.reordered,
            uncommitted: self.unknown_writer,
            ..Verdict::default()
        };
        for (writer, sequence) in self.writers.iter().enumerate() {
            let last = committed.last(writer, self.session);
            let failed = |number: u64| {
                committed.failed.contains(&Stamp {
                    writer,
                    session: self.session,
                    number,
                })
            };
            // Numbers are given out by the thousand, not by the billion: walking them is cheap and plain.
            for number in 1..=last {
                match (sequence.has(number), failed(number)) {
                    (true, false) => verdict.delivered += 1,
                    (true, true) => verdict.uncommitted += 1,
                    (false, false) => verdict.lost += 1,
                    (false, true) => {}
                }
            }
            verdict.uncommitted += sequence.count_above(last);
        }
        verdict
    }
}

impl Sequence {
    fn arrive(&mut self, number: u64) -> Arrival {
        if number > self.highest {
            if number > self.highest + 1 {
                self.gaps.push((self.highest + 1, number - 1));
            }
            self.highest = number;
            return Arrival::InOrder;
        }
        let Some(index) = self.gap_of(number) else {
            return Arrival::Again;
        };
        let (first, last) = self.gaps[index];
        let rest = [(first, number.wrapping_sub(1)), (number + 1, last)];
        self.gaps.splice(
            index..=index,
            rest.into_iter().filter(|(from, to)| from <= to),
        );
        Arrival::Late
    }

    fn gap_of(&self, number: u64) -> Option<usize> {
        let index = self.gaps.partition_point(|(_, last)| *last < number);
        let (first, _) = self.gaps.get(index)?;
        (*first <= number).then_some(index)
    }

    fn has(&self, number: u64) -> bool {
        number >= 1 && number <= self.highest && self.gap_of(number).is_none()
    }

    /// How many arrived that are higher than `last`.
    fn count_above(&self, last: u64) -> u64 {
        let missing: u64 = self
            .gaps
            .iter()
            .map(|(from, to)| (to + 1).saturating_sub((*from).max(last + 1)))
            .sum();
        self.highest.saturating_sub(last) - missing
    }
}

/// One subscriber's outcome, or the sum of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Verdict {
    pub(crate) expected: u64,
    /// Distinct committed messages that arrived.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Arrived after a later message of the same writer.
    pub(crate) reordered: u64,
    /// Arrived although no such row was committed.
    pub(crate) uncommitted: u64,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.reordered == 0 && self.uncommitted == 0
    }
}

impl std::ops::AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.uncommitted += other.uncommitted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two writers, two sessions; to session 1 writer 0 sent five messages and writer 1 sent two.
    fn committed() -> Committed {
        let mut committed = Committed::new(2, 2);
        committed.set_writer(0, &[3, 5]);
        committed.set_writer(1, &[0, 2]);
        committed
    }

    fn after(arrivals: &[(usize, u64)]) -> Received {
        let mut received = Received::new(1, 2);
        for (writer, number) in arrivals {
            received.record(*writer, *number);
        }
        received
    }

    #[track_caller]
    fn check(arrivals: &[(usize, u64)], expected: Verdict) {
        let expected = Verdict {
            expected: 7,
            ..expected
        };
        assert_eq!(after(arrivals).compare(&committed()), expected);
    }

    const ALL: [(usize, u64); 7] = [(0, 1), (1, 1), (0, 2), (0, 3), (1, 2), (0, 4), (0, 5)];

    #[test]
    fn everything_once_and_in_order_is_clean() {
        let verdict = after(&ALL).compare(&committed());
        assert_eq!((verdict.delivered, verdict.expected), (7, 7));
        assert!(verdict.is_clean());
    }

    #[test]
    fn a_hole_is_a_loss() {
        check(
            &[(0, 1), (0, 2), (0, 5), (1, 1), (1, 2)],
            Verdict {
                delivered: 5,
                lost: 2,
                ..Verdict::default()
            },
        );
    }

    #[test]
    fn a_missing_start_or_end_is_a_loss() {
        check(
            &[(0, 2), (0, 3), (0, 4), (1, 1)],
            Verdict {
                delivered: 4,
                lost: 3,
                ..Verdict::default()
            },
        );
        check(
            &[],
            Verdict {
                lost: 7,
                ..Verdict::default()
            },
        );
    }

    #[test]
    fn a_second_copy_is_a_double_and_not_disorder() {
        let mut arrivals = ALL.to_vec();
        arrivals.extend([(0, 5), (0, 2)]);
        check(
            &arrivals,
            Verdict {
                delivered: 7,
                doubled: 2,
                ..Verdict::default()
            },
        );
    }

    #[test]
    fn a_swap_is_disorder_and_not_a_loss() {
        check(
            &[(0, 1), (0, 4), (0, 3), (0, 2), (0, 5), (1, 2), (1, 1)],
            Verdict {
                delivered: 7,
                reordered: 3,
                ..Verdict::default()
            },
        );
    }

    #[test]
    fn a_late_one_that_comes_twice_is_both() {
        check(
            &[
                (0, 1),
                (0, 3),
                (0, 2),
                (0, 2),
                (0, 4),
                (0, 5),
                (1, 1),
                (1, 2),
            ],
            Verdict {
                delivered: 7,
                reordered: 1,
                doubled: 1,
                ..Verdict::default()
            },
        );
    }

    #[test]
    fn what_failed_to_commit_is_not_missed_and_must_not_arrive() {
        let mut truth = committed();
        for number in [2, 4] {
            truth.set_failed(Stamp {
                writer: 0,
                session: 1,
                number,
            });
        }
        assert_eq!((truth.of_session(1), truth.total()), (5, 8));
        let verdict = after(&[(0, 1), (0, 3), (0, 4), (0, 5), (1, 1), (1, 2)]).compare(&truth);
        assert_eq!(
            verdict,
            Verdict {
                expected: 5,
                delivered: 5,
                uncommitted: 1,
                ..Verdict::default()
            }
        );
    }

    #[test]
    fn invented_numbers_and_writers_are_found_without_using_memory_for_them() {
        let mut arrivals = ALL.to_vec();
        arrivals.extend([(0, u64::MAX / 2), (0, 6), (9, 1)]);
        check(
            &arrivals,
            Verdict {
                delivered: 7,
                uncommitted: 3,
                reordered: 1,
                ..Verdict::default()
            },
        );
    }

    #[test]
    fn number_zero_and_the_largest_number_are_harmless() {
        let received = after(&[(0, 0), (0, u64::MAX), (0, u64::MAX)]);
        let verdict = received.compare(&committed());
        assert_eq!((verdict.lost, verdict.doubled), (7, 2));
    }

    #[test]
    fn subscribers_that_saw_another_order_across_writers_differ() {
        let one = after(&[(0, 1), (1, 1)]);
        let other = after(&[(1, 1), (0, 1)]);
        assert_ne!(one.order(), other.order());
        assert_eq!(one.order(), after(&[(0, 1), (1, 1)]).order());
    }
}
