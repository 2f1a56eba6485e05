//! `--own`: a private PostgreSQL and a `tidings serve` for one run, so that one command reproduces a figure.

mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::time::timeout;

pub(crate) use self::server::{Launch, OwnServer, get, new_secret, status_of, tail};
use self::server::{gateway_binary, tidings};
use crate::database;

const MIGRATE_LIMIT: Duration = Duration::from_secs(120);

/// Another process may take the free port before the server does.
const PORT_ATTEMPTS: usize = 3;

/// A PostgreSQL that disappears with this value.
pub(crate) struct OwnCluster {
    // The order is that of the drops: the server stops before its files go.
    cluster: devpg::Cluster,
    dir: TempDir,
}

impl OwnCluster {
    /// Durable, as a real one: commits wait for the disk.
    pub(crate) async fn start(postgres: Option<PathBuf>) -> anyhow::Result<Self> {
        Self::start_with(postgres, &[], true).await
    }

    /// One that counts its statements, where its installation has the module for that.
    pub(crate) async fn start_counting(postgres: Option<PathBuf>) -> anyhow::Result<Self> {
        let counting = [("shared_preload_libraries", "pg_stat_statements")];
        match Self::start_with(postgres.clone(), &counting, true).await {
            Ok(cluster) => Ok(cluster),
            Err(_) => Self::start(postgres).await,
        }
    }

    /// With settings of PostgreSQL. One that is not durable still keeps what it has confirmed when it is killed, but not
    /// when the machine fails.
    pub(crate) async fn start_with(
        postgres: Option<PathBuf>,
        settings: &[(&str, &str)],
        durable: bool,
    ) -> anyhow::Result<Self> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = settings.iter().map(owned).collect();
        tokio::task::spawn_blocking(move || {
            Self::start_blocking(postgres.as_deref(), settings, durable)
        })
        .await?
    }

    fn start_blocking(
        postgres: Option<&Path>,
        settings: Vec<(String, String)>,
        durable: bool,
    ) -> anyhow::Result<Self> {
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
            settings,
            durable,
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

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.cluster.port()).into()
    }

    /// The same, for somebody who reaches the server through a proxy.
    pub(crate) fn url_through(&self, proxy: SocketAddr, database: &str) -> String {
        self.url(database)
            .replace(&format!("@{}/", self.address()), &format!("@{proxy}/"))
    }

    /// To stop it, kill it and start it again. That takes a while, and blocks.
    pub(crate) fn postgres(&mut self) -> &mut devpg::Cluster {
        &mut self.cluster
    }

    /// Where its files are, and those of whoever belongs to it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
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
        let mut command = tidings(&gateway_binary()?, &self.url(database), self.dir());
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
        self.serve_with(database, &[]).await
    }

    /// The same, with settings: variables of its environment.
    pub(crate) async fn serve_with(
        &self,
        database: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<OwnServer> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let launch = Launch {
            database_url: self.url(database),
            secret: new_secret(),
            settings: settings.iter().map(owned).collect(),
            dir: self.dir().to_owned(),
            log: self.dir().join(format!("tidings-{database}.log")),
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let ready = async {
                let mut server = OwnServer::start(&launch).await?;
                server.wait_until_ready().await?;
                Ok(server)
            };
            match ready.await {
                Ok(server) => return Ok(server),
                Err(error) if attempts == PORT_ATTEMPTS => return Err(launch.explain(error)),
                Err(_) => {}
            }
        }
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
