//! `churn`: clients come and go all the time, some without a word, while messages flow to others who stay. Do those notice, and
//! does the server's memory come back?

mod visitor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use self::visitor::{Leave, Visitor};
use crate::meter::{histogram, micros};
use crate::report::{Better, Contestant, Report};
use crate::resume::cost;
use crate::scene::flow::{Finished, Flow, Readers, Stream};
use crate::scene::memory;
use crate::scene::pace::{self, Pace};
use crate::scene::people::{Numbers, People, Place};
use crate::scene::sampler::Sampler;
use crate::scene::{Needs, Scene, SceneArgs, conclude};

/// Until the server has noticed that the last visitor is gone, and its allocator has had time.
const SETTLE: Duration = Duration::from_secs(5);

/// The latest changes stay in memory, up to a limit that this load does not reach within a run: what grows would be they, and not what
/// visitors leave behind.
const RECENT: (&str, &str) = ("TIDINGS_RECENT_BYTES", "256KiB");

/// Memory that does not come back after the second half of the visits. Below both of these it is noise of the allocator.
const LEAK_BYTES_PER_VISIT: f64 = 1024.0;
const LEAK_BYTES: f64 = (4 << 20) as f64;

#[derive(Args, Debug)]
pub(crate) struct ChurnArgs {
    #[command(flatten)]
    scene: SceneArgs,

    /// Readers who stay.
    #[arg(long, default_value_t = 200)]
    readers: usize,

    /// Chats. Reader i and visitor i are in chat i modulo this.
    #[arg(long, default_value_t = 20)]
    sessions: usize,

    /// Messages a second, to all chats together.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,

    /// So many visitors come a second.
    #[arg(long, default_value_t = 100.0)]
    churn: f64,

    /// How many seconds a visitor stays, on average.
    #[arg(long, default_value_t = 2.0)]
    stay: f64,

    /// The share of visitors who leave by a reset instead of a close.
    #[arg(long, default_value_t = 0.5)]
    resets: f64,

    /// People who the visitors are, in turns.
    #[arg(long, default_value_t = 500)]
    users: usize,

    /// How long messages flow without visitors, to compare.
    #[arg(long, default_value_t = 5)]
    calm: u64,

    /// How long visitors come, in two halves with a rest after each.
    #[arg(long, default_value_t = 20)]
    seconds: u64,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// Connections that write.
    #[arg(long, default_value_t = 4)]
    writers: usize,

    /// Joins of readers under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,
}

impl ChurnArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=self.readers).contains(&self.sessions),
            "--sessions must be from 1 to --readers"
        );
        ensure!(
            self.rate > 0.0 && self.churn > 0.0 && self.rate <= 1e5 && self.churn <= 1e5,
            "--rate and --churn must be above 0 and at most 100000"
        );
        ensure!(
            (0.0..=60.0).contains(&self.stay) && (0.0..=1.0).contains(&self.resets),
            "--stay is at most 60, and --resets from 0 to 1"
        );
        ensure!(
            (2..=3600).contains(&self.calm) && (4..=3600).contains(&self.seconds),
            "--calm must be from 2, --seconds from 4 to 3600"
        );
        ensure!(
            self.users >= 1 && self.writers >= 1 && self.connecting >= 1,
            "--users, --writers and --connecting must be at least 1"
        );
        Ok(())
    }

    fn half(&self) -> f64 {
        self.seconds as f64 / 2.0
    }

    fn visits_of_a_half(&self) -> u64 {
        pace::count(self.churn, self.half())
    }
}

/// What the visitors saw.
struct Visits {
    live: Histogram<u64>,
    live_from_due: Histogram<u64>,
    done: u64,
    failed: BTreeMap<String, u64>,
}

pub(crate) async fn run(args: ChurnArgs) -> anyhow::Result<bool> {
    args.check()?;
    let at_once = (args.churn * (args.stay + 10.0)) as usize;
    let needs = Needs {
        sockets: args.readers + at_once.min(args.visits_of_a_half() as usize),
        settings: &[RECENT],
        ..Needs::default()
    };
    let scene = Scene::start(&args.scene, needs).await?;
    let result = Box::pin(measure(&args, &scene)).await;
    scene.end(result).await
}

