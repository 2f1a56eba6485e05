//! `fanout`: one session that many people read. What does a delivery cost the server when messages come at a steady rate, and
//! how many can it make when they come all at once?

mod costs;
pub(crate) mod feed;
pub(crate) mod figures;
pub(crate) mod host;
pub(crate) mod race;
pub(crate) mod turn;

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use self::feed::Load;
use self::host::{Host, Realtime};
use self::race::{FLOOR, Race, RaceArgs};
use self::turn::{Shape, measure};
use crate::floor;

#[derive(Args, Debug)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    race: RaceArgs,

    /// How many people read the session, each over a websocket of their own.
    #[arg(long, default_value_t = 1000)]
    readers: usize,

    /// Messages a second.
    #[arg(long, default_value_t = 100.0, conflicts_with = "saturate")]
    rate: f64,

    /// How long messages are written.
    #[arg(long, default_value_t = 10, conflicts_with = "saturate")]
    seconds: u64,

    /// Seconds at the start whose messages count for everything but latency.
    #[arg(long, default_value_t = 1, conflicts_with = "saturate")]
    warm_up: u64,

    /// Write everything at once, and see how fast it arrives.
    #[arg(long)]
    saturate: bool,

    /// With --saturate: how many messages.
    #[arg(long, default_value_t = 2000, requires = "saturate")]
    messages: u64,

    /// With --saturate: how many of them one transaction writes.
    #[arg(long, default_value_t = 50, requires = "saturate")]
    rows: u64,
}

impl FanoutArgs {
    fn shape(&self) -> anyhow::Result<Shape> {
        ensure!(
            self.rate > 0.0 && self.rate <= 1e5,
            "--rate must be above 0 and at most 100000"
        );
        ensure!(
            (1..=3600).contains(&self.seconds) && self.warm_up < self.seconds,
            "--seconds must be from 1 to 3600, and --warm-up shorter"
        );
        ensure!(
            self.messages > 0 && self.rows > 0,
            "--messages and --rows must be at least 1"
        );
        let load = if self.saturate {
            Load::Burst {
                messages: self.messages,
                rows: self.rows,
            }
        } else {
            Load::Paced {
                rate: self.rate,
                seconds: self.seconds,
                warm_up: self.warm_up,
                // They are numbered by their writer, so one writer means one order.
                writers: 1,
            }
        };
        let shape = self.race.shape(1, self.readers, load);
        shape.check()?;
        Ok(shape)
    }
}

/// Returns whether everything arrived once and in order.
pub(crate) async fn run(args: FanoutArgs) -> anyhow::Result<bool> {
    let shape = args.shape()?;
    let target = args.race.start().await?;
    let result = Box::pin(compare(&args, &target, &shape)).await;
    let stopped = target.stop().await;
    let passed = result?;
    stopped?;
    Ok(passed)
}

async fn compare(
    args: &FanoutArgs,
    target: &crate::target::Target,
    shape: &Shape,
) -> anyhow::Result<bool> {
    let parameters = json!({
        "readers": shape.readers, "saturate": args.saturate, "rate": args.rate, "seconds": args.seconds,
        "warm_up": args.warm_up, "messages": shape.load.messages(), "rows": args.rows,
    });
    let mut race = Race::new("fanout", &args.race, target, parameters);
    let host = Realtime::new(target, args.race.serializer())?;
    for _ in 0..args.race.rounds() {
        let turn = measure(&host, shape).await?;
        let sample = turn.seen.sample.clone();
        race.add(host.name(), turn);
        if let (true, Some(sample)) = (args.race.has_floor(), sample) {
            // So that none profits from what the other has left to do.
            tokio::time::sleep(Duration::from_secs(1)).await;
            race.add(FLOOR, floor::measure(shape, &sample).await?);
        }
    }
    race.conclude()
}
