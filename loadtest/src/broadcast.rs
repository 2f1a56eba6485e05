//! `broadcast`: what clients send to each other without a table. Some send at a rate, many listen: what does a delivery cost, and
//! how long does it take, over a socket, over HTTP and from SQL, as text and in binary frames?

mod member;
mod sender;
mod stamp;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use uuid::Uuid;

use self::member::{Member, Outcome};
use self::sender::Counter;
use crate::database;
use crate::frame::text;
use crate::ledger::{Committed, Verdict};
use crate::meter::micros;
use crate::report::{Better, Contestant, Report};
use crate::scene::pace::{self, Pace};
use crate::scene::people::{Numbers, People};
use crate::scene::sampler::Sampler;
use crate::scene::tally::Tally;
use crate::scene::{Costs, Needs, Scene, SceneArgs, conclude};

/// Messages that are due and wait for their sender.
const QUEUE: usize = 1 << 16;

/// Between the last join and the first message.
const RUN_UP: Duration = Duration::from_millis(500);

/// The end has come when nothing has for so long.
const QUIET: Duration = Duration::from_secs(5);
/// The same, when everything has come that was expected.
const LINGER: Duration = Duration::from_millis(300);

/// What a socket may send a second, a little below the server's default limit.
const SOCKET_RATE: f64 = 190.0;

#[derive(Args, Debug)]
pub(crate) struct BroadcastArgs {
    #[command(flatten)]
    scene: SceneArgs,

    /// Clients that listen.
    #[arg(long, default_value_t = 1000)]
    readers: usize,

    /// Clients that send; over a socket they listen, too, to themselves as well.
    #[arg(long, default_value_t = 4)]
    senders: usize,

    /// Topics. Reader and sender i are on topic i modulo this.
    #[arg(long, default_value_t = 1)]
    topics: usize,

    /// Messages a second, all senders together.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,

    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// The first seconds do not count for latencies.
    #[arg(long, default_value_t = 1)]
    warm_up: u64,

    /// Length of the text in a message.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// How a message is sent: as a text frame, or in a binary frame of serializer 2.0.0 with JSON or bytes in it.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    form: Form,

    #[arg(long, value_enum, default_value_t = Via::Socket)]
    via: Via,

    /// On private channels: row-level security decides who may send and receive.
    #[arg(long)]
    private: bool,

    /// Joins under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Text,
    Json,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Via {
    Socket,
    Http,
    Sql,
}

impl BroadcastArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.readers >= 1 && self.senders >= 1 && self.topics >= 1 && self.connecting >= 1,
            "--readers, --senders, --topics and --connecting must be at least 1"
        );
        ensure!(
            self.topics <= self.senders && self.topics <= self.readers,
            "--topics must be at most --senders and at most --readers, so that each has one of both"
        );
        ensure!(
            self.rate > 0.0 && self.rate <= 1e6 && (1..=3600).contains(&self.seconds),
            "--rate must be above 0 and at most 1000000, --seconds from 1 to 3600"
        );
        ensure!(
            self.warm_up < self.seconds,
            "--warm-up must be shorter than --seconds"
        );
        ensure!(
            self.via != Via::Socket || self.rate / self.senders as f64 <= SOCKET_RATE,
            "a server lets no socket send more than 200 messages a second: raise --senders, or lower --rate"
        );
        Ok(())
    }

    fn messages(&self) -> u64 {
        pace::count(self.rate, self.seconds as f64)
    }

    /// Readers, and senders that have a socket.
    fn members(&self) -> usize {
        match self.via {
            Via::Socket => self.readers + self.senders,
            Via::Http | Via::Sql => self.readers,
        }
    }

    fn name(value: impl ValueEnum) -> Option<String> {
        Some(value.to_possible_value()?.get_name().to_owned())
    }
}

/// What all tasks share.
struct Plan {
    rate: f64,
    warm_up: Duration,
    form: Form,
    filler: String,
    private: bool,
    start: OnceLock<Instant>,
    received: AtomicU64,
    deliveries: Tally,
    /// How late the harness itself was.
    late: Tally,
    stop: watch::Receiver<bool>,
}

impl Plan {
    fn start(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    fn pace(&self) -> Pace {
        Pace::new(self.start(), self.rate)
    }

    fn is_warm(&self, due: Instant) -> bool {
        due >= self.start() + self.warm_up
    }

    fn since_start(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.start()))
    }

    fn at(&self, micros: u64) -> Instant {
        self.start() + Duration::from_micros(micros)
    }
}

pub(crate) async fn run(args: BroadcastArgs) -> anyhow::Result<bool> {
    args.check()?;
    let needs = Needs {
        sockets: args.readers + args.senders,
        ..Needs::default()
    };
    let scene = Scene::start(&args.scene, needs).await?;
    let result = Box::pin(measure(&args, &scene)).await;
    scene.end(result).await
}

