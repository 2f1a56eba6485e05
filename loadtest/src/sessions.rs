//! `sessions`: many small sessions, as most chats are, with a few readers each. How late is a message, and how many changes can
//! be committed, authorized and delivered in a second?

mod listen;

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;

use self::listen::Listening;
use crate::fanout::feed::Load;
use crate::fanout::host::{Host, Realtime};
use crate::fanout::race::{FLOOR, Race, RaceArgs};
use crate::fanout::turn::{Shape, measure};
use crate::target::Target;

#[derive(Args, Debug)]
pub(crate) struct SessionsArgs {
    #[command(flatten)]
    race: RaceArgs,

    /// How many sessions there are.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,

    /// How many people read each, over a websocket of their own.
    #[arg(long, default_value_t = 2)]
    readers: usize,

    /// Messages a second, over all sessions.
    #[arg(long, default_value_t = 1000.0, conflicts_with = "saturate")]
    rate: f64,

    /// How long messages are written.
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Seconds at the start whose messages count for everything but latency.
    #[arg(long, default_value_t = 1, conflicts_with = "saturate")]
    warm_up: u64,

    /// Connections over which the messages are written.
    #[arg(long, default_value_t = 4, conflicts_with = "saturate")]
    writers: usize,

    /// Write as fast as the database takes it.
    #[arg(long)]
    saturate: bool,

    /// With --saturate: connections that insert, each one message at a time.
    #[arg(long, default_value_t = 16, requires = "saturate")]
    connections: usize,
}

impl SessionsArgs {
    fn shape(&self) -> anyhow::Result<Shape> {
        ensure!(
            self.rate > 0.0 && self.rate <= 1e5,
            "--rate must be above 0 and at most 100000"
        );
        ensure!(
            (1..=3600).contains(&self.seconds) && (self.saturate || self.warm_up < self.seconds),
            "--seconds must be from 1 to 3600, and --warm-up shorter"
        );
        ensure!(
            (1..=80).contains(&self.writers) && (1..=80).contains(&self.connections),
            "--writers and --connections must be from 1 to 80"
        );
        let load = if self.saturate {
            Load::Flood {
                connections: self.connections,
                seconds: self.seconds,
            }
        } else {
            Load::Paced {
                rate: self.rate,
                seconds: self.seconds,
                warm_up: self.warm_up,
                writers: self.writers,
            }
        };
        let shape = self.race.shape(self.sessions, self.readers, load);
        shape.check()?;
        Ok(shape)
    }
}

/// Returns whether everything arrived once and in order.
pub(crate) async fn run(args: SessionsArgs) -> anyhow::Result<bool> {
    let shape = args.shape()?;
    let target = args.race.start().await?;
    let result = Box::pin(compare(&args, &target, &shape)).await;
    let stopped = target.stop().await;
    let passed = result?;
    stopped?;
    Ok(passed)
}

async fn compare(args: &SessionsArgs, target: &Target, shape: &Shape) -> anyhow::Result<bool> {
    let parameters = json!({
        "sessions": shape.sessions, "readers": shape.readers, "saturate": args.saturate, "rate": args.rate,
        "seconds": args.seconds, "warm_up": args.warm_up, "writers": shape.load.writers(),
    });
    let mut race = Race::new("sessions", &args.race, target, parameters);
    let host = Realtime::new(target, args.race.serializer())?;
    let listening = if args.race.has_floor() {
        let cluster = target
            .cluster()
            .context("the floor needs a database of its own: add --own, or leave out --floor")?;
        Some(Listening::prepare(cluster).await?)
    } else {
        None
    };
    for _ in 0..args.race.rounds() {
        race.add(host.name(), measure(&host, shape).await?);
        if let Some(listening) = &listening {
            // So that none profits from what the other has left to do.
            tokio::time::sleep(Duration::from_secs(1)).await;
            race.add(FLOOR, listening.measure(shape).await?);
        }
    }
    race.conclude()
}
