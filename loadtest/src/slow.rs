//! `slow`: some readers do not read, others too slowly. Do all others notice, how much memory does it take, and are the slow ones
//! closed?

mod sluggard;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use self::sluggard::{Ended, Habit, Sluggard};
use crate::report::{Better, Contestant, Report};
use crate::resume::cost;
use crate::scene::flow::{Flow, Stream};
use crate::scene::people::{Numbers, People, Place};
use crate::scene::sampler::Sampler;
use crate::scene::{Needs, Scene, SceneArgs, conclude};

/// What lies around a message's text in its frame, about.
const FRAME_BYTES: f64 = 600.0;

/// What kernels and writes keep for a reader who does not read, beside the server's own queue: a generous guess.
const ON_THE_WAY: f64 = 1_500_000.0;

/// Until the server has noticed the last of them.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    scene: SceneArgs,

    /// Readers who read.
    #[arg(long, default_value_t = 200)]
    readers: usize,

    /// Readers who stop to read once they are subscribed.
    #[arg(long, default_value_t = 20)]
    stuck: usize,

    /// Readers who read a few messages a second.
    #[arg(long, default_value_t = 20)]
    crawling: usize,

    /// How many those read.
    #[arg(long, default_value_t = 5.0)]
    crawl_rate: f64,

    /// Chats. Reader i reads chat i modulo this.
    #[arg(long, default_value_t = 1)]
    sessions: usize,

    /// Messages a second, to all chats together.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,

    /// How long messages flow, once without the slow ones and once with them.
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Length of a message's text.
    #[arg(long, default_value_t = 2000)]
    size: usize,

    /// Connections that write.
    #[arg(long, default_value_t = 4)]
    writers: usize,

    /// With --own: how many bytes the server lets wait for a reader (its setting `outbox_bytes`).
    #[arg(long, default_value_t = 256 << 10)]
    outbox_bytes: u64,

    /// Joins under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,
}

impl SlowArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.readers >= 1 && self.stuck + self.crawling >= 1,
            "--readers must be at least 1, and so must be --stuck and --crawling together"
        );
        ensure!(
            self.sessions >= 1 && self.sessions <= self.readers,
            "--sessions must be from 1 to --readers"
        );
        ensure!(
            self.rate > 0.0 && self.rate <= 1e5 && (2..=600).contains(&self.seconds),
            "--rate must be above 0 and at most 100000, --seconds from 2 to 600"
        );
        ensure!(
            self.crawl_rate > 0.0 && self.writers >= 1 && self.connecting >= 1,
            "--crawl-rate must be above 0, --writers and --connecting at least 1"
        );
        Ok(())
    }

    fn slow(&self) -> usize {
        self.stuck + self.crawling
    }

    /// How many messages a second come for one reader.
    fn rate_of_one(&self) -> f64 {
        self.rate / self.sessions as f64
    }

    /// Whether so much comes for one who reads so many messages a second that it must be closed.
    fn must_close(&self, reads: f64) -> bool {
        let unread = (self.rate_of_one() - reads).max(0.0) * self.seconds as f64;
        unread * (self.size as f64 + FRAME_BYTES) > self.outbox_bytes as f64 + ON_THE_WAY
    }
}

pub(crate) async fn run(args: SlowArgs) -> anyhow::Result<bool> {
    args.check()?;
    let outbox = args.outbox_bytes.to_string();
    let settings = [("TIDINGS_OUTBOX_BYTES", outbox.as_str())];
    let needs = Needs {
        sockets: args.readers + args.slow(),
        settings: &settings,
        ..Needs::default()
    };
    let scene = Scene::start(&args.scene, needs).await?;
    let result = Box::pin(measure(&args, &scene)).await;
    scene.end(result).await
}