async fn measure(args: &ChurnArgs, scene: &Scene) -> anyhow::Result<bool> {
    let report = Report::new(
        "churn",
        json!({
            "own": scene.target.is_own(), "readers": args.readers, "sessions": args.sessions, "rate": args.rate,
            "churn": args.churn, "stay": args.stay, "resets": args.resets, "users": args.users, "calm": args.calm,
            "seconds": args.seconds, "size": args.size, "postgres": scene.target.postgres_version(),
        }),
    );
    let clients = args.readers + args.users;
    let numbers = Numbers {
        clients,
        users: clients,
        sessions: args.sessions,
    };
    let people = People::add(scene, Uuid::new_v4().as_fields().0, numbers).await?;
    let (stay, come) = people.places.split_at(args.readers);
    let (stop, stopped) = watch::channel(false);
    let stream = Stream {
        rate: args.rate,
        size: args.size,
        writers: args.writers,
        seconds: vec![args.calm as f64, args.half(), args.half()],
        warm_up: Duration::from_secs(1),
    };
    let flow = Arc::new(Flow::new(scene, &people.sessions, &stream, stopped));
    let readers = flow.gather(scene, stay, args.connecting).await?;
    let sampler = Sampler::start(scene.target.server_pid());
    let calm = flow.run(0, &readers).await?;
    sleep(SETTLE).await;

    let mut visits = Visits::new();
    let mut private = vec![memory_of(scene)];
    let before = scene.read();
    let first = visited(args, scene, come, (&flow, 1, &readers), &mut visits).await?;
    let costs = scene.costs_since(&before);
    sleep(SETTLE).await;
    private.push(memory_of(scene));
    let second = visited(args, scene, come, (&flow, 2, &readers), &mut visits).await?;
    sleep(SETTLE).await;
    private.push(memory_of(scene));
    let samples = sampler.stop();
    let mut faults = Vec::new();
    if let Some(open) = open_sockets(scene, args.readers as f64).await
        && open != args.readers as f64
    {
        faults.push(format!(
            "the server has {open} sockets open, and {} readers",
            args.readers
        ));
    }
    stop.send_replace(true);
    let verdict = readers
        .compare(&[&calm, &first, &second], &mut faults)
        .await?;
    people.remove(scene).await?;
    for (why, count) in &visits.failed {
        faults.push(format!("{count} visits failed: {why}"));
    }

    let mut tidings = Contestant::new("tidings")
        .figure(
            "visits",
            "clients that came and went",
            "",
            visits.done as f64,
            Better::Neither,
        )
        .figure(
            "visits_per_second",
            "joins a second",
            "/s",
            visits.done as f64 / (first.seconds + second.seconds),
            Better::Neither,
        )
        .figure(
            "delivered",
            "deliveries to those who stay",
            "",
            verdict.delivered as f64,
            Better::Neither,
        )
        .figure(
            "lost",
            "lost by those who stay",
            "",
            verdict.lost as f64,
            Better::Lower,
        );
    if let [Some(start), Some(middle), Some(end)] = private[..] {
        let growth = end - middle;
        let per_visit = growth / args.visits_of_a_half() as f64;
        if growth > LEAK_BYTES && per_visit > LEAK_BYTES_PER_VISIT {
            faults.push(format!(
                "each visit of the second half left {per_visit:.0} bytes behind"
            ));
        }
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        tidings = tidings
            .figure(
                "memory_start_mib",
                "private memory before",
                "MiB",
                mebibytes(start),
                Better::Lower,
            )
            .figure(
                "memory_middle_mib",
                "private memory after the first half",
                "MiB",
                mebibytes(middle),
                Better::Lower,
            )
            .figure(
                "memory_end_mib",
                "private memory after the second",
                "MiB",
                mebibytes(end),
                Better::Lower,
            )
            .figure(
                "left_behind",
                "left behind by a visit of the second half",
                "B",
                per_visit,
                Better::Lower,
            );
    }
    if let Some(cost) = costs.server_micros_per(args.visits_of_a_half()) {
        let title = "server CPU of a visit, messages included";
        tidings = tidings.figure("server_cpu_us_per_visit", title, "µs", cost, Better::Lower);
    }
    let churned = |of: fn(&Finished) -> &Histogram<u64>| {
        let mut sum = of(&first).clone();
        // Equal bounds always add.
        let _ = sum.add(of(&second));
        sum
    };
    tidings = tidings
        .distribution("calm", "due to delivery, without visitors", &calm.from_due)
        .distribution(
            "churn",
            "due to delivery, with visitors",
            &churned(|one| &one.from_due),
        )
        .distribution(
            "commit_calm",
            "commit to delivery, without",
            &calm.from_commit,
        )
        .distribution(
            "commit_churn",
            "commit to delivery, with",
            &churned(|one| &one.from_commit),
        )
        .distribution("live", "a visitor's connect to live", &visits.live)
        .distribution(
            "live_from_due",
            "a visitor's due time to live",
            &visits.live_from_due,
        )
        .series("server_cores", "Server's CPU", "cores", samples.cores)
        .series("server_memory", "Server's memory", "MiB", samples.memory);
    conclude(&args.scene, report, &[tidings], Some(costs), &faults)
}

