//! When to wait for the doorbell, when to poll, and when to silence the bell. Knows no database: what was found comes in with
//! its time, what to do comes out.
//!
//! ```text
//!             burst, and nobody else listens        lock granted
//!    Ringing ────────────────────────────▶ Polling ─────────────▶ Quiet
//!       ▲                                     │ thin flow, company,  │
//!       │ whoever was silenced has ended      ▼ lock lost            │
//!       └───────────────────────────────── Lingering ◀───────────────┘
//! ```
//!
//! A lock that is asked for silences writers as one that is held does, so polling begins before it is asked for. And a writer
//! that was silenced may commit long after the lock is gone, so the end of a silence is not the end of polling: after it a
//! transaction number is drawn, and every transaction with a lower one has to end first. (The `xmax` of a snapshot would not do:
//! the newest running transactions lie above it.) Whatever is uncertain, a connection that has just been made above all, is a
//! silence that may have ended.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::config::Doorbell;

/// So many transactions in so short a time are worth silencing the bell.
const BURST: u64 = 50;
const BURST_WINDOW: Duration = Duration::from_millis(250);
/// Fewer than these are not worth polling any more.
const THIN: u64 = 25;
const THIN_WINDOW: Duration = Duration::from_millis(500);

/// Least and most time between two polls while nobody rings: less after a read that brought something, more after one that did
/// not.
const POLLING: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));
/// From so many transactions a second on, the feed rests the longer the more there are, up to so many times what a read takes.
const MUCH: f64 = 1500.0;
const MOST_RESTS: f64 = 4.0;
/// While only stragglers do not ring.
const LINGERING: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));

/// How soon to look whether a lock has come or gone.
const LOOK_SOON: Duration = Duration::from_millis(50);
/// How often to look whether the silence still stands and nobody else listens.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// After what kept the bell from being silenced, until the next attempt.
const AFTER_COMPANY: Duration = Duration::from_secs(2);
const AFTER_LOSS: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Who commits rings.
    Ringing,
    /// The lock is asked for: some still ring, and some do not.
    Polling,
    /// The lock is held.
    Quiet,
    /// Whoever begins now rings, but not all who were silenced have ended: those have lower numbers than `upto`. None while a
    /// silence may still go on.
    Lingering { upto: Option<u64> },
}

impl Mode {
    pub(super) fn label(self) -> &'static str {
        match self {
            Mode::Ringing => "ringing",
            Mode::Polling => "polling",
            Mode::Quiet => "quiet",
            Mode::Lingering { .. } => "lingering",
        }
    }
}

/// What to find out about the doorbell's locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Draw a transaction number if nobody silences the bell.
    pub(super) draw: bool,
    /// Then also tell others who listen that there was a silence.
    pub(super) announce: bool,
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Another feed listens.
    pub(super) company: bool,
    /// Our lock is held or asked for.
    pub(super) ours: bool,
    /// Somebody else's is.
    pub(super) others: bool,
    pub(super) drawn: Option<u64>,
}

pub(super) struct Pace {
    mode: Mode,
    /// When the mode began.
    since: Instant,
    flow: Flow,
    pause: Duration,
    /// How long the last read took.
    took: Duration,
    /// The least time between two polls.
    rest: Duration,
    next_look: Instant,
    /// A look has shown our lock: from then on its absence means that it is lost, and nobody who listens can have missed it.
    confirmed: bool,
    /// Others who listen may not know of the silence that has just ended.
    announce: bool,
    /// When the bell may be silenced, if ever.
    not_before: Option<Instant>,
}

