//! `presence`: many come to a topic at about the same time. When does everybody know of everybody, what does it take, and do all
//! see the same in the end, after many have gone and come back?

mod member;
mod view;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use self::member::{Counts, Member, Order, Seen};
use crate::meter::{histogram, micros};
use crate::report::{Better, Contestant, Report};
use crate::scene::pace::{self, Pace};
use crate::scene::people::{Numbers, People};
use crate::scene::sampler::Sampler;
use crate::scene::tally::lock;
use crate::scene::{Costs, Needs, Scene, SceneArgs, conclude};

/// Orders that a member has not carried out yet.
const ORDERS: usize = 64;

/// From the last track until all know all.
const KNOW_LIMIT: Duration = Duration::from_secs(60);

/// When all see the same, they must still do so after this.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(crate) struct PresenceArgs {
    #[command(flatten)]
    scene: SceneArgs,

    #[arg(long, default_value_t = 500)]
    members: usize,

    /// Topics. Member i is on topic i modulo this.
    #[arg(long, default_value_t = 1)]
    topics: usize,

    /// Over how many seconds they track, one after the other.
    #[arg(long, default_value_t = 2.0)]
    spread: f64,

    /// Afterwards so many a second go and come back: half of them untrack and track, half open a new socket.
    #[arg(long, default_value_t = 20.0)]
    churn: f64,

    /// For how many seconds they do.
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Joins under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,
}

impl PresenceArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.members >= 1 && self.connecting >= 1,
            "--members and --connecting must be at least 1"
        );
        ensure!(
            (1..=self.members).contains(&self.topics),
            "--topics must be from 1 to --members"
        );
        ensure!(
            (0.0..=600.0).contains(&self.spread) && self.seconds <= 600,
            "--spread and --seconds are at most 600"
        );
        ensure!(
            self.churn > 0.0 && self.churn <= self.members as f64,
            "--churn must be above 0 and at most --members, so that nobody goes twice a second"
        );
        Ok(())
    }

    fn on_topic(&self, topic: usize) -> usize {
        (self.members - topic).div_ceil(self.topics)
    }
}

/// All members, as the run sees them.
struct Room {
    seen: Vec<Arc<Mutex<Seen>>>,
    orders: Vec<mpsc::Sender<Order>>,
    counts: Arc<Counts>,
}

/// What a part of the run took.
struct Part {
    frames: u64,
    bytes: u64,
    costs: Costs,
}

pub(crate) async fn run(args: PresenceArgs) -> anyhow::Result<bool> {
    args.check()?;
    let needs = Needs {
        sockets: args.members * 2,
        ..Needs::default()
    };
    let scene = Scene::start(&args.scene, needs).await?;
    let result = Box::pin(measure(&args, &scene)).await;
    scene.end(result).await
}

async fn measure(args: &PresenceArgs, scene: &Scene) -> anyhow::Result<bool> {
    let report = Report::new(
        "presence",
        json!({
            "own": scene.target.is_own(), "members": args.members, "topics": args.topics, "spread": args.spread,
            "churn": args.churn, "seconds": args.seconds, "postgres": scene.target.postgres_version(),
        }),
    );
    let numbers = Numbers {
        clients: args.members,
        users: args.members,
        sessions: args.topics,
    };
    let people = People::add(scene, Uuid::new_v4().as_fields().0, numbers).await?;
    let mut tasks = JoinSet::new();
    let room = gather(args, scene, &people, &mut tasks).await?;
    let sampler = Sampler::start(scene.target.server_pid());
    let mut faults = Vec::new();

    let before = Part::start(&room, scene);
    let coming = Pace::within(
        Instant::now(),
        args.members,
        Duration::from_secs_f64(args.spread),
    );
    for index in 0..args.members {
        coming.wait(index as u64).await;
        room.order(index, Order::Track).await;
    }
    let last = coming.due(args.members as u64 - 1);
    let all_know = room.wait(Room::complete).await;
    if all_know < args.members {
        faults.push(format!(
            "{all_know} of {} members know of all",
            args.members
        ));
    }
    let mut complete = histogram();
    for seen in &room.seen {
        if let Some(at) = lock(seen).complete {
            complete.saturating_record(micros(at.saturating_duration_since(last)));
        }
    }
    // What is still on its way belongs to this part.
    sleep(LINGER).await;
    let coming = before.end(&room, scene);

    let before = Part::start(&room, scene);
    let moves = pace::count(args.churn, args.seconds as f64);
    let churning = Pace::new(Instant::now(), args.churn);
    for index in 0..moves {
        churning.wait(index).await;
        let order = if index % 2 == 0 {
            Order::Blink
        } else {
            Order::Return
        };
        room.order(index as usize % args.members, order).await;
    }
    let calm_from = Instant::now();
    sleep(LINGER).await;
    let equal = room.wait(|room| room.agreeing(args)).await;
    let calm = calm_from.elapsed();
    if equal < args.members {
        faults.push(format!(
            "{} of {} members do not see who is there, {} s after the last change",
            args.members - equal,
            args.members,
            calm.as_secs()
        ));
    }
    let churned = before.end(&room, scene);
    let samples = sampler.stop();

    drop(room);
    while let Some(end) = tasks.join_next().await {
        faults.extend(end?);
    }
    people.remove(scene).await?;
    let known = (0..args.members).map(|index| args.on_topic(index % args.topics) as u64);
    let known: u64 = known.sum();
    let mut tidings = Contestant::new("tidings")
        .figure(
            "members",
            "members",
            "",
            args.members as f64,
            Better::Neither,
        )
        .figure(
            "all_know_all_ms",
            "last track until all know all",
            "ms",
            complete.max() as f64 / 1e3,
            Better::Lower,
        );
    tidings = coming.figures(
        tidings,
        ["track_frames", "track_bytes", "track_cpu_us"],
        "tracking",
        known,
    );
    tidings = churned.figures(
        tidings,
        ["churn_frames", "churn_bytes", "churn_cpu_us"],
        "a move",
        moves,
    );
    tidings = tidings
        .distribution("complete", "last track to knowing all", &complete)
        .series("server_cores", "Server's CPU", "cores", samples.cores)
        .series("server_memory", "Server's memory", "MiB", samples.memory);
    conclude(
        &args.scene,
        report,
        &[tidings],
        Some(churned.costs),
        &faults,
    )
}

