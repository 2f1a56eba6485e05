//! `soak`: everything fails, at random, for as long as wanted: the gateway, PostgreSQL, the network on both sides. Meanwhile
//! people write in every way that they do, and read, leave and come back. Afterwards what each was told is compared with
//! what was committed.

mod audit;
mod check;
mod faults;
mod findings;
mod plan;
mod reader;
mod stand;
mod story;
mod truth;
mod world;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use self::faults::{Incident, Timeline};
use self::findings::Findings;
use self::plan::Side;
use self::reader::{Counts, Outcome, Reader};
use self::stand::{Setting, Stand};
use self::story::Habit;
use self::truth::{Audited, Truth};
use self::world::{Phase, World};
use self::writer::{Done, Pool, Writer};
use crate::database;
use crate::own;
use crate::report::Report;

/// Nothing is broken yet when everybody joins for the first time.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// How long the last change may take to reach everybody once everything works again.
const FENCE_LIMIT: Duration = Duration::from_secs(90);

/// The faults end a little before the writers do.
const CALM_BEFORE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(crate) struct SoakArgs {
    /// How long everything fails. Fractions are fine.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,

    /// Everything that chance decides follows from this. A random one if it is not given.
    #[arg(long)]
    seed: Option<u64>,

    /// How many people own chats, and how many chats each has.
    #[arg(long, default_value_t = 4)]
    users: usize,
    #[arg(long, default_value_t = 2)]
    chats: usize,

    /// How many clients read: of every eight, one of each habit.
    #[arg(long, default_value_t = 48)]
    readers: usize,

    /// How many connections write.
    #[arg(long, default_value_t = 6)]
    writers: usize,

    /// About so many changes a second, bursts not counted.
    #[arg(long, default_value_t = 150.0)]
    rate: f64,

    /// A private PostgreSQL and gateway are started in any case: both are killed many times. May be said for clarity.
    #[arg(long)]
    own: bool,

    /// A setting of the gateway, as TIDINGS_NAME=value. May be given more than once.
    #[arg(long = "setting")]
    settings: Vec<Setting>,

    /// The directory of PostgreSQL's programs, if it is not found by itself.
    #[arg(long, env = "TIDINGS_POSTGRES_BIN")]
    postgres: Option<PathBuf>,

    /// Keep the gateway's log in this file.
    #[arg(long)]
    keep_log: Option<PathBuf>,

    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl SoakArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.minutes > 0.0 && self.minutes <= 24.0 * 60.0,
            "--minutes must be above 0 and at most 1440"
        );
        ensure!(
            [self.users, self.chats, self.readers, self.writers]
                .iter()
                .all(|count| (1..=1000).contains(count)),
            "--users, --chats, --readers and --writers must be from 1 to 1000"
        );
        ensure!(
            self.rate >= 1.0 && self.rate <= 10_000.0,
            "--rate must be from 1 to 10000"
        );
        Ok(())
    }
}

/// What a run leaves behind to be judged.
struct Run {
    truth: Vec<Audited>,
    outcomes: Vec<Outcome>,
    written: Vec<Done>,
    incidents: Vec<Incident>,
    counts: BTreeMap<plan::Kind, u64>,
    /// Since the start of the run.
    calm_at: Duration,
    /// How long the last change took to reach everybody.
    fence: Option<Duration>,
    /// What is wrong with the gateway at the end.
    complaints: Vec<String>,
}

