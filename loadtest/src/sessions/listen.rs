//! The least between a commit and whoever is to hear of it: a trigger that sends each row by NOTIFY, and one connection that
//! listens. Nobody is asked whether he may see it, and nothing is kept for those who were away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::poll_fn;
use tokio::task::JoinHandle;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};
use uuid::Uuid;

use crate::crowd::Seen;
use crate::crowd::label::Labels;
use crate::database;
use crate::fanout::host::Readings;
use crate::fanout::turn::{RUN_UP, Shape, Turn};
use crate::frame::text;
use crate::own::OwnCluster;
use crate::usage;
use crate::writer::Plan;

const DATABASE: &str = "floor";

const PROGRESS: Duration = Duration::from_millis(2);

/// A database with the trigger, beside that of the server.
pub(super) struct Listening {
    config: Config,
    postgres: Option<u32>,
}

impl Listening {
    pub(super) async fn prepare(cluster: &OwnCluster) -> anyhow::Result<Self> {
        cluster.prepare(DATABASE).await?;
        let config = database::config(&cluster.url(DATABASE))?;
        let admin = database::connect(&config).await?;
        database::add_notify_trigger(&admin).await?;
        Ok(Self {
            config,
            postgres: cluster.pid(),
        })
    }

    pub(super) async fn measure(&self, shape: &Shape) -> anyhow::Result<Turn> {
        let admin = database::connect(&self.config).await?;
        let run = Uuid::new_v4().as_fields().0;
        let sessions = database::add_sessions(&admin, run, shape.sessions).await?;
        let plan = Arc::new(Plan {
            database: self.config.clone(),
            run,
            sessions,
            content: text(shape.size),
            meter: shape.load.meter(),
        });
        let ear = Ear::open(&plan).await?;
        let start = Instant::now() + RUN_UP;
        plan.meter.start_at(start);
        let readings = || Readings::take(None, self.postgres.and_then(usage::of_tree));
        let before = async {
            tokio::time::sleep_until(start.into()).await;
            readings()
        };
        let (before, fed) = tokio::join!(before, shape.load.feed(&plan, start));
        let fed = fed?;
        let expected = fed.messages();
        ear.wait_for(expected, shape.quiet).await;
        let costs = before.until(readings());
        Ok(Turn {
            load: shape.load,
            seen: ear.close().await?,
            expected,
            costs,
            fed: Some(fed),
            join_seconds: 0.0,
        })
    }
}

/// The connection that listens.
struct Ear {
    client: Client,
    heard: Arc<AtomicU64>,
    task: JoinHandle<Seen>,
}

impl Ear {
    async fn open(plan: &Arc<Plan>) -> anyhow::Result<Self> {
        let (client, connection) = plan
            .database
            .connect(NoTls)
            .await
            .context("cannot connect to the database of the floor")?;
        let heard = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(listen(connection, plan.clone(), heard.clone()));
        client.batch_execute("listen chat_messages").await?;
        Ok(Self {
            client,
            heard,
            task,
        })
    }

    async fn wait_for(&self, expected: u64, quiet: Duration) {
        let (mut heard, mut moved) = (0, Instant::now());
        while heard < expected && moved.elapsed() < quiet {
            tokio::time::sleep(PROGRESS).await;
            let now = self.heard.load(Ordering::Relaxed);
            if now > heard {
                (heard, moved) = (now, Instant::now());
            }
        }
    }

    async fn close(self) -> anyhow::Result<Seen> {
        // Without its client the connection ends.
        drop(self.client);
        Ok(self.task.await?)
    }
}

async fn listen(
    mut connection: Connection<Socket, NoTlsStream>,
    plan: Arc<Plan>,
    heard: Arc<AtomicU64>,
) -> Seen {
    let labels = Labels::new();
    let mut seen = Seen::default();
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        let AsyncMessage::Notification(notification) = message else {
            continue;
        };
        let now = plan.meter.since_start(Instant::now());
        labels.each(notification.payload().as_bytes(), |label| {
            if label.run == plan.run {
                seen.count(&plan.meter, label.job, now);
            }
        });
        heard.store(seen.deliveries, Ordering::Relaxed);
    }
    seen
}
