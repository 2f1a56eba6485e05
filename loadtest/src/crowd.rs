//! Many websockets that are read as cheaply as possible: what is measured is the server, not the client. A few threads read
//! all sockets, each into one buffer, and look at each frame only for the label that its row carries. That frames are as
//! they should be is what `changes` checks; here each reader checks that it gets the numbers of its session once and in order.

pub(crate) mod dialect;
pub(crate) mod label;
mod open;
mod reader;
mod seen;
pub(crate) mod split;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::dialect::Dialect;
use self::reader::{Arrival, Desk, Door};
pub(crate) use self::seen::{STEP, Seen};
use crate::meter::Meter;
use crate::writer::Plan;

/// How often a dialect may say that it is still there. The official SDKs do it as often.
pub(crate) const BEAT: Duration = Duration::from_secs(25);

/// From the first packet until the reader is in.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// More would only take turns on the cores that the server needs.
const MOST_THREADS: usize = 2;

/// What all readers of a crowd share.
#[derive(Clone)]
pub(crate) struct Terms {
    /// `host:port`.
    pub(crate) authority: String,
    /// Labels of other runs are not ours.
    pub(crate) run: u32,
    /// Each numbers its messages by itself.
    pub(crate) writers: usize,
    pub(crate) meter: Arc<dyn AsRef<Meter> + Send + Sync>,
    /// Joins under way at once.
    pub(crate) connecting: usize,
}

impl AsRef<Meter> for Meter {
    fn as_ref(&self) -> &Meter {
        self
    }
}

impl AsRef<Meter> for Plan {
    fn as_ref(&self) -> &Meter {
        &self.meter
    }
}

/// What the threads tell while they read.
#[derive(Default)]
struct Progress {
    deliveries: AtomicU64,
    /// Readers that the server has let go, or that have let it go.
    ended: AtomicU64,
    stop: AtomicBool,
}

pub(crate) struct Crowd {
    threads: Vec<(Door, JoinHandle<anyhow::Result<Seen>>)>,
    progress: Vec<Arc<Progress>>,
}

impl Crowd {
    /// Returns when everybody is in. There are as many readers as dialects.
    pub(crate) async fn gather<D>(terms: Terms, dialects: D) -> anyhow::Result<Self>
    where
        D: IntoIterator<Item = anyhow::Result<Box<dyn Dialect>>>,
    {
        ensure!(
            terms.writers > 0 && terms.connecting > 0,
            "a crowd needs a writer, and somebody who may connect"
        );
        let crowd = Self::start(&terms)?;
        let arrivals = dialects.into_iter().enumerate().map(|(index, dialect)| {
            let door = crowd.threads[index % crowd.threads.len()].0.clone();
            let authority = terms.authority.clone();
            async move {
                timeout(JOIN_LIMIT, Box::pin(join(&authority, dialect?, &door)))
                    .await
                    .with_context(|| format!("not in within {} s", JOIN_LIMIT.as_secs()))?
                    .with_context(|| format!("reader {index} could not join"))
            }
        });
        stream::iter(arrivals)
            .buffer_unordered(terms.connecting)
            .try_collect::<()>()
            .await?;
        Ok(crowd)
    }

    fn start(terms: &Terms) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut crowd = Self {
            threads: Vec::new(),
            progress: Vec::new(),
        };
        for index in 0..cores.min(MOST_THREADS) {
            let progress = Arc::new(Progress::default());
            let (desk, door) = Desk::new(terms, progress.clone())?;
            let thread = std::thread::Builder::new()
                .name(format!("reader-{index}"))
                .spawn(move || desk.run())
                .context("cannot start a thread")?;
            crowd.threads.push((door, thread));
            crowd.progress.push(progress);
        }
        Ok(crowd)
    }

    /// Messages that have arrived, all readers together.
    pub(crate) fn deliveries(&self) -> u64 {
        let each = self.progress.iter();
        each.map(|one| one.deliveries.load(Ordering::Relaxed)).sum()
    }

    /// Readers that have ended early. The reasons are told at the end.
    pub(crate) fn ended(&self) -> u64 {
        let each = self.progress.iter();
        each.map(|one| one.ended.load(Ordering::Relaxed)).sum()
    }

    /// Everybody leaves politely, and tells what they have seen.
    pub(crate) async fn disperse(mut self) -> anyhow::Result<Seen> {
        self.tell_to_stop();
        let threads = std::mem::take(&mut self.threads);
        let all = tokio::task::spawn_blocking(move || {
            let mut all = Seen::default();
            for (_, thread) in threads {
                let seen = thread
                    .join()
                    .map_err(|_| anyhow!("a reading thread panicked"))??;
                all.add(&seen);
            }
            anyhow::Ok(all)
        });
        all.await?
    }

    fn tell_to_stop(&self) {
        for progress in &self.progress {
            progress.stop.store(true, Ordering::Relaxed);
        }
        for (door, _) in &self.threads {
            door.ring();
        }
    }
}

/// A crowd that nobody asks for the end stops all the same.
impl Drop for Crowd {
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}

async fn join(authority: &str, dialect: Box<dyn Dialect>, door: &Door) -> anyhow::Result<()> {
    let (stream, rest) = open::open(authority, &dialect.request()).await?;
    let (joined, answer) = oneshot::channel();
    door.enter(Arrival {
        stream: stream.into_std()?,
        dialect,
        rest,
        joined,
    })?;
    answer
        .await
        .context("the reading thread is gone")?
        .map_err(|reason| anyhow!(reason))
}

#[cfg(test)]
mod tests;