impl Pace {
    pub(super) fn new(now: Instant, doorbell: Doorbell) -> Pace {
        Pace {
            mode: Mode::Lingering { upto: None },
            since: now,
            flow: Flow::default(),
            pause: LINGERING.0,
            took: POLLING.0,
            rest: POLLING.0,
            next_look: now,
            confirmed: false,
            announce: false,
            not_before: (doorbell == Doorbell::Auto).then_some(now),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the lock is wanted.
    pub(super) fn silences(&self) -> bool {
        matches!(self.mode, Mode::Polling | Mode::Quiet)
    }

    /// Whether to read when it rings. While polling, a ring tells nothing new.
    pub(super) fn hears(&self) -> bool {
        !self.silences()
    }

    /// How long to wait for the next read, if not for the bell alone.
    pub(super) fn pause(&self) -> Option<Duration> {
        let (least, most) = self.pauses()?;
        Some(self.pause.clamp(least, most))
    }

    fn pauses(&self) -> Option<(Duration, Duration)> {
        match self.mode {
            Mode::Ringing => None,
            Mode::Polling | Mode::Quiet => Some((self.rest, POLLING.1)),
            Mode::Lingering { .. } => Some(LINGERING),
        }
    }

    /// A read took so long. The feed rests for as long: a database that has time to spare is asked often, and one that answers slowly,
    /// because it is busy, seldom, and for more at a time. Longer if much comes: then reading competes with those who write it.
    pub(super) fn took(&mut self, time: Duration) {
        self.took = time;
    }

    fn rest(&self, now: Instant) -> Duration {
        let per_second = self.flow.within(now, BURST_WINDOW) as f64 / BURST_WINDOW.as_secs_f64();
        let times = (per_second / MUCH).clamp(1.0, MOST_RESTS);
        self.took.mul_f64(times).clamp(POLLING.0, POLLING.1)
    }

    /// The log was read. `xmin` is that of the read's snapshot: all transactions with lower numbers had ended.
    pub(super) fn read(&mut self, now: Instant, transactions: u64, xmin: u64) {
        self.flow.add(now, transactions);
        self.rest = self.rest(now);
        if let Some((least, most)) = self.pauses() {
            self.pause = match transactions {
                0 => (self.pause * 3 / 2).clamp(least, most),
                _ => least,
            };
        }
        match self.mode {
            Mode::Lingering { upto: Some(upto) } if xmin >= upto => {
                self.enter(now, Mode::Ringing);
            }
            Mode::Polling | Mode::Quiet
                if now.duration_since(self.since) >= THIN_WINDOW
                    && self.flow.within(now, THIN_WINDOW) < THIN =>
            {
                self.let_go(now);
            }
            _ => {}
        }
    }

    /// Whether it is time to look, and for what.
    pub(super) fn look(&self, now: Instant) -> Option<Look> {
        let draw = self.mode == Mode::Lingering { upto: None };
        let due = match self.mode {
            Mode::Ringing | Mode::Lingering { upto: Some(_) } => self.is_worth_it(now),
            Mode::Polling | Mode::Quiet | Mode::Lingering { upto: None } => now >= self.next_look,
        };
        due.then_some(Look {
            draw,
            announce: draw && self.announce,
        })
    }

    fn is_worth_it(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|time| now >= time)
            && self.flow.within(now, BURST_WINDOW) >= BURST
    }

    pub(super) fn saw(&mut self, now: Instant, seen: Seen) {
        match self.mode {
            Mode::Polling | Mode::Quiet => {
                self.next_look = now + LOOK_AGAIN;
                if seen.company {
                    self.announce = true;
                    self.wait(now, AFTER_COMPANY);
                    self.let_go(now);
                } else if seen.ours {
                    self.confirmed = true;
                } else if self.confirmed {
                    self.lost(now);
                } else {
                    self.next_look = now + LOOK_SOON;
                }
            }
            Mode::Ringing | Mode::Lingering { .. } => {
                if let (Mode::Lingering { upto: None }, Some(drawn)) = (self.mode, seen.drawn) {
                    self.announce = false;
                    self.mode = Mode::Lingering { upto: Some(drawn) };
                }
                if seen.others {
                    self.wait(now, LOOK_SOON);
                    if self.mode != (Mode::Lingering { upto: None }) {
                        self.let_go(now);
                    }
                    // A connection that was closed holds its lock for another moment; a stranger may hold one for hours.
                    let soon = now.duration_since(self.since) < LOOK_AGAIN;
                    self.next_look = now + if soon { LOOK_SOON } else { LOOK_AGAIN };
                } else if seen.company {
                    self.wait(now, AFTER_COMPANY);
                } else if self.is_worth_it(now) {
                    self.confirmed = false;
                    self.next_look = now;
                    self.pause = POLLING.0;
                    self.enter(now, Mode::Polling);
                }
            }
        }
    }

    /// The lock is ours.
    pub(super) fn granted(&mut self, now: Instant) {
        if self.mode == Mode::Polling {
            self.next_look = now;
            self.enter(now, Mode::Quiet);
        }
    }

    /// The connection that held the lock, or asked for it, has ended.
    pub(super) fn ended(&mut self, now: Instant) {
        match self.mode {
            Mode::Polling => {
                self.wait(now, AFTER_FAILURE);
                self.let_go(now);
            }
            Mode::Quiet => self.lost(now),
            Mode::Ringing | Mode::Lingering { .. } => {}
        }
    }

    /// Somebody tells that there was a silence.
    pub(super) fn overheard(&mut self, now: Instant) {
        if self.hears() {
            self.let_go(now);
        }
    }

    fn lost(&mut self, now: Instant) {
        self.wait(now, AFTER_LOSS);
        self.let_go(now);
    }

    fn wait(&mut self, now: Instant, time: Duration) {
        self.not_before = self.not_before.map(|before| before.max(now + time));
    }

    fn let_go(&mut self, now: Instant) {
        self.next_look = now;
        self.enter(now, Mode::Lingering { upto: None });
    }

    fn enter(&mut self, now: Instant, mode: Mode) {
        self.mode = mode;
        self.since = now;
    }
}

/// How many transactions were read lately.
#[derive(Default)]
struct Flow {
    reads: VecDeque<(Instant, u64)>,
}

impl Flow {
    /// Reads that are not further apart count as one, so that this stays short.
    const GRAIN: Duration = Duration::from_millis(5);

    fn add(&mut self, now: Instant, transactions: u64) {
        while let Some((at, _)) = self.reads.front()
            && now.duration_since(*at) >= THIN_WINDOW
        {
            self.reads.pop_front();
        }
        if transactions == 0 {
            return;
        }
        match self.reads.back_mut() {
            Some((at, count)) if now.duration_since(*at) < Flow::GRAIN => *count += transactions,
            _ => self.reads.push_back((now, transactions)),
        }
    }

    fn within(&self, now: Instant, window: Duration) -> u64 {
        let recent = |(at, _): &&(Instant, u64)| now.duration_since(*at) < window;
        let reads = self.reads.iter().rev().take_while(recent);
        reads.map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests;
