//! What a process and its children cost: CPU seconds and memory, from `/proc`. Elsewhere than on Linux there is nothing
//! to read, and the report leaves the figures out.

use std::collections::HashMap;
use std::fs;

use serde::Serialize;

/// `USER_HZ`: the unit of the times in `/proc`. It is 100 on every Linux platform that the toolchain supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// A reading. The CPU time is since the start of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    cpu_seconds: f64,
    resident_bytes: u64,
    peak_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    /// Spent between two readings.
    pub(crate) cpu_seconds: f64,
    /// At the second reading. Memory that processes share counts once.
    pub(crate) memory_bytes: u64,
    /// The most that the process ever had; not known for a tree of processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_memory_bytes: Option<u64>,
}

pub(crate) fn between(before: Option<Reading>, after: Option<Reading>) -> Option<Usage> {
    let (before, after) = (before?, after?);
    Some(Usage {
        cpu_seconds: (after.cpu_seconds - before.cpu_seconds).max(0.0),
        memory_bytes: after.resident_bytes,
        peak_memory_bytes: after.peak_bytes,
    })
}

pub(crate) fn of_process(pid: u32) -> Option<Reading> {
    let stat = Stat::read(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Reading {
        cpu_seconds: stat.own_ticks as f64 / TICKS_PER_SECOND,
        resident_bytes: kibibytes(&status, "VmRSS:")?,
        peak_bytes: kibibytes(&status, "VmHWM:"),
    })
}

/// A process and everything below it. Children that have ended count, too: their parent has inherited their time.
pub(crate) fn of_tree(root: u32) -> Option<Reading> {
    let processes: HashMap<u32, Stat> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, Stat::read(pid)?))
        })
        .collect();
    let mut reading = Reading {
        cpu_seconds: 0.0,
        resident_bytes: 0,
        peak_bytes: None,
    };
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        let Some(stat) = processes.get(&pid) else {
            continue;
        };
        reading.cpu_seconds += (stat.own_ticks + stat.ended_ticks) as f64 / TICKS_PER_SECOND;
        reading.resident_bytes += proportional_bytes(pid).unwrap_or(stat.resident_bytes);
        todo.extend(
            processes
                .iter()
                .filter(|(_, child)| child.parent == pid)
                .map(|(child, _)| *child),
        );
    }
    processes.contains_key(&root).then_some(reading)
}

/// Resident memory in which each shared page is divided by the number of its users: PostgreSQL's processes share their
/// buffers, and a plain sum would count those many times.
fn proportional_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kibibytes(&rollup, "Pss:")
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    ended_ticks: u64,
    resident_bytes: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold blanks and parentheses; what follows the last one is regular.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(field(1)?).ok()?,
            own_ticks: field(11)? + field(12)?,
            ended_ticks: field(13)? + field(14)?,
            // In pages; 4 KiB everywhere that this fallback matters.
            resident_bytes: field(21)? * 4096,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_look_like_fields() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 999 1000000 250 1844";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                parent: 7,
                own_ticks: 33,
                ended_ticks: 77,
                resident_bytes: 250 * 4096,
            })
        );
        assert_eq!(Stat::parse("42 (cut off"), None);
    }

    #[test]
    fn reads_sizes_by_name() {
        assert_eq!(
            kibibytes("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"),
            Some(12 * 1024)
        );
        assert_eq!(kibibytes("VmPeak:\t 9 kB\n", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reads_this_process() {
        let pid = std::process::id();
        assert!(of_process(pid).is_some_and(|reading| reading.resident_bytes > 0));
        assert!(of_tree(pid).is_some_and(|reading| reading.resident_bytes > 0));
        assert!(between(of_process(pid), None).is_none());
    }
}
