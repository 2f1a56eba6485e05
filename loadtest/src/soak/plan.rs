//! What happens when: everything that goes wrong in a run, drawn from its seed before the run begins.

use std::time::Duration;

use faultproxy::{Cut, Flow, Way};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// From the end of one fault to the beginning of the next, on the same side.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(6000));

/// Before the first fault, so that everybody is at work.
const RUN_UP: Duration = Duration::from_secs(2);

/// Faults of the two sides happen at the same time as often as chance has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Database,
    Clients,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    DatabaseCut,
    DatabaseClosed,
    DatabaseDelayed,
    DatabaseThrottled,
    DatabaseHung,
    DatabaseSwallowed,
    FeedTerminated,
    SessionsTerminated,
    PostgresStopped,
    PostgresStoppedImmediately,
    PostgresKilled,
    ClientsCut,
    ClientsClosed,
    ClientsDelayed,
    ClientsThrottled,
    ClientsHung,
    ClientsSwallowed,
    GatewayKilled,
    GatewayTerminated,
    Burst,
}

/// One fault: from when on at the earliest, and how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) kind: Kind,
    pub(crate) effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    Line(Line),
    Terminate(Victims),
    /// PostgreSQL ends in this way, and is away for as long as the fault lasts.
    Postgres(Halt),
    GatewayKilled,
    GatewayTerminated,
    /// So many changes as fast as possible.
    Burst(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Line {
    Cut(Cut),
    Flow(Way, Flow),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victims {
    Feed,
    AllOfTheGateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    Fast,
    Immediate,
    Kill,
}

impl Side {
    fn kinds(self) -> Vec<Kind> {
        use Kind::*;
        // Twice what is most likely to find something.
        match self {
            Self::Database => vec![
                DatabaseCut,
                DatabaseCut,
                DatabaseClosed,
                DatabaseDelayed,
                DatabaseThrottled,
                DatabaseHung,
                DatabaseSwallowed,
                FeedTerminated,
                FeedTerminated,
                SessionsTerminated,
                PostgresStopped,
                PostgresStoppedImmediately,
                PostgresKilled,
            ],
            Self::Clients => vec![
                ClientsCut,
                ClientsClosed,
                ClientsDelayed,
                ClientsThrottled,
                ClientsHung,
                ClientsSwallowed,
                GatewayKilled,
                GatewayKilled,
                GatewayTerminated,
                GatewayTerminated,
                Burst,
                Burst,
            ],
        }
    }
}

/// The faults of one side, in order. None begins after `until`.
pub(crate) fn faults(seed: u64, side: Side, until: Duration) -> Vec<Fault> {
    let mut random = stream(seed, side as u64);
    let mut deck = Vec::new();
    let mut faults = Vec::new();
    let mut at = RUN_UP;
    loop {
        at += random.random_range(PAUSE.0..PAUSE.1);
        if at >= until {
            return faults;
        }
        // As with a deck of cards, everything comes up before anything comes up again.
        if deck.is_empty() {
            deck = side.kinds();
            deck.shuffle(&mut random);
        }
        let Some(kind) = deck.pop() else {
            return faults;
        };
        let (lasts, effect) = draw(kind, &mut random);
        faults.push(Fault {
            at,
            lasts,
            kind,
            effect,
        });
        at += lasts;
    }
}

/// Everybody who draws has a stream of its own: who draws more often does not change what the others get.
pub(crate) fn stream(seed: u64, who: u64) -> StdRng {
    StdRng::seed_from_u64(seed.rotate_left(32) ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn draw(kind: Kind, random: &mut StdRng) -> (Duration, Effect) {
    let short = millis(random, 0..1_500);
    let long = millis(random, 500..8_000);
    // Now and then longer than any time limit that the gateway has for an answer.
    let longer = if random.random_bool(0.15) {
        long + Duration::from_secs(15)
    } else {
        long
    };
    let way = [Way::Both, Way::ToServer, Way::ToClient][random.random_range(0..3)];
    let delay = Flow::Delayed {
        by: millis(random, 1..150),
        jitter: millis(random, 0..100),
    };
    let (slow, slower) = (
        random.random_range(20_000..400_000),
        random.random_range(5_000..100_000),
    );
    let throttled = |bytes_per_second| Flow::Throttled { bytes_per_second };
    let flow = |flow| Effect::Line(Line::Flow(way, flow));
    let cut = |how| Effect::Line(Line::Cut(how));
    match kind {
        Kind::DatabaseCut | Kind::ClientsCut => (short, cut(Cut::Reset)),
        Kind::DatabaseClosed | Kind::ClientsClosed => (short, cut(Cut::Close)),
        Kind::DatabaseDelayed | Kind::ClientsDelayed => (long, flow(delay)),
        Kind::DatabaseThrottled => (long, flow(throttled(slow))),
        Kind::ClientsThrottled => (long, flow(throttled(slower))),
        Kind::DatabaseHung | Kind::ClientsHung => (longer, flow(Flow::Hung)),
        Kind::DatabaseSwallowed | Kind::ClientsSwallowed => (longer, flow(Flow::Swallowed)),
        Kind::FeedTerminated => (Duration::ZERO, Effect::Terminate(Victims::Feed)),
        Kind::SessionsTerminated => (Duration::ZERO, Effect::Terminate(Victims::AllOfTheGateway)),
        Kind::PostgresStopped => (short, Effect::Postgres(Halt::Fast)),
        Kind::PostgresStoppedImmediately => (short, Effect::Postgres(Halt::Immediate)),
        Kind::PostgresKilled => (short, Effect::Postgres(Halt::Kill)),
        Kind::GatewayKilled => (short, Effect::GatewayKilled),
        Kind::GatewayTerminated => (short, Effect::GatewayTerminated),
        Kind::Burst => (
            Duration::ZERO,
            Effect::Burst(random.random_range(300..3_000)),
        ),
    }
}

pub(crate) fn millis(random: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HALF_HOUR: Duration = Duration::from_secs(1800);

    #[test]
    fn the_seed_says_it_all() {
        for side in [Side::Database, Side::Clients] {
            let once = faults(7, side, HALF_HOUR);
            assert_eq!(once, faults(7, side, HALF_HOUR));
            assert_ne!(once, faults(8, side, HALF_HOUR));
            // A shorter run is the beginning of a longer one.
            let short = faults(7, side, HALF_HOUR / 2);
            assert!(!short.is_empty() && once.starts_with(&short));
        }
    }

    #[test]
    fn every_kind_of_fault_comes_up_and_they_do_not_overlap() {
        for side in [Side::Database, Side::Clients] {
            let faults = faults(1, side, HALF_HOUR);
            let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds, side.kinds().into_iter().collect());
            assert!(faults.is_sorted_by(|one, next| one.at + one.lasts + PAUSE.0 <= next.at));
            assert!(faults.iter().all(|fault| fault.at < HALF_HOUR));
        }
    }
}