async fn measure(args: &SlowArgs, scene: &Scene) -> anyhow::Result<bool> {
    let mut report = Report::new(
        "slow",
        json!({
            "own": scene.target.is_own(), "readers": args.readers, "stuck": args.stuck, "crawling": args.crawling,
            "crawl_rate": args.crawl_rate, "sessions": args.sessions, "rate": args.rate, "seconds": args.seconds,
            "size": args.size, "outbox_bytes": args.outbox_bytes, "postgres": scene.target.postgres_version(),
        }),
    );
    let clients = args.readers + args.slow();
    let numbers = Numbers {
        clients,
        users: clients,
        sessions: args.sessions,
    };
    let people = People::add(scene, Uuid::new_v4().as_fields().0, numbers).await?;
    let (swift, slow) = people.places.split_at(args.readers);
    let (stop, stopped) = watch::channel(false);
    let seconds = args.seconds as f64;
    let stream = Stream {
        rate: args.rate,
        size: args.size,
        writers: args.writers,
        seconds: vec![seconds, seconds],
        warm_up: Duration::from_secs(1),
    };
    let flow = Arc::new(Flow::new(scene, &people.sessions, &stream, stopped));
    let readers = flow.gather(scene, swift, args.connecting).await?;

    let sampler = Sampler::start(scene.target.server_pid());
    let without = flow.run(0, &readers).await?;
    let peak_without = peak(&sampler.so_far().memory);

    let counters_before = counters(scene).await;
    let (read_on, reading_on) = watch::channel(false);
    let sluggards = gather_slow(args, scene, slow, &reading_on).await?;
    let before = scene.read();
    let with = flow.run(1, &readers).await?;
    let costs = scene.costs_since(&before);
    sleep(SETTLE).await;
    let counted = cost::between(&counters_before, &counters(scene).await);
    let samples = sampler.stop();
    let peak_with = peak(&samples.memory);
    read_on.send_replace(true);
    let mut faults = Vec::new();
    let mut ended = Vec::with_capacity(sluggards.len());
    for sluggard in sluggards {
        ended.push(sluggard.await?);
    }
    stop.send_replace(true);
    let verdict = readers.compare(&[&without, &with], &mut faults).await?;
    people.remove(scene).await?;

    let stopped = ended.iter().filter(|one| one.is_ended()).count();
    let closed = ended.iter().filter(|one| one.is_told()).count();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for one in &ended {
        let habit = match one.habit {
            Habit::Stuck => "stuck",
            Habit::Crawling { .. } => "crawling",
        };
        *ends.entry(format!("{habit}: {}", one.how())).or_default() += 1;
        let reads = match one.habit {
            Habit::Stuck => 0.0,
            Habit::Crawling { .. } => args.crawl_rate,
        };
        if !one.is_ended() && args.must_close(reads) {
            faults.push(format!(
                "a slow reader was not closed for that: {}",
                one.how()
            ));
        }
        faults.extend(one.fault());
    }
    let mut tidings = Contestant::new("tidings")
        .figure(
            "slow_readers",
            "slow readers",
            "",
            args.slow() as f64,
            Better::Neither,
        )
        .figure(
            "ended",
            "of which the server ended",
            "",
            stopped as f64,
            Better::Neither,
        )
        .figure(
            "closed_4008",
            "of which were told so, by 4008",
            "",
            closed as f64,
            Better::Neither,
        )
        .figure(
            "delivered",
            "deliveries to the others",
            "",
            verdict.delivered as f64,
            Better::Neither,
        )
        .figure(
            "lost",
            "lost by the others",
            "",
            verdict.lost as f64,
            Better::Lower,
        );
    if let (Some(without), Some(with)) = (peak_without, peak_with) {
        tidings = tidings
            .figure(
                "peak_mib_without",
                "server's memory without them, most",
                "MiB",
                without,
                Better::Lower,
            )
            .figure(
                "peak_mib_with",
                "server's memory with them, most",
                "MiB",
                with,
                Better::Lower,
            )
            .figure(
                "kib_per_slow_reader",
                "memory of a slow reader",
                "KiB",
                (with - without) * 1024.0 / args.slow() as f64,
                Better::Lower,
            );
    }
    if let Some(count) = counted.get("tidings_slow_readers_total") {
        tidings = tidings.figure(
            "counted_slow",
            "slow readers that the server counted",
            "",
            *count,
            Better::Neither,
        );
    }
    tidings = tidings
        .distribution(
            "without",
            "due to delivery, without them",
            &without.from_due,
        )
        .distribution("with", "due to delivery, with them", &with.from_due)
        .distribution(
            "commit_without",
            "commit to delivery, without",
            &without.from_commit,
        )
        .distribution("commit_with", "commit to delivery, with", &with.from_commit)
        .series("server_cores", "Server's CPU", "cores", samples.cores)
        .series("server_memory", "Server's memory", "MiB", samples.memory);
    for (end, count) in &ends {
        println!("{count} slow readers, {end}");
    }
    report.results = json!({"ends": ends});
    conclude(&args.scene, report, &[tidings], Some(costs), &faults)
}

fn peak(memory: &[(f64, f64)]) -> Option<f64> {
    memory.iter().map(|(_, value)| *value).reduce(f64::max)
}

/// None of a server that has no such metrics.
async fn counters(scene: &Scene) -> BTreeMap<String, f64> {
    match scene.address().await {
        Ok(address) => cost::counters(address).await.unwrap_or_default(),
        Err(_) => BTreeMap::new(),
    }
}

async fn gather_slow(
    args: &SlowArgs,
    scene: &Scene,
    places: &[Place],
    read_on: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<JoinHandle<Ended>>> {
    stream::iter(places.iter().enumerate())
        .map(|(index, place)| {
            let sluggard = Sluggard {
                habit: if index < args.stuck {
                    Habit::Stuck
                } else {
                    Habit::Crawling {
                        pause: Duration::from_secs_f64(1.0 / args.crawl_rate),
                    }
                },
                read_on: read_on.clone(),
            };
            let (endpoint, place) = (scene.endpoint.clone(), place.clone());
            async move {
                let begun = Box::pin(sluggard.begin(&endpoint, &place)).await;
                begun.map_err(|end| anyhow::anyhow!("a slow reader could not join: {end}"))
            }
        })
        .buffer_unordered(args.connecting)
        .try_collect()
        .await
}
