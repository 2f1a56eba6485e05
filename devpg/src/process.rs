//! Processes: a command run to its end within a time limit, and signals to processes known by their id.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use crate::Error;

/// How often a condition that nobody announces is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The most of an output or a log that is kept for a message.
const TAIL_BYTES: u64 = 4096;

pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// The last lines of stdout and stderr together.
    pub(crate) output: String,
}

/// Runs a command to its end, without input. It is killed when it takes longer than `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Finished, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let spawn_error = |source| Error::Spawn {
        program: program.clone(),
        source,
    };
    // A file, not a pipe: nobody has to read it while the command runs, and a grandchild that keeps it open blocks nobody.
    let mut output = tempfile::tempfile().map_err(spawn_error)?;
    let (stdout, stderr) = (
        output.try_clone().map_err(spawn_error)?,
        output.try_clone().map_err(spawn_error)?,
    );
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(spawn_error)?;
    match wait(&mut child, limit) {
        Some(status) => Ok(Finished {
            status,
            output: tail(&mut output),
        }),
        None => {
            // It may have ended this very moment; either way it is reaped.
            let _ = child.kill();
            let _ = child.wait();
            Err(Error::TimedOut {
                program,
                seconds: limit.as_secs(),
            })
        }
    }
}

/// Like [`run`], but an exit status other than success is an error that shows the output.
pub(crate) fn run_well(command: &mut Command, limit: Duration) -> Result<String, Error> {
    let finished = run(command, limit)?;
    if finished.status.success() {
        return Ok(finished.output);
    }
    Err(Error::Failed {
        program: command.get_program().to_string_lossy().into_owned(),
        status: finished.status.to_string(),
        output: finished.output,
    })
}

/// Waits until the child has ended; `None` when it has not after `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_until(limit, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    status
}

/// Looks at a condition until it holds (true) or the time is up (false).
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// The end of a log file, for a message; empty if it cannot be read.
pub(crate) fn log_tail(path: &Path) -> String {
    File::open(path)
        .map(|mut file| tail(&mut file))
        .unwrap_or_default()
}

fn tail(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // A tail that cannot be read is an empty one: the message it belongs to is worth more than an error about it.
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)));
    let _ = file.take(TAIL_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Sends a signal. A process that is already gone has what it was meant to get.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether the process exists and has not ended. One that waits to be reaped has ended: in a container nobody may ever reap it.
pub(crate) fn is_alive(pid: i32) -> bool {
    has_number(pid) && stat(pid).is_none_or(|(state, _)| state != 'Z')
}

/// Whether the number is in use, if only by a process that waits to be reaped.
pub(crate) fn has_number(pid: i32) -> bool {
    // Not allowed to signal it means that it exists.
    Pid::from_raw(pid)
        .is_some_and(|id| rustix::process::test_kill_process(id) != Err(rustix::io::Errno::SRCH))
}

/// The children of a process.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    if let Some(all) = all() {
        return all
            .into_iter()
            .filter(|pid| stat(*pid).is_some_and(|(_, its_parent)| its_parent == parent))
            .collect();
    }
    let listed = run(
        Command::new("pgrep").arg("-P").arg(parent.to_string()),
        Duration::from_secs(5),
    );
    listed
        .map(|listed| {
            listed
                .output
                .lines()
                .filter_map(|line| line.trim().parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

/// The processes whose current directory is this one, as far as that can be seen: on Linux, among our own.
pub(crate) fn inside(dir: &Path) -> Vec<i32> {
    let Ok(dir) = dir.canonicalize() else {
        return Vec::new();
    };
    let is_inside = |pid: &i32| current_dir(*pid).is_some_and(|its| its == dir);
    all()
        .unwrap_or_default()
        .into_iter()
        .filter(is_inside)
        .collect()
}

pub(crate) fn current_dir(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// All processes, where there is a /proc to tell.
fn all() -> Option<Vec<i32>> {
    let entries = fs::read_dir("/proc")
        .ok()
        .filter(|_| Path::new("/proc/self/stat").exists())?;
    Some(
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect(),
    )
}

/// State and parent of a process, where there is a /proc. The name before them is in parentheses and may contain anything.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_killed() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).err();
        assert!(matches!(error, Some(Error::TimedOut { .. })), "{error:?}");
    }

    #[test]
    fn a_failure_shows_both_outputs() {
        let error = run_well(
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]),
            Duration::from_secs(10),
        )
        .err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("one\ntwo") && text.contains('3'), "{text}");
    }

    #[test]
    fn children_are_found_and_an_unreaped_one_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("a pid");
        let this = i32::try_from(std::process::id()).expect("a pid");
        assert!(is_alive(pid) && children(this).contains(&pid));
        signal(pid, Signal::KILL);
        assert!(
            wait_until(Duration::from_secs(10), || !is_alive(pid)),
            "a killed child counts as alive before it is reaped"
        );
        child.wait().expect("reaped");
        assert!(!is_alive(pid));
    }
}
