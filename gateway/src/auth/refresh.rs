//! Something that a task of its own brings up to date, from time to time and when asked, but not too often.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

#[derive(Clone, Copy)]
pub(super) struct Timing {
    /// How often without being asked.
    pub(super) every: Duration,
    /// How soon again after a failure.
    pub(super) after_failure: Duration,
    /// From the beginning of one attempt to that of the next at least, if asked.
    pub(super) gap: Duration,
    /// How long whoever asks waits.
    pub(super) wait: Duration,
}

pub(super) struct Refresh {
    timing: Timing,
    state: watch::Sender<State>,
    asked: Notify,
}

#[derive(Default)]
struct State {
    /// When the latest attempt began; nothing as long as no task is there to make one.
    begun: Option<Instant>,
    running: bool,
    /// How many attempts are over, and how many somebody waits for.
    done: u64,
    wanted: u64,
}

impl State {
    fn may_ask(&self, timing: &Timing) -> bool {
        let soon = |begun: Instant| begun.elapsed() + timing.wait >= timing.gap;
        self.running || self.begun.is_some_and(soon)
    }
}

impl Refresh {
    pub(super) fn new(timing: Timing) -> Refresh {
        Refresh {
            timing,
            state: watch::Sender::default(),
            asked: Notify::new(),
        }
    }

    /// Whether asking now would help: an attempt runs, or may begin before whoever asks has waited too long.
    pub(super) fn may_ask(&self) -> bool {
        self.state.borrow().may_ask(&self.timing)
    }

    /// Asks, and waits for the end of an attempt, but not for long. One that runs already will do.
    pub(super) async fn ask(&self) {
        let mut wanted = None;
        self.state.send_if_modified(|state| {
            if state.may_ask(&self.timing) {
                state.wanted = state.done + 1;
                wanted = Some(state.wanted);
            }
            false
        });
        if let Some(wanted) = wanted {
            self.asked.notify_one();
            self.reached(wanted).await;
        }
    }

    /// Waits for the first attempt, but not for long.
    pub(super) async fn first(&self) {
        self.reached(1).await;
    }

    async fn reached(&self, done: u64) {
        let mut state = self.state.subscribe();
        // If it takes too long, whoever waits goes on with what is known.
        let _ = timeout(self.timing.wait, state.wait_for(|state| state.done >= done)).await;
    }

    /// Makes the attempts, for ever. `attempt` says whether it was a success, and must end by itself.
    pub(super) async fn run<F>(&self, mut attempt: impl FnMut() -> F)
    where
        F: Future<Output = bool>,
    {
        loop {
            let begun = Instant::now();
            self.state.send_modify(|state| {
                state.begun = Some(begun);
                state.running = true;
            });
            let succeeded = attempt().await;
            self.state.send_modify(|state| {
                state.running = false;
                state.done += 1;
            });
            let pause = match succeeded {
                true => self.timing.every,
                false => self.timing.after_failure,
            };
            tokio::select! {
                () = sleep_until(Instant::now() + pause) => {}
                () = self.wanted() => sleep_until(begun + self.timing.gap).await,
            }
        }
    }

    /// Until somebody waits for an attempt that has not been made. Who asked during the last one has been answered by it.
    async fn wanted(&self) {
        loop {
            self.asked.notified().await;
            let state = self.state.borrow();
            if state.wanted > state.done {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn timing(seconds: [u64; 4]) -> Timing {
        let [every, after_failure, gap, wait] = seconds.map(Duration::from_secs);
        Timing {
            every,
            after_failure,
            gap,
            wait,
        }
    }

    /// A refresh that runs, what it answers after `takes` seconds, and how often it was made.
    fn running(timing: Timing, takes: u64, succeeds: bool) -> (Arc<Refresh>, Arc<AtomicU32>) {
        let refresh = Arc::new(Refresh::new(timing));
        let made = Arc::new(AtomicU32::new(0));
        let (task, count) = (refresh.clone(), made.clone());
        tokio::spawn(async move {
            task.run(|| async {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(takes)).await;
                succeeds
            })
            .await;
        });
        (refresh, made)
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_questions_are_one_attempt_and_none_before_the_gap_is_over() {
        let (refresh, made) = running(timing([600, 30, 5, 3]), 1, true);
        refresh.first().await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert!(!refresh.may_ask());
        refresh.ask().await;
        assert_eq!(made.load(Ordering::Relaxed), 1);

        tokio::time::advance(Duration::from_secs(5)).await;
        let asked = (0..1000).map(|_| {
            let refresh = refresh.clone();
            tokio::spawn(async move { refresh.ask().await })
        });
        for task in asked.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(made.load(Ordering::Relaxed), 2);
        assert!(!refresh.may_ask());

        // Who would not have to wait too long for the end of the gap waits for it.
        tokio::time::advance(Duration::from_secs(2)).await;
        let begun = Instant::now();
        refresh.ask().await;
        assert_eq!(made.load(Ordering::Relaxed), 3);
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_an_attempt_that_hangs() {
        let (refresh, made) = running(timing([600, 30, 5, 3]), 1_000_000, true);
        let begun = Instant::now();
        refresh.first().await;
        refresh.ask().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(6));
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_made_from_time_to_time_and_sooner_after_a_failure() {
        for (succeeds, expected) in [(true, 3), (false, 41)] {
            let (refresh, made) = running(timing([600, 30, 5, 3]), 0, succeeds);
            refresh.first().await;
            tokio::time::sleep(Duration::from_secs(1201)).await;
            assert_eq!(made.load(Ordering::Relaxed), expected);
        }
    }

    #[tokio::test]
    async fn without_a_task_there_is_nobody_to_ask() {
        let refresh = Refresh::new(timing([600, 30, 0, 3]));
        assert!(!refresh.may_ask());
        refresh.ask().await;
    }
}
