//! How everything ends: a soft stop, a hard stop, and trackers that every task is registered with.
//!
//! *Soft*: accept nothing new, tell clients to reconnect elsewhere, finish. *Hard*: drop what is left. SIGINT and SIGTERM
//! begin the soft stop. It becomes hard when the last connection is gone, by a second signal, or when the time `drain` is
//! over. What serves connections in the background goes on until then: what is committed meanwhile still reaches them. A critical task that ends by itself
//! takes the whole process down with a failure: half a gateway would look alive and deliver nothing.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks that ignore the hard stop are given this long to be seen off by the runtime.
const AFTER_HARD_STOP: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    soft: CancellationToken,
    hard: CancellationToken,
    /// What is waited for between the soft and the hard stop.
    drained: TaskTracker,
    /// What runs until the hard one.
    background: TaskTracker,
    drain: Duration,
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
    pub fn new(drain: Duration) -> Lifecycle {
        Lifecycle {
            inner: Arc::new(Inner {
                soft: CancellationToken::new(),
                hard: CancellationToken::new(),
                drained: TaskTracker::new(),
                background: TaskTracker::new(),
                drain,
                failed: Mutex::new(None),
            }),
        }
    }

    /// Cancelled when the stop begins.
    pub fn soft(&self) -> &CancellationToken {
        &self.inner.soft
    }

    /// Cancelled when there is no time left.
    pub fn hard(&self) -> &CancellationToken {
        &self.inner.hard
    }

    /// How long the soft stop may take.
    pub fn drain(&self) -> Duration {
        self.inner.drain
    }

    pub fn is_stopping(&self) -> bool {
        self.inner.soft.is_cancelled()
    }

    /// Begins the soft stop.
    pub fn stop(&self) {
        self.inner.soft.cancel();
    }

    /// Stops at once.
    pub fn stop_now(&self) {
        self.inner.soft.cancel();
        self.inner.hard.cancel();
    }

    /// A task that the stop waits for, such as a connection. It should end soon after the soft stop; what does not is
    /// dropped at the hard one.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.inner.drained.spawn(self.until_hard(task))
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

    fn until_hard<F>(&self, task: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hard = self.inner.hard.clone();
        async move {
            tokio::select! {
                () = hard.cancelled() => {}
                () = task => {}
            }
        }
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
                    tracing::info!("stopping; another signal stops at once");
                    lifecycle.stop();
                }
            }
        });
        Ok(())
    }

    /// Waits for the stop to begin, then for every task, for as long as they may take.
    pub async fn finished(&self) -> Result<(), Failure> {
        self.inner.soft.cancelled().await;
        self.inner.drained.close();
        self.inner.background.close();
        tokio::select! {
            () = self.inner.drained.wait() => {}
            () = self.inner.hard.cancelled() => {}
            () = tokio::time::sleep(self.inner.drain) => {
                tracing::warn!(tasks = self.inner.drained.len(), "time to drain is over: stopping at once");
            }
        }
        self.inner.hard.cancel();
        let all = async {
            self.inner.drained.wait().await;
            self.inner.background.wait().await;
        };
        let unfinished = tokio::time::timeout(AFTER_HARD_STOP, all).await.is_err();

        let failed = *self.failed();
        match failed {
            Some(task) => Err(Failure::CriticalTask { task }),
            None if unfinished => Err(Failure::Unfinished {
                tasks: self.inner.drained.len() + self.inner.background.len(),
            }),
            None => Ok(()),
        }
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
        let lifecycle = Lifecycle::new(LONG);
        let soft = lifecycle.soft().clone();
        lifecycle.spawn(async move { soft.cancelled().await });
        let feed = lifecycle.spawn_critical("feed", std::future::pending());
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
        assert!(feed.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_drops_what_is_left() {
        let lifecycle = Lifecycle::new(Duration::from_secs(10));
        lifecycle.spawn(std::future::pending());
        lifecycle.stop();
        let begun = tokio::time::Instant::now();
        assert_eq!(lifecycle.finished().await, Ok(()));
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_hard_stop_does_not_wait() {
        let lifecycle = Lifecycle::new(LONG);
        lifecycle.spawn(std::future::pending());
        lifecycle.stop_now();
        assert_eq!(lifecycle.finished().await, Ok(()));
    }

    #[tokio::test]
    async fn a_critical_task_that_ends_or_panics_stops_everything() {
        for panics in [false, true] {
            let lifecycle = Lifecycle::new(LONG);
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
