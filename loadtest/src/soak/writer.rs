//! The writers: everything that applications do to rows, over connections that no proxy disturbs. What they believe does not
//! count; what was committed stands in the audit.

mod deeds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::try_join_all;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config};
use uuid::Uuid;

pub(crate) use self::deeds::Pool;
use self::deeds::{Deed, Shape};
use super::plan;
use super::world::World;
use crate::database;

/// A statement waits for a row that long. Who waits for each other's rows is stopped by PostgreSQL after a second.
const SETTINGS: &str = "set lock_timeout = '4s'; set statement_timeout = '20s'";

/// All of one deed, the pauses in it included.
const DEED_LIMIT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(100);

const INSERT: &str =
    "insert into public.chat_messages (id, session_id, content) values ($1, $2, $3)";
const UPDATE: &str = "update public.chat_messages set content = $2 where id = $1";
const DELETE: &str = "delete from public.chat_messages where id = $1";
const SEVERAL: &str = "insert into public.chat_messages (session_id, content) \
     select $1, $2 || i from generate_series(1, $3) i returning id";
const UPDATE_SEVERAL: &str = "update public.chat_messages set content = $2 where id = any ($1)";
const TOUCH: &str = "update public.chat_sessions set title = $2 where id = $1";

/// About so many changes come of one deed.
const CHANGES: f64 = 4.0;

pub(crate) struct Writer {
    world: Arc<World>,
    sessions: Vec<Uuid>,
    pool: Arc<Pool>,
    random: StdRng,
    pause: Duration,
    done: Done,
}

