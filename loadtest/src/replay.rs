//! `replay`: clients come at a rate, and each wants what was there before: the last messages of its chat, what it missed since a
//! cursor, or the latest broadcasts of a private channel. How long until it has them, and what does that cost?

mod client;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::client::Client;
use crate::channel::{Channel, Event, Patience};
use crate::meter::{histogram, micros};
use crate::report::{Better, Contestant, Report};
use crate::resume::cost::Counter;
use crate::scene::link::Wish;
use crate::scene::pace::Pace;
use crate::scene::people::{Numbers, People, Place};
use crate::scene::sampler::Sampler;
use crate::scene::{Needs, Scene, SceneArgs, conclude};

/// For one step of a client.
const LIMIT: Duration = Duration::from_secs(60);

/// They stay until the last has come, and say nothing meanwhile. A server cuts a socket that is silent for 60 s.
const LONGEST: f64 = 50.0;

/// Until the gateway has read what was written before.
const SETTLE: Duration = Duration::from_secs(2);

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(20),
    heartbeat: Duration::from_secs(25),
};

/// A channel may ask for no more broadcasts than this.
const MOST_BROADCASTS: u64 = 25;

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    scene: SceneArgs,

    /// How many clients come, each a user of its own.
    #[arg(long, default_value_t = 2000)]
    clients: usize,

    /// So many come a second, whatever became of those before.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,

    /// Chats. Client i is in chat i modulo this.
    #[arg(long, default_value_t = 100)]
    sessions: usize,

    /// How many messages each is given.
    #[arg(long, default_value_t = 20)]
    messages: u64,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// What they ask for.
    #[arg(long, value_enum, default_value_t = From::History)]
    from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// The last rows of the chat, from the table.
    History,
    /// What came after a cursor, from the gateway's memory or the log.
    Cursor,
    /// The latest broadcasts of a private channel.
    Broadcast,
}

impl From {
    fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Cursor => "cursor",
            Self::Broadcast => "broadcast",
        }
    }
}

impl ReplayArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=self.clients).contains(&self.sessions) && self.clients <= 100_000,
            "--clients is at most 100000, --sessions from 1 to --clients"
        );
        ensure!(
            self.rate > 0.0 && self.rate <= 1e6,
            "--rate must be above 0 and at most 1000000"
        );
        ensure!(
            self.clients as f64 / self.rate <= LONGEST,
            "the clients come for longer than {LONGEST} s, after which those who came first are cut off: raise --rate, or lower --clients"
        );
        ensure!(
            (1..=1000).contains(&self.messages),
            "--messages must be from 1 to 1000"
        );
        ensure!(
            self.from != From::Broadcast || self.messages <= MOST_BROADCASTS,
            "a channel replays at most {MOST_BROADCASTS} broadcasts: lower --messages"
        );
        Ok(())
    }

    fn wish(&self, place: &Place, cursor: Option<&str>, since: u64) -> Wish {
        let mut wish = Wish::messages_of(place.session);
        match self.from {
            From::History => wish.bindings[0]["history"] = json!(self.messages),
            From::Cursor => wish.bindings[0]["since"] = json!(cursor),
            From::Broadcast => {
                wish.bindings = json!([]);
                wish.private = true;
                let replay = json!({"since": since, "limit": self.messages});
                wish.broadcast = json!({"ack": false, "self": false, "replay": replay});
            }
        }
        wish
    }
}

