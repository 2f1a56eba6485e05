//! `idle`: what a connection costs that does nothing, which is what most connections do most of the time. Opens more and more,
//! and reads the server's memory at several numbers of them: the slope is the price of one.

mod readings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use self::readings::Readings;
use crate::channel::End;
use crate::report::{Better, Contestant, Report};
use crate::scene::link::{Incoming, Link, Wish};
use crate::scene::people::{Numbers, People, Place};
use crate::scene::sampler::Sampler;
use crate::scene::{Needs, Scene, SceneArgs, conclude, over};
use crate::usage;

/// Memory is read when so many parts of all connections are open.
const STEPS: usize = 4;

/// From the last message that was written until everybody has it.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);

/// Sessions that are written to in one transaction.
const AT_ONCE: usize = 500;

#[derive(Args, Debug)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    scene: SceneArgs,

    /// How many connections are opened. Each is a user of its own.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,

    /// How many chats they are in. Each is in one of its own if this is not given.
    #[arg(long)]
    sessions: Option<usize>,

    /// What they do once they are open: nothing at all, join with an authorized binding, or track their presence, too.
    #[arg(long, value_enum, default_value_t = Kind::Joined)]
    kind: Kind,

    /// Afterwards so many messages are written in each chat, and memory is read once more.
    #[arg(long, default_value_t = 0)]
    messages: u32,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// With --own: how much of the latest changes the server keeps in memory (its setting `recent_bytes`). Little, since that
    /// would be taken for the connections' after --messages.
    #[arg(long, default_value_t = 1 << 20)]
    recent_bytes: u64,

    /// Seconds without anything before memory is read.
    #[arg(long, default_value_t = 5)]
    settle: u64,

    /// At the end all stay for so many seconds, and the CPU time of their heartbeats is measured.
    #[arg(long, default_value_t = 0)]
    watch: u64,

    /// Connections that are opened at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Bare,
    Joined,
    Presence,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Joined => "joined",
            Self::Presence => "presence",
        }
    }
}

impl IdleArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (STEPS..=100_000).contains(&self.connections) && self.connecting >= 1,
            "--connections must be from {STEPS} to 100000, and --connecting at least 1"
        );
        ensure!(
            (1..=self.connections).contains(&self.sessions()),
            "--sessions must be from 1 to --connections"
        );
        ensure!(
            self.settle <= 600 && self.watch <= 3600,
            "--settle is at most 600 and --watch at most 3600"
        );
        ensure!(
            self.messages == 0 || self.kind != Kind::Bare,
            "with --kind bare nobody would hear --messages"
        );
        ensure!(
            u64::from(self.messages) * self.connections as u64 <= 50_000_000,
            "more than 50 million deliveries: lower --messages"
        );
        Ok(())
    }

    fn sessions(&self) -> usize {
        self.sessions.unwrap_or(self.connections)
    }

    fn wish(&self, place: &Place) -> Option<Wish> {
        let wish = Wish::messages_of(place.session);
        match self.kind {
            Kind::Bare => None,
            Kind::Joined => Some(wish),
            Kind::Presence => Some(Wish {
                presence: Some(place.user.clone()),
                ..wish
            }),
        }
    }
}

/// What all connections share.
struct Crowd {
    stop: watch::Receiver<bool>,
    received: AtomicU64,
}

pub(crate) async fn run(args: IdleArgs) -> anyhow::Result<bool> {
    args.check()?;
    let recent = args.recent_bytes.to_string();
    let settings = [("TIDINGS_RECENT_BYTES", recent.as_str())];
    let needs = Needs {
        sockets: args.connections,
        settings: &settings,
        ..Needs::default()
    };
    let scene = Scene::start(&args.scene, needs).await?;
    let result = Box::pin(measure(&args, &scene)).await;
    scene.end(result).await
}

