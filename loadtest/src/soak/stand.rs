//! What the soak runs against: a private PostgreSQL, a gateway process, and a line that fails on either side of it. What ends
//! is started again, as a service manager would.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use faultproxy::Proxy;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Config;

use super::plan::{Halt, Victims};
use crate::database;
use crate::own::{self, Launch, OwnCluster, OwnServer};
use crate::usage;

const DATABASE: &str = "soak";

/// Tighter than by default, so that limits are met within minutes.
const SETTINGS: [(&str, &str); 7] = [
    ("TIDINGS_OUTBOX_BYTES", "1MiB"),
    ("TIDINGS_OUTBOX_FRAMES", "1024"),
    ("TIDINGS_IDLE_TIMEOUT", "20s"),
    // Some who come back find all that they missed in memory, some do not.
    ("TIDINGS_RECENT_BYTES", "256KiB"),
    ("TIDINGS_DRAIN", "3s"),
    ("TIDINGS_DRAIN_SPREAD", "1s"),
    ("TIDINGS_RECHECK_INTERVAL", "5s"),
];

const POSTGRES_SETTINGS: [(&str, &str); 2] = [
    ("deadlock_timeout", "200ms"),
    // A database that recovers from a crash has something to do.
    ("checkpoint_timeout", "30s"),
];

const LOOK: Duration = Duration::from_millis(50);
const PROBE_LIMIT: Duration = Duration::from_secs(1);
const START_AGAIN: Duration = Duration::from_millis(300);

/// How long everything may take to be in order again after the last fault.
const ORDER_LIMIT: Duration = Duration::from_secs(60);

/// Who is gone without a word is found out after the idle timeout of the settings above.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(40);
const GAUGES: [&str; 3] = [
    "tidings_connections ",
    "tidings_channels ",
    "tidings_groups ",
];

/// PostgreSQL may need some attempts after it was killed: its sessions end a moment later than itself.
const POSTGRES_ATTEMPTS: usize = 20;

const TERMINATE_ALL: &str =
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tidings'";
const TERMINATE_FEED: &str = "select pg_terminate_backend(pid) from pg_stat_activity
     where application_name = 'tidings' and (query ilike '%tidings.read%' or query ilike '%listen tidings%')";

pub(crate) struct Stand {
    cluster: Arc<Mutex<OwnCluster>>,
    gateway: AsyncMutex<Gateway>,
    launch: Launch,
    pub(crate) database: Config,
    pub(crate) database_line: Proxy,
    pub(crate) clients_line: Proxy,
    address: watch::Sender<SocketAddr>,
}

/// A setting of the gateway, as a variable of its environment.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    name: String,
    value: String,
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if name.starts_with("TIDINGS_") => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("it must be of the form TIDINGS_NAME=value".to_owned()),
        }
    }
}

struct Gateway {
    server: OwnServer,
    was_ready: bool,
    starts: u64,
    /// It ended because the database was not there when it started.
    refused_starts: u64,
    /// It ended although it was ready and nobody had told it to.
    deaths: Vec<String>,
}

/// What became of the gateway.
pub(crate) struct Fate {
    pub(crate) starts: u64,
    pub(crate) refused_starts: u64,
    pub(crate) deaths: Vec<String>,
    pub(crate) panics: usize,
    pub(crate) memory_bytes: u64,
}

impl Stand {
    /// `settings` of the gateway win over those above.
    pub(crate) async fn start(
        postgres: Option<PathBuf>,
        secret: &str,
        settings: &[Setting],
    ) -> anyhow::Result<Self> {
        let cluster = OwnCluster::start_with(postgres, &POSTGRES_SETTINGS, false).await?;
        cluster.prepare(DATABASE).await?;
        let database_line = Proxy::start(cluster.address()).await?;
        let launch = Launch {
            database_url: cluster.url_through(database_line.address(), DATABASE),
            secret: secret.to_owned(),
            settings: SETTINGS
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .chain(
                    settings
                        .iter()
                        .map(|one| (one.name.clone(), one.value.clone())),
                )
                .collect(),
            dir: cluster.dir().to_owned(),
            log: cluster.dir().join("tidings.log"),
        };
        let mut server = OwnServer::start(&launch).await?;
        if let Err(error) = server.wait_until_ready().await {
            return Err(launch.explain(error));
        }
        let clients_line = Proxy::start(server.address()).await?;
        Ok(Self {
            database: database::config(&cluster.url(DATABASE))?,
            cluster: Arc::new(Mutex::new(cluster)),
            launch,
            database_line,
            clients_line,
            address: watch::Sender::new(server.address()),
            gateway: AsyncMutex::new(Gateway {
                server,
                was_ready: true,
                starts: 1,
                refused_starts: 0,
                deaths: Vec::new(),
            }),
        })
    }

    pub(crate) fn server(&self) -> watch::Receiver<SocketAddr> {
        self.address.subscribe()
    }

    /// Keeps the gateway running, until this is dropped.
    pub(crate) async fn tend(&self) -> anyhow::Result<std::convert::Infallible> {
        loop {
            sleep(LOOK).await;
            let mut gateway = self.gateway.lock().await;
            let Some(status) = gateway.server.ended()? else {
                if !gateway.was_ready {
                    let probe = own::get(gateway.server.address(), "/livez");
                    gateway.was_ready = matches!(timeout(PROBE_LIMIT, probe).await, Ok(Ok(_)));
                }
                continue;
            };
            if gateway.was_ready {
                let log = std::fs::read(&self.launch.log).unwrap_or_default();
                let death = format!(
                    "the gateway ended by itself ({status}):\n{}",
                    own::tail(&log)
                );
                gateway.deaths.push(death);
            } else {
                gateway.refused_starts += 1;
            }
            sleep(START_AGAIN).await;
            self.start_gateway(&mut gateway).await?;
        }
    }