async fn measure(args: &BroadcastArgs, scene: &Scene) -> anyhow::Result<bool> {
    let report = Report::new(
        "broadcast",
        json!({
            "own": scene.target.is_own(), "readers": args.readers, "senders": args.senders, "topics": args.topics,
            "rate": args.rate, "seconds": args.seconds, "warm_up": args.warm_up, "size": args.size,
            "form": BroadcastArgs::name(args.form), "via": BroadcastArgs::name(args.via), "private": args.private,
            "postgres": scene.target.postgres_version(),
        }),
    );
    let clients = args.readers + args.senders;
    let numbers = Numbers {
        clients,
        users: clients,
        sessions: args.topics,
    };
    // The topics are those of chats, whose members may use them if they are private. The senders come first.
    let people = People::add(scene, Uuid::new_v4().as_fields().0, numbers).await?;
    let (stop, stopped) = watch::channel(false);
    let plan = Arc::new(Plan {
        rate: args.rate,
        warm_up: Duration::from_secs(args.warm_up),
        form: args.form,
        filler: text(args.size),
        private: args.private,
        start: OnceLock::new(),
        received: AtomicU64::new(0),
        deliveries: Tally::new(),
        late: Tally::new(),
        stop: stopped,
    });
    let (queues, mut dues): (Vec<_>, Vec<_>) = (0..args.senders)
        .map(|_| mpsc::channel::<u64>(QUEUE))
        .map(|(queue, due)| (queue, Some(due)))
        .unzip();
    let members = gather(args, scene, &people, &plan, &mut dues).await?;
    let mut senders = start_senders(args, scene, &people, &plan, &mut dues).await?;

    let sampler = Sampler::start(scene.target.server_pid());
    let before = scene.read();
    let start = *plan.start.get_or_init(|| Instant::now() + RUN_UP);
    let (schedule, jobs) = (plan.pace(), args.messages());
    std::thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || pace::hand_out(schedule, jobs, &queues))
        .context("cannot start a thread")?;
    let last = drain(args, &plan).await;
    let costs = scene.costs_since(&before);
    let seconds = last.saturating_duration_since(start).as_secs_f64();
    stop.send_replace(true);

    let mut faults = Vec::new();
    let mut committed = Committed::new(args.senders, args.topics);
    let mut numbers_of = |sender: usize, sent: u64| {
        let mut of_topics = vec![0; args.topics];
        of_topics[sender % args.topics] = sent;
        committed.set_writer(sender, &of_topics);
    };
    while let Some(sender) = senders.join_next().await {
        let (sender, sent) = sender??;
        numbers_of(sender, sent);
    }
    let mut outcomes = Vec::with_capacity(members.len());
    for member in members {
        let outcome: Outcome = member.await?;
        if let Some((sender, sent)) = outcome.sent {
            numbers_of(sender, sent);
        }
        faults.extend(outcome.fault.clone());
        outcomes.push(outcome);
    }
    let mut verdict = Verdict::default();
    for outcome in &outcomes {
        verdict += outcome.received.compare(&committed);
    }
    if committed.total() != args.messages() {
        faults.push(format!(
            "{} of {} messages were sent",
            committed.total(),
            args.messages()
        ));
    }
    if !verdict.is_clean() {
        faults.push(format!(
            "of {} deliveries {} were lost, {} doubled, {} reordered, {} unknown",
            verdict.expected, verdict.lost, verdict.doubled, verdict.reordered, verdict.uncommitted
        ));
    }
    people.remove(scene).await?;
    let samples = sampler.stop();
    let tidings = figures(&plan, &verdict, &committed, seconds, costs)
        .series("server_cores", "Server's CPU", "cores", samples.cores)
        .series("server_memory", "Server's memory", "MiB", samples.memory);
    conclude(&args.scene, report, &[tidings], Some(costs), &faults)
}