async fn measure(args: &IdleArgs, scene: &Scene) -> anyhow::Result<bool> {
    let mut report = Report::new(
        "idle",
        json!({
            "own": scene.target.is_own(), "connections": args.connections, "sessions": args.sessions(),
            "kind": args.kind.name(), "messages": args.messages, "size": args.size, "recent_bytes": args.recent_bytes,
            "settle": args.settle,
            "postgres": scene.target.postgres_version(),
        }),
    );
    let pid = scene.target.server_pid().context(
        "memory can only be read of a server on this machine: give --own or --server-pid",
    )?;
    let run = Uuid::new_v4().as_fields().0;
    let numbers = Numbers {
        clients: args.connections,
        users: args.connections,
        sessions: args.sessions(),
    };
    let people = People::add(scene, run, numbers).await?;
    let (stop, stopped) = watch::channel(false);
    let crowd = Arc::new(Crowd {
        stop: stopped,
        received: AtomicU64::new(0),
    });
    let sampler = Sampler::start(Some(pid));
    let settle = Duration::from_secs(args.settle);
    let mut readings = Readings::default();
    let mut tasks = Vec::with_capacity(args.connections);
    sleep(settle).await;
    readings.take(pid, 0)?;
    for step in 1..=STEPS {
        let upto = args.connections * step / STEPS;
        tasks.extend(open(args, scene, &crowd, &people.places[tasks.len()..upto]).await?);
        sleep(settle).await;
        readings.take(pid, upto)?;
    }
    let mut tidings = Contestant::new("tidings");
    tidings = readings.figures(tidings)?;
    if args.messages > 0 {
        let began = crowd.received.load(Ordering::Relaxed);
        write(args, scene, &people.sessions).await?;
        let expected = began + u64::from(args.messages) * args.connections as u64;
        await_messages(&crowd, expected).await;
        sleep(settle).await;
        tidings = readings.after_messages(pid, tidings)?;
    }
    if args.watch > 0 {
        let before = usage::of_process(pid);
        let began = Instant::now();
        sleep(Duration::from_secs(args.watch)).await;
        let used = usage::between(before, usage::of_process(pid));
        let used = used.context("the server is gone")?;
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        let ten_thousands = args.connections as f64 / 10_000.0;
        tidings = tidings.figure(
            "idle_cpu_ms_per_10k_minute",
            "CPU of heartbeats, 10,000 connections for a minute",
            "ms",
            used.cpu_seconds * 1e3 / minutes / ten_thousands,
            Better::Lower,
        );
    }
    let samples = sampler.stop();
    tidings = tidings.series("server_memory", "Server's memory", "MiB", samples.memory);
    let missing = expected_messages(args).saturating_sub(crowd.received.load(Ordering::Relaxed));
    stop.send_replace(true);
    let mut faults = Vec::new();
    for task in tasks {
        faults.extend(task.await?);
    }
    faults.sort();
    if missing > 0 {
        faults.push(format!("{missing} messages did not arrive"));
    }
    people.remove(scene).await?;
    report.results = readings.results();
    readings.print();
    conclude(&args.scene, report, &[tidings], None, &faults)
}

fn expected_messages(args: &IdleArgs) -> u64 {
    u64::from(args.messages) * args.connections as u64
}

/// Opens these connections; each then waits in a task of its own, which says why it ended if it should not have.
async fn open(
    args: &IdleArgs,
    scene: &Scene,
    crowd: &Arc<Crowd>,
    places: &[Place],
) -> anyhow::Result<Vec<JoinHandle<Option<String>>>> {
    stream::iter(places)
        .map(|place| {
            let (endpoint, place) = (scene.endpoint.clone(), place.clone());
            let (crowd, wish) = (crowd.clone(), args.wish(&place));
            async move {
                let link = async {
                    let mut link = Link::open(&endpoint, &place.token).await?;
                    if let Some(wish) = &wish {
                        link.join(&place.token, wish, |_| Ok(())).await?;
                        if wish.presence.is_some() {
                            let track = r#"{"type":"presence","event":"track","payload":{"status":"here"}}"#;
                            link.push(&wish.full_topic(), "presence", track).await?;
                        }
                    }
                    Ok::<Link, End>(link)
                };
                let link = Box::pin(link).await;
                let link = link.map_err(|end| anyhow::anyhow!("a connection could not be opened: {end}"))?;
                anyhow::Ok(tokio::spawn(wait(link, crowd)))
            }
        })
        .buffer_unordered(args.connecting)
        .try_collect()
        .await
}

async fn wait(mut link: Link, crowd: Arc<Crowd>) -> Option<String> {
    let mut stop = crowd.stop.clone();
    loop {
        tokio::select! {
            incoming = link.next() => match incoming {
                Ok(Incoming::Text(text)) => {
                    if text.contains(r#""postgres_changes","#) {
                        crowd.received.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Incoming::Binary(_)) => {}
                Err(end) => return Some(format!("an idle connection ended: {end}")),
            },
            () = over(&mut stop) => break,
        }
    }
    link.close().await;
    None
}

/// All messages of a chat at once, so that they wait for each other on the way to its members.
async fn write(args: &IdleArgs, scene: &Scene, sessions: &[Uuid]) -> anyhow::Result<()> {
    let content = crate::frame::text(args.size);
    let count = i32::try_from(args.messages).context("--messages is too large")?;
    for some in sessions.chunks(AT_ONCE) {
        scene
            .admin
            .execute(
                "insert into public.chat_messages (session_id, content)
                 select session, $2 from unnest($1::uuid[]) session, generate_series(1, $3)",
                &[&some, &content, &count],
            )
            .await
            .context("cannot write messages")?;
    }
    Ok(())
}

async fn await_messages(crowd: &Crowd, expected: u64) {
    let deadline = Instant::now() + DELIVERY_LIMIT;
    while crowd.received.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
}
