//! `changes`: people watch their chats while messages are written at a steady rate. Who missed something, who got something
//! twice or in the wrong order, and how long did it take?

mod audience;
mod findings;
mod pulse;
mod summary;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use protocol::Version;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::audience::{collect, gather};
use self::findings::Findings;
use self::pulse::Pulse;
use self::summary::Summary;
use crate::database;
use crate::frame::text;
use crate::ledger::Committed;
use crate::meter::{Meter, histogram};
use crate::report::{Latency, Report, latency_table, usage_table};
use crate::target::{Target, TargetArgs};
use crate::usage;
use crate::writer::{self, Plan, Written};

/// Writers get ready in this time; then the first message is due.
const RUN_UP: Duration = Duration::from_millis(500);

/// After the last expected delivery, how long a superfluous one may take to show up.
const LINGER: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(crate) struct ChangesArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// How many people watch, each over a websocket of their own.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,

    /// How many chats there are. Subscriber i watches chat i modulo this.
    #[arg(long, default_value_t = 100)]
    sessions: usize,

    /// Messages a second, over all chats.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,

    /// How long messages are written.
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// Seconds at the start whose messages count for loss but not for latency.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,

    /// Connections over which the messages are written.
    #[arg(long, default_value_t = 4)]
    writers: usize,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// The version of the wire format.
    #[arg(long, value_enum, default_value_t = Serializer::V2)]
    serializer: Serializer,

    /// Joins under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,

    /// Seconds without a single delivery after which what is missing counts as lost.
    #[arg(long, default_value_t = 10)]
    quiet: u64,

    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Serializer {
    #[value(name = "1.0.0")]
    V1,
    #[value(name = "2.0.0")]
    V2,
}

impl ChangesArgs {
    fn check(&self) -> anyhow::Result<()> {
        let counts = [
            self.subscribers,
            self.sessions,
            self.writers,
            self.connecting,
        ];
        ensure!(
            counts.iter().all(|count| *count > 0),
            "--subscribers, --sessions, --writers and --connecting must be at least 1"
        );
        ensure!(
            self.subscribers >= self.sessions,
            "with more chats than subscribers some chats would have no reader: lower --sessions"
        );
        ensure!(
            self.rate > 0.0 && self.rate <= 1e6,
            "--rate must be above 0 and at most 1000000"
        );
        ensure!(
            (1..=3600).contains(&self.seconds),
            "--seconds must be from 1 to 3600"
        );
        ensure!(
            self.warm_up < self.seconds,
            "--warm-up must be shorter than --seconds"
        );
        ensure!(
            self.messages() <= 50_000_000,
            "more than 50 million messages do not fit: lower --rate or --seconds"
        );
        Ok(())
    }

    fn messages(&self) -> u64 {
        (self.rate * self.seconds as f64).ceil() as u64
    }

    fn version(&self) -> Version {
        match self.serializer {
            Serializer::V1 => Version::V1,
            Serializer::V2 => Version::V2,
        }
    }

    fn parameters(&self, target: &Target) -> Value {
        json!({
            "own": target.is_own(),
            "postgres": target.postgres_version(),
            "subscribers": self.subscribers,
            "sessions": self.sessions,
            "rate": self.rate,
            "seconds": self.seconds,
            "warm_up": self.warm_up,
            "writers": self.writers,
            "size": self.size,
            "serializer": match self.serializer { Serializer::V1 => "1.0.0", Serializer::V2 => "2.0.0" },
        })
    }
}

/// Returns whether everything arrived once and in order.
pub(crate) async fn run(args: ChangesArgs) -> anyhow::Result<bool> {
    args.check()?;
    let target = Target::start(&args.target).await?;
    let result = Box::pin(measure(&args, &target)).await;
    let stopped = target.stop().await;
    let passed = result?;
    stopped?;
    Ok(passed)
}

