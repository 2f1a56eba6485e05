//! One turn of one server: readers come, messages are written, and everything has to arrive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use uuid::Uuid;

use super::feed::{Fed, Load};
use super::host::{Costs, Host, Readings};
use crate::crowd::{Crowd, Seen, Terms};
use crate::database;
use crate::frame::text;
use crate::writer::Plan;

/// Writers get ready in this time; then the first message is due.
pub(crate) const RUN_UP: Duration = Duration::from_millis(500);

/// After the last expected delivery, how long a superfluous one may take to show up.
const LINGER: Duration = Duration::from_millis(300);

const PROGRESS: Duration = Duration::from_millis(2);

/// How long the rest is waited for when a reader is gone, so that not everything can come any more.
const HOPELESS: Duration = Duration::from_secs(2);

/// Who reads what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) sessions: usize,
    /// Of each session.
    pub(crate) readers: usize,
    /// Length of a message's text.
    pub(crate) size: usize,
    pub(crate) load: Load,
    /// Joins under way at once.
    pub(crate) connecting: usize,
    /// After so long without any delivery, what is missing is lost.
    pub(crate) quiet: Duration,
}

/// What a turn has shown.
pub(crate) struct Turn {
    pub(crate) load: Load,
    pub(crate) seen: Seen,
    pub(crate) expected: u64,
    pub(crate) costs: Costs,
    /// Nothing if nothing was written to a database.
    pub(crate) fed: Option<Fed>,
    /// From the first packet of the first reader until all were in.
    pub(crate) join_seconds: f64,
}

impl Shape {
    pub(crate) fn all_readers(&self) -> usize {
        self.sessions * self.readers
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.sessions > 0 && self.readers > 0 && self.connecting > 0,
            "--sessions, --readers and --connecting must be at least 1"
        );
        ensure!(self.connecting <= 1000, "--connecting must be at most 1000");
        ensure!(
            self.load.messages() <= 50_000_000 && self.load.messages() > 0,
            "there must be from 1 to 50 million messages: change --rate, --seconds or --messages"
        );
        Ok(())
    }
}

pub(crate) async fn measure(host: &dyn Host, shape: &Shape) -> anyhow::Result<Turn> {
    let admin = database::connect(host.database()).await?;
    let run = Uuid::new_v4().as_fields().0;
    let sessions = database::add_sessions(&admin, run, shape.sessions).await?;
    let plan = Arc::new(Plan {
        database: host.database().clone(),
        run,
        sessions,
        content: text(shape.size),
        meter: shape.load.meter(),
    });
    let terms = Terms {
        authority: host.authority().to_owned(),
        run,
        writers: shape.load.writers(),
        meter: plan.clone(),
        connecting: shape.connecting,
    };
    let dialects =
        (0..shape.all_readers()).map(|index| host.dialect(plan.sessions[index % shape.sessions]));
    let joining = Instant::now();
    let crowd = Crowd::gather(terms, dialects).await?;
    let join_seconds = joining.elapsed().as_secs_f64();

    let start = Instant::now() + RUN_UP;
    plan.meter.start_at(start);
    let before = async {
        tokio::time::sleep_until(start.into()).await;
        Readings::of(host)
    };
    let (before, fed) = tokio::join!(before, shape.load.feed(&plan, start));
    let fed = fed?;
    let expected = fed.messages() * shape.readers as u64;
    drain(&crowd, expected, shape.quiet).await;
    let costs = before.until(Readings::of(host));
    tokio::time::sleep(LINGER).await;
    let seen = crowd.disperse().await?;
    if !host.is_own() {
        database::remove_sessions(&admin, &plan.sessions).await?;
    }
    Ok(Turn {
        load: shape.load,
        seen,
        expected,
        costs,
        fed: Some(fed),
        join_seconds,
    })
}

/// Waits for the rest.
pub(crate) async fn drain(crowd: &Crowd, expected: u64, quiet: Duration) {
    let mut deliveries = crowd.deliveries();
    let mut moved = Instant::now();
    while deliveries < expected {
        tokio::time::sleep(PROGRESS).await;
        let now = crowd.deliveries();
        let patience = match crowd.ended() {
            0 => quiet,
            _ => quiet.min(HOPELESS),
        };
        if now > deliveries {
            (deliveries, moved) = (now, Instant::now());
        } else if moved.elapsed() >= patience {
            return;
        }
    }
}
