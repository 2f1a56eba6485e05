//! `join`: thousands connect and join at once, as after a deploy. How many a second, what does each cost the server and the
//! database, and does a change cost the database the same whether ten listen or all?

mod newcomer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use self::newcomer::{Arrived, Newcomer, Ways};
use crate::meter::{histogram, micros};
use crate::report::{Better, Contestant, Report};
use crate::resume::cost::Counter;
use crate::scene::link::Wish;
use crate::scene::pace::Pace;
use crate::scene::people::{Numbers, People, Place};
use crate::scene::sampler::Sampler;
use crate::scene::{Needs, Scene, SceneArgs, conclude};

/// They are there before the storm, so that the price of a change is known with few subscribers, too.
const FEW: usize = 10;

/// Changes whose price is counted, and the time between two of them.
const CHANGES: u32 = 20;
const BETWEEN_CHANGES: Duration = Duration::from_millis(100);

/// The server looks at the catalog again when members and policies were made; it has done so when it does no more than this.
const CALM: i64 = 3;
const CALM_ROUND: Duration = Duration::from_secs(1);
const CALM_ROUNDS: usize = 10;

/// What the server still does for those who came last.
const SETTLE: Duration = Duration::from_secs(2);

const DELIVERY_LIMIT: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    scene: SceneArgs,

    /// How many clients join.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,

    /// How many people they are. Each client is one of its own if this is not given.
    #[arg(long)]
    users: Option<usize>,

    /// How many chats there are. With 1 all hear the same changes.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,

    /// What they join: a channel with an authorized binding for changes, a private channel, or a public one.
    #[arg(long, value_enum, default_value_t = Kind::Changes)]
    kind: Kind,

    /// How many are on their way at once; the next begins when one is in.
    #[arg(long, default_value_t = 256, conflicts_with = "rate")]
    concurrency: usize,

    /// So many begin a second, whatever became of those before.
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Changes,
    Private,
    Public,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

impl JoinArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (FEW * 2..=100_000).contains(&self.clients),
            "--clients must be from {} to 100000",
            FEW * 2
        );
        ensure!(
            (1..=self.clients).contains(&self.sessions),
            "--sessions must be from 1 to --clients"
        );
        ensure!(
            self.users
                .is_none_or(|users| (1..=self.clients).contains(&users)),
            "--users must be from 1 to --clients"
        );
        ensure!(
            self.rate.is_none_or(|rate| rate > 0.0 && rate <= 1e6) && self.concurrency >= 1,
            "--rate must be above 0 and at most 1000000, and --concurrency at least 1"
        );
        Ok(())
    }

    fn wish(&self, place: &Place) -> Wish {
        match self.kind {
            Kind::Changes => Wish::messages_of(place.session),
            Kind::Private | Kind::Public => Wish {
                private: self.kind == Kind::Private,
                ..Wish::of(format!("chat:{}", place.session))
            },
        }
    }
}

/// What all clients share.
struct Shared {
    stop: watch::Receiver<bool>,
    received: AtomicU64,
}

/// What became of the storm.
struct Storm {
    seconds: f64,
    open: Histogram<u64>,
    reply: Histogram<u64>,
    live: Histogram<u64>,
    from_due: Histogram<u64>,
    arrived: u64,
    failed: BTreeMap<String, u64>,
}

pub(crate) async fn run(args: JoinArgs) -> anyhow::Result<bool> {
    args.check()?;
    let needs = Needs {
        sockets: args.clients,
        counting: true,
        settings: &[],
    };
    let scene = Scene::start(&args.scene, needs).await?;
    let result = Box::pin(measure(&args, &scene)).await;
    scene.end(result).await
}

