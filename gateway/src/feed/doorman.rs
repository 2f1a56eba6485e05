//! Carries out what [`super::pace`] decides: holds the lock that silences the doorbell, or lets it go, and looks who else does.
//!
//! Three locks, all of them (1953064037, …): 1 silences the bell when somebody asks for it exclusively; 3 is shared by all
//! feeds that listen. (2 belongs to what watches tables.) Of two gateways at least one sees the other: the one asks for lock 1
//! and then looks for others that hold lock 3, the other takes lock 3 and then looks who asks for lock 1. Who has company lets go
//! of lock 1, and tells.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, Statement, types::ToSql};

use super::{
    Error,
    doorbell::Ring,
    pace::{Look, Mode, Pace, Seen},
    reader::Progress,
    silence::{Silence, State},
};
use crate::{config::Doorbell, database, metrics::names};

/// A gateway that vanished without a word does not count as one that listens for long.
const SETTINGS: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; set tcp_user_timeout = '60s'";
/// Nobody takes it exclusively, so this does not fail.
const LISTENS: &str = "select pg_try_advisory_lock_shared(1953064037, 3)";
const LOOK: &str = include_str!("../../../migrations/statements/look_at_doorbell.sql");

pub(super) struct Doorman<'a> {
    database: &'a database::Target,
    answer_timeout: Duration,
    look: Statement,
    pace: Pace,
    silence: Option<Silence>,
    counted: Counted,
    /// That there is no silence has been logged.
    told: bool,
}

impl<'a> Doorman<'a> {
    /// After LISTEN, on the same connection.
    pub(super) async fn open(
        database: &'a database::Target,
        client: &Client,
        mut doorbell: Doorbell,
        answer_timeout: Duration,
    ) -> Result<Doorman<'a>, Error> {
        let prepare = async {
            client.batch_execute(SETTINGS).await?;
            let listens: bool = client.query_one(LISTENS, &[]).await?.get(0);
            Ok((listens, client.prepare(LOOK).await?))
        };
        let (listens, look) = within(answer_timeout, Error::Prepare, prepare).await?;
        if !listens {
            tracing::warn!(
                "somebody holds the advisory lock (1953064037, 3), by which gateways know of each other: the doorbell stays on"
            );
            doorbell = Doorbell::On;
        }
        Ok(Doorman {
            database,
            answer_timeout,
            look,
            pace: Pace::new(Instant::now(), doorbell),
            silence: None,
            counted: Counted::new(),
            told: false,
        })
    }

    /// After each read of the log, and how long it took.
    pub(super) async fn has_read(
        &mut self,
        client: &Client,
        read: &Progress,
        took: Duration,
    ) -> Result<(), Error> {
        self.ask_about_the_lock();
        self.pace.took(took);
        self.pace
            .read(Instant::now(), read.transactions, read.snapshot.xmin());
        self.keep_step();
        if let Some(look) = self.pace.look(Instant::now()) {
            let seen = self.look(client, look).await?;
            self.pace.saw(Instant::now(), seen);
            self.keep_step();
        }
        Ok(())
    }

    pub(super) fn heard(&mut self, ring: Ring) {
        if ring == Ring::SilenceOver {
            self.pace.overheard(Instant::now());
            self.keep_step();
        }
    }

    /// Whether to read when it rings.
    pub(super) fn hears(&self) -> bool {
        self.pace.hears()
    }

    /// How long to wait for the next read.
    pub(super) fn pause(&self, longest: Duration) -> Duration {
        self.pace
            .pause()
            .map_or(longest, |pause| pause.min(longest))
    }

    fn ask_about_the_lock(&mut self) {
        let Some(silence) = &self.silence else {
            return;
        };
        match &*silence.state() {
            State::Connecting | State::Asking(_) => {}
            State::Held(_) => {
                self.pace.granted(Instant::now());
                self.told = false;
            }
            State::Ended(error) => {
                metrics::counter!(names::DOORBELL_FAILURES).increment(1);
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(
                        error = error as &dyn std::error::Error,
                        "the doorbell cannot be silenced now, which costs writers time; nothing is lost, and it will be tried again"
                    );
                }
                self.pace.ended(Instant::now());
            }
        }
    }

    fn keep_step(&mut self) {
        if !self.pace.silences() {
            self.silence = None;
        } else if self.silence.is_none() {
            self.silence = Some(Silence::ask(self.database.clone()));
        }
        self.counted.is(self.pace.mode());
    }

    async fn look(&self, client: &Client, look: Look) -> Result<Seen, Error> {
        let pid = match self.silence.as_ref().map(Silence::state).as_deref() {
            Some(State::Asking(pid) | State::Held(pid)) => *pid,
            _ => 0,
        };
        let parameters: [&(dyn ToSql + Sync); 3] = [&pid, &look.draw, &look.announce];
        let row = client.query_one(&self.look, &parameters);
        let row = within(self.answer_timeout, Error::Look, row).await?;
        let drawn: Option<&str> = row.get("drawn");
        Ok(Seen {
            company: row.get("company"),
            ours: row.get("ours"),
            others: row.get("others"),
            drawn: drawn.and_then(|drawn| drawn.parse().ok()),
        })
    }
}

async fn within<T>(
    limit: Duration,
    error: fn(tokio_postgres::Error) -> Error,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Error::TimedOut(limit))?
        .map_err(error)
}

/// Shows the mode in the metrics, until it is dropped.
struct Counted(Mode);

impl Counted {
    fn new() -> Counted {
        // Also where it never is, so that the gauge can be relied on.
        metrics::gauge!(names::DOORBELL_QUIET).increment(0.0);
        Counted(Mode::Lingering { upto: None })
    }

    fn is(&mut self, mode: Mode) {
        let before = std::mem::replace(&mut self.0, mode);
        if before.label() == mode.label() {
            return;
        }
        tracing::debug!(
            from = before.label(),
            to = mode.label(),
            "the doorbell has another mode"
        );
        metrics::counter!(names::DOORBELL_SWITCHES, "to" => mode.label()).increment(1);
        if before == Mode::Quiet {
            metrics::gauge!(names::DOORBELL_QUIET).decrement(1.0);
        }
        if mode == Mode::Quiet {
            metrics::gauge!(names::DOORBELL_QUIET).increment(1.0);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0 == Mode::Quiet {
            metrics::gauge!(names::DOORBELL_QUIET).decrement(1.0);
        }
    }
}
