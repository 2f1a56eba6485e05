//! `--own`: a private PostgreSQL and a `tidings serve` for one run, so that one command reproduces a figure.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::timeout;
use uuid::Uuid;

use crate::database;

const READY_LIMIT: Duration = Duration::from_secs(60);
const READY_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const MIGRATE_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Another process may take the free port before the server does.
const PORT_ATTEMPTS: usize = 3;

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

/// A PostgreSQL that disappears with this value.
pub(crate) struct OwnCluster {
    // The order is that of the drops: the server stops before its files go.
    cluster: devpg::Cluster,
    dir: TempDir,
}

impl OwnCluster {
    /// Durable, as a real one: commits wait for the disk.
    pub(crate) async fn start(postgres: Option<PathBuf>) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || Self::start_blocking(postgres.as_deref())).await?
    }

    fn start_blocking(postgres: Option<&Path>) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;

        let cache = PathBuf::from(".tidings").join("postgres");
        let installation = devpg::find_or_fetch(postgres, &cache, &mut |line| eprintln!("{line}"))?;
        // Under root, PostgreSQL runs as another user, who has to reach its data.
        let dir = tempfile::Builder::new()
            .prefix("tidings-loadtest-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .context("cannot make a temporary directory")?;
        let options = devpg::Options {
            data_dir: dir.path().join("data"),
            port: None,
            settings: Vec::new(),
            durable: true,
        };
        let cluster = devpg::Cluster::start(&installation, options)?;
        Ok(Self { cluster, dir })
    }

    pub(crate) fn version(&self) -> &str {
        &self.cluster.installation().version
    }

    pub(crate) fn url(&self, database: &str) -> String {
        self.cluster.url(database)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.cluster.pid().and_then(|pid| u32::try_from(pid).ok())
    }

    /// A database with the gateway's migrations and the load test's tables.
    pub(crate) async fn prepare(&self, name: &str) -> anyhow::Result<()> {
        let admin = database::connect(&database::config(&self.url("postgres"))?).await?;
        admin
            .batch_execute(&format!("create database {name}"))
            .await
            .with_context(|| format!("cannot create database {name}"))?;
        self.migrate(name).await?;
        let client = database::connect(&database::config(&self.url(name))?).await?;
        database::load_schema(&client).await
    }

    async fn migrate(&self, database: &str) -> anyhow::Result<()> {
        let mut command = self.tidings(&gateway_binary()?, database);
        command.arg("migrate").stdin(Stdio::null());
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output();
        let output = timeout(MIGRATE_LIMIT, output)
            .await
            .context("`tidings migrate` does not end")??;
        ensure!(
            output.status.success(),
            "`tidings migrate` failed:\n{}",
            tail(&output.stderr)
        );
        Ok(())
    }

    /// Starts the server on a free port and waits until it is ready.
    pub(crate) async fn serve(&self, database: &str) -> anyhow::Result<OwnServer> {
        let binary = gateway_binary()?;
        let log = self.dir.path().join(format!("tidings-{database}.log"));
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.serve_once(&binary, database, &log).await {
                Ok(server) => return Ok(server),
                Err(error) if attempts == PORT_ATTEMPTS => {
                    let log = std::fs::read(&log).unwrap_or_default();
                    return Err(
                        error.context(format!("the server does not start:\n{}", tail(&log)))
                    );
                }
                Err(_) => {}
            }
        }
    }

    async fn serve_once(
        &self,
        binary: &Path,
        database: &str,
        log: &Path,
    ) -> anyhow::Result<OwnServer> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let log = File::create(log).context("cannot make the server's log file")?;
        let mut command = self.tidings(Path::new("sh"), database);
        command
            .arg("-c")
            .arg(SERVE)
            .arg(binary)
            .env("TIDINGS_LISTEN", &address)
            .env("TIDINGS_JWT_SECRET", &secret)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .context("cannot run sh")?;
        let mut server = OwnServer {
            child,
            address,
            secret,
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// A command that knows this database and none of our own surroundings' settings.
    fn tidings(&self, program: &Path, database: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        command
            .env("DATABASE_URL", self.url(database))
            .current_dir(self.dir.path());
        command
    }

    /// Stopping takes a moment, which must not hold up the runtime.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Self { mut cluster, dir } = self;
        tokio::task::spawn_blocking(move || {
            cluster.stop()?;
            drop(cluster);
            dir.close()?;
            anyhow::Ok(())
        })
        .await?
        .context("cannot remove the private PostgreSQL")
    }
}

/// The gateway of one run.
pub(crate) struct OwnServer {
    child: Child,
    address: String,
    secret: String,
}

impl OwnServer {
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            let last = timeout(PROBE_LIMIT, status_of(&self.address, "/readyz")).await;
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

    pub(crate) async fn stop(mut self) {
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
async fn status_of(address: &str, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer).await?;
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

/// Built into the same directory as this program.
fn gateway_binary() -> anyhow::Result<PathBuf> {
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

fn tail(log: &[u8]) -> String {
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_the_status_of_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
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
        assert_eq!(status_of(&address, "/readyz").await.unwrap(), 503);
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