async fn measure(args: &JoinArgs, scene: &Scene) -> anyhow::Result<bool> {
    let users = args.users.unwrap_or(args.clients);
    let report = Report::new(
        "join",
        json!({
            "own": scene.target.is_own(), "clients": args.clients, "users": users, "sessions": args.sessions,
            "kind": args.kind.name(), "concurrency": args.rate.is_none().then_some(args.concurrency), "rate": args.rate,
            "postgres": scene.target.postgres_version(),
        }),
    );
    let numbers = Numbers {
        clients: args.clients,
        users,
        sessions: args.sessions,
    };
    let people = People::add(scene, Uuid::new_v4().as_fields().0, numbers).await?;
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        stop: stopped,
        received: AtomicU64::new(0),
    });
    let (few, many) = people.places.split_at(FEW);
    let mut faults = Vec::new();
    let mut crowd = JoinSet::new();

    let early = storm(args, scene, &shared, few, &mut crowd, None).await?;
    if let Some((why, _)) = early.failed.first_key_value() {
        bail!("a client could not join: {why}");
    }
    let mut tidings = Contestant::new("tidings");
    let mut prices = Vec::new();
    prices.extend(price_of_a_change(args, scene, &shared, &people, FEW, &mut faults).await?);

    let statements = Counter::start(&scene.admin).await?;
    let sampler = Sampler::start(scene.target.server_pid());
    let before = scene.read();
    let storm = storm(args, scene, &shared, many, &mut crowd, args.rate).await?;
    let costs = scene.costs_since(&before);
    let samples = sampler.stop();
    let statements = statements.read().await?;
    sleep(SETTLE).await;
    let everybody = FEW + storm.arrived as usize;
    prices.extend(price_of_a_change(args, scene, &shared, &people, everybody, &mut faults).await?);

    stop.send_replace(true);
    while let Some(end) = crowd.join_next().await {
        faults.extend(end?);
    }
    people.remove(scene).await?;

    tidings = storm.figures(tidings);
    let joins = storm.arrived;
    if let Some(cost) = costs.server_micros_per(joins) {
        let title = "server CPU of a join";
        tidings = tidings.figure("server_cpu_us_per_join", title, "µs", cost, Better::Lower);
    }
    if let Some(cost) = costs.postgres_micros_per(joins) {
        let title = "PostgreSQL CPU of a join";
        tidings = tidings.figure("postgres_cpu_us_per_join", title, "µs", cost, Better::Lower);
    }
    tidings = tidings.figure(
        "statements_per_join",
        statements.unit_per("a join"),
        "",
        statements.total as f64 / joins.max(1) as f64,
        Better::Lower,
    );
    for (index, price) in prices.iter().enumerate() {
        let (name, who) = match index {
            0 => ("statements_per_change_few", FEW),
            _ => ("statements_per_change", everybody),
        };
        let title = format!("{}, {who} clients", statements.unit_per("a change"));
        tidings = tidings.figure(name, title, "", *price, Better::Lower);
    }
    tidings = tidings
        .series("server_cores", "Server's CPU", "cores", samples.cores)
        .series("server_memory", "Server's memory", "MiB", samples.memory);
    for (why, count) in &storm.failed {
        faults.push(format!("{count} clients could not join: {why}"));
    }
    statements.print();
    conclude(&args.scene, report, &[tidings], Some(costs), &faults)
}

/// All these come, and stay. With a rate they come at their times, else as fast as they get in.
async fn storm(
    args: &JoinArgs,
    scene: &Scene,
    shared: &Arc<Shared>,
    places: &[Place],
    crowd: &mut JoinSet<Option<String>>,
    rate: Option<f64>,
) -> anyhow::Result<Storm> {
    let start = Instant::now();
    let pace = rate.map(|rate| Pace::new(start, rate));
    let permits = Arc::new(Semaphore::new(args.concurrency));
    let (news, mut arrivals) = mpsc::channel(places.len());
    for (index, place) in places.iter().enumerate() {
        let newcomer = Newcomer {
            endpoint: scene.endpoint.clone(),
            token: place.token.clone(),
            wish: args.wish(place),
        };
        let (due, permit) = match &pace {
            Some(pace) => (pace.wait(index as u64).await, None),
            None => {
                let permit = permits.clone().acquire_owned().await?;
                (Instant::now(), Some(permit))
            }
        };
        let ways = Ways {
            news: news.clone(),
            permit,
        };
        crowd.spawn(Box::pin(newcomer.live(due, ways, shared.clone())));
    }
    drop(news);
    let mut storm = Storm::new();
    while let Some(arrived) = arrivals.recv().await {
        match arrived {
            Ok(arrived) => {
                storm.note(&arrived);
                storm.seconds = storm.seconds.max((arrived.live - start).as_secs_f64());
            }
            Err(end) => *storm.failed.entry(end.to_string()).or_default() += 1,
        }
    }
    Ok(storm)
}