#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) deeds: u64,
    pub(crate) failed: u64,
    pub(crate) reconnects: u64,
    /// By PostgreSQL's code, or `unanswered`.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Writer {
    pub(crate) fn new(
        world: Arc<World>,
        pool: Arc<Pool>,
        number: usize,
        pause: Duration,
        seed: u64,
    ) -> Self {
        Self {
            sessions: world.sessions(),
            world,
            pool,
            random: plan::stream(seed, 100 + number as u64),
            pause,
            done: Done::default(),
        }
    }

    /// How long a writer waits between two deeds, so that so many changes a second come of all.
    pub(crate) fn pause(rate: f64, writers: usize) -> Duration {
        Duration::from_secs_f64(CHANGES * writers as f64 / rate)
    }

    /// Writes until the run is calm.
    pub(crate) async fn run(mut self) -> Done {
        let mut phase = self.world.phase.clone();
        let mut client = None;
        while !phase.borrow_and_update().calm {
            let Some(open) = client
                .as_mut()
                .filter(|client: &&mut Client| !client.is_closed())
            else {
                client = self.connect().await;
                continue;
            };
            let deed = Deed::draw(&mut self.random);
            self.done.deeds += 1;
            let result = timeout(DEED_LIMIT, Box::pin(self.perform(deed, open))).await;
            let failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(code(&error)),
                Err(_) => Some("unanswered".to_owned()),
            };
            if let Some(failure) = failure {
                self.done.failed += 1;
                *self.done.errors.entry(failure).or_default() += 1;
                // Where this fails, the connection is gone, or will be.
                let rolled_back = timeout(DEED_LIMIT, open.batch_execute("rollback")).await;
                if !matches!(rolled_back, Ok(Ok(()))) {
                    client = None;
                }
            }
            let pause = self.pause.mul_f64(self.random.random_range(0.0..2.0));
            tokio::select! {
                () = sleep(pause) => {}
                _ = phase.changed() => {}
            }
        }
        self.done
    }

    async fn connect(&mut self) -> Option<Client> {
        self.done.reconnects += 1;
        let client = connect(&self.world.database).await;
        if client.is_err() {
            sleep(RETRY).await;
        }
        client.ok()
    }

    async fn perform(&mut self, deed: Deed, client: &Client) -> Result<(), tokio_postgres::Error> {
        match deed {
            Deed::Insert => {
                let row = self.insert(client).await?;
                self.pool.add([row], &mut self.random);
            }
            Deed::Update => self.update(client, None).await?,
            Deed::Delete => {
                if let Some(row) = self.pool.choose(&mut self.random) {
                    client.execute(DELETE, &[&row]).await?;
                    self.pool.remove(row);
                }
            }
            Deed::Several => {
                let (session, count) = (self.session(), self.random.random_range(2..30));
                let rows = client
                    .query(SEVERAL, &[&session, &self.text(), &count])
                    .await?;
                let rows: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
                self.pool.add(rows, &mut self.random);
            }
            Deed::UpdateSeveral => {
                let rows: Vec<Uuid> = (0..self.random.random_range(2..12))
                    .filter_map(|_| self.pool.choose(&mut self.random))
                    .collect();
                client
                    .execute(UPDATE_SEVERAL, &[&rows, &self.text()])
                    .await?;
            }
            Deed::Stream => {
                let row = self.insert(client).await?;
                for _ in 0..self.random.random_range(3..25) {
                    self.update(client, Some(row)).await?;
                    sleep(plan::millis(&mut self.random, 0..15)).await;
                }
                self.pool.add([row], &mut self.random);
            }
            Deed::Touch => {
                let session = self.session();
                client.execute(TOUCH, &[&session, &self.text()]).await?;
            }
            Deed::Transaction(shape) => self.transaction(shape, client).await?,
        }
        Ok(())
    }

    async fn transaction(
        &mut self,
        shape: Shape,
        client: &Client,
    ) -> Result<(), tokio_postgres::Error> {
        let begin = match shape {
            Shape::RepeatableRead => "begin isolation level repeatable read",
            _ => "begin",
        };
        client.batch_execute(begin).await?;
        let mut rows = Vec::new();
        for _ in 0..self.random.random_range(1..7) {
            self.step(client, &mut rows).await?;
            if self.random.random_bool(0.2) {
                self.savepoint(client, &mut rows).await?;
            }
            match shape {
                Shape::Long => sleep(plan::millis(&mut self.random, 100..2_000)).await,
                Shape::Replace => self.replace(client).await?,
                _ => {}
            }
        }
        let end = match shape {
            Shape::RolledBack => "rollback",
            _ => "commit",
        };
        client.batch_execute(end).await?;
        if shape != Shape::RolledBack {
            self.pool.add(rows, &mut self.random);
        }
        Ok(())
    }

    async fn step(
        &mut self,
        client: &Client,
        rows: &mut Vec<Uuid>,
    ) -> Result<(), tokio_postgres::Error> {
        match self.random.random_range(0..10) {
            0..6 => rows.push(self.insert(client).await?),
            6..9 => {
                let own = rows.choose(&mut self.random).copied();
                let own = own.filter(|_| self.random.random_bool(0.6));
                self.update(client, own).await?;
            }
            _ => {
                if let Some(row) = rows.pop() {
                    client.execute(DELETE, &[&row]).await?;
                }
            }
        }
        Ok(())
    }

    /// A part of the transaction that may be undone by itself.
    async fn savepoint(
        &mut self,
        client: &Client,
        rows: &mut Vec<Uuid>,
    ) -> Result<(), tokio_postgres::Error> {
        client.batch_execute("savepoint part").await?;
        let mut inner = rows.clone();
        for _ in 0..self.random.random_range(1..4) {
            self.step(client, &mut inner).await?;
        }
        if self.random.random_bool(0.5) {
            client.batch_execute("rollback to savepoint part").await
        } else {
            *rows = inner;
            client.batch_execute("release savepoint part").await
        }
    }

    async fn replace(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let Some(row) = self.pool.choose(&mut self.random) else {
            return Ok(());
        };
        let session = client
            .query_opt(&format!("{DELETE} returning session_id"), &[&row])
            .await?;
        if let Some(session) = session.map(|row| row.get::<_, Uuid>(0)) {
            client
                .execute(INSERT, &[&row, &session, &self.text()])
                .await?;
        }
        Ok(())
    }

    async fn insert(&mut self, client: &Client) -> Result<Uuid, tokio_postgres::Error> {
        let row = uuid::Builder::from_random_bytes(self.random.random()).into_uuid();
        let session = self.session();
        client
            .execute(INSERT, &[&row, &session, &self.text()])
            .await?;
        Ok(row)
    }

    async fn update(
        &mut self,
        client: &Client,
        row: Option<Uuid>,
    ) -> Result<(), tokio_postgres::Error> {
        if let Some(row) = row.or_else(|| self.pool.choose(&mut self.random)) {
            client.execute(UPDATE, &[&row, &self.text()]).await?;
        }
        Ok(())
    }

    fn session(&mut self) -> Uuid {
        // The world has at least one chat.
        self.sessions
            .choose(&mut self.random)
            .copied()
            .unwrap_or_default()
    }

    /// Mostly short, seldom longer than a NOTIFY could carry.
    fn text(&mut self) -> String {
        let length = match self.random.random_range(0..100) {
            0..70 => self.random.random_range(0..200),
            70..97 => self.random.random_range(200..3_000),
            97..99 => self.random.random_range(3_000..20_000),
            _ => self.random.random_range(20_000..80_000),
        };
        // What JSON must escape, and what takes two, three and four bytes.
        "Grüße, \"世界\"\\ \n\t🌍 "
            .chars()
            .cycle()
            .take(length)
            .collect()
    }
}

/// So many changes as fast as they can be committed: half of them alone, half of them fifty at a time.
pub(crate) async fn burst(
    database: &Config,
    sessions: &[Uuid],
    count: u32,
    mut random: StdRng,
) -> anyhow::Result<()> {
    let client = connect(database).await?;
    let insert = client
        .prepare("insert into public.chat_messages (session_id, content) values ($1, 'burst')")
        .await?;
    let several = client
        .prepare("insert into public.chat_messages (session_id, content) select $1, 'burst' from generate_series(1, 50)")
        .await?;
    let session = sessions.choose(&mut random).context("no chats")?;
    for _ in 0..count / 100 {
        let single = (0..50).map(|_| {
            let (client, insert) = (&client, &insert);
            async move { client.execute(insert, &[session]).await }
        });
        timeout(DEED_LIMIT, try_join_all(single)).await??;
        timeout(DEED_LIMIT, client.execute(&several, &[session])).await??;
    }
    Ok(())
}

async fn connect(database: &Config) -> anyhow::Result<Client> {
    let client = database::connect(database).await?;
    client.batch_execute(SETTINGS).await?;
    Ok(client)
}

fn code(error: &tokio_postgres::Error) -> String {
    error
        .code()
        .map_or("unanswered", tokio_postgres::error::SqlState::code)
        .to_owned()
}
