//! The moments that a connection waits for, behind one timer: a timer takes a hundred bytes, and there are many connections.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep};

pub(super) struct Clock {
    /// Set for the next moment, or an earlier one: moving it back for each frame that is read would cost more than looking twice.
    timer: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    /// When a client that says nothing is gone.
    pub(super) idle: Instant,
    /// When rights are asked for again.
    pub(super) rights: Instant,
    /// When a token may have expired.
    expiry: Option<Instant>,
    /// When a socket that takes nothing is given up.
    pub(super) stuck: Option<Instant>,
    /// When the client is told to go, since the gateway stops.
    pub(super) turn: Option<Instant>,
}

/// What the time has come for, the most urgent first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Turn,
    Stuck,
    Rights,
    Expiry,
    Idle,
}

impl Clock {
    pub(super) fn new(idle_timeout: Duration, rights: Instant) -> Clock {
        let idle = Instant::now() + idle_timeout;
        Clock {
            timer: Box::pin(tokio::time::sleep_until(idle)),
            idle_timeout,
            idle,
            rights,
            expiry: None,
            stuck: None,
            turn: None,
        }
    }

    /// Something was read.
    pub(super) fn not_idle(&mut self) {
        self.idle = Instant::now() + self.idle_timeout;
    }

    /// `seconds`: until the first token expires. Looked at once a minute in any case, since clocks are set.
    pub(super) fn expires_in(&mut self, seconds: Option<i64>) {
        self.expiry = seconds.map(|seconds| {
            let at = Instant::now() + Duration::from_secs(seconds.clamp(0, 60) as u64);
            self.expiry.map_or(at, |earlier| earlier.min(at))
        });
    }

    fn next(&self) -> Instant {
        let others = [self.expiry, self.stuck, self.turn];
        others
            .into_iter()
            .flatten()
            .fold(self.idle.min(self.rights), Instant::min)
    }

    /// Waits for the next of them. `Idle` comes again until something is read.
    pub(super) async fn due(&mut self) -> Due {
        loop {
            let next = self.next();
            if self.timer.deadline() > next || self.timer.is_elapsed() {
                self.timer.as_mut().reset(next);
            }
            self.timer.as_mut().await;
            let now = Instant::now();
            let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if has_come(self.turn) {
                return Due::Turn;
            }
            if has_come(self.stuck) {
                return Due::Stuck;
            }
            if self.rights <= now {
                return Due::Rights;
            }
            if has_come(self.expiry) {
                self.expiry = None;
                return Due::Expiry;
            }
            if self.idle <= now {
                return Due::Idle;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_moment_comes_in_its_turn_and_what_is_put_off_comes_later() {
        let begun = Instant::now();
        let seconds = Duration::from_secs;
        let mut clock = Clock::new(seconds(30), begun + seconds(20));
        clock.expires_in(Some(10));
        clock.expires_in(Some(500));
        assert_eq!(clock.due().await, Due::Expiry);
        assert_eq!(begun.elapsed(), seconds(10));
        clock.not_idle();
        clock.expires_in(Some(500));
        assert_eq!(clock.due().await, Due::Rights);
        clock.rights += seconds(1000);
        clock.stuck = Some(begun + seconds(35));
        assert_eq!(clock.due().await, Due::Stuck);
        assert_eq!(begun.elapsed(), seconds(35));
        clock.stuck = None;
        for _ in 0..2 {
            assert_eq!(clock.due().await, Due::Idle);
            assert_eq!(begun.elapsed(), seconds(40));
        }
        clock.turn = Some(begun);
        assert_eq!(clock.due().await, Due::Turn);
        clock.turn = None;
        clock.not_idle();
        clock.not_idle();
        clock.expires_in(None);
        assert_eq!(clock.due().await, Due::Idle);
        assert_eq!(begun.elapsed(), seconds(70));
    }
}
