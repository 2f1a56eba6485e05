//! How everything ends: in steps, with a time limit, and with trackers that every task is registered with.
//!
//! A stop is *announced* (SIGINT, SIGTERM): `/readyz` says no, and everything is served as before, for as long as load
//! balancers need to notice. It becomes *soft*: no new sockets, and each one that is open is told, at a moment of its own, to
//! reconnect, which leads it to another gateway; until then it is served. When the last one is gone the listener *closes*, and
//! answers that are under way are finished. Then it is *hard*: what is left is dropped. A second signal, or the end of all
//! patience, makes it hard at once. What serves connections in the background goes on until then: what is committed meanwhile
//! still reaches them. A critical task that ends by itself takes the whole process down with a failure: half a gateway would
//! look alive and deliver nothing.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::names;

/// Tasks that ignore the hard stop are given this long to be seen off by the runtime.
const AFTER_HARD_STOP: Duration = Duration::from_secs(1);

/// How a stop goes: the settings `drain_delay`, `drain_spread` and `drain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// From the announcement to the soft stop.
    pub delay: Duration,
    /// Over how long the sockets are told to go, so that those who take them are not overrun.
    pub spread: Duration,
    /// From the announcement to the hard stop, at most.
    pub limit: Duration,
}

impl Drain {
    /// Everybody is told at once, and has this long to go.
    pub fn within(limit: Duration) -> Drain {
        Drain {
            delay: Duration::ZERO,
            spread: Duration::ZERO,
            limit,
        }
    }
}

#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    announced: CancellationToken,
    soft: CancellationToken,
    closing: CancellationToken,
    hard: CancellationToken,
    /// What is waited for between the soft stop and the close of the listener.
    sockets: TaskTracker,
    /// What is waited for between that and the hard stop.
    requests: TaskTracker,
    /// What runs until the hard one.
    background: TaskTracker,
    drain: Drain,
    /// Sockets that were told to reconnect.
    told: AtomicUsize,
    /// Sockets that were open when it became hard.
    cut: AtomicUsize,
    failed: Mutex<Option<&'static str>>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    #[error("the {task} stopped by itself: the log says why")]
    CriticalTask { task: &'static str },
    #[error("{tasks} tasks were still running when the time to drain was over")]
    Unfinished { tasks: usize },
}

impl Lifecycle {
    pub fn new(drain: Drain) -> Lifecycle {
        Lifecycle {
            inner: Arc::new(Inner {
                announced: CancellationToken::new(),
                soft: CancellationToken::new(),
                closing: CancellationToken::new(),
                hard: CancellationToken::new(),
                sockets: TaskTracker::new(),
                requests: TaskTracker::new(),
                background: TaskTracker::new(),
                drain,
                told: AtomicUsize::new(0),
                cut: AtomicUsize::new(0),
                failed: Mutex::new(None),
            }),
        }
    }

    /// Cancelled when sockets begin to be told to go; no new ones are taken from then on.
    pub fn soft(&self) -> &CancellationToken {
        &self.inner.soft
    }

    /// Cancelled when nobody is left who would want an answer.
    pub fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    /// Cancelled when there is no time left.
    pub fn hard(&self) -> &CancellationToken {
        &self.inner.hard
    }

    /// Whether a stop has been announced.
    pub fn is_stopping(&self) -> bool {
        self.inner.announced.is_cancelled()
    }

    /// Announces the stop. [`Lifecycle::finished`] takes it from there.
    pub fn stop(&self) {
        self.inner.announced.cancel();
    }

    /// Stops at once.
    pub fn stop_now(&self) {
        // Counted before they hear of it; whoever comes second counts what the first one has left.
        let open = self.inner.sockets.len();
        self.inner.cut.fetch_max(open, Ordering::Relaxed);
        for step in [
            &self.inner.announced,
            &self.inner.soft,
            &self.inner.closing,
            &self.inner.hard,
        ] {
            step.cancel();
        }
    }

