//! `peers`: Tidings, a floor, and servers that people would pick instead, each doing the same work in its turn: rows that are
//! inserted reach everybody who reads their session. See `loadtest/peers/README.md`.

mod catalog;
mod figures;
mod program;
mod stand;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::json;

use self::catalog::{PEERS, Peer};
use self::figures::Aside;
use self::stand::Stand;
use crate::fanout::feed::Load;
use crate::fanout::host::Host;
use crate::fanout::race::FLOOR;
use crate::fanout::turn::{Shape, Turn, measure};
use crate::floor;
use crate::own::OwnCluster;
use crate::report::{Contestant, Report, contestants_table};
use crate::usage;

const TIDINGS: &str = "tidings";

/// Programs that compile themselves while they run get warm in this time. Nothing of it counts.
const WARM_UP: u64 = 2;

/// Rows of a transaction of the burst.
const ROWS: u64 = 50;

/// With it, what Tidings sends of a change fits into the payload of a NOTIFY.
const LARGEST: usize = 6000;

const CONNECTING: usize = 50;
const QUIET: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(crate) struct PeersArgs {
    /// Only these: tidings, floor, or a peer of loadtest/peers/README.md.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// How many read the session.
    #[arg(long, default_value_t = 1000)]
    readers: usize,

    /// Messages a second, while paced.
    #[arg(long, default_value_t = 100)]
    rate: u32,

    /// How long the paced part lasts. With 0 it is left out.
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Messages that are written at once, after the paced part. With 0 that is left out.
    #[arg(long, default_value_t = 1000)]
    saturate: u64,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// The directory of PostgreSQL's programs, if it is not found by itself.
    #[arg(long, env = "TIDINGS_POSTGRES_BIN")]
    postgres: Option<PathBuf>,

    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl PeersArgs {
    fn paced(&self, seconds: u64) -> Load {
        Load::Paced {
            rate: f64::from(self.rate),
            seconds,
            // Everybody has a turn before those that count.
            warm_up: 0,
            writers: 1,
        }
    }

    /// Those that are wanted, by name.
    fn loads(&self) -> impl Iterator<Item = (&'static str, Load)> {
        let burst = Load::Burst {
            messages: self.saturate,
            rows: ROWS,
        };
        [("paced", self.paced(self.seconds)), ("saturated", burst)]
            .into_iter()
            .filter(|(_, load)| load.messages() > 0)
    }

    fn shape(&self, load: Load) -> Shape {
        Shape {
            sessions: 1,
            readers: self.readers,
            size: self.size,
            load,
            connecting: CONNECTING,
            quiet: QUIET,
        }
    }
}

/// Who takes part.
#[derive(Clone, Copy, Debug)]
enum Entrant {
    Tidings,
    /// Writes the frames of Tidings, ready-made, and does nothing else.
    Floor,
    Peer(Peer),
}

impl Entrant {
    fn name(&self) -> &'static str {
        match self {
            Self::Tidings => TIDINGS,
            Self::Floor => FLOOR,
            Self::Peer(peer) => peer.name,
        }
    }
}

pub(crate) async fn run(args: PeersArgs) -> anyhow::Result<bool> {
    let entrants = entrants(&args.only)?;
    ensure!(
        args.seconds > 0 || args.saturate > 0,
        "--seconds or --saturate must be at least 1"
    );
    ensure!(
        args.rate > 0 && args.size <= LARGEST,
        "--rate must be at least 1 and --size at most {LARGEST}: a NOTIFY carries less than 8000 bytes"
    );
    for (_, load) in args.loads() {
        args.shape(load).check()?;
    }
    let mut report = Report::new(
        "peers",
        json!({
            "readers": args.readers, "rate": args.rate, "seconds": args.seconds,
            "saturate": args.saturate, "size": args.size,
        }),
    );
    let cluster = OwnCluster::start(args.postgres.clone()).await?;
    let result = Box::pin(compare(&args, &entrants, &cluster)).await;
    let stopped = cluster.stop().await;
    let (contestants, faults) = result?;
    stopped?;

    report.passed = faults.is_empty();
    report.results = json!({ "contestants": contestants });
    print!("{}", report.heading());
    println!(
        "{} readers of one session; paced: {} messages a second for {} s; saturated: {} messages at once\n\n{}",
        args.readers,
        args.rate,
        args.seconds,
        args.saturate,
        contestants_table(&contestants)
    );
    for fault in &faults {
        println!("{fault}");
    }
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.passed)
}

