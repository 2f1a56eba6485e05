//! The gateway of one run: a process of its own, and the few questions that are put to it over HTTP.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::timeout;
use uuid::Uuid;

const READY_LIMIT: Duration = Duration::from_secs(60);
const READY_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// An answer of the server that is longer is not read to its end.
const ANSWER_BYTES: u64 = 1 << 20;

/// How much of the server's log an error shows.
const LOG_TAIL: usize = 2000;

/// Becomes the server, and leaves behind a watcher that stops it when the load test is gone, however it went: the
/// watcher reads a pipe that only the load test holds open. The server gets as many sockets as the system allows.
const SERVE: &str = r#"
ulimit -n "$(ulimit -Hn)" 2>/dev/null
server=$$
exec 3<&0 </dev/null
( exec >/dev/null 2>&1; cat <&3; kill -TERM "$server" ) &
exec 3<&-
exec "$0" serve
"#;

/// What a server is started with.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) database_url: String,
    pub(crate) secret: String,
    /// Variables of its environment.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) dir: PathBuf,
    /// What it writes is added to this file.
    pub(crate) log: PathBuf,
}

impl Launch {
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = std::fs::read(&self.log).unwrap_or_default();
        error.context(format!("the server does not start:\n{}", tail(&log)))
    }
}

pub(crate) fn new_secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// A command that knows this database and none of our own surroundings' settings.
pub(super) fn tidings(program: &Path, database_url: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command.env("DATABASE_URL", database_url).current_dir(dir);
    command
}

/// The gateway of one run.
pub(crate) struct OwnServer {
    child: Child,
    address: SocketAddr,
    secret: String,
}

impl OwnServer {
    /// Starts it on a free port, and does not wait until it is ready.
    pub(crate) async fn start(launch: &Launch) -> anyhow::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await?
            .local_addr()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&launch.log)
            .context("cannot make the server's log file")?;
        let mut command = tidings(Path::new("sh"), &launch.database_url, &launch.dir);
        command
            .arg("-c")
            .arg(SERVE)
            .arg(gateway_binary()?)
            .env("TIDINGS_LISTEN", address.to_string())
            .env("TIDINGS_JWT_SECRET", &launch.secret)
            .envs(launch.settings.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .context("cannot run sh")?;
        Ok(Self {
            child,
            address,
            secret: launch.secret.clone(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it in the middle of what it does.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if self.ended()?.is_none() {
            self.child.kill().await.context("cannot kill the server")?;
        }
        // The watcher has nothing to stop any more.
        drop(self.child.stdin.take());
        Ok(())
    }

    pub(crate) async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if let Some(status) = self.ended()? {
                bail!("it ended with {status}");
            }
            let last = timeout(PROBE_LIMIT, status_of(self.address, "/readyz")).await;
            match last {
                Ok(Ok(200)) => return Ok(()),
                _ if Instant::now() < deadline => tokio::time::sleep(READY_INTERVAL).await,
                Ok(Ok(status)) => bail!(
                    "/readyz still answers {status} after {} s",
                    READY_LIMIT.as_secs()
                ),
                _ => bail!("/readyz does not answer after {} s", READY_LIMIT.as_secs()),
            }
        }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        // The watcher sees the end of the pipe and asks the server to stop.
        drop(self.child.stdin.take());
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            eprintln!(
                "the server did not stop within {} s and is killed",
                STOP_LIMIT.as_secs()
            );
            let _ = self.child.kill().await;
        }
    }
}

/// The status of an HTTP GET: all that is needed here.
pub(crate) async fn status_of(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let answer = get(address, path).await?;
    let line = answer
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let status = std::str::from_utf8(line)?
        .split(' ')
        .nth(1)
        .context("no HTTP status line")?;
    Ok(status.parse()?)
}

/// The whole answer to an HTTP GET, headers included.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Built into the same directory as this program.
pub(super) fn gateway_binary() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let dir = this.parent().context("this program is in no directory")?;
    let binary = dir.join("tidings");
    if !binary.is_file() {
        let release = if dir.ends_with("release") {
            " --release"
        } else {
            ""
        };
        bail!(
            "{} is not there; build it with: cargo build{release} -p gateway",
            binary.display()
        );
    }
    Ok(binary)
}

/// The end of a log.
pub(crate) fn tail(log: &[u8]) -> String {
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_the_status_of_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        assert_eq!(status_of(address, "/readyz").await.unwrap(), 503);
        assert!(
            server
                .await
                .unwrap()
                .starts_with("GET /readyz HTTP/1.1\r\n")
        );
    }

    #[test]
    fn a_log_is_cut_from_the_front() {
        assert_eq!(tail(b"short"), "short");
        assert!(tail(&[b"x".repeat(5000), b"end".to_vec()].concat()).ends_with("xend"));
    }
}