fn figures(
    plan: &Plan,
    verdict: &Verdict,
    committed: &Committed,
    seconds: f64,
    costs: Costs,
) -> Contestant {
    let (deliveries, late) = (plan.deliveries.total(), plan.late.total());
    let per_second = |count: u64| count as f64 / seconds.max(1e-9);
    let mut tidings = Contestant::new("tidings")
        .figure(
            "messages",
            "messages sent",
            "",
            committed.total() as f64,
            Better::Neither,
        )
        .figure(
            "deliveries",
            "deliveries",
            "",
            verdict.delivered as f64,
            Better::Neither,
        )
        .figure(
            "deliveries_per_second",
            "deliveries a second",
            "/s",
            per_second(verdict.delivered),
            Better::Higher,
        )
        .figure("lost", "lost", "", verdict.lost as f64, Better::Lower);
    if let Some(cost) = costs.server_micros_per(verdict.delivered) {
        let title = "server CPU of a delivery";
        tidings = tidings.figure(
            "server_cpu_us_per_delivery",
            title,
            "µs",
            cost,
            Better::Lower,
        );
    }
    if let Some(cost) = costs.server_micros_per(committed.total()) {
        let title = "server CPU of a message";
        tidings = tidings.figure(
            "server_cpu_us_per_message",
            title,
            "µs",
            cost,
            Better::Lower,
        );
    }
    if let Some(cost) = costs.postgres_micros_per(committed.total()) {
        let title = "PostgreSQL CPU of a message";
        tidings = tidings.figure(
            "postgres_cpu_us_per_message",
            title,
            "µs",
            cost,
            Better::Lower,
        );
    }
    tidings
        .distribution("from_send", "send to delivery", &deliveries.from_sent)
        .distribution("from_due", "due time to delivery", &deliveries.from_due)
        .distribution("late", "of which the harness was late", &late.from_due)
}

/// Connects everybody who has a socket, a bounded number at a time. Each starts to listen as soon as it is in.
async fn gather(
    args: &BroadcastArgs,
    scene: &Scene,
    people: &People,
    plan: &Arc<Plan>,
    dues: &mut [Option<mpsc::Receiver<u64>>],
) -> anyhow::Result<Vec<JoinHandle<Outcome>>> {
    let skipped = args.readers + args.senders - args.members();
    let places = people.places.iter().enumerate().skip(skipped);
    let members: Vec<Member> = places
        .map(|(index, place)| Member {
            endpoint: scene.endpoint.clone(),
            place: place.clone(),
            senders: args.senders,
            // Those that have no socket have been skipped.
            sends: dues
                .get_mut(index)
                .and_then(Option::take)
                .map(|due| (index, due)),
        })
        .collect();
    stream::iter(members)
        .map(|member| {
            let plan = plan.clone();
            async move {
                let joined = Box::pin(member.join(plan)).await;
                joined.map_err(|end| anyhow::anyhow!("a member could not join: {end}"))
            }
        })
        .buffer_unordered(args.connecting)
        .try_collect()
        .await
}

/// Those who send without a socket.
async fn start_senders(
    args: &BroadcastArgs,
    scene: &Scene,
    people: &People,
    plan: &Arc<Plan>,
    dues: &mut [Option<mpsc::Receiver<u64>>],
) -> anyhow::Result<JoinSet<anyhow::Result<(usize, u64)>>> {
    let mut senders = JoinSet::new();
    for (index, due) in dues.iter_mut().enumerate() {
        let Some(due) = due.take() else { continue };
        let (place, plan) = (people.places[index].clone(), plan.clone());
        let counter = Counter {
            sender: index,
            topic: format!("chat:{}", place.session),
            sent: 0,
        };
        if args.via == Via::Sql {
            let client = database::connect(&scene.database).await?;
            senders.spawn(async move {
                let sent = sender::call_all(client, counter, plan, due).await?;
                anyhow::Ok((index, sent))
            });
        } else {
            let address = scene.address().await?;
            senders.spawn(async move {
                let sent = sender::post_all(address, place.token, counter, plan, due).await?;
                anyhow::Ok((index, sent))
            });
        }
    }
    Ok(senders)
}

/// Waits until all that is expected has come and nothing superfluous follows, or until nothing comes any more.
async fn drain(args: &BroadcastArgs, plan: &Plan) -> Instant {
    // Members of a topic, times the messages to it.
    let on = |count: usize, topic: usize| (count + args.topics - 1 - topic) / args.topics;
    let expected: u64 = (0..args.topics)
        .map(|topic| {
            let members = match args.via {
                Via::Socket => on(args.readers + args.senders, topic),
                // Readers come after the senders.
                Via::Http | Via::Sql => {
                    on(args.readers + args.senders, topic) - on(args.senders, topic)
                }
            };
            let mine = |sender: usize| {
                (args.messages() as usize + args.senders - 1 - sender) / args.senders
            };
            let messages: usize = (topic..args.senders).step_by(args.topics).map(mine).sum();
            (members * messages) as u64
        })
        .sum();
    let end = plan.start() + Duration::from_secs(args.seconds);
    let mut count = 0;
    let mut changed = Instant::now();
    loop {
        sleep(Duration::from_millis(20)).await;
        let now = plan.received.load(Ordering::Relaxed);
        if now != count {
            (count, changed) = (now, Instant::now());
        }
        let limit = if count >= expected { LINGER } else { QUIET };
        // A slow pace is no end.
        if Instant::now() > end && changed.elapsed() >= limit {
            return changed;
        }
    }
}
