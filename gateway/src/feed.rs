//! Brings committed changes into the process, each exactly once and in order.
//!
//! [`doorbell`] hears that something has happened, [`reader`] asks the log what it was, [`change`] is what comes out.
//! This module is the loop around them: connect, read, wait, and after a broken connection go on where it broke.

pub mod change;
mod doorbell;
mod reader;
mod snapshot;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::{change::Change, reader::Reader};
use crate::{database, metrics::names};

/// Changes that were read together, in order.
#[derive(Debug, Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// The read goes on: the next batch may have more of the same transactions.
    pub more: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect the feed to the database")]
    Connect(#[source] database::Error),
    #[error("cannot prepare the feed")]
    Prepare(#[source] tokio_postgres::Error),
    #[error("cannot read the change log")]
    Read(#[source] tokio_postgres::Error),
    #[error("the database did not answer the feed within {0:?}")]
    TimedOut(Duration),
    #[error("the feed's connection was closed")]
    Closed,
    #[error("the change log returned what this version does not understand: {0}")]
    Unexpected(String),
    #[error("nobody takes the changes any more")]
    Abandoned,
}

/// How long the database may be silent while it owes an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Whether the feed is current, for `/readyz`.
#[derive(Clone)]
pub struct Health(Arc<watch::Sender<Option<Instant>>>);

impl Default for Health {
    fn default() -> Health {
        Health(Arc::new(watch::Sender::new(None)))
    }
}

/// The log is looked at every second even if nothing happens; this is when something is wrong.
const STALE: Duration = Duration::from_secs(10);

impl Health {
    fn read_now(&self) {
        self.0.send_replace(Some(Instant::now()));
    }

    pub fn ready(&self) -> Result<(), String> {
        match self.0.borrow().map(|last| last.elapsed()) {
            Some(age) if age < STALE => Ok(()),
            Some(age) => Err(format!(
                "the change log was last read {} s ago",
                age.as_secs()
            )),
            None => Err("the change log has not been read yet".into()),
        }
    }

    /// Waits for the first read: what is committed before it belongs to nobody.
    pub async fn first_read(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }
}

pub struct Feed {
    pub database: database::Target,
    /// How often to look without being rung.
    pub poll_interval: Duration,
    pub health: Health,
    pub stop: CancellationToken,
}

impl Feed {
    /// Runs until stopped. `batches` is bounded: while nobody takes the changes, the log keeps them.
    pub async fn run(self, batches: mpsc::Sender<Batch>) -> Result<(), Error> {
        let mut position = None;
        let mut retry = FIRST_RETRY;
        loop {
            let attempt = self.follow(&mut position, &batches, &mut retry);
            let error = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                ended = attempt => match ended {
                    Err(Error::Abandoned) => return Err(Error::Abandoned),
                    Err(error) => error,
                    Ok(never) => match never {},
                },
            };
            metrics::counter!(names::FEED_RECONNECTS).increment(1);
            // Jitter, so that many gateways do not return at the same moment.
            let pause = retry.mul_f64(rand::random_range(0.5..1.5));
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                retry_in_ms = pause.as_millis() as u64,
                "the feed lost the database; nothing is lost, the log keeps the changes"
            );
            retry = (retry * 2).min(LAST_RETRY);
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn follow(
        &self,
        position: &mut Option<reader::Position>,
        batches: &mpsc::Sender<Batch>,
        retry: &mut Duration,
    ) -> Result<std::convert::Infallible, Error> {
        let (client, connection) = self.database.connect().await.map_err(Error::Connect)?;
        let (bell, _ears) = doorbell::listen(connection);
        let mut reader = Reader::open(client, position, ANSWER_TIMEOUT).await?;
        tracing::info!("the feed follows the change log");
        loop {
            // Whatever rang while this read ran rings again afterwards: the permit of the bell is kept.
            let read = reader.read(position, batches).await?;
            metrics::counter!(names::CHANGES_READ).increment(read);
            *retry = FIRST_RETRY;
            self.health.read_now();
            tokio::select! {
                rung = bell.rung() => rung.map_err(|_| Error::Closed)?,
                () = tokio::time::sleep(self.poll_interval) => {}
            }
        }
    }
}
