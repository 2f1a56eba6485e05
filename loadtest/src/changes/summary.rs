//! The figures of a run in the shape that all scenarios share.

use hdrhistogram::Histogram;

use super::findings::Findings;
use crate::meter::Latencies;
use crate::report::{Better, Contestant};
use crate::usage::Usage;

pub(super) struct Summary<'a> {
    pub(super) committed: u64,
    pub(super) write_seconds: f64,
    pub(super) delivery_seconds: f64,
    pub(super) connect_seconds: f64,
    pub(super) findings: &'a Findings,
    pub(super) latencies: &'a Latencies,
    pub(super) commit: &'a Histogram<u64>,
    pub(super) lag: &'a Histogram<u64>,
    pub(super) server: Option<Usage>,
    pub(super) postgres: Option<Usage>,
    pub(super) pulse: Vec<(f64, f64)>,
}

impl Summary<'_> {
    pub(super) fn contestant(self, name: &str) -> Contestant {
        let sum = &self.findings.sum;
        let wrong = sum.lost + sum.doubled + sum.reordered + sum.uncommitted;
        let rate = |count: u64, seconds: f64| count as f64 / seconds;
        let mut one = Contestant::new(name)
            .figure(
                "messages_per_second",
                "messages committed",
                "/s",
                rate(self.committed, self.write_seconds),
                Better::Higher,
            )
            .figure(
                "deliveries_per_second",
                "deliveries",
                "/s",
                rate(sum.delivered, self.delivery_seconds),
                Better::Higher,
            );
        let costs = [
            (
                "server_cpu_us_per_delivery",
                "server CPU of a delivery",
                self.server,
                sum.delivered,
            ),
            (
                "postgres_cpu_us_per_message",
                "PostgreSQL CPU of a message",
                self.postgres,
                self.committed,
            ),
        ];
        for (key, title, usage, things) in costs {
            if let Some(usage) = usage {
                let each = usage.cpu_seconds * 1e6 / things as f64;
                one = one.figure(key, title, "µs", each, Better::Lower);
            }
        }
        if let Some(peak) = self.server.and_then(|usage| usage.peak_memory_bytes) {
            let peak = peak as f64 / f64::from(1 << 20);
            one = one.figure(
                "server_peak_mib",
                "server's most memory",
                "MiB",
                peak,
                Better::Lower,
            );
        }
        one.figure(
            "connect_seconds",
            "until all had joined",
            "s",
            self.connect_seconds,
            Better::Lower,
        )
        .figure(
            "wrong",
            "lost, doubled, reordered or never committed",
            "",
            wrong as f64,
            Better::Lower,
        )
        .distribution(
            "from_commit",
            "commit to delivery",
            &self.latencies.from_commit,
        )
        .distribution("from_due", "due time to delivery", &self.latencies.from_due)
        .distribution("insert", "of which insert and commit", self.commit)
        .distribution("harness_late", "of which the harness was late", self.lag)
        .series("deliveries", "Deliveries", "/s", self.pulse)
    }
}
