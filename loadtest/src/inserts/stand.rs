//! One database with its trigger, and the connections that insert into it as fast as they can.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use tokio::task::JoinSet;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Client, Config};
use uuid::Uuid;

use super::{Turn, Variant};
use crate::database;
use crate::frame::Label;
use crate::own::OwnCluster;
use crate::usage;

const SESSIONS: usize = 64;

/// Not counted: connections and caches warm up.
const WARM_UP: Duration = Duration::from_millis(500);

/// An insert that takes longer is no measurement any more.
const INSERT_LIMIT: Duration = Duration::from_secs(60);

/// One database, ready for turns.
pub(super) struct Stand {
    config: Config,
    admin: Client,
    pub(super) sessions: Arc<[Uuid]>,
}

impl Stand {
    pub(super) async fn build(cluster: &OwnCluster, variant: Variant) -> anyhow::Result<Self> {
        cluster.prepare(variant.database()).await?;
        let config = database::config(&cluster.url(variant.database()))?;
        let admin = database::connect(&config).await?;
        let sessions = database::add_sessions(&admin, 0, SESSIONS).await?.into();
        match variant {
            Variant::NoTrigger | Variant::Gateway => {}
            Variant::LogOnly | Variant::LogAndBell => {
                admin
                    .batch_execute("select tidings.watch('public.chat_messages')")
                    .await?;
            }
            Variant::NotifyRow => database::add_notify_trigger(&admin).await?,
        }
        if variant == Variant::LogOnly {
            // Who holds this lock says: do not ring, I am reading anyway. It lasts as long as the connection.
            admin
                .batch_execute("select pg_advisory_lock(1953064037, 1)")
                .await?;
        }
        Ok(Self {
            config,
            admin,
            sessions,
        })
    }

    pub(super) async fn check(&self, variant: Variant) -> anyhow::Result<()> {
        let rows = self
            .admin
            .query(
                "select tgname::text from pg_trigger
                  where tgrelid = 'public.chat_messages'::regclass and not tgisinternal order by 1",
                &[],
            )
            .await?;
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        ensure!(
            found == variant.triggers(),
            "{}: chat_messages has the triggers {found:?}",
            variant.title()
        );
        Ok(())
    }

    /// Inserts as fast as the connections can. Also returns how many went to each session.
    pub(super) async fn turn(
        &self,
        cluster: &OwnCluster,
        connections: usize,
        seconds: u64,
        content: &Arc<str>,
    ) -> anyhow::Result<(Vec<u64>, Turn)> {
        let clients =
            try_join_all((0..connections).map(|_| database::connect(&self.config))).await?;
        let usage = || cluster.pid().and_then(usage::of_tree);
        let before = usage();
        let from = Instant::now() + WARM_UP;
        let until = from + Duration::from_secs(seconds);
        let mut workers = JoinSet::new();
        for (worker, client) in clients.into_iter().enumerate() {
            workers.spawn(work(
                client,
                worker,
                self.sessions.clone(),
                content.clone(),
                from,
                until,
            ));
        }
        let mut counted = 0;
        let mut by_session = vec![0; self.sessions.len()];
        while let Some(worker) = workers.join_next().await {
            let done = worker??;
            counted += done.counted;
            for (sum, count) in by_session.iter_mut().zip(done.by_session) {
                *sum += count;
            }
        }
        let all: u64 = by_session.iter().sum();
        let cpu = usage::between(before, usage())
            .map(|usage| usage.cpu_seconds * 1e6 / all.max(1) as f64);
        let turn = Turn {
            inserts_per_second: counted as f64 / seconds as f64,
            cpu_us: cpu,
            catch_up_seconds: None,
        };
        Ok((by_session, turn))
    }

    /// Every turn begins with an empty table and a clean disk cache.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        self.admin
            .batch_execute("truncate public.chat_messages")
            .await?;
        self.admin.batch_execute("checkpoint").await?;
        Ok(())
    }
}

struct Work {
    /// Inserts that were answered between the two times.
    counted: u64,
    by_session: Vec<u64>,
}

async fn work(
    client: Client,
    worker: usize,
    sessions: Arc<[Uuid]>,
    content: Arc<str>,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Work> {
    let statement = client
        .prepare(
            "insert into public.chat_messages (session_id, content, metadata) values ($1, $2, $3)",
        )
        .await?;
    let mut work = Work {
        counted: 0,
        by_session: vec![0; sessions.len()],
    };
    let mut number = 0;
    loop {
        // Workers begin at different sessions and take them in turn.
        let session = (number as usize + worker * 7) % sessions.len();
        number += 1;
        let label = Label {
            run: 0,
            writer: worker,
            job: number,
            number,
        };
        let values: [&(dyn ToSql + Sync); 3] = [&sessions[session], &&*content, &Json(label)];
        tokio::time::timeout(INSERT_LIMIT, client.execute(&statement, &values))
            .await
            .context("an insert got no answer")??;
        work.by_session[session] += 1;
        let now = Instant::now();
        if now >= until {
            return Ok(work);
        }
        if now >= from {
            work.counted += 1;
        }
    }
}
