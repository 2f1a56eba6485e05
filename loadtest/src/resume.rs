//! `resume`: thousands of clients lose their connection at the same moment, messages are written meanwhile, and all come back
//! at once with their cursors. How long does it take, what does it cost, and has everybody everything, once?

mod client;
pub(crate) mod cost;
mod people;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use faultproxy::{Cut, Proxy};
use futures::future::try_join_all;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Config;
use uuid::Uuid;

use self::client::{Outcome, Progress, Shared, Stage};
use self::cost::Counter;
use self::people::{add_people, write};
use crate::database;
use crate::meter::{histogram, micros};
use crate::own::{self, Launch, OwnCluster, OwnServer};
use crate::report::{Better, Contestant, Latency, Report, latency_table, usage_table};
use crate::scene::raise_file_limit;
use crate::usage::{self, Usage};

const DATABASE: &str = "resume";

const JOIN_LIMIT: Duration = Duration::from_secs(600);
const DROP_LIMIT: Duration = Duration::from_secs(60);
const BACK_LIMIT: Duration = Duration::from_secs(240);
const LAST_LIMIT: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub(crate) struct ResumeArgs {
    /// How many clients come back at once.
    #[arg(long, default_value_t = 5000)]
    clients: usize,

    /// How many chats there are. Client i reads chat i modulo this.
    #[arg(long, default_value_t = 500)]
    sessions: usize,

    /// How many people the clients are. Each client is one of its own if this is not given.
    #[arg(long)]
    users: Option<usize>,

    /// How many messages are written in each chat while nobody is there.
    #[arg(long, default_value_t = 20)]
    messages: u64,

    /// Where the gateway finds what was missed. `memory`: it went on, and its clients' connections were cut. `log`: it was
    /// killed, and a new one has only the database.
    #[arg(long, value_enum, default_value_t = From::Memory)]
    from: From,

    /// Joins under way at once, before the drop.
    #[arg(long, default_value_t = 64)]
    connecting: usize,

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    Memory,
    Log,
}

impl ResumeArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=100_000).contains(&self.clients) && self.sessions >= 1 && self.connecting >= 1,
            "--clients must be from 1 to 100000, --sessions and --connecting at least 1"
        );
        ensure!(
            self.sessions <= self.clients,
            "with more chats than clients some chats would have no reader: lower --sessions"
        );
        ensure!(
            self.users
                .is_none_or(|users| (1..=self.clients).contains(&users)),
            "--users must be from 1 to --clients"
        );
        ensure!(
            self.messages as usize * self.sessions <= 2_000_000,
            "more than 2 million messages: lower --messages or --sessions"
        );
        Ok(())
    }

    fn users(&self) -> usize {
        self.users.unwrap_or(self.clients)
    }
}

/// The cluster, and who is tested in it.
struct Stand {
    cluster: OwnCluster,
    launch: Launch,
    server: OwnServer,
    database: Config,
}

/// Returns whether everybody got everything once and in order.
pub(crate) async fn run(args: ResumeArgs) -> anyhow::Result<bool> {
    args.check()?;
    // Each client has a socket, and so have both sides of the proxy.
    raise_file_limit(args.clients as u64 * 3 + 500)?;
    let mut stand = start(&args).await?;
    let result = Box::pin(measure(&args, &mut stand)).await;
    stand.server.stop().await;
    let stopped = stand.cluster.stop().await;
    let passed = result?;
    stopped?;
    Ok(passed)
}

async fn start(args: &ResumeArgs) -> anyhow::Result<Stand> {
    let cluster = OwnCluster::start_counting(args.postgres.clone()).await?;
    cluster.prepare(DATABASE).await?;
    let launch = Launch {
        database_url: cluster.url(DATABASE),
        secret: own::new_secret(),
        settings: Vec::new(),
        dir: cluster.dir().to_owned(),
        log: cluster.dir().join("tidings.log"),
    };
    let mut server = OwnServer::start(&launch).await?;
    if let Err(error) = server.wait_until_ready().await {
        return Err(launch.explain(error));
    }
    Ok(Stand {
        database: database::config(&cluster.url(DATABASE))?,
        cluster,
        launch,
        server,
    })
}

