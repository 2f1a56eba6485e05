//! Who uses the processors during a turn: the server, PostgreSQL, the load test, and others, who have no business there.

use std::time::Instant;

use super::host::Host;
use crate::usage::{Reading, Usage, between, of_process};

/// `USER_HZ`, as in [`crate::usage`].
const TICKS_PER_SECOND: f64 = 100.0;

/// The readings of all, at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Readings {
    at: Instant,
    server: Option<Reading>,
    postgres: Option<Reading>,
    loadtest: Option<Reading>,
    machine: Option<f64>,
}

/// Who used how much in a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    pub(crate) server: Option<Usage>,
    pub(crate) postgres: Option<Usage>,
    pub(crate) loadtest: Option<Usage>,
    /// Processors that were busy with something else, on average. If there are many, the figures are of no use.
    pub(crate) others: Option<f64>,
}

impl Readings {
    pub(crate) fn take(server: Option<Reading>, postgres: Option<Reading>) -> Self {
        Self {
            at: Instant::now(),
            server,
            postgres,
            loadtest: of_process(std::process::id()),
            machine: std::fs::read_to_string("/proc/stat")
                .ok()
                .and_then(|text| busy_seconds(&text)),
        }
    }

    pub(crate) fn of(host: &dyn Host) -> Self {
        Self::take(host.server_usage(), host.postgres_usage())
    }

    pub(crate) fn until(self, later: Self) -> Costs {
        let mut costs = Costs {
            server: between(self.server, later.server),
            postgres: between(self.postgres, later.postgres),
            loadtest: between(self.loadtest, later.loadtest),
            others: None,
        };
        let known = [costs.server, costs.postgres, costs.loadtest];
        let known: f64 = known.iter().flatten().map(|one| one.cpu_seconds).sum();
        let seconds = (later.at - self.at).as_secs_f64();
        if let (Some(before), Some(after)) = (self.machine, later.machine) {
            costs.others = Some(((after - before - known) / seconds).max(0.0));
        }
        costs
    }
}

/// What all processors together were busy for since the machine started. Time that another machine has taken counts, too.
fn busy_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let mut sum = 0;
    for (index, field) in line.split_whitespace().take(8).enumerate() {
        // The fourth and the fifth are idle and waiting for a disk.
        if index != 3 && index != 4 {
            sum += field.parse::<u64>().ok()?;
        }
    }
    Some(sum as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_busy_with_all_but_idling() {
        let stat = "cpu  100 20 30 9999 9999 4 5 6 77 88\ncpu0 1 2 3";
        assert_eq!(busy_seconds(stat), Some(1.65));
        assert_eq!(busy_seconds("intr 5"), None);
        assert_eq!(busy_seconds(""), None);
    }
}