/// Half of the visits, while the messages of this phase flow.
async fn visited(
    args: &ChurnArgs,
    scene: &Scene,
    places: &[Place],
    (flow, phase, readers): (&Flow, usize, &Readers),
    visits: &mut Visits,
) -> anyhow::Result<Finished> {
    let count = args.visits_of_a_half();
    let coming = invite(args, scene, places.to_vec(), count);
    let finished = flow.run(phase, readers).await;
    for visit in coming.await? {
        match visit.await? {
            Ok((due, began, live)) => {
                visits.done += 1;
                let since = |start| micros(live.saturating_duration_since(start));
                visits.live.saturating_record(since(began));
                visits.live_from_due.saturating_record(since(due));
            }
            Err(end) => *visits.failed.entry(end.to_string()).or_default() += 1,
        }
    }
    finished
}

type Visit = JoinHandle<Result<(Instant, Instant, Instant), crate::channel::End>>;

/// Lets them come at their times, in the background.
fn invite(
    args: &ChurnArgs,
    scene: &Scene,
    places: Vec<Place>,
    count: u64,
) -> JoinHandle<Vec<Visit>> {
    let (endpoint, pace) = (
        scene.endpoint.clone(),
        Pace::new(Instant::now(), args.churn),
    );
    let (stay, resets) = (args.stay, args.resets);
    tokio::spawn(async move {
        let mut visits = Vec::with_capacity(count as usize);
        for index in 0..count {
            let visitor = Visitor {
                endpoint: endpoint.clone(),
                place: places[index as usize % places.len()].clone(),
                stay: Duration::from_secs_f64(stay * rand::random_range(0.5..1.5)),
                leave: Leave::of(index, resets),
            };
            let due = pace.wait(index).await;
            visits.push(tokio::spawn(visitor.visit(due)));
        }
        visits
    })
}

impl Visits {
    fn new() -> Self {
        Self {
            live: histogram(),
            live_from_due: histogram(),
            done: 0,
            failed: BTreeMap::new(),
        }
    }
}

fn memory_of(scene: &Scene) -> Option<f64> {
    Some(memory::of_process(scene.target.server_pid()?)?.private as f64)
}

/// How many the server says it has, when that is as many as it should be, or at last. None of a server without such metrics.
async fn open_sockets(scene: &Scene, expected: f64) -> Option<f64> {
    let address = scene.address().await.ok()?;
    let mut open = None;
    for _ in 0..20 {
        let counters = cost::counters(address).await.ok()?;
        let of = |name: &str| counters.get(name).copied();
        let opened = of("tidings_connections_opened_total")?;
        let closed = of("tidings_connections_closed_total").unwrap_or_default();
        open = Some(opened - closed);
        if open == Some(expected) {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    open
}