pub(crate) async fn run(args: ReplayArgs) -> anyhow::Result<bool> {
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

async fn measure(args: &ReplayArgs, scene: &Scene) -> anyhow::Result<bool> {
    let report = Report::new(
        "replay",
        json!({
            "own": scene.target.is_own(), "clients": args.clients, "rate": args.rate, "sessions": args.sessions,
            "messages": args.messages, "size": args.size, "from": args.from.name(),
            "postgres": scene.target.postgres_version(),
        }),
    );
    let numbers = Numbers {
        clients: args.clients,
        users: args.clients,
        sessions: args.sessions,
    };
    let people = People::add(scene, Uuid::new_v4().as_fields().0, numbers).await?;
    let cursor = match args.from {
        From::Cursor => Some(cursor(scene, &people.places[0]).await?),
        From::History | From::Broadcast => None,
    };
    // Clocks may differ; all that is written was written in this run.
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64 - 60_000;
    write(args, scene, &people).await?;
    sleep(SETTLE).await;

    let statements = Counter::start(&scene.admin).await?;
    let sampler = Sampler::start(scene.target.server_pid());
    let before = scene.read();
    let start = Instant::now();
    let pace = Pace::new(start, args.rate);
    let mut coming = JoinSet::new();
    for (index, place) in people.places.iter().enumerate() {
        let client = Client {
            endpoint: scene.endpoint.clone(),
            token: place.token.clone(),
            wish: args.wish(place, cursor.as_deref(), since),
            expected: args.messages,
        };
        let due = pace.wait(index as u64).await;
        coming.spawn(client.come(due));
    }
    let mut from_due = histogram();
    let mut from_connect = histogram();
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = start;
    let mut links = Vec::with_capacity(args.clients);
    while let Some(caught) = coming.join_next().await {
        match caught? {
            Ok(caught) => {
                let since = |start| micros(caught.at.saturating_duration_since(start));
                from_due.saturating_record(since(caught.due));
                from_connect.saturating_record(since(caught.began));
                last = last.max(caught.at);
                links.push(caught.link);
            }
            Err(end) => *failed.entry(end.to_string()).or_default() += 1,
        }
    }
    let costs = scene.costs_since(&before);
    let statements = statements.read().await?;
    let samples = sampler.stop();
    let seconds = (last - start).as_secs_f64();
    let caught = links.len() as u64;
    for link in links {
        link.reset();
    }
    people.remove(scene).await?;

    let mut tidings = Contestant::new("tidings")
        .figure(
            "clients",
            "clients that have everything",
            "",
            caught as f64,
            Better::Neither,
        )
        .figure(
            "clients_per_second",
            "clients a second",
            "/s",
            caught as f64 / seconds.max(1e-9),
            Better::Higher,
        )
        .figure(
            "statements_per_client",
            statements.unit_per("a client"),
            "",
            statements.total as f64 / caught.max(1) as f64,
            Better::Lower,
        );
    if let Some(cost) = costs.server_micros_per(caught) {
        let title = "server CPU of a client";
        tidings = tidings.figure("server_cpu_us_per_client", title, "µs", cost, Better::Lower);
    }
    if let Some(cost) = costs.server_micros_per(caught * args.messages) {
        let title = "server CPU of a message";
        tidings = tidings.figure(
            "server_cpu_us_per_message",
            title,
            "µs",
            cost,
            Better::Lower,
        );
    }
    if let Some(cost) = costs.postgres_micros_per(caught) {
        let title = "PostgreSQL CPU of a client";
        tidings = tidings.figure(
            "postgres_cpu_us_per_client",
            title,
            "µs",
            cost,
            Better::Lower,
        );
    }
    tidings = tidings
        .distribution("up_to_date", "connect to up to date", &from_connect)
        .distribution("up_to_date_from_due", "due time to up to date", &from_due)
        .series("server_cores", "Server's CPU", "cores", samples.cores)
        .series("server_memory", "Server's memory", "MiB", samples.memory);
    let faults: Vec<String> = failed
        .iter()
        .map(|(why, count)| format!("{count} clients did not get what they asked for: {why}"))
        .collect();
    statements.print();
    conclude(&args.scene, report, &[tidings], Some(costs), &faults)
}

/// Where the log is now. It stands for all chats.
async fn cursor(scene: &Scene, place: &Place) -> anyhow::Result<String> {
    let bindings: Value = json!([{
        "event": "INSERT", "schema": "public", "table": "chat_messages",
        "filter": format!("session_id=eq.{}", place.session), "cursor": true,
    }]);
    let topic = format!("chat:{}", place.session);
    let ask = async {
        let opened = Channel::open(&scene.endpoint, &place.token, &topic, &bindings, PATIENCE);
        let mut channel = opened.await.map_err(|end| anyhow::anyhow!("{end}"))?;
        loop {
            match channel.next().await {
                Ok(Event::Position { cursor, .. }) => {
                    channel.close().await;
                    return cursor.context("the server has no cursors");
                }
                Ok(_) => {}
                Err(end) => bail!("{end}"),
            }
        }
    };
    timeout(LIMIT, Box::pin(ask))
        .await
        .context("no cursor came")?
        .context("cannot get a cursor")
}

/// One message to each chat at a time, so that no two of a chat are of the same moment.
async fn write(args: &ReplayArgs, scene: &Scene, people: &People) -> anyhow::Result<()> {
    let text = crate::frame::text(args.size);
    let statement = match args.from {
        From::History | From::Cursor => {
            "insert into public.chat_messages (session_id, content, metadata)
             select session, $2, jsonb_build_object('n', $3::bigint) from unnest($1::uuid[]) session"
        }
        From::Broadcast => {
            "select count(realtime.send(jsonb_build_object('n', $3::bigint, 'text', $2::text), 'message', 'chat:' || session, true))
               from unnest($1::uuid[]) session"
        }
    };
    let statement = scene.admin.prepare(statement).await?;
    for number in 1..=args.messages as i64 {
        scene
            .admin
            .execute(&statement, &[&people.sessions, &text, &number])
            .await
            .context("cannot write the messages")?;
    }
    Ok(())
}
