//! What a run says at its end: a table for people and JSON for programs. All scenarios share one shape.

mod contestant;
mod digits;
mod html;
mod show;
mod table;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::contestant::milliseconds;
pub(crate) use self::contestant::{
    Better, Contestant, Distribution, FLOOR, Figure, Series, ratio, ratio_to_floor,
};
pub(crate) use self::digits::{Digits, number};
pub(crate) use self::html::{HtmlArgs, html};
pub(crate) use self::show::{ShowArgs, show};
pub(crate) use self::table::{aligned, contestants_table, in_order};
use crate::usage::Usage;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) scenario: Cow<'static, str>,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    /// What was measured, if this program was built in its repository. `+` = with changes that are not committed.
    pub(crate) commit: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) parameters: Value,
    /// `{"contestants": […]}`, and what the scenario has besides.
    pub(crate) results: Value,
    /// Whether everything arrived as promised.
    pub(crate) passed: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: Option<String>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) system: String,
}

/// In milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
}

impl Report {
    pub(crate) fn new(scenario: &'static str, parameters: Value) -> Self {
        Self {
            scenario: Cow::Borrowed(scenario),
            started_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            commit: commit(),
            machine: Machine::read(),
            parameters,
            results: Value::Null,
            passed: false,
        }
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The lines above the results.
    pub(crate) fn heading(&self) -> String {
        let machine = &self.machine;
        let processor = machine.processor.as_deref().unwrap_or("unknown processor");
        let commit = self.commit.as_deref().unwrap_or("unknown");
        format!(
            "{}: commit {commit}, {} cores, {processor}, {}\n",
            self.scenario, machine.cores, machine.system
        )
    }
}

impl Machine {
    fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).ok();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = file("/proc/meminfo").and_then(|text| field(&text, "MemTotal"));
        let kernel = file("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: file("/proc/cpuinfo").and_then(|text| field(&text, "model name")),
            memory_bytes: memory
                .and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok())
                .map(|size| size * 1024),
            system: format!(
                "{} {} {}",
                std::env::consts::OS,
                kernel.trim(),
                std::env::consts::ARCH
            ),
        }
    }
}

/// Of the repository that holds the running program, if there is one.
fn commit() -> Option<String> {
    let this = std::env::current_exe().ok()?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(this.parent()?)
            .args(arguments)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

impl Latency {
    /// Of a histogram in microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean: (histogram.mean()).round() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(histogram.max()),
        }
    }
}

/// Rows of latencies under one heading.
pub(crate) fn latency_table(rows: &[(&str, &Latency)]) -> String {
    let mut table = format!(
        "{:<34}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
        "milliseconds", "p50", "p90", "p99", "p99.9", "max"
    );
    for (name, row) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "{name:<34}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            row.p50, row.p90, row.p99, row.p999, row.max
        );
    }
    table
}

pub(crate) fn usage_table(rows: &[(&str, Option<Usage>)]) -> String {
    let mut table = format!(
        "{:<34}{:>10}{:>12}{:>12}\n",
        "cost", "CPU s", "memory MiB", "peak MiB"
    );
    for (name, usage) in rows {
        let Some(usage) = usage else { continue };
        let peak = usage.peak_memory_bytes.map_or_else(
            || "-".to_owned(),
            |bytes| format!("{:.1}", mebibytes(bytes)),
        );
        let _ = writeln!(
            table,
            "{name:<34}{:>10.2}{:>12.1}{peak:>12}",
            usage.cpu_seconds,
            mebibytes(usage.memory_bytes)
        );
    }
    table
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::histogram;

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let mut micros = histogram();
        for value in 1..=1000 {
            micros.record(value * 10).unwrap();
        }
        let latency = Latency::of(&micros);
        assert!((4.99..5.01).contains(&latency.p50), "{latency:?}");
        assert!((9.98..10.02).contains(&latency.max), "{latency:?}");
        let table = latency_table(&[("commit to delivery", &latency)]);
        assert!(table.lines().nth(1).is_some_and(|line| line.starts_with("commit to delivery") && line.contains("5.00")));
    }

    #[test]
    fn a_report_keeps_its_shape() {
        let report = Report::new("changes", serde_json::json!({"rate": 1}));
        let value = serde_json::to_value(&report).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "commit",
                "machine",
                "parameters",
                "passed",
                "results",
                "scenario",
                "started_at"
            ]
        );
        assert!(report.heading().starts_with("changes: commit "));
    }

    #[test]
    fn what_could_not_be_read_is_left_out() {
        let usage = Usage {
            cpu_seconds: 1.5,
            memory_bytes: 3 << 20,
            peak_memory_bytes: None,
        };
        let table = usage_table(&[("gateway", Some(usage)), ("PostgreSQL", None)]);
        assert!(table.contains("gateway") && table.contains("1.50") && table.contains("3.0"));
        assert!(!table.contains("PostgreSQL"));
    }
}
