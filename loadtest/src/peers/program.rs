//! A peer as a process of one run. It ends with the load test, however that ends.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::catalog::{Ready, sources};
use crate::own::{status_of, tail};

const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Becomes the program, and leaves behind a watcher that stops it when the load test is gone: the watcher reads a pipe
/// that only the load test holds open. The program gets as many sockets as the system allows.
const START: &str = r#"
ulimit -n "$(ulimit -Hn)" 2>/dev/null
program=$$
exec 3<&0 </dev/null
( exec >/dev/null 2>&1; cat <&3; kill -TERM "$program" ) &
exec 3<&-
exec "$0" "$@"
"#;

pub(super) struct Program {
    name: String,
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Program {
    /// Starts it at this address, and does not wait until it is ready.
    pub(super) fn start(
        name: &str,
        address: SocketAddr,
        database_url: &str,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).context("cannot make the log file of a peer")?;
        let child = Command::new("sh")
            .arg("-c")
            .arg(START)
            .arg(sources().join("start"))
            .arg(name)
            .env("LISTEN", address.to_string())
            .env("DATABASE_URL", database_url)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("cannot run sh")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            address,
            log,
        })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(super) async fn wait_until_ready(&mut self, ready: Ready) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.is_ready(ready).await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} has ended with {status}:\n{}", self.name, self.said());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {} s:\n{}",
                    self.name,
                    READY_LIMIT.as_secs(),
                    self.said()
                );
            }
            tokio::time::sleep(READY_INTERVAL).await;
        }
        Ok(())
    }

    async fn is_ready(&self, ready: Ready) -> bool {
        match ready {
            Ready::Line => has_line(&std::fs::read(&self.log).unwrap_or_default(), b"ready"),
            Ready::Http(path) => {
                let status = timeout(PROBE_LIMIT, status_of(self.address, path)).await;
                matches!(status, Ok(Ok(200)))
            }
        }
    }

    /// An error if it has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended with {status}:\n{}", self.name, self.said()),
            None => Ok(()),
        }
    }

    /// The end of what it has written.
    pub(super) fn said(&self) -> String {
        tail(&std::fs::read(&self.log).unwrap_or_default())
    }

    pub(super) async fn stop(mut self) {
        // The watcher sees the end of the pipe.
        drop(self.child.stdin.take());
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            eprintln!(
                "{} did not stop within {} s and is killed",
                self.name,
                STOP_LIMIT.as_secs()
            );
            let _ = self.child.kill().await;
        }
    }
}

fn has_line(log: &[u8], wanted: &[u8]) -> bool {
    log.split(|byte| *byte == b'\n').any(|line| line == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_a_line_of_its_own() {
        assert!(has_line(b"a warning\nready\n", b"ready"));
        assert!(!has_line(b"not ready\nready soon\n", b"ready"));
    }

    #[tokio::test]
    async fn a_program_that_ends_is_told_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let mut program = Program::start("nobody", address, "postgres://", dir.path()).unwrap();
        let error = program.wait_until_ready(Ready::Line).await.unwrap_err();
        assert!(
            error.to_string().contains("no peer is named nobody"),
            "{error}"
        );
    }
}