/// In the order of the catalog, whatever order was asked for.
fn entrants(only: &[String]) -> anyhow::Result<Vec<Entrant>> {
    let all = || {
        let own = [Entrant::Tidings, Entrant::Floor];
        own.into_iter().chain(PEERS.map(Entrant::Peer))
    };
    if let Some(unknown) = only
        .iter()
        .find(|name| all().all(|entrant| entrant.name() != *name))
    {
        let names: Vec<&str> = all().map(|entrant| entrant.name()).collect();
        bail!(
            "--only: there is no {unknown}; there are {}",
            names.join(", ")
        );
    }
    let wanted = |entrant: &Entrant| only.is_empty() || only.iter().any(|n| n == entrant.name());
    let chosen: Vec<Entrant> = all().filter(wanted).collect();
    ensure!(
        !chosen.iter().any(|one| matches!(one, Entrant::Floor))
            || chosen.iter().any(|one| matches!(one, Entrant::Tidings)),
        "--only: the floor writes the frames of tidings, so it needs tidings, too"
    );
    for entrant in &chosen {
        if let Entrant::Peer(peer) = entrant {
            ensure!(
                peer.installed(),
                "{} is not installed: run loadtest/peers/run, or leave it out with --only",
                peer.name
            );
        }
    }
    Ok(chosen)
}

/// Also returns what Tidings did not do as promised. What the others lose is in their figures.
async fn compare(
    args: &PeersArgs,
    entrants: &[Entrant],
    cluster: &OwnCluster,
) -> anyhow::Result<(Vec<Contestant>, Vec<String>)> {
    let mut contestants = Vec::new();
    let mut faults = Vec::new();
    let mut sample = None;
    for entrant in entrants {
        let name = entrant.name();
        eprintln!("{name}");
        let turns = match entrant {
            Entrant::Tidings => serve(args, Stand::tidings(cluster).await?).await,
            Entrant::Floor => write_ready_made(args, sample.as_deref()).await,
            Entrant::Peer(peer) => serve(args, Stand::peer(peer, cluster).await?).await,
        };
        let turns = turns.with_context(|| format!("cannot measure {name}"))?;
        let mut contestant = Contestant::new(name);
        for (load, turn, aside) in &turns {
            contestant = figures::add(contestant, load, turn, aside);
            if matches!(entrant, Entrant::Tidings) {
                let own = turn.seen.faults(turn.expected).into_iter();
                faults.extend(own.map(|fault| format!("{name}, {load}: {fault}")));
                sample = sample.or_else(|| turn.seen.sample.clone());
            }
        }
        contestants.push(contestant);
    }
    Ok((contestants, faults))
}

/// Turns with the names of their loads.
type Turns = Vec<(&'static str, Turn, Aside)>;

async fn serve(args: &PeersArgs, mut stand: Stand) -> anyhow::Result<Turns> {
    let turns = Box::pin(play_all(args, &mut stand)).await;
    stand.stop().await;
    turns
}

async fn play_all(args: &PeersArgs, stand: &mut Stand) -> anyhow::Result<Turns> {
    let ready = stand.server_usage();
    let memory = usage::between(ready, ready).map(|usage| usage.memory_bytes);
    play(stand, &args.shape(args.paced(WARM_UP))).await?;
    let mut turns = Vec::new();
    for (name, load) in args.loads() {
        let turn = play(stand, &args.shape(load)).await?;
        let aside = Aside {
            readers: args.readers,
            // After a burst, memory is also what its queues have left behind.
            memory_before: memory.filter(|_| matches!(load, Load::Paced { .. })),
        };
        turns.push((name, turn, aside));
    }
    Ok(turns)
}

async fn write_ready_made(args: &PeersArgs, sample: Option<&[u8]>) -> anyhow::Result<Turns> {
    let sample = sample.context("tidings has delivered nothing")?;
    let mut turns = Vec::new();
    for (name, load) in args.loads() {
        let aside = Aside {
            readers: args.readers,
            memory_before: None,
        };
        turns.push((
            name,
            floor::measure(&args.shape(load), sample).await?,
            aside,
        ));
    }
    Ok(turns)
}

async fn play(stand: &mut Stand, shape: &Shape) -> anyhow::Result<Turn> {
    let turn = measure(&*stand, shape).await;
    // If its process has died, that says more than what the readers saw of it.
    stand.check()?;
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_is_refused_with_those_that_there_are() {
        let error = entrants(&["phoenix".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("phoenix") && PEERS.iter().all(|peer| error.contains(peer.name)),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_asked_for_need_not_be_installed() {
        let chosen = entrants(&[FLOOR.to_owned(), TIDINGS.to_owned()]).unwrap();
        assert!(matches!(chosen[..], [Entrant::Tidings, Entrant::Floor]));
        let error = entrants(&[FLOOR.to_owned()]).unwrap_err();
        assert!(error.to_string().contains("needs tidings"));
    }
}
