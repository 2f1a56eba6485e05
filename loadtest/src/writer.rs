//! The writers: an open loop that sends each insert when it is due, whatever became of those before it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, poll};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::database;
use crate::frame::Label;
use crate::ledger::Stamp;
use crate::meter::{Meter, histogram, micros};

/// Inserts on their way at once, per connection. More wait in the queue; their latency counts from their due time all the same.
const IN_FLIGHT: usize = 2048;

/// Inserts that are due and wait for their writer.
const QUEUE: usize = 1 << 16;

/// How long a writer whose connection is gone tries to get another.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// How long an insert may take before the writer stops waiting for its answer.
const INSERT_LIMIT: Duration = Duration::from_secs(60);

/// What all writers share.
pub(crate) struct Plan {
    pub(crate) database: tokio_postgres::Config,
    pub(crate) run: u32,
    pub(crate) sessions: Vec<Uuid>,
    pub(crate) content: String,
    pub(crate) meter: Meter,
}

/// What one writer did.
pub(crate) struct Written {
    /// How many numbers it gave out for each session.
    pub(crate) last: Vec<u64>,
    /// The server said no to these.
    pub(crate) failed: Vec<Stamp>,
    /// No answer: only the table knows whether they were committed.
    pub(crate) unknown: HashMap<u64, Stamp>,
    pub(crate) reconnects: u64,
    /// From sending an insert to knowing its commit.
    pub(crate) commit: Histogram<u64>,
    /// From the due time to sending: how far the harness itself was behind.
    pub(crate) lag: Histogram<u64>,
    pub(crate) first_error: Option<String>,
}

pub(crate) fn queue() -> (mpsc::Sender<u64>, mpsc::Receiver<u64>) {
    mpsc::channel(QUEUE)
}

/// Gives each writer its messages when they are due. Blocks, for a thread of its own: the runtime's timers are no finer
/// than a millisecond, which is as long as what is measured.
pub(crate) fn pace(plan: &Plan, messages: u64, writers: &[mpsc::Sender<u64>]) {
    for job in 0..messages {
        let wait = plan
            .meter
            .due(job)
            .saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        let writer = &writers[job as usize % writers.len()];
        // A writer that has given up says so itself.
        if writer.blocking_send(job).is_err() {
            return;
        }
    }
}

/// Which session a message goes to: spread without a pattern, and the same in every run.
fn session_of(job: u64, sessions: usize) -> usize {
    // SplitMix64.
    let mut z = job.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % sessions as u64) as usize
}

type Insert = Pin<Box<dyn Future<Output = Outcome> + Send>>;

struct Outcome {
    job: u64,
    stamp: Stamp,
    sent: Instant,
    answered: Instant,
    result: Result<(), Failure>,
}

enum Failure {
    /// The server answered that it is not done.
    Refused(String),
    Unanswered(String),
}

/// One connection to the database at a time.
struct Line {
    client: Arc<Client>,
    insert: Statement,
}

impl Line {
    async fn open(config: &tokio_postgres::Config) -> anyhow::Result<Self> {
        let client = database::connect(config).await?;
        let insert = client
            .prepare("insert into public.chat_messages (session_id, content, metadata) values ($1, $2, $3)")
            .await
            .context("cannot prepare the insert; is the schema loaded? (loadtest prepare)")?;
        Ok(Self {
            client: Arc::new(client),
            insert,
        })
    }

    async fn open_again(config: &tokio_postgres::Config) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::open(config).await {
                Ok(line) => return Ok(line),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context("a writer found no way back"));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn insert(&self, plan: &Arc<Plan>, label: Label, stamp: Stamp) -> Insert {
        let (client, statement, plan) = (self.client.clone(), self.insert.clone(), plan.clone());
        Box::pin(async move {
            let sent = Instant::now();
            let session = plan.sessions[stamp.session];
            let answer = timeout(
                INSERT_LIMIT,
                client.execute(&statement, &[&session, &plan.content, &Json(label)]),
            )
            .await;
            let result = match answer {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) if error.as_db_error().is_some_and(is_final) => {
                    Err(Failure::Refused(describe(&error)))
                }
                Ok(Err(error)) => Err(Failure::Unanswered(describe(&error))),
                Err(_) => Err(Failure::Unanswered(format!(
                    "no answer within {} s",
                    INSERT_LIMIT.as_secs()
                ))),
            };
            Outcome {
                job: label.job,
                stamp,
                sent,
                answered: Instant::now(),
                result,
            }
        })
    }
}

/// Whether the server's error means that the row is not there. A server that is shutting down (class 57P) may have
/// committed what it then does not confirm.
fn is_final(error: &tokio_postgres::error::DbError) -> bool {
    !error.code().code().starts_with("57P")
}

fn describe(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

pub(crate) async fn write(
    plan: Arc<Plan>,
    writer: usize,
    mut due: mpsc::Receiver<u64>,
) -> anyhow::Result<Written> {
    let mut written = Written {
        last: vec![0; plan.sessions.len()],
        failed: Vec::new(),
        unknown: HashMap::new(),
        reconnects: 0,
        commit: histogram(),
        lag: histogram(),
        first_error: None,
    };
    let mut line = Line::open(&plan.database).await?;
    let mut on_the_way: FuturesUnordered<Insert> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(outcome) = on_the_way.next() => written.note(&plan, outcome),
            job = due.recv(), if on_the_way.len() < IN_FLIGHT => {
                let Some(job) = job else { break };
                if line.client.is_closed() {
                    line = Line::open_again(&plan.database).await?;
                    written.reconnects += 1;
                }
                let session = session_of(job, plan.sessions.len());
                written.last[session] += 1;
                let number = written.last[session];
                let label = Label { run: plan.run, writer, job, number };
                let mut insert = line.insert(&plan, label, Stamp { writer, session, number });
                // The first poll puts the insert on the wire, so the order of sending is the order of the numbers.
                match poll!(insert.as_mut()) {
                    std::task::Poll::Ready(outcome) => written.note(&plan, outcome),
                    std::task::Poll::Pending => on_the_way.push(insert),
                }
            }
        }
    }
    while let Some(outcome) = on_the_way.next().await {
        written.note(&plan, outcome);
    }
    Ok(written)
}

impl Written {
    fn note(&mut self, plan: &Plan, outcome: Outcome) {
        let error = match outcome.result {
            Ok(()) => {
                plan.meter.committed(outcome.job, outcome.answered);
                None
            }
            Err(Failure::Refused(error)) => {
                self.failed.push(outcome.stamp);
                Some(error)
            }
            Err(Failure::Unanswered(error)) => {
                self.unknown.insert(outcome.job, outcome.stamp);
                Some(error)
            }
        };
        if self.first_error.is_none() {
            self.first_error = error;
        }
        if plan.meter.is_warm(outcome.job) {
            let due = plan.meter.due(outcome.job);
            self.commit
                .saturating_record(micros(outcome.answered - outcome.sent));
            self.lag
                .saturating_record(micros(outcome.sent.saturating_duration_since(due)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_get_about_the_same_number_of_messages() {
        let mut counts = [0_u64; 10];
        for job in 0..10_000 {
            counts[session_of(job, counts.len())] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
