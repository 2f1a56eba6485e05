//! Brings committed changes into the process, each exactly once and in order.
//!
//! [`doorbell`] hears that something has happened, [`reader`] asks the log what it was, [`change`] is what comes out. Under load
//! nobody rings: [`pace`] decides when, [`silence`] holds the lock that says so, [`doorman`] joins the two.
//! This module is the loop around them: connect, read, wait, and after a broken connection go on where it broke.

pub mod change;
mod doorbell;
mod doorman;
pub mod mark;
mod pace;
mod reader;
mod silence;
pub mod snapshot;
pub mod source;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc, watch};
use tokio_postgres::types::{FromSql, Type};
use tokio_util::sync::CancellationToken;

pub use self::reader::Read;
use self::{change::Change, doorman::Doorman, reader::Reader};
use crate::{config::Doorbell, database, metrics::names};

/// Changes that were read together, in order.
pub struct Batch {
    pub read: Arc<Read>,
    pub changes: Vec<Arc<Change>>,
    /// The read goes on: the next batch may have more of the same transactions.
    pub more: bool,
}

/// What the feed hands on.
pub enum Delivery {
    Batch(Batch),
    /// Changes may have been committed that nobody will hear of. What follows begins anew.
    Lost(Loss),
}

/// Why changes may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// This is another database than before: a restored copy, another cluster.
    Foreign,
    /// The database has gone back: a standby that had not come as far was promoted, or a backup was recovered.
    Rewound,
    /// The log was emptied before it had been read.
    Truncated,
}

impl Loss {
    pub fn label(self) -> &'static str {
        match self {
            Loss::Foreign => "foreign",
            Loss::Rewound => "rewound",
            Loss::Truncated => "truncated",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect the feed to the database")]
    Connect(#[source] database::Error),
    #[error("cannot prepare the feed")]
    Prepare(#[source] tokio_postgres::Error),
    #[error("cannot read the change log")]
    Read(#[source] tokio_postgres::Error),
    #[error("cannot look at the doorbell's locks")]
    Look(#[source] tokio_postgres::Error),
    #[error("the database did not answer the feed within {0:?}")]
    TimedOut(Duration),
    #[error("the feed's connection was closed")]
    Closed,
    #[error("the change log returned what this version does not understand: {0}")]
    Unexpected(String),
    #[error(
        "the change log was emptied up to transaction {emptied} before what came after transaction {unread} had been read"
    )]
    Truncated { emptied: u64, unread: u64 },
    #[error("the database has forgotten transactions that it had committed before")]
    Rewound,
    #[error("nobody takes the changes any more")]
    Abandoned,
}

/// How long the database may be silent while it owes an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How old the last word may become of how far the feed has come: clients' cursors should not grow old with it.
const TELL: Duration = Duration::from_secs(30);
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
    /// Whether the doorbell may be silenced.
    pub doorbell: Doorbell,
    /// To look at once, and to say how far that has come even if there is nothing new.
    pub nudge: Arc<Notify>,
    pub health: Health,
    pub stop: CancellationToken,
}

impl Feed {
    /// Runs until stopped. `batches` is bounded: while nobody takes the changes, the log keeps them.
    pub async fn run(self, batches: mpsc::Sender<Delivery>) -> Result<(), Error> {
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
        batches: &mpsc::Sender<Delivery>,
        retry: &mut Duration,
    ) -> Result<std::convert::Infallible, Error> {
        let (client, connection) = self.database.connect().await.map_err(Error::Connect)?;
        let (bell, _ears) = doorbell::listen(connection);
        let (mut reader, loss) = Reader::open(client, position, ANSWER_TIMEOUT).await?;
        if let Some(loss) = loss {
            self.lose(loss, batches).await?;
        }
        let mut doorman = Doorman::open(
            &self.database,
            reader.client(),
            self.doorbell,
            ANSWER_TIMEOUT,
        )
        .await?;
        tracing::info!("the feed follows the change log");
        let mut tell = true;
        let mut told = Instant::now();
        loop {
            // Whatever rang while this read ran rings again afterwards: the permit of the bell is kept.
            let begun = Instant::now();
            let read = match reader.read(position, batches, tell).await {
                Err(error @ (Error::Truncated { .. } | Error::Rewound)) => {
                    *position = None;
                    let loss = match error {
                        Error::Rewound => Loss::Rewound,
                        _ => Loss::Truncated,
                    };
                    self.lose(loss, batches).await?;
                    return Err(error);
                }
                read => read?,
            };
            if tell || read.changes > 0 {
                told = Instant::now();
            }
            metrics::counter!(names::CHANGES_READ).increment(read.changes);
            *retry = FIRST_RETRY;
            self.health.read_now();
            doorman
                .has_read(reader.client(), &read, begun.elapsed())
                .await?;
            tell = tokio::select! {
                rung = bell.rung(), if doorman.hears() => {
                    doorman.heard(rung.map_err(|_| Error::Closed)?);
                    false
                }
                () = self.nudge.notified() => true,
                () = tokio::time::sleep(doorman.pause(self.poll_interval)) => {
                    metrics::counter!(names::FEED_POLLS).increment(1);
                    false
                }
            } || told.elapsed() > TELL;
        }
    }

    async fn lose(&self, loss: Loss, batches: &mpsc::Sender<Delivery>) -> Result<(), Error> {
        tracing::error!(
            reason = loss.label(),
            "changes may be lost: every client is told to come back, and cursors from before are refused where they would hide it"
        );
        metrics::counter!(names::FEED_LOSSES, "reason" => loss.label()).increment(1);
        batches
            .send(Delivery::Lost(loss))
            .await
            .map_err(|_| Error::Abandoned)
    }
}

/// The text of a `json` column, as it is.
pub struct JsonText(pub Box<str>);

impl<'a> FromSql<'a> for JsonText {
    fn from_sql(
        _: &Type,
        raw: &'a [u8],
    ) -> Result<JsonText, Box<dyn std::error::Error + Sync + Send>> {
        Ok(JsonText(std::str::from_utf8(raw)?.into()))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSON
    }
}
