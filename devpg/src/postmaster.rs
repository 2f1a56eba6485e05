//! What a data directory's `postmaster.pid` says about the server that runs on it, ran on it, or is about to.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Error, process};

/// A server whose owner was killed is told to stop at once; this long it may take to begin with that.
const TO_BEGIN_STOPPING: Duration = Duration::from_secs(3);

/// As long as a supervisor takes at most.
const TO_STOP: Duration = Duration::from_secs(40);

/// The lock file of a server. Line 1 is the process, line 3 the time of its start, line 8 what it is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub(crate) pid: i32,
    started: String,
    status: String,
}

impl PidFile {
    pub(crate) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("postmaster.pid")
    }

    /// `None` if there is none, or it is being written.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(Self::path(data_dir)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok().filter(|pid| *pid > 0)?,
            started: (*lines.get(2)?).to_owned(),
            status: lines.get(7).copied().unwrap_or_default().to_owned(),
        })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ready"
    }

    fn is_stopping(&self) -> bool {
        self.status == "stopping"
    }

    /// Whether both were written by the same server, at different times perhaps.
    pub(crate) fn is_of_same_server(&self, other: &Self) -> bool {
        self.pid == other.pid && self.started == other.started
    }

    /// Whether the process is there and is a server of this data directory. Its number may belong to another one by now,
    /// which in a container, where numbers start low each time, happens often.
    fn is_served(&self, data_dir: &Path) -> bool {
        if !process::is_alive(self.pid) {
            return false;
        }
        // A server stays in its data directory. Where this cannot be seen, the process counts as the server.
        match (process::current_dir(self.pid), data_dir.canonicalize()) {
            (Some(cwd), Ok(data_dir)) => cwd == data_dir,
            _ => true,
        }
    }
}

/// Makes sure that no server runs on the data directory: one that is stopping is waited for, any other is an error that names
/// it. What remains of a server that is gone is left for PostgreSQL to judge, unless its process number is somebody else's.
pub(crate) fn wait_until_none(data_dir: &Path) -> Result<(), Error> {
    let served = || PidFile::read(data_dir).filter(|file| file.is_served(data_dir));
    let mut left = served();
    if left.is_some() {
        process::wait_until(TO_BEGIN_STOPPING, || {
            left = served();
            left.as_ref().is_none_or(PidFile::is_stopping)
        });
    }
    if left.as_ref().is_some_and(PidFile::is_stopping) {
        process::wait_until(TO_STOP, || {
            left = served();
            left.is_none()
        });
    }
    if let Some(file) = left {
        return Err(Error::StillRunning {
            data_dir: data_dir.to_owned(),
            pid: file.pid,
        });
    }
    // PostgreSQL itself would take any process of this number for the server and refuse to start, even one that has ended
    // and that nobody reaps. Without the file it cannot tell that a session of a killed server is still at work, so that is
    // made sure of before.
    if PidFile::read(data_dir).is_some_and(|file| process::has_number(file.pid)) {
        let mut at_work = Vec::new();
        process::wait_until(TO_STOP, || {
            at_work = process::inside(data_dir);
            at_work.is_empty()
        });
        if let Some(pid) = at_work.first() {
            return Err(Error::StillRunning {
                data_dir: data_dir.to_owned(),
                pid: *pid,
            });
        }
        let path = PidFile::path(data_dir);
        fs::remove_file(&path).map_err(Error::io("remove", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "4711\n/data\n1700000000\n5432\n\n127.0.0.1\n  5432001  65536\nready   \n";

    #[test]
    fn the_file_is_read_at_every_stage_of_its_making() {
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("4711\n"), None);
        assert_eq!(PidFile::parse("-1\n/data\n17\n"), None);
        let early = PidFile::parse("4711\n/data\n1700000000\n5432\n\n").expect("early");
        let ready = PidFile::parse(READY).expect("ready");
        assert!(!early.is_ready() && ready.is_ready() && early.is_of_same_server(&ready));
        let later = PidFile::parse(&READY.replace("1700000000", "1700000009")).expect("later");
        assert!(!later.is_of_same_server(&ready));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_number_that_is_somebody_elses_by_now_is_no_server() {
        let data = tempfile::tempdir().expect("a directory");
        let file = PidFile::path(data.path());
        fs::write(
            &file,
            READY.replace("4711", &std::process::id().to_string()),
        )
        .expect("written");
        wait_until_none(data.path()).expect("this test is no server");
        assert!(!file.exists());
    }
}
