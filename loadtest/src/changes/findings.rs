//! What all subscribers saw, against what was committed: the verdict on a run.

use std::collections::{BTreeMap, HashMap};

use super::audience::Outcome;
use crate::ledger::{Committed, Verdict};

/// What the subscribers saw, against what was committed.
pub(super) struct Findings {
    pub(super) sum: Verdict,
    subscribers: usize,
    not_clean: usize,
    pub(super) sessions_without_one_order: usize,
    /// Reasons for which subscribers ended early, and how many each.
    pub(super) ends: BTreeMap<String, usize>,
}

impl Findings {
    pub(super) fn of(outcomes: &[Outcome], committed: &Committed) -> Self {
        let mut findings = Self {
            sum: Verdict::default(),
            subscribers: outcomes.len(),
            not_clean: 0,
            sessions_without_one_order: 0,
            ends: BTreeMap::new(),
        };
        let mut orders: HashMap<usize, Vec<u64>> = HashMap::new();
        for outcome in outcomes {
            let verdict = outcome.received.compare(committed);
            findings.sum += verdict;
            if verdict.is_clean() {
                orders
                    .entry(outcome.received.session())
                    .or_default()
                    .push(outcome.received.order());
            } else {
                findings.not_clean += 1;
            }
            if let Some(end) = &outcome.end {
                *findings.ends.entry(end.clone()).or_default() += 1;
            }
        }
        // Those who got everything must have got it in the same order, also across writers.
        findings.sessions_without_one_order = orders
            .values()
            .filter(|seen| seen.iter().any(|order| *order != seen[0]))
            .count();
        findings
    }

    pub(super) fn passed(&self) -> bool {
        self.sum.is_clean()
            && self.sum.delivered > 0
            && self.sessions_without_one_order == 0
            && self.ends.is_empty()
    }

    pub(super) fn print(&self) {
        let sum = &self.sum;
        println!(
            "expected {}, delivered {}: {} lost, {} doubled, {} reordered, {} never committed; \
             {} of {} subscribers saw something wrong; {} sessions whose subscribers saw different orders",
            sum.expected,
            sum.delivered,
            sum.lost,
            sum.doubled,
            sum.reordered,
            sum.uncommitted,
            self.not_clean,
            self.subscribers,
            self.sessions_without_one_order,
        );
        for (reason, count) in &self.ends {
            println!("{count} subscribers ended early: {reason}");
        }
    }
}