/// Returns whether everything that was committed arrived once and in order.
pub(crate) async fn run(args: SoakArgs) -> anyhow::Result<bool> {
    args.check()?;
    let seed = args
        .seed
        .unwrap_or_else(|| rand::random_range(1..1_000_000));
    println!("seed {seed}");
    let secret = own::new_secret();
    let stand = Stand::start(args.postgres.clone(), &secret, &args.settings).await?;
    let run = Box::pin(soak(&args, seed, &secret, &stand)).await;
    let fate = stand.stop(args.keep_log.clone()).await?;
    let run = run?;

    let mut report = Report::new(
        "soak",
        json!({
            "seed": seed, "minutes": args.minutes, "users": args.users, "chats": args.chats, "readers": args.readers,
            "writers": args.writers, "rate": args.rate,
        }),
    );
    let marks = run.outcomes.iter().flat_map(|one| one.story.marks());
    let truth = Truth::new(run.truth, marks)?;
    let findings = Findings::of(&truth, &run.outcomes, &run.complaints, &fate)?;
    report.passed = findings.passed();

    let mut resumes = Counts::new();
    let mut ends = Counts::new();
    for outcome in &run.outcomes {
        add(&mut resumes, &outcome.resumes);
        add(&mut ends, &outcome.ends);
    }
    let mut errors = BTreeMap::new();
    for done in &run.written {
        add(&mut errors, &done.errors);
    }
    let reconnects: u64 = ends.values().sum();
    print!("{}", report.heading());
    println!(
        "{} changes committed in {} transactions; {} deliveries and {} histories checked; {} connections of {} readers\n",
        truth.changes.len(),
        truth.transactions(),
        findings.deliveries,
        findings.histories,
        reconnects,
        run.outcomes.len(),
    );
    println!("faults:          {}", list(&run.counts));
    println!("resumes:         {}", list(&resumes));
    println!("connections:     {}", list(&ends));
    println!("writers' errors: {}", list(&errors));
    println!(
        "gateway:         {} starts, {} of them refused for want of a database; {:.1} MiB at the end",
        fate.starts,
        fate.refused_starts,
        fate.memory_bytes as f64 / f64::from(1 << 20),
    );
    match run.fence {
        Some(fence) => println!(
            "at the end:      all caught up {:.1} s after the last change",
            fence.as_secs_f64()
        ),
        None => println!("at the end:      NOT all caught up"),
    }
    findings::print_last(&run.outcomes, run.calm_at);
    findings.print(&truth, &run.outcomes, &run.incidents);
    if !report.passed {
        let mut again: Vec<String> = std::env::args().skip(1).collect();
        if args.seed.is_none() {
            again.push(format!("--seed {seed}"));
        }
        println!("\nagain with: loadtest {}", again.join(" "));
    }
    report.results = json!({
        "changes": truth.changes.len(),
        "transactions": truth.transactions(),
        "deliveries": findings.deliveries,
        "histories": findings.histories,
        "faults": run.counts,
        "resumes": resumes,
        "connections": ends,
        "writers": {
            "deeds": run.written.iter().map(|done| done.deeds).sum::<u64>(),
            "failed": run.written.iter().map(|done| done.failed).sum::<u64>(),
            "errors": errors,
        },
        "gateway": {
            "starts": fate.starts, "refused_starts": fate.refused_starts, "panics": fate.panics, "memory_bytes": fate.memory_bytes,
        },
        "timeline": run.incidents.iter().map(Incident::to_json).collect::<Vec<_>>(),
        "calm_at_seconds": run.calm_at.as_secs_f64(),
        "caught_up_seconds": run.fence.map(|fence| fence.as_secs_f64()),
        "differences": findings.count(),
    });
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.passed)
}

async fn soak(args: &SoakArgs, seed: u64, secret: &str, stand: &Stand) -> anyhow::Result<Run> {
    let admin = database::connect(&stand.database).await?;
    audit::install(&admin).await?;
    let users = audit::add_users(&admin, secret, args.users, args.chats).await?;
    drop(admin);
    let (phase, phases) = watch::channel(Phase::default());
    let world = Arc::new(World::new(
        stand.database.clone(),
        users,
        stand.clients_line.address(),
        stand.server(),
        phases,
    ));

    let readers = gather(args, seed, &world).await?;
    let pool = Arc::new(Pool::default());
    let mut writers = JoinSet::new();
    for number in 0..args.writers {
        let pause = Writer::pause(args.rate, args.writers);
        let writer = Writer::new(world.clone(), pool.clone(), number, pause, seed);
        writers.spawn(writer.run());
    }

    let total = Duration::from_secs_f64(args.minutes * 60.0);
    let timeline = Timeline::default();
    let bar = show_time(total);
    let misfortune = async {
        let injected = |side| inject(side, seed, total, &world, stand, &timeline);
        let clock = async {
            tokio::time::sleep(total).await;
            anyhow::Ok(())
        };
        tokio::try_join!(injected(Side::Database), injected(Side::Clients), clock)?;
        let mut complaints = Vec::new();
        complaints.extend(stand.put_in_order().await);
        phase.send_modify(|phase| phase.calm = true);
        let calm_at = world.started.elapsed();
        let written = writers.join_all().await;
        audit::put_fence(&world, &phase).await?;
        let (outcomes, fence) = catch_up(readers, &phase).await?;
        complaints.extend(stand.leftovers().await);
        anyhow::Ok(Run {
            truth: audit::read(&world).await?,
            outcomes,
            written,
            incidents: timeline.incidents(),
            counts: timeline.counts(),
            calm_at,
            fence,
            complaints,
        })
    };
    let run = tokio::select! {
        run = Box::pin(misfortune) => run,
        failed = stand.tend() => Err(match failed {
            Err(error) => error,
            Ok(never) => match never {},
        }),
    };
    bar.finish_and_clear();
    run
}

