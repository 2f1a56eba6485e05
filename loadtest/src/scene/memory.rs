//! What a process takes of the machine's memory, and what the kernel takes for its sockets. From `/proc`: elsewhere than on
//! Linux there is nothing to read.

use std::fs;

use serde::Serialize;

/// The unit of `/proc/net/sockstat`; 4 KiB on every platform that this matters on.
const PAGE: u64 = 4096;

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// All pages that it has in memory, those of shared libraries included.
    pub(crate) resident: u64,
    /// The same, with each shared page divided by the number of its users.
    pub(crate) proportional: u64,
    /// Pages that nobody else has: what would be free if it ended.
    pub(crate) private: u64,
}

/// What the kernel has for all sockets of this machine, those of the load test included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Kernel {
    /// Bytes that wait in buffers of TCP.
    pub(crate) tcp_buffers: u64,
    /// The kernel's objects that it cannot give back, sockets among them.
    pub(crate) slab: u64,
    pub(crate) tcp_sockets: u64,
}

pub(crate) fn of_process(pid: u32) -> Option<Memory> {
    Memory::parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

pub(crate) fn of_kernel() -> Option<Kernel> {
    let sockets = fs::read_to_string("/proc/net/sockstat").ok()?;
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    Kernel::parse(&sockets, &memory)
}

impl Memory {
    fn parse(rollup: &str) -> Option<Self> {
        let field = |key| kibibytes(rollup, key);
        Some(Self {
            resident: field("Rss:")?,
            proportional: field("Pss:")?,
            private: field("Private_Clean:")? + field("Private_Dirty:")?,
        })
    }
}

impl Kernel {
    fn parse(sockets: &str, memory: &str) -> Option<Self> {
        let line = sockets.lines().find_map(|line| line.strip_prefix("TCP:"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let field = |name: &str| {
            let position = words.iter().position(|word| *word == name)?;
            words.get(position + 1)?.parse::<u64>().ok()
        };
        Some(Self {
            tcp_buffers: field("mem")? * PAGE,
            tcp_sockets: field("inuse")?,
            slab: kibibytes(memory, "SUnreclaim:")?,
        })
    }
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_only_this_process_has() {
        let rollup = "0-1 ---p 0 00:00 0 [rollup]\nRss:  30 kB\nPss:  20 kB\nPss_Dirty: 9 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 2 kB\n";
        let expected = Memory {
            resident: 30 << 10,
            proportional: 20 << 10,
            private: 3 << 10,
        };
        assert_eq!(Memory::parse(rollup), Some(expected));
        assert_eq!(Memory::parse("Rss: 1 kB\n"), None);
    }

    #[test]
    fn reads_what_the_kernel_has_for_sockets() {
        let sockets =
            "sockets: used 90\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem 3\nUDP: inuse 1 mem 9\n";
        let expected = Kernel {
            tcp_buffers: 3 * 4096,
            slab: 8 << 10,
            tcp_sockets: 5,
        };
        assert_eq!(
            Kernel::parse(sockets, "Slab: 9 kB\nSUnreclaim:  8 kB\n"),
            Some(expected)
        );
        assert_eq!(Kernel::parse("UDP: inuse 1\n", "SUnreclaim: 8 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reads_this_process_and_this_kernel() {
        let memory = of_process(std::process::id()).unwrap();
        assert!(memory.resident >= memory.proportional && memory.proportional >= memory.private);
        assert!(memory.private > 0 && of_kernel().is_some());
    }
}
