//! Where the messages of a turn come from: writers at a steady rate, a burst, or as many as the database takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Client, Config};

use crate::database;
use crate::frame::Label;
use crate::meter::{Meter, histogram, micros};
use crate::writer::{self, Plan, Written};

/// An insert that takes longer is no measurement any more.
const INSERT_LIMIT: Duration = Duration::from_secs(60);

/// More inserts a second than any database of this kind takes: as many times are kept.
const FLOOD_RATE: u64 = 100_000;

/// What is written in a turn, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// So many messages a second. Each is sent when it is due, whatever became of those before it.
    Paced {
        rate: f64,
        seconds: u64,
        warm_up: u64,
        writers: usize,
    },
    /// All at once to one session, in transactions of so many rows.
    Burst { messages: u64, rows: u64 },
    /// As many as these connections can, each with one insert at a time.
    Flood { connections: usize, seconds: u64 },
}

/// What was written.
pub(crate) struct Fed {
    pub(crate) by_session: Vec<u64>,
    /// From the start to the answer to the last insert, in microseconds.
    pub(crate) until: u64,
    /// From sending an insert to knowing its commit.
    pub(crate) insert: Histogram<u64>,
    /// From the due time to sending: how far the load test itself was behind.
    pub(crate) lag: Histogram<u64>,
}

impl Load {
    pub(crate) fn meter(self) -> Meter {
        match self {
            Self::Paced { rate, warm_up, .. } => Meter::new(
                Duration::from_secs_f64(1.0 / rate),
                self.messages(),
                Duration::from_secs(warm_up),
            ),
            // All are due at once.
            Self::Burst { .. } | Self::Flood { .. } => {
                Meter::new(Duration::ZERO, self.messages(), Duration::ZERO)
            }
        }
    }

    /// The most that are written.
    pub(crate) fn messages(self) -> u64 {
        match self {
            Self::Paced { rate, seconds, .. } => (rate * seconds as f64).ceil() as u64,
            Self::Burst { messages, .. } => messages,
            Self::Flood { seconds, .. } => FLOOD_RATE * seconds,
        }
    }

    pub(crate) fn writers(self) -> usize {
        match self {
            Self::Paced { writers, .. } => writers,
            Self::Burst { .. } => 1,
            Self::Flood { connections, .. } => connections,
        }
    }

    /// Writes everything, from the start of the plan's meter on, and waits for all answers.
    pub(crate) async fn feed(self, plan: &Arc<Plan>, start: Instant) -> anyhow::Result<Fed> {
        match self {
            Self::Paced { writers, .. } => paced(plan, writers, self.messages()).await,
            Self::Burst { messages, rows } => burst(plan, start, messages, rows).await,
            Self::Flood {
                connections,
                seconds,
            } => flood(plan, start, connections, Duration::from_secs(seconds)).await,
        }
    }
}

impl Fed {
    fn new(sessions: usize) -> Self {
        Self {
            by_session: vec![0; sessions],
            until: 0,
            insert: histogram(),
            lag: histogram(),
        }
    }

    pub(crate) fn messages(&self) -> u64 {
        self.by_session.iter().sum()
    }
}

async fn paced(plan: &Arc<Plan>, writers: usize, messages: u64) -> anyhow::Result<Fed> {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    for index in 0..writers {
        let (sender, due) = writer::queue();
        queues.push(sender);
        let plan = plan.clone();
        tasks.spawn(async move { (index, writer::write(plan, index, due).await) });
    }
    let pacing = plan.clone();
    std::thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || writer::pace(&pacing, messages, &queues))
        .context("cannot start a thread")?;
    let mut written: BTreeMap<usize, Written> = BTreeMap::new();
    while let Some(task) = tasks.join_next().await {
        let (index, result) = task?;
        written.insert(index, result?);
    }
    let mut fed = Fed::new(plan.sessions.len());
    fed.until = plan.meter.since_start(Instant::now());
    for one in written.values() {
        ensure!(
            one.failed.is_empty() && one.unknown.is_empty(),
            "an insert was not committed: {}",
            one.first_error.as_deref().unwrap_or("no answer")
        );
        fed.insert.add(&one.commit).context("histograms differ")?;
        fed.lag.add(&one.lag).context("histograms differ")?;
        for (sum, count) in fed.by_session.iter_mut().zip(&one.last) {
            *sum += count;
        }
    }
    Ok(fed)
}

