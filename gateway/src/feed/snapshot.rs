//! PostgreSQL's snapshots: which transactions had committed at a moment.

use std::fmt;

/// `xmin:xmax:xip,…` as `pg_snapshot` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// In order; each at least `xmin` and below `xmax`.
    running: Vec<u64>,
}

impl Snapshot {
    pub fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let (xmin, xmax, running) = (parts.next()?, parts.next()?, parts.next()?);
        let running = running
            .split(',')
            .filter(|xid| !xid.is_empty())
            .map(|xid| xid.parse().ok())
            .collect::<Option<_>>()?;
        Snapshot::new(xmin.parse().ok()?, xmax.parse().ok()?, running)
    }

    /// None if that is no snapshot.
    pub fn new(xmin: u64, xmax: u64, running: Vec<u64>) -> Option<Snapshot> {
        let sorted = running.is_sorted_by(|a, b| a < b);
        let inside = running.iter().all(|xid| (xmin..xmax).contains(xid));
        (xmin <= xmax && sorted && inside).then_some(Snapshot {
            xmin,
            xmax,
            running,
        })
    }

    /// All transactions with lower numbers had ended.
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    pub fn running(&self) -> &[u64] {
        &self.running
    }

    /// Whether the transaction had ended when the snapshot was taken.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether it sees all that the other one sees.
    pub fn includes(&self, other: &Snapshot) -> bool {
        let beyond = other.running.partition_point(|xid| *xid < self.xmax);
        let running_beyond = (other.running.len() - beyond) as u64;
        other.xmax.saturating_sub(self.xmax) <= running_beyond
            && !self.running.iter().any(|xid| other.sees(*xid))
    }

    /// What it sees of transactions before this one.
    pub fn before(&self, xid: u64) -> Snapshot {
        let nothing_later = Snapshot {
            xmin: xid,
            xmax: xid,
            running: Vec::new(),
        };
        self.common(&nothing_later)
    }

    /// What both see.
    pub fn common(&self, other: &Snapshot) -> Snapshot {
        let xmax = self.xmax.min(other.xmax);
        let mut running: Vec<_> = self
            .running
            .iter()
            .chain(&other.running)
            .copied()
            .filter(|xid| *xid < xmax)
            .collect();
        running.sort_unstable();
        running.dedup();
        Snapshot {
            xmin: running.first().copied().unwrap_or(xmax),
            xmax,
            running,
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (place, xid) in self.running.iter().enumerate() {
            write!(f, "{}{xid}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    #[test]
    fn sees_what_pg_visible_in_snapshot_sees() {
        let snapshot = snapshot("10:20:10,14");
        for (xid, seen) in [
            (9, true),
            (10, false),
            (11, true),
            (14, false),
            (19, true),
            (20, false),
            (21, false),
        ] {
            assert_eq!(snapshot.sees(xid), seen, "{xid}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "10:20:10,14",
            "7:7:",
            "18446744073709551614:18446744073709551615:",
        ] {
            assert_eq!(snapshot(text).to_string(), text);
        }
        for text in [
            "", "1:2", "a:2:", "1:2:x", "5:4:", "5:9:4", "5:9:9", "5:9:7,6", "5:9:6,6",
        ] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }

    /// Compares with the definition, for all small snapshots.
    #[test]
    fn includes_and_common_mean_what_they_say() {
        let all: Vec<_> = (1..5_u64)
            .flat_map(|xmin| (xmin..6).map(move |xmax| (xmin, xmax)))
            .flat_map(|(xmin, xmax)| {
                (0..1_u32 << (xmax - xmin)).map(move |set| {
                    let running = (xmin..xmax).filter(|xid| set >> (xid - xmin) & 1 == 1);
                    Snapshot::new(xmin, xmax, running.collect()).unwrap()
                })
            })
            .collect();
        for a in &all {
            for b in &all {
                let includes = (0..8).all(|xid| a.sees(xid) || !b.sees(xid));
                assert_eq!(a.includes(b), includes, "{a} {b}");
                let common = a.common(b);
                assert!(
                    (0..8).all(|xid| common.sees(xid) == (a.sees(xid) && b.sees(xid))),
                    "{a} {b}"
                );
            }
        }
    }
}