/// Carries out the plan of one side, whose clock begins now: the readers have come together.
async fn inject(
    side: Side,
    seed: u64,
    total: Duration,
    world: &World,
    stand: &Stand,
    timeline: &Timeline,
) -> anyhow::Result<()> {
    let mut faults = plan::faults(seed, side, total.saturating_sub(CALM_BEFORE));
    let now = world.started.elapsed();
    faults.iter_mut().for_each(|fault| fault.at += now);
    faults::inject(&faults, side, seed, world, stand, timeline).await
}

/// Waits until everybody has the last change, or has had the time for it. Also returns how long that took.
async fn catch_up(
    readers: Vec<(Habit, Task)>,
    phase: &watch::Sender<Phase>,
) -> anyhow::Result<(Vec<Outcome>, Option<Duration>)> {
    let started = Instant::now();
    let mut took = None;
    let mut outcomes = Vec::new();
    // Those without cursors have nothing to catch up with, and stay until the end.
    let (others, followers): (Vec<_>, Vec<_>) = readers
        .into_iter()
        .partition(|(habit, _)| *habit == Habit::Plain);
    let all = join_all(followers.into_iter().map(|(_, reader)| reader));
    let mut all = std::pin::pin!(all);
    let caught_up = match timeout(FENCE_LIMIT, &mut all).await {
        Ok(caught_up) => {
            took = Some(started.elapsed());
            phase.send_modify(|phase| phase.over = true);
            caught_up
        }
        Err(_) => {
            phase.send_modify(|phase| phase.over = true);
            all.await
        }
    };
    for outcome in caught_up {
        outcomes.push(outcome?);
    }
    for (_, reader) in others {
        outcomes.push(reader.await?);
    }
    outcomes.sort_by_key(|outcome| outcome.story.reader);
    Ok((outcomes, took))
}

type Task = JoinHandle<Outcome>;

/// Starts the readers, and returns when all are up to date for the first time.
async fn gather(
    args: &SoakArgs,
    seed: u64,
    world: &Arc<World>,
) -> anyhow::Result<Vec<(Habit, Task)>> {
    let mut tasks = Vec::new();
    let mut waiting = Vec::new();
    for number in 0..args.readers {
        let habit = Habit::ALL[number % Habit::ALL.len()];
        let (ready, is_ready) = oneshot::channel();
        let reader = Reader::new(world.clone(), number, habit, seed);
        tasks.push((habit, tokio::spawn(reader.run(ready))));
        waiting.push(is_ready);
    }
    let all = timeout(JOIN_LIMIT, join_all(waiting)).await;
    let all = all.context("not all readers could join before anything was broken")?;
    // A reader that gave up says why.
    if let Some(number) = all.iter().position(Result::is_err) {
        let outcome = tasks.swap_remove(number).1.await?;
        let why = outcome.story.wrong.first().map(|(_, why)| why.clone());
        anyhow::bail!(
            "reader {number} could not join: {}",
            why.unwrap_or_else(|| "it gave no reason".to_owned())
        );
    }
    Ok(tasks)
}

fn show_time(total: Duration) -> ProgressBar {
    let bar = ProgressBar::new(total.as_secs());
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:40} of {len} s");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let ticking = bar.clone();
    tokio::spawn(async move {
        while !ticking.is_finished() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ticking.inc(1);
        }
    });
    bar
}

fn add(sum: &mut Counts, counts: &Counts) {
    for (name, count) in counts {
        *sum.entry(name.clone()).or_default() += count;
    }
}

fn list<K: serde::Serialize>(counts: &BTreeMap<K, u64>) -> String {
    let entries = counts.iter().map(|(name, count)| {
        let name = serde_json::to_value(name).unwrap_or_default();
        format!("{} {count}", name.as_str().unwrap_or_default())
    });
    entries.collect::<Vec<_>>().join(", ")
}