async fn measure(args: &ChangesArgs, target: &Target) -> anyhow::Result<bool> {
    let mut report = Report::new("changes", args.parameters(target));
    let admin = database::connect(&database::config(&target.database)?).await?;
    let run = Uuid::new_v4().as_fields().0;
    let sessions = database::add_sessions(&admin, run, args.sessions).await?;
    let plan = Arc::new(Plan {
        database: database::config(&target.database)?,
        run,
        sessions,
        content: text(args.size),
        meter: Meter::new(
            Duration::from_secs_f64(1.0 / args.rate),
            args.messages(),
            Duration::from_secs(args.warm_up),
        ),
    });

    let connecting = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let audience = gather(args, target, &plan, &stopped).await?;
    let connect_seconds = connecting.elapsed().as_secs_f64();

    let usage = || {
        [
            target.server_usage(),
            target.postgres_usage(),
            usage::of_process(std::process::id()),
        ]
    };
    let before = usage();
    let started = Instant::now() + RUN_UP;
    plan.meter.start_at(started);
    let hoped = args.messages() * args.subscribers as u64 / args.sessions as u64;
    let pulse = Pulse::start(plan.clone(), hoped, started);
    let written = write_all(args, &plan).await;
    let write_seconds = started.elapsed().as_secs_f64();
    let written = written?;
    let committed = settle(args, &plan, &written).await?;

    let watched = |session: usize| (args.subscribers - session).div_ceil(args.sessions) as u64;
    let expected = (0..args.sessions)
        .map(|session| committed.of_session(session) * watched(session))
        .sum();
    let last_delivery = drain(&plan.meter, expected, Duration::from_secs(args.quiet)).await;
    let after = usage();
    let pulse = pulse.stop();
    stop.send_replace(true);
    let outcomes = collect(audience).await?;
    if !target.is_own() {
        database::remove_sessions(&admin, &plan.sessions).await?;
    }

    let [server, postgres, client] =
        std::array::from_fn(|index| usage::between(before[index], after[index]));
    let delivery_seconds = last_delivery
        .saturating_duration_since(started)
        .as_secs_f64();
    let findings = Findings::of(&outcomes, &committed);
    report.passed = findings.passed();
    let latencies = plan.meter.total();
    let mut commit = histogram();
    let mut lag = histogram();
    for one in &written {
        commit.add(&one.commit).context("histograms differ")?;
        lag.add(&one.lag).context("histograms differ")?;
    }
    let summary = Summary {
        committed: committed.total(),
        write_seconds,
        delivery_seconds,
        connect_seconds,
        findings: &findings,
        latencies: &latencies,
        commit: &commit,
        lag: &lag,
        server,
        postgres,
        pulse,
    };
    let name = if target.is_own() { "tidings" } else { "server" };
    let contestant = summary.contestant(name);
    let due = Latency::of(&latencies.from_due);
    let delivery = Latency::of(&latencies.from_commit);
    let (commit, lag) = (Latency::of(&commit), Latency::of(&lag));
    let refused: usize = written.iter().map(|one| one.failed.len()).sum();
    let unanswered: usize = written.iter().map(|one| one.unknown.len()).sum();
    let reconnects: u64 = written.iter().map(|one| one.reconnects).sum();

    print!("{}", report.heading());
    println!(
        "{} subscribers, {} sessions, joined in {connect_seconds:.1} s; {} messages committed in {write_seconds:.1} s ({:.0}/s), \
         {} delivered in {delivery_seconds:.1} s ({:.0}/s)\n",
        args.subscribers,
        args.sessions,
        committed.total(),
        committed.total() as f64 / write_seconds,
        findings.sum.delivered,
        findings.sum.delivered as f64 / delivery_seconds,
    );
    println!(
        "{}",
        latency_table(&[
            ("commit to delivery", &delivery),
            ("due time to delivery", &due),
            ("  of which insert and commit", &commit),
            ("  of which the harness was late", &lag),
        ])
    );
    println!(
        "{}",
        usage_table(&[
            ("server", server),
            ("PostgreSQL", postgres),
            ("load test", client)
        ])
    );
    if refused + unanswered > 0 || reconnects > 0 {
        let error = written
            .iter()
            .find_map(|one| one.first_error.as_deref())
            .unwrap_or("none");
        println!(
            "writers: {refused} inserts refused, {unanswered} unanswered, {reconnects} reconnects; first error: {error}"
        );
    }
    findings.print();

    let per_delivery =
        server.map(|usage| usage.cpu_seconds * 1e6 / findings.sum.delivered.max(1) as f64);
    report.results = json!({
        "contestants": [contestant],
        "connect_seconds": connect_seconds,
        "write_seconds": write_seconds,
        "delivery_seconds": delivery_seconds,
        "inserts": {
            "committed": committed.total(), "refused": refused, "unanswered": unanswered, "reconnects": reconnects,
        },
        "deliveries": findings.sum,
        "sessions_without_one_order": findings.sessions_without_one_order,
        "subscribers_ended": findings.ends,
        "latency_ms": {
            "from_commit": delivery, "from_due": due, "insert": commit, "harness_late": lag,
            "before_commit_was_known": latencies.early,
        },
        "usage": {"server": server, "postgres": postgres, "loadtest": client},
        "server_cpu_us_per_delivery": per_delivery,
    });
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.passed)
}

/// Writes everything and waits for all answers.
async fn write_all(args: &ChangesArgs, plan: &Arc<Plan>) -> anyhow::Result<Vec<Written>> {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    for index in 0..args.writers {
        let (sender, due) = writer::queue();
        queues.push(sender);
        let plan = plan.clone();
        tasks.spawn(async move { (index, writer::write(plan, index, due).await) });
    }
    let (plan, messages) = (plan.clone(), args.messages());
    std::thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || writer::pace(&plan, messages, &queues))
        .context("cannot start a thread")?;
    let mut written: BTreeMap<usize, Written> = BTreeMap::new();
    while let Some(task) = tasks.join_next().await {
        let (index, result) = task?;
        written.insert(index, result?);
    }
    Ok(written.into_values().collect())
}

/// What is in the table, as far as the writers know; for inserts that were never answered the table is asked.
async fn settle(args: &ChangesArgs, plan: &Plan, written: &[Written]) -> anyhow::Result<Committed> {
    let mut committed = Committed::new(args.writers, args.sessions);
    let mut unknown = HashMap::new();
    for (index, one) in written.iter().enumerate() {
        committed.set_writer(index, &one.last);
        for stamp in &one.failed {
            committed.set_failed(*stamp);
        }
        unknown.extend(one.unknown.iter().map(|(job, stamp)| (*job, *stamp)));
    }
    if !unknown.is_empty() {
        let client = database::connect(&plan.database).await?;
        let jobs: Vec<i64> = unknown.keys().map(|job| *job as i64).collect();
        for job in database::stored(&client, plan.run, &jobs).await? {
            unknown.remove(&(job as u64));
        }
        for stamp in unknown.into_values() {
            committed.set_failed(stamp);
        }
    }
    Ok(committed)
}

/// Waits until all that is expected has arrived and nothing superfluous follows, or until nothing comes any more.
/// Returns when the last delivery was seen.
async fn drain(meter: &Meter, expected: u64, quiet: Duration) -> Instant {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut count = meter.count();
    let mut changed = Instant::now();
    loop {
        tick.tick().await;
        let now = meter.count();
        if now != count {
            (count, changed) = (now, Instant::now());
        }
        let limit = if count >= expected { LINGER } else { quiet };
        if changed.elapsed() >= limit {
            return changed;
        }
    }
}

#[cfg(test)]
mod tests;