impl Storm {
    fn new() -> Self {
        Self {
            seconds: 0.0,
            open: histogram(),
            reply: histogram(),
            live: histogram(),
            from_due: histogram(),
            arrived: 0,
            failed: BTreeMap::new(),
        }
    }

    fn note(&mut self, arrived: &Arrived) {
        self.arrived += 1;
        let since = |at: Instant, start: Instant| micros(at.saturating_duration_since(start));
        self.open
            .saturating_record(since(arrived.open, arrived.began));
        self.reply
            .saturating_record(since(arrived.replied, arrived.began));
        self.live
            .saturating_record(since(arrived.live, arrived.began));
        self.from_due
            .saturating_record(since(arrived.live, arrived.due));
    }

    fn figures(&self, contestant: Contestant) -> Contestant {
        let failed: u64 = self.failed.values().sum();
        contestant
            .figure(
                "joins",
                "clients that joined",
                "",
                self.arrived as f64,
                Better::Neither,
            )
            .figure(
                "failed",
                "clients that did not",
                "",
                failed as f64,
                Better::Lower,
            )
            .figure(
                "seconds",
                "until the last was in",
                "s",
                self.seconds,
                Better::Lower,
            )
            .figure(
                "joins_per_second",
                "joins a second",
                "/s",
                self.arrived as f64 / self.seconds.max(1e-9),
                Better::Higher,
            )
            .distribution("open", "connect to open socket", &self.open)
            .distribution("reply", "connect to reply", &self.reply)
            .distribution("live", "connect to live channel", &self.live)
            .distribution("live_from_due", "due time to live channel", &self.from_due)
    }
}

/// How many statements the database carries out for a change, the writer's own left out. None if nobody listens for changes.
async fn price_of_a_change(
    args: &JoinArgs,
    scene: &Scene,
    shared: &Shared,
    people: &People,
    present: usize,
    faults: &mut Vec<String>,
) -> anyhow::Result<Option<f64>> {
    if args.kind != Kind::Changes {
        return Ok(None);
    }
    let write = async |session: Uuid| {
        let insert = "insert into public.chat_messages (session_id, content) values ($1, 'x')";
        scene.admin.execute(insert, &[&session]).await
    };
    // Statements are prepared once, and the first change after a pause is not like the others.
    write(people.sessions[0]).await?;
    sleep(BETWEEN_CHANGES * 2).await;
    for _ in 0..CALM_ROUNDS {
        let counter = Counter::start(&scene.admin).await?;
        sleep(CALM_ROUND).await;
        if counter.read().await?.total <= CALM {
            break;
        }
    }
    // What goes on anyway.
    let quiet = Counter::start(&scene.admin).await?;
    sleep(BETWEEN_CHANGES * CHANGES).await;
    let quiet = quiet.read().await?.total;

    let received = shared.received.load(Ordering::Relaxed);
    let counter = Counter::start(&scene.admin).await?;
    let pace = Pace::within(Instant::now(), CHANGES as usize, BETWEEN_CHANGES * CHANGES);
    for index in 0..u64::from(CHANGES) {
        pace.wait(index).await;
        write(people.sessions[0]).await?;
    }
    let readers = people.places[..present]
        .iter()
        .filter(|place| place.number == 0)
        .count() as u64;
    let expected = received + readers * u64::from(CHANGES);
    let deadline = Instant::now() + DELIVERY_LIMIT;
    while shared.received.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(BETWEEN_CHANGES).await;
    let total = counter.read().await?.total - i64::from(CHANGES);
    let now = shared.received.load(Ordering::Relaxed);
    if now != expected {
        faults.push(format!(
            "of {CHANGES} changes to {readers} readers, {} were expected and {} came",
            expected - received,
            now - received
        ));
    }
    Ok(Some((total - quiet).max(0) as f64 / f64::from(CHANGES)))
}