async fn measure(args: &ResumeArgs, stand: &mut Stand) -> anyhow::Result<bool> {
    let mut report = Report::new(
        "resume",
        json!({
            "clients": args.clients, "sessions": args.sessions, "users": args.users(), "messages": args.messages,
            "from": match args.from { From::Memory => "memory", From::Log => "log" }, "size": args.size,
            "postgres": stand.cluster.version(),
        }),
    );
    let admin = database::connect(&stand.database).await?;
    let places = add_people(&admin, &stand.launch.secret, args).await?;
    let sessions: Vec<Uuid> = places[..args.sessions]
        .iter()
        .map(|place| place.session)
        .collect();

    let proxy = Proxy::start(stand.server.address()).await?;
    let (stage, stages) = watch::channel(Stage::Joining(proxy.address()));
    let (progress, mut seen) = watch::channel(Progress::default());
    let shared = Arc::new(Shared {
        stage: stages,
        joining: Semaphore::new(args.connecting),
        missed: args.messages,
        progress,
        first_fault: OnceLock::new(),
    });
    let clients: Vec<JoinHandle<Outcome>> = places
        .into_iter()
        .map(|place| tokio::spawn(client::run(shared.clone(), place)))
        .collect();
    wait(&mut seen, JOIN_LIMIT, args.clients, "joined", |one| {
        one.joined
    })
    .await?;
    if let Some(fault) = shared.first_fault.get() {
        bail!("a client could not join: {fault}");
    }

    stage.send_replace(Stage::Dropped);
    match args.from {
        From::Memory => proxy.cut(Cut::Reset),
        From::Log => stand.server.kill().await?,
    }
    wait(
        &mut seen,
        DROP_LIMIT,
        args.clients,
        "noticed the drop",
        |one| one.dropped,
    )
    .await?;
    write(&stand.database, &sessions, 1..=args.messages, args.size).await?;
    if args.from == From::Log {
        stand.server = OwnServer::start(&stand.launch).await?;
        if let Err(error) = stand.server.wait_until_ready().await {
            return Err(stand.launch.explain(error));
        }
    }

    let address = stand.server.address();
    let before = cost::counters(address).await?;
    let usage = || {
        [
            stand.server.pid().and_then(usage::of_process),
            stand.cluster.pid().and_then(usage::of_tree),
            usage::of_process(std::process::id()),
        ]
    };
    let usage_before = usage();
    let counter = Counter::start(&admin).await?;
    let began = Instant::now();
    stage.send_replace(Stage::Back(address));
    let back = wait(&mut seen, BACK_LIMIT, args.clients, "came back", |one| {
        one.back
    })
    .await;
    let seconds = began.elapsed().as_secs_f64();
    let usage_after = usage();
    let statements = counter.read().await?;
    let counted = cost::between(&before, &cost::counters(address).await?);
    let mut last = Ok(());
    if back.is_ok() {
        let one_more = args.messages + 1;
        write(&stand.database, &sessions, one_more..=one_more, args.size).await?;
        let what = "got the message after their return";
        last = wait(&mut seen, LAST_LIMIT, args.clients, what, |one| one.live).await;
    }
    stage.send_replace(Stage::Over);
    let outcomes = timeout(LAST_LIMIT, try_join_all(clients)).await;
    let outcomes = outcomes.context("clients do not end")??;
    back.and(last)?;

    let [server, postgres, client] =
        std::array::from_fn(|index| usage::between(usage_before[index], usage_after[index]));
    let mut open = histogram();
    let mut caught_up = histogram();
    let mut setbacks: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in &outcomes {
        for (time, histogram) in [
            (outcome.open, &mut open),
            (outcome.caught_up, &mut caught_up),
        ] {
            if let Some(time) = time {
                histogram.saturating_record(micros(time));
            }
        }
        for setback in &outcome.setbacks {
            *setbacks.entry(setback).or_default() += 1;
        }
    }
    let received: u64 = outcomes.iter().map(|outcome| outcome.received).sum();
    let attempts: u64 = outcomes.iter().map(|outcome| outcome.attempts).sum();
    let returns = args.clients as f64;
    let cost = |usage: Usage| usage.cpu_seconds * 1e6 / returns;
    let mut tidings = Contestant::new("tidings")
        .figure(
            "seconds",
            "until all were back",
            "s",
            seconds,
            Better::Lower,
        )
        .figure(
            "returns_per_second",
            "returns",
            "/s",
            returns / seconds,
            Better::Higher,
        )
        .figure(
            "attempts_per_return",
            "attempts for a return",
            "",
            attempts as f64 / returns,
            Better::Lower,
        )
        .figure(
            "statements_per_return",
            statements.unit_per("a return"),
            "",
            statements.total as f64 / returns,
            Better::Lower,
        );
    for (key, title, usage) in [
        ("server_cpu_us_per_return", "server CPU of a return", server),
        (
            "postgres_cpu_us_per_return",
            "PostgreSQL CPU of a return",
            postgres,
        ),
    ] {
        if let Some(usage) = usage {
            tidings = tidings.figure(key, title, "µs", cost(usage), Better::Lower);
        }
    }
    let tidings = tidings
        .distribution("open", "return to open socket", &open)
        .distribution("caught_up", "return to up to date", &caught_up);
    let (open, caught_up) = (Latency::of(&open), Latency::of(&caught_up));
    let faults: Vec<&str> = outcomes
        .iter()
        .filter_map(|one| one.fault.as_deref())
        .collect();
    report.passed = faults.is_empty();

    print!("{}", report.heading());
    println!(
        "{} clients ({} users, {} chats) back in {seconds:.2} s with {} missed messages each; {received} messages received\n",
        args.clients,
        args.users(),
        args.sessions,
        args.messages,
    );
    println!(
        "{}",
        latency_table(&[
            ("return to open socket", &open),
            ("return to up to date", &caught_up)
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
    statements.print();
    let counters: Vec<String> = counted
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    println!("gateway:  {}", counters.join(", "));
    for (setback, count) in &setbacks {
        println!("{count} attempts failed: {setback}");
    }
    println!(
        "clients that did not get everything once and in order: {}",
        faults.len()
    );
    if let Some(first) = faults.first() {
        println!("the first of them: {first}");
    }
    report.results = json!({
        "contestants": [tidings],
        "seconds": seconds,
        "received": received,
        "attempts": attempts,
        "latency_ms": {"open": open, "caught_up": caught_up},
        "usage": {"server": server, "postgres": postgres, "loadtest": client},
        "statements": statements,
        "gateway": counted,
        "faults": faults.len(),
    });
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.passed)
}

async fn wait(
    progress: &mut watch::Receiver<Progress>,
    limit: Duration,
    clients: usize,
    what: &str,
    count: fn(&Progress) -> usize,
) -> anyhow::Result<()> {
    let done = |progress: &Progress| count(progress) + progress.failed >= clients;
    let reached = timeout(limit, progress.wait_for(done)).await;
    let reached = reached.map(|result| result.map(|progress| *progress));
    match reached {
        Ok(Ok(_)) => Ok(()),
        _ => bail!(
            "only {} of {clients} clients {what} within {} s",
            count(&progress.borrow()),
            limit.as_secs()
        ),
    }
}
