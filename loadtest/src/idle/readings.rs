//! The server's memory at several numbers of connections, and what one connection costs by that.

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use crate::report::{Better, Contestant};
use crate::scene::memory::{self, Kernel, Memory};

const MILLION: f64 = 1e6;
const GIB: f64 = (1 << 30) as f64;

#[derive(Clone, Copy, Debug, Serialize)]
struct Reading {
    connections: usize,
    memory: Memory,
    kernel: Kernel,
}

#[derive(Debug, Default)]
pub(super) struct Readings {
    steps: Vec<Reading>,
    after_messages: Option<Reading>,
}

/// A straight line: what there is without any, and what each adds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    base: f64,
    slope: f64,
}

impl Line {
    /// With the least squares of the distances. None if all points are at the same place.
    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let sum = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>();
        let (x, y) = (sum(|point| point.0) / count, sum(|point| point.1) / count);
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let common: f64 = points
            .iter()
            .map(|point| (point.0 - x) * (point.1 - y))
            .sum();
        (spread > 0.0).then(|| {
            let slope = common / spread;
            Self {
                base: y - slope * x,
                slope,
            }
        })
    }

    fn at(self, x: f64) -> f64 {
        self.base + self.slope * x
    }
}

impl Readings {
    pub(super) fn take(&mut self, pid: u32, connections: usize) -> anyhow::Result<()> {
        let reading = read(pid, connections)?;
        eprintln!(
            "{connections:>7} connections: {:.1} MiB private",
            mebibytes(reading.memory.private)
        );
        self.steps.push(reading);
        Ok(())
    }

    fn line(&self, of: fn(&Reading) -> u64) -> anyhow::Result<Line> {
        let points: Vec<(f64, f64)> = self
            .steps
            .iter()
            .map(|reading| (reading.connections as f64, of(reading) as f64))
            .collect();
        Line::through(&points).context("memory was read at one number of connections only")
    }

    pub(super) fn figures(&self, contestant: Contestant) -> anyhow::Result<Contestant> {
        let private = self.line(|reading| reading.memory.private)?;
        let resident = self.line(|reading| reading.memory.resident)?;
        let kernel = self.line(|reading| reading.kernel.slab + reading.kernel.tcp_buffers)?;
        let last = self.steps.last().context("nothing was read")?;
        Ok(contestant
            .figure(
                "connections",
                "connections",
                "",
                last.connections as f64,
                Better::Neither,
            )
            .figure(
                "bytes_per_connection",
                "private memory of a connection (slope)",
                "B",
                private.slope,
                Better::Lower,
            )
            .figure(
                "resident_bytes_per_connection",
                "resident memory of a connection (slope)",
                "B",
                resident.slope,
                Better::Lower,
            )
            .figure(
                "server_base_mib",
                "server without connections, by the line",
                "MiB",
                private.base / f64::from(1 << 20),
                Better::Lower,
            )
            .figure(
                "million_connections_gib",
                "prediction for a million, without the kernel's",
                "GiB",
                private.at(MILLION) / GIB,
                Better::Lower,
            )
            .figure(
                "kernel_bytes_per_connection",
                "kernel memory of a connection, both ends",
                "B",
                kernel.slope,
                Better::Neither,
            ))
    }

    /// What a connection costs that has been busy, counted from the server's memory without any.
    pub(super) fn after_messages(
        &mut self,
        pid: u32,
        contestant: Contestant,
    ) -> anyhow::Result<Contestant> {
        let last = self.steps.last().context("nothing was read")?;
        let base = self.line(|reading| reading.memory.private)?.base;
        let reading = read(pid, last.connections)?;
        self.after_messages = Some(reading);
        Ok(contestant.figure(
            "bytes_per_connection_after_messages",
            "the same after messages, and silence",
            "B",
            (reading.memory.private as f64 - base) / reading.connections.max(1) as f64,
            Better::Lower,
        ))
    }

    pub(super) fn print(&self) {
        println!(
            "{:<34}{:>12}{:>12}{:>12}{:>14}{:>14}",
            "connections", "private MiB", "PSS MiB", "RSS MiB", "kernel slab", "TCP buffers"
        );
        let row = |name: String, reading: &Reading| {
            println!(
                "{name:<34}{:>12.1}{:>12.1}{:>12.1}{:>14.1}{:>14.1}",
                mebibytes(reading.memory.private),
                mebibytes(reading.memory.proportional),
                mebibytes(reading.memory.resident),
                mebibytes(reading.kernel.slab),
                mebibytes(reading.kernel.tcp_buffers),
            );
        };
        for reading in &self.steps {
            row(reading.connections.to_string(), reading);
        }
        if let Some(reading) = &self.after_messages {
            row(format!("{} after messages", reading.connections), reading);
        }
        println!(
            "the kernel's part is that of the whole machine: both ends of each connection, and whatever else runs\n"
        );
    }

    pub(super) fn results(&self) -> serde_json::Value {
        json!({"readings": self.steps, "after_messages": self.after_messages})
    }
}

fn read(pid: u32, connections: usize) -> anyhow::Result<Reading> {
    Ok(Reading {
        connections,
        memory: memory::of_process(pid)
            .with_context(|| format!("cannot read /proc/{pid}/smaps_rollup"))?,
        kernel: memory::of_kernel().unwrap_or_default(),
    })
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_finds_the_slope_through_noise() {
        let exact: Vec<(f64, f64)> = (0..5)
            .map(|n| (f64::from(n), 7.0 + 3.0 * f64::from(n)))
            .collect();
        let line = Line::through(&exact).unwrap();
        assert!((line.slope - 3.0).abs() < 1e-9 && (line.base - 7.0).abs() < 1e-9);
        assert!((line.at(100.0) - 307.0).abs() < 1e-6);
        // The errors are not in line with the places, so they leave the slope as it is.
        let noisy = [(0.0, 1.0), (1.0, 0.0), (2.0, 2.0 + 1.0), (3.0, 2.0)];
        let line = Line::through(&noisy).unwrap();
        assert!((line.slope - 0.6).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn one_place_has_no_slope() {
        assert_eq!(Line::through(&[(1.0, 2.0), (1.0, 4.0)]), None);
        assert_eq!(Line::through(&[]), None);
    }
}