    async fn start_gateway(&self, gateway: &mut Gateway) -> anyhow::Result<()> {
        gateway.server = OwnServer::start(&self.launch).await?;
        gateway.was_ready = false;
        gateway.starts += 1;
        self.clients_line.lead_to(gateway.server.address());
        self.address.send_replace(gateway.server.address());
        Ok(())
    }

    pub(crate) async fn kill_gateway(&self, away: Duration) -> anyhow::Result<()> {
        let mut gateway = self.gateway.lock().await;
        gateway.server.kill().await?;
        sleep(away).await;
        self.start_gateway(&mut gateway).await
    }

    /// Tells it to stop, and starts another one when it has.
    pub(crate) async fn restart_gateway(&self, away: Duration) -> anyhow::Result<()> {
        let mut gateway = self.gateway.lock().await;
        gateway.server.stop().await;
        sleep(away).await;
        self.start_gateway(&mut gateway).await
    }

    pub(crate) async fn terminate(&self, victims: Victims) -> anyhow::Result<()> {
        let statement = match victims {
            Victims::Feed => TERMINATE_FEED,
            Victims::AllOfTheGateway => TERMINATE_ALL,
        };
        let client = database::connect(&self.database).await?;
        client.query(statement, &[]).await?;
        Ok(())
    }

    pub(crate) async fn restart_postgres(&self, how: Halt, away: Duration) -> anyhow::Result<()> {
        self.with_postgres(move |postgres| match how {
            Halt::Fast => postgres.stop(),
            Halt::Immediate => postgres.stop_immediately(),
            Halt::Kill => postgres.kill(),
        })
        .await?;
        sleep(away).await;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let started = self.with_postgres(devpg::Cluster::start_again).await;
            match started {
                Ok(()) => return Ok(()),
                Err(error) if attempts == POSTGRES_ATTEMPTS => return Err(error),
                Err(_) => sleep(START_AGAIN).await,
            }
        }
    }

    async fn with_postgres(
        &self,
        work: impl FnOnce(&mut devpg::Cluster) -> Result<(), devpg::Error> + Send + 'static,
    ) -> anyhow::Result<()> {
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || {
            let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
            work(cluster.postgres())
        })
        .await?
        .map_err(anyhow::Error::from)
    }

    /// Everything goes through, and the gateway is ready again; if it is not, says so.
    pub(crate) async fn put_in_order(&self) -> Option<String> {
        self.database_line.mend();
        self.clients_line.mend();
        let ready = wait_for(ORDER_LIMIT, || async {
            let address = *self.address.borrow();
            let probe = own::status_of(address, "/readyz");
            matches!(timeout(PROBE_LIMIT, probe).await, Ok(Ok(200)))
        });
        if ready.await {
            return None;
        }
        let log = std::fs::read(&self.launch.log).unwrap_or_default();
        Some(format!(
            "the gateway is not ready {} s after the last fault:\n{}",
            ORDER_LIMIT.as_secs(),
            own::tail(&log)
        ))
    }

    /// All clients are gone; says what the gateway still keeps of them.
    pub(crate) async fn leftovers(&self) -> Option<String> {
        let left = Mutex::new("/metrics does not answer".to_owned());
        let gone = wait_for(LEFTOVER_LIMIT, || async {
            let address = *self.address.borrow();
            let answer = timeout(PROBE_LIMIT, own::get(address, "/metrics")).await;
            let Ok(Ok(answer)) = answer else {
                return false;
            };
            let answer = String::from_utf8_lossy(&answer);
            let gauges: Vec<&str> = answer
                .lines()
                .filter(|line| GAUGES.iter().any(|name| line.starts_with(name)))
                .filter(|line| !line.ends_with(" 0"))
                .collect();
            *left.lock().unwrap_or_else(PoisonError::into_inner) = gauges.join(", ");
            gauges.is_empty()
        });
        if gone.await {
            return None;
        }
        let left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(format!(
            "all clients are gone for {} s, and the gateway still keeps: {left}",
            LEFTOVER_LIMIT.as_secs()
        ))
    }

    /// Ends everything. The gateway's log goes to `keep`.
    pub(crate) async fn stop(self, keep: Option<PathBuf>) -> anyhow::Result<Fate> {
        let mut gateway = self.gateway.into_inner();
        let usage = gateway.server.pid().and_then(usage::of_process);
        gateway.server.stop().await;
        let log = std::fs::read_to_string(&self.launch.log).unwrap_or_default();
        if let Some(keep) = keep {
            std::fs::write(&keep, &log)
                .with_context(|| format!("cannot write {}", keep.display()))?;
        }
        let cluster = self.cluster;
        tokio::task::spawn_blocking(move || drop(cluster)).await?;
        Ok(Fate {
            starts: gateway.starts,
            refused_starts: gateway.refused_starts,
            deaths: gateway.deaths,
            panics: log.matches("panicked at").count(),
            memory_bytes: usage::between(usage, usage).map_or(0, |usage| usage.memory_bytes),
        })
    }
}

async fn wait_for<F: Future<Output = bool>>(
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(LOOK).await;
    }
}