async fn burst(plan: &Arc<Plan>, start: Instant, messages: u64, rows: u64) -> anyhow::Result<Fed> {
    let client = database::connect(&plan.database).await?;
    let insert = client
        .prepare(
            "insert into public.chat_messages (session_id, content, metadata)
             select $1, $2, jsonb_build_object('j', job, 'n', job + 1, 'w', 0, 'run', $3::bigint)
               from generate_series($4::bigint, $5::bigint) job",
        )
        .await
        .context("cannot prepare the insert; is the schema loaded? (loadtest prepare)")?;
    let session = plan.sessions[0];
    let mut fed = Fed::new(plan.sessions.len());
    tokio::time::sleep_until(start.into()).await;
    let mut job = 0;
    while job < messages {
        let end = (job + rows).min(messages);
        let (from, to) = (i64::try_from(job)?, i64::try_from(end)? - 1);
        let values: [&(dyn ToSql + Sync); 5] =
            [&session, &plan.content, &i64::from(plan.run), &from, &to];
        let sent = Instant::now();
        timeout(INSERT_LIMIT, client.execute(&insert, &values))
            .await
            .context("an insert got no answer")??;
        let answered = Instant::now();
        for one in job..end {
            plan.meter.committed(one, answered);
        }
        fed.insert.saturating_record(micros(answered - sent));
        job = end;
    }
    fed.until = plan.meter.since_start(Instant::now());
    fed.by_session[0] = messages;
    Ok(fed)
}

async fn flood(
    plan: &Arc<Plan>,
    start: Instant,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Fed> {
    let clients = try_join_all((0..connections).map(|_| open(&plan.database))).await?;
    let jobs = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for (worker, client) in clients.into_iter().enumerate() {
        let (plan, jobs) = (plan.clone(), jobs.clone());
        workers.spawn(async move { flow(client, worker, &plan, &jobs, start, length).await });
    }
    let mut fed = Fed::new(plan.sessions.len());
    while let Some(worker) = workers.join_next().await {
        let (by_session, insert) = worker??;
        for (sum, count) in fed.by_session.iter_mut().zip(by_session) {
            *sum += count;
        }
        fed.insert.add(&insert).context("histograms differ")?;
    }
    fed.until = plan.meter.since_start(Instant::now());
    Ok(fed)
}

async fn open(config: &Config) -> anyhow::Result<Client> {
    database::connect(config).await
}

/// One connection. It begins at a session of its own and takes them in turn.
async fn flow(
    client: Client,
    worker: usize,
    plan: &Plan,
    jobs: &AtomicU64,
    start: Instant,
    length: Duration,
) -> anyhow::Result<(Vec<u64>, Histogram<u64>)> {
    let insert = client
        .prepare(
            "insert into public.chat_messages (session_id, content, metadata) values ($1, $2, $3)",
        )
        .await?;
    let sessions = plan.sessions.len();
    let mut numbers = vec![0; sessions];
    let mut times = histogram();
    tokio::time::sleep_until(start.into()).await;
    let mut session = worker * 7 % sessions;
    loop {
        let sent = Instant::now();
        if sent >= start + length {
            return Ok((numbers, times));
        }
        session = (session + 1) % sessions;
        numbers[session] += 1;
        let job = jobs.fetch_add(1, Ordering::Relaxed);
        let label = Label {
            run: plan.run,
            writer: worker,
            job,
            number: numbers[session],
        };
        let values: [&(dyn ToSql + Sync); 3] =
            [&plan.sessions[session], &plan.content, &Json(label)];
        timeout(INSERT_LIMIT, client.execute(&insert, &values))
            .await
            .context("an insert got no answer")??;
        let answered = Instant::now();
        plan.meter.committed(job, answered);
        times.saturating_record(micros(answered - sent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_knows_how_much_it_is() {
        let paced = Load::Paced {
            rate: 2.5,
            seconds: 3,
            warm_up: 1,
            writers: 4,
        };
        assert_eq!((paced.messages(), paced.writers()), (8, 4));
        let meter = paced.meter();
        assert!(!meter.is_warm(2) && meter.is_warm(3));
        let burst = Load::Burst {
            messages: 10,
            rows: 4,
        };
        assert_eq!((burst.messages(), burst.writers()), (10, 1));
        // All of a burst are due at the start.
        burst.meter().start_at(Instant::now());
        assert_eq!(burst.meter().times(9), Some((0, None)));
        assert_eq!(burst.meter().times(10), None);
    }
}
