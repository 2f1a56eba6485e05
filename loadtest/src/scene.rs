//! What the scenarios with one gateway and many sockets share: the stand, the people, the sockets, and the readings.

pub(crate) mod flow;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod pace;
pub(crate) mod people;
pub(crate) mod sampler;
pub(crate) mod tally;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use protocol::Version;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio_postgres::{Client, Config};

use crate::database;
use crate::report::{Contestant, Report, contestants_table, usage_table};
use crate::socket::Endpoint;
use crate::target::{Target, TargetArgs};
use crate::usage::{self, Reading, Usage};

/// Descriptors of a run beside the sockets that it is about.
const OTHER_FILES: u64 = 500;

#[derive(Args, Debug)]
pub(crate) struct SceneArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What a scenario needs of its surroundings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs<'a> {
    /// How many the load test is going to hold.
    pub(crate) sockets: usize,
    /// Whether a database of our own counts its statements.
    pub(crate) counting: bool,
    /// Of a server of our own.
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

/// The server that is tested, and its database.
pub(crate) struct Scene {
    pub(crate) target: Target,
    pub(crate) database: Config,
    pub(crate) admin: Client,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// Who used how much between two readings.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Costs {
    pub(crate) server: Option<Usage>,
    pub(crate) postgres: Option<Usage>,
    pub(crate) loadtest: Option<Usage>,
}

pub(crate) struct Readings([Option<Reading>; 3]);

impl Scene {
    pub(crate) async fn start(args: &SceneArgs, needs: Needs<'_>) -> anyhow::Result<Self> {
        raise_file_limit(needs.sockets as u64 + OTHER_FILES)?;
        let target = Target::start_with(&args.target, needs.counting, needs.settings).await?;
        let database = database::config(&target.database)?;
        let admin = database::connect(&database).await?;
        let endpoint = Arc::new(Endpoint::parse(&target.url, Version::V2)?);
        Ok(Self {
            target,
            database,
            admin,
            endpoint,
        })
    }

    pub(crate) fn read(&self) -> Readings {
        Readings([
            self.target.server_usage(),
            self.target.postgres_usage(),
            usage::of_process(std::process::id()),
        ])
    }

    pub(crate) fn costs_since(&self, before: &Readings) -> Costs {
        let after = self.read();
        let [server, postgres, loadtest] =
            std::array::from_fn(|index| usage::between(before.0[index], after.0[index]));
        Costs {
            server,
            postgres,
            loadtest,
        }
    }

    /// Where the server answers HTTP.
    pub(crate) async fn address(&self) -> anyhow::Result<SocketAddr> {
        let authority = self.endpoint.authority();
        let address = lookup_host(authority).await?.next();
        address.with_context(|| format!("{authority} has no address"))
    }

    /// Stops what was started, and then says what the run has said.
    pub(crate) async fn end(self, result: anyhow::Result<bool>) -> anyhow::Result<bool> {
        let stopped = self.target.stop().await;
        let passed = result?;
        stopped?;
        Ok(passed)
    }
}

impl Costs {
    pub(crate) fn server_micros_per(&self, things: u64) -> Option<f64> {
        micros_per(self.server, things)
    }

    pub(crate) fn postgres_micros_per(&self, things: u64) -> Option<f64> {
        micros_per(self.postgres, things)
    }
}

/// Returns when the run is over. What the channel lends while it is asked is not held on to.
pub(crate) async fn over(stop: &mut watch::Receiver<bool>) {
    // Without its sender the run is over, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn micros_per(usage: Option<Usage>, things: u64) -> Option<f64> {
    Some(usage?.cpu_seconds * 1e6 / things.max(1) as f64)
}

/// Prints what was measured, and writes it to the file that was asked for. Returns whether the run passed.
pub(crate) fn conclude(
    args: &SceneArgs,
    mut report: Report,
    contestants: &[Contestant],
    costs: Option<Costs>,
    faults: &[String],
) -> anyhow::Result<bool> {
    report.passed = faults.is_empty();
    print!("{}", report.heading());
    println!("{}", contestants_table(contestants));
    if let Some(costs) = costs {
        println!(
            "{}",
            usage_table(&[
                ("server", costs.server),
                ("PostgreSQL", costs.postgres),
                ("load test", costs.loadtest),
            ])
        );
    }
    match faults {
        [] => println!("everything arrived as promised"),
        [first, rest @ ..] => {
            println!("not as promised: {first}");
            for fault in rest.iter().take(9) {
                println!("                 {fault}");
            }
            if rest.len() > 9 {
                println!("                 and {} more", rest.len() - 9);
            }
        }
    }
    let results = serde_json::json!({
        "contestants": contestants,
        "usage": costs,
        "faults": faults.len(),
        "first_faults": faults.iter().take(10).collect::<Vec<_>>(),
    });
    report.results = merged(report.results, results);
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.passed)
}

/// What a scenario has put into the results stays beside what all have.
fn merged(own: serde_json::Value, mut common: serde_json::Value) -> serde_json::Value {
    if let (serde_json::Value::Object(own), Some(common)) = (own, common.as_object_mut()) {
        common.extend(own);
    }
    common
}

pub(crate) fn raise_file_limit(wanted: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < wanted) {
        let current = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        ensure!(
            current >= wanted,
            "{wanted} open files are needed and {current} are allowed: raise `ulimit -Hn`, or ask for fewer sockets"
        );
        let limit = Rlimit {
            current: Some(current),
            maximum: now.maximum,
        };
        setrlimit(Resource::Nofile, limit).context("cannot raise the number of open files")?;
    }
    Ok(())
}