    /// How long after the soft stop one socket is told to go: chance decides which moment of the time over which they are spread.
    pub fn turn(&self) -> Duration {
        let moment = rand::random_range(0.0..1.0);
        self.inner.drain.spread.mul_f64(moment)
    }

    /// A socket is about to be told to reconnect.
    pub fn count_told(&self) {
        self.inner.told.fetch_add(1, Ordering::Relaxed);
    }

    /// A socket. It should end soon after its turn; what does not is dropped at the hard stop.
    pub fn spawn_socket<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.inner.sockets.spawn(self.until_hard(task))
    }

    /// Another task that the stop waits for, such as a request. It should end soon after the listener has closed.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.inner.requests.spawn(self.until_hard(task))
    }

    /// A task that serves the others, and is dropped at the hard stop.
    pub fn spawn_background<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.inner.background.spawn(self.until_hard(task))
    }

    /// A background task without which the gateway is no gateway. Ending, or a panic, before the stop begins is a failure.
    pub fn spawn_critical<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let watch = Watch {
            lifecycle: self.clone(),
            name,
        };
        self.spawn_background(async move {
            // Dropped at the end and by a panic, too.
            let _watch = watch;
            task.await;
        })
    }

    /// Not an `async` block: it would hold the task twice, and there are many sockets.
    fn until_hard<F>(&self, task: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hard = self.inner.hard.clone();
        task.with_cancellation_token_owned(hard).map(|_| ())
    }

    /// Turns signals into stops. Ends when the stop is hard.
    pub fn listen_for_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let lifecycle = self.clone();
        // Not tracked: it must outlive the tasks, to hear the second signal.
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = lifecycle.hard().cancelled() => return,
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if lifecycle.is_stopping() {
                    tracing::warn!("second signal: stopping at once");
                    lifecycle.stop_now();
                } else {
                    lifecycle.stop();
                }
            }
        });
        Ok(())
    }

    /// Waits for a stop to be announced, and takes it through its steps, for as long as they may take.
    pub async fn finished(&self) -> Result<(), Failure> {
        let inner = &*self.inner;
        inner.announced.cancelled().await;
        let begun = Instant::now();
        metrics::gauge!(names::STOPPING).set(1.0);
        tracing::info!(
            sockets = inner.sockets.len(),
            delay = ?inner.drain.delay,
            spread = ?inner.drain.spread,
            limit = ?inner.drain.limit,
            "stopping; another signal stops at once"
        );
        for tasks in [&inner.sockets, &inner.requests, &inner.background] {
            tasks.close();
        }
        tokio::select! {
            () = self.drained() => {}
            () = inner.hard.cancelled() => {}
            () = tokio::time::sleep(inner.drain.limit) => {
                tracing::warn!(
                    sockets = inner.sockets.len(),
                    requests = inner.requests.len(),
                    "the time to drain is over: what is left is cut"
                );
            }
        }
        self.stop_now();
        let all = async {
            inner.sockets.wait().await;
            inner.requests.wait().await;
            inner.background.wait().await;
        };
        let unfinished = tokio::time::timeout(AFTER_HARD_STOP, all).await.is_err();
        tracing::info!(
            told = inner.told.load(Ordering::Relaxed),
            cut = inner.cut.load(Ordering::Relaxed),
            took = ?begun.elapsed(),
            "stopped"
        );

        let failed = *self.failed();
        match failed {
            Some(task) => Err(Failure::CriticalTask { task }),
            None if unfinished => Err(Failure::Unfinished {
                tasks: inner.sockets.len() + inner.requests.len() + inner.background.len(),
            }),
            None => Ok(()),
        }
    }

    /// The steps from the announcement to the hard stop.
    async fn drained(&self) {
        let inner = &*self.inner;
        // After a failure there is nothing to be had here that would be worth the wait.
        if self.failed().is_none() {
            tokio::time::sleep(inner.drain.delay).await;
        }
        inner.soft.cancel();
        inner.sockets.wait().await;
        inner.closing.cancel();
        inner.requests.wait().await;
        // One whose handshake was under way.
        inner.sockets.wait().await;
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<&'static str>> {
        self.inner
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notices the end of a critical task.
struct Watch {
    lifecycle: Lifecycle,
    name: &'static str,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.lifecycle.is_stopping() {
            return;
        }
        tracing::error!(
            task = self.name,
            "a task that must not end has ended: stopping"
        );
        self.lifecycle.failed().get_or_insert(self.name);
        self.lifecycle.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_soft_stop_waits_for_tasks() {
        let lifecycle = Lifecycle::new(Drain::within(LONG));
        let soft = lifecycle.soft().clone();
        lifecycle.spawn(async move { soft.cancelled().await });
        let feed = lifecycle.spawn_critical("feed", std::future::pending());
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
        assert!(feed.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_drops_what_is_left() {
        let lifecycle = Lifecycle::new(Drain::within(Duration::from_secs(10)));
        lifecycle.spawn(std::future::pending());
        lifecycle.stop();
        let begun = tokio::time::Instant::now();
        assert_eq!(lifecycle.finished().await, Ok(()));
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_hard_stop_does_not_wait() {
        let lifecycle = Lifecycle::new(Drain::within(LONG));
        lifecycle.spawn(std::future::pending());
        lifecycle.stop_now();
        assert_eq!(lifecycle.finished().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_are_told_one_by_one_after_the_delay_and_requests_wait_for_them() {
        let seconds = Duration::from_secs;
        let lifecycle = Lifecycle::new(Drain {
            delay: seconds(100),
            spread: seconds(1000),
            limit: LONG,
        });
        let begun = Instant::now();
        let told: Arc<Mutex<Vec<Duration>>> = Arc::default();
        for _ in 0..100 {
            let (own, told) = (lifecycle.clone(), told.clone());
            lifecycle.spawn_socket(async move {
                own.soft().cancelled().await;
                tokio::time::sleep(own.turn()).await;
                told.lock().unwrap().push(begun.elapsed());
            });
        }
        let closing = lifecycle.closing().clone();
        let closed = Arc::new(Mutex::new(Duration::ZERO));
        let at = closed.clone();
        lifecycle.spawn(async move {
            closing.cancelled().await;
            *at.lock().unwrap() = begun.elapsed();
        });
        lifecycle.stop();
        assert!(lifecycle.is_stopping() && !lifecycle.soft().is_cancelled());
        assert_eq!(lifecycle.finished().await, Ok(()));

        let told = told.lock().unwrap();
        let (first, last) = (told[0], told[99]);
        assert!(first >= seconds(100) && last <= seconds(1100), "{told:?}");
        for quarter in 0..4 {
            let from = seconds(100 + 250 * quarter);
            let some = told
                .iter()
                .filter(|at| (from..from + seconds(250)).contains(at));
            assert!((10..=45).contains(&some.count()), "{told:?}");
        }
        assert_eq!((*closed.lock().unwrap(), begun.elapsed()), (last, last));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_does_not_wait_for_load_balancers() {
        let lifecycle = Lifecycle::new(Drain {
            delay: LONG,
            ..Drain::within(LONG * 2)
        });
        let begun = Instant::now();
        lifecycle.spawn_critical("feed", async {});
        let failure = Failure::CriticalTask { task: "feed" };
        assert_eq!(lifecycle.finished().await, Err(failure));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_critical_task_that_ends_or_panics_stops_everything() {
        for panics in [false, true] {
            let lifecycle = Lifecycle::new(Drain::within(LONG));
            lifecycle.spawn_critical("feed", async move {
                assert!(!panics, "on purpose");
            });
            assert_eq!(
                lifecycle.finished().await,
                Err(Failure::CriticalTask { task: "feed" })
            );
        }
    }
}