async fn gather(
    args: &PresenceArgs,
    scene: &Scene,
    people: &People,
    tasks: &mut JoinSet<Option<String>>,
) -> anyhow::Result<Room> {
    let counts = Arc::new(Counts::default());
    let seen: Vec<Arc<Mutex<Seen>>> = (0..args.members).map(|_| Arc::default()).collect();
    let members = people.places.iter().zip(&seen).map(|(place, seen)| Member {
        endpoint: scene.endpoint.clone(),
        place: place.clone(),
        counts: counts.clone(),
        seen: seen.clone(),
        everybody: args.on_topic(place.number),
    });
    let joined: Vec<_> = stream::iter(members)
        .map(|member| async move {
            let link = member.join().await;
            let link = link.map_err(|end| anyhow::anyhow!("a member could not join: {end}"))?;
            anyhow::Ok((member, link))
        })
        // In their order, so that the topics take turns.
        .buffered(args.connecting)
        .try_collect()
        .await?;
    let mut orders = Vec::with_capacity(args.members);
    for (member, link) in joined {
        let (sender, receiver) = mpsc::channel(ORDERS);
        orders.push(sender);
        tasks.spawn(member.live(link, receiver));
    }
    Ok(Room {
        seen,
        orders,
        counts,
    })
}

impl Room {
    async fn order(&self, member: usize, order: Order) {
        // One that has ended says why at the end.
        let _ = self.orders[member].send(order).await;
    }

    fn complete(&self) -> usize {
        let complete = |seen: &&Arc<Mutex<Seen>>| lock(seen).complete.is_some();
        self.seen.iter().filter(complete).count()
    }

    /// How many see everybody, and the same as the first one of their topic.
    fn agreeing(&self, args: &PresenceArgs) -> usize {
        let firsts: Vec<_> = self.seen[..args.topics]
            .iter()
            .map(|seen| lock(seen).view.clone())
            .collect();
        let agrees = |index: usize| {
            let topic = index % args.topics;
            let seen = lock(&self.seen[index]);
            seen.view.len() == args.on_topic(topic) && seen.view == firsts[topic]
        };
        (0..args.members).filter(|index| agrees(*index)).count()
    }

    /// How many it is true of, when it is of all or the time is over.
    async fn wait(&self, count: impl Fn(&Self) -> usize) -> usize {
        let deadline = Instant::now() + KNOW_LIMIT;
        loop {
            let now = count(self);
            if now == self.seen.len() || Instant::now() >= deadline {
                return now;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A part of the run that has begun.
struct Begun {
    frames: u64,
    bytes: u64,
    readings: crate::scene::Readings,
}

impl Part {
    fn start(room: &Room, scene: &Scene) -> Begun {
        Begun {
            frames: room.counts.frames.load(Ordering::Relaxed),
            bytes: room.counts.bytes.load(Ordering::Relaxed),
            readings: scene.read(),
        }
    }

    /// In sums, and the CPU time for each of so many things.
    fn figures(
        &self,
        contestant: Contestant,
        names: [&'static str; 3],
        thing: &str,
        things: u64,
    ) -> Contestant {
        let [frames, bytes, cpu] = names;
        let contestant = contestant
            .figure(
                frames,
                format!("{thing}: frames to all"),
                "",
                self.frames as f64,
                Better::Lower,
            )
            .figure(
                bytes,
                format!("{thing}: bytes to all"),
                "B",
                self.bytes as f64,
                Better::Lower,
            );
        match self.costs.server_micros_per(things) {
            None => contestant,
            Some(cost) => contestant.figure(
                cpu,
                format!("{thing}: server CPU for each"),
                "µs",
                cost,
                Better::Lower,
            ),
        }
    }
}

impl Begun {
    fn end(self, room: &Room, scene: &Scene) -> Part {
        Part {
            frames: room.counts.frames.load(Ordering::Relaxed) - self.frames,
            bytes: room.counts.bytes.load(Ordering::Relaxed) - self.bytes,
            costs: scene.costs_since(&self.readings),
        }
    }
}
