//! How much clients may ask for: counters, and what was set. No I/O; the time comes in from outside.
//!
//! Some limits hold for the whole process ([`Limits`]), some for a socket ([`SocketLimits`]) or a channel ([`ChannelLimits`]).
//! Each check that fails gives an [`Exceeded`], which has been counted and knows what its client is to be told. Where they belong:
//!
//! | when | call | if it fails |
//! |---|---|---|
//! | a handshake | [`Limits::handshake`] | 429, [`Exceeded::refuses_handshake`] |
//! | any frame of a client, before it is decoded | [`SocketLimits::message`] | close the socket, [`Exceeded::closes_socket`] |
//! | `phx_join`, before its token is verified | [`SocketLimits::join`] | an error reply with [`Exceeded::refuses_join`], then close the socket, [`Exceeded::closes_socket`] |
//! | a channel too many | [`Exceeded::Channels`] | an error reply with [`Exceeded::refuses_join`] |
//! | a broadcast or an unknown event on a joined channel | [`Limits::event`] | end the channel, [`Exceeded::ends_channel`]; nothing is passed on |
//! | its payload | [`Limits::payload`] | nothing is passed on; with `ack` the reply `payload_size_exceeded` |
//! | a presence message with an event | [`ChannelLimits::presence_call`] | end the channel, [`Exceeded::ends_channel`] |
//! | the payload of a track | [`Limits::payload`] | end the channel, [`Exceeded::ends_channel`] |
//! | what is tracked on its topic, and over its socket | [`Limits::presence_bytes`] | an error reply with [`Exceeded::refuses_track`] |
//! | a broadcast was handed to so many channels | [`Limits::events_delivered`] | cannot fail: whoever sends next pays |
//! | presence was handed to so many channels | [`Limits::presence_delivered`] | cannot fail |
//! | a broadcast from the database | [`Limits::event`] | it is dropped |
//! | a request that broadcasts, before its token | [`Limits::request`] | 429 [`TOO_MANY_REQUESTS`] |
//! | its messages | [`Limits::batch`] | 429, [`Exceeded::refuses_request`] |
//! | its answer | [`Limits::events_now`] | |
//!
//! Changes of tables are not limited: none is ever left out.

mod exceeded;
mod rolling;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

pub use exceeded::Exceeded;
pub use socket::{ChannelLimits, SocketLimits};

use crate::config::Settings;
use rolling::{Rolling, WINDOW};
use socket::Allowance;

/// The `message` of a 429 to a request that came when the limit was in force already.
pub const TOO_MANY_REQUESTS: &str = "Too many requests";

/// All limits of a gateway, and its counters.
#[derive(Debug)]
pub struct Limits {
    joins: Rate,
    events: Rate,
    presence: Rate,
    bytes: Rate,
    payload_bytes: usize,
    presence_bytes: usize,
    presence_calls: Option<u64>,
    socket_joins: Option<Allowance>,
    socket_messages: Option<Allowance>,
    socket_bytes: Option<Allowance>,
}

/// How fast events go, for the headers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsNow {
    /// A second, over the last minute: `x-rate-rolling`.
    pub rolling: u64,
    /// `x-rate-limit`.
    pub limit: u64,
}

impl EventsNow {
    /// `x-rate-limit-remaining`.
    pub fn remaining(self) -> u64 {
        self.limit.saturating_sub(self.rolling)
    }
}

impl Limits {
    pub fn new(settings: &Settings, now: Instant) -> Arc<Limits> {
        let limits = &settings.limits;
        let rate = |limit, exceeded| Rate::new(limit, exceeded, now);
        let (channels, message) = (settings.max_channels, settings.max_message_bytes);
        Arc::new(Limits {
            joins: rate(limits.joins_per_second, Exceeded::Joins),
            events: rate(limits.events_per_second, Exceeded::Events),
            presence: rate(limits.presence_events_per_second, Exceeded::PresenceEvents),
            bytes: rate(limits.bytes_per_second, Exceeded::Bytes),
            payload_bytes: limits.payload_bytes,
            presence_bytes: limits.presence_bytes,
            presence_calls: limits.presence_calls,
            socket_joins: limits
                .socket_joins_per_second
                .map(|limit| Allowance::joins(limit, channels)),
            socket_messages: limits
                .socket_messages_per_second
                .map(|limit| Allowance::messages(limit, channels)),
            socket_bytes: limits
                .socket_bytes_per_second
                .map(|limit| Allowance::bytes(limit, message)),
        })
    }

    /// The share of a socket that was opened now.
    pub fn socket(self: &Arc<Limits>, now: Instant) -> SocketLimits {
        SocketLimits::new(self.clone(), now)
    }

    /// Whether a new socket could join anything. Nothing is counted as a join.
    pub fn handshake(&self, now: Instant) -> Result<(), Exceeded> {
        self.joins.check(now)
    }

    /// A client's broadcast or unknown event, or a broadcast of the database.
    pub fn event(&self, now: Instant) -> Result<(), Exceeded> {
        self.bytes.check(now)?;
        self.events.take(1, now)
    }

    pub fn events_delivered(&self, channels: usize, now: Instant) {
        self.events.count(channels as u64, now);
    }

    /// A state or a diff counts once for each channel that gets it.
    pub fn presence_delivered(&self, channels: usize, now: Instant) {
        self.presence.count(channels as u64, now);
    }

    /// The payload of a broadcast or a track.
    pub fn payload(&self, bytes: usize) -> Result<(), Exceeded> {
        match bytes <= self.payload_bytes {
            true => Ok(()),
            false => Err(Exceeded::Payload.counted()),
        }
    }

    /// What is tracked on one topic, or over one socket.
    pub fn presence_bytes(&self, bytes: usize) -> Result<(), Exceeded> {
        match bytes <= self.presence_bytes {
            true => Ok(()),
            false => Err(Exceeded::PresenceBytes.counted()),
        }
    }

    /// Whether a request may broadcast at all.
    pub fn request(&self, now: Instant) -> Result<(), Exceeded> {
        self.events.check(now)
    }

    /// The messages of one request: all of them, or none.
    pub fn batch(&self, messages: usize, now: Instant) -> Result<(), Exceeded> {
        if let Some(EventsNow { rolling, limit }) = self.events_now(now)
            && rolling < limit
            && rolling.saturating_add(messages as u64) > limit
        {
            return Err(Exceeded::Batch.counted());
        }
        self.events.take(messages as u64, now)
    }

    /// None without a limit: then nobody counts.
    pub fn events_now(&self, now: Instant) -> Option<EventsNow> {
        let counted = self.events.counted.as_ref()?;
        Some(EventsNow {
            rolling: counted.rolling.rate(now),
            limit: counted.per_second,
        })
    }
}

/// A limit of the whole process, and how far it is used up.
#[derive(Debug)]
struct Rate {
    exceeded: Exceeded,
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted {
    per_second: u64,
    rolling: Rolling,
    begun: Instant,
    /// The minute, counted from one, in which the log was last told that the limit is in force.
    told: AtomicU64,
}

impl Rate {
    fn new(per_second: Option<u64>, exceeded: Exceeded, now: Instant) -> Rate {
        Rate {
            exceeded,
            counted: per_second.map(|per_second| Counted {
                per_second,
                rolling: Rolling::new(now),
                begun: now,
                told: AtomicU64::new(0),
            }),
        }
    }

    /// What cannot be refused any more.
    fn count(&self, amount: u64, now: Instant) {
        if let Some(counted) = &self.counted {
            counted.rolling.add(amount, now);
        }
    }

    /// Fails while the average is at the limit.
    fn check(&self, now: Instant) -> Result<(), Exceeded> {
        let Some(counted) = &self.counted else {
            return Ok(());
        };
        let most = counted.per_second.saturating_mul(WINDOW.as_secs());
        match counted.rolling.total(now) < most {
            true => Ok(()),
            false => {
                counted.tell(self.exceeded, now);
                Err(self.exceeded.counted())
            }
        }
    }

    /// What is refused is not counted, or somebody who does not stop would keep out everybody else for ever.
    fn take(&self, amount: u64, now: Instant) -> Result<(), Exceeded> {
        self.check(now)?;
        self.count(amount, now);
        Ok(())
    }
}

impl Counted {
    fn tell(&self, exceeded: Exceeded, now: Instant) {
        let minute = 1 + now.saturating_duration_since(self.begun).as_secs() / 60;
        if self.told.swap(minute, Ordering::Relaxed) != minute {
            tracing::warn!(
                setting = exceeded.setting(),
                limit = self.per_second,
                "clients are refused, since a limit of the whole gateway is in force: {exceeded}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Limits with these settings, and the settings.
    pub(super) fn limits(now: Instant, settings: &[(&str, &str)]) -> (Arc<Limits>, Settings) {
        let needed = [
            ("database_url", "postgres://nobody@127.0.0.1:1/none"),
            ("jwt_secret", "0123456789abcdef0123456789abcdef"),
        ];
        let settings = Settings::from_pairs(needed.into_iter().chain(settings.iter().copied()))
            .expect("valid settings");
        (Limits::new(&settings, now), settings)
    }

    #[test]
    fn a_burst_passes_and_a_limit_that_was_hit_holds_until_the_average_is_below() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_events_per_second", "10")]);
        let at = |seconds| begun + Duration::from_secs(seconds);
        for sent in 0..600 {
            assert_eq!(limits.event(at(1)), Ok(()), "{sent}");
        }
        // Who does not stop does not make it last longer.
        for seconds in 1..60 {
            assert_eq!(
                limits.event(at(seconds)),
                Err(Exceeded::Events),
                "{seconds}"
            );
        }
        assert_eq!(limits.event(at(61)), Ok(()));
    }

    #[test]
    fn deliveries_use_up_what_senders_may_send() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_events_per_second", "10")]);
        assert_eq!(limits.event(begun), Ok(()));
        limits.events_delivered(1000, begun);
        assert_eq!(limits.event(begun), Err(Exceeded::Events));
        assert_eq!(limits.request(begun), Err(Exceeded::Events));
        assert_eq!(limits.batch(1, begun), Err(Exceeded::Events));
        let now = limits.events_now(begun).expect("a limit");
        assert_eq!((now.rolling, now.limit, now.remaining()), (16, 10, 0));
        // Presence and joins are counted by themselves.
        let mut channel = ChannelLimits::default();
        assert_eq!(channel.presence_call(&limits, begun), Ok(()));
        assert_eq!(limits.socket(begun).join(begun), Ok(()));
        assert_eq!(limits.handshake(begun), Ok(()));
    }

    #[test]
    fn a_request_brings_no_more_messages_than_the_rate_leaves() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_events_per_second", "100")]);
        assert_eq!(limits.batch(101, begun), Err(Exceeded::Batch));
        assert_eq!(limits.batch(100, begun), Ok(()));
        limits.events_delivered(3000, begun);
        assert_eq!(limits.batch(50, begun), Err(Exceeded::Batch));
        assert_eq!(limits.batch(49, begun), Ok(()));
        assert_eq!(limits.events_now(begun).map(EventsNow::remaining), Some(48));
    }

    #[test]
    fn presence_has_a_limit_of_its_own() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_presence_events_per_second", "10")]);
        let mut channel = ChannelLimits::default();
        limits.presence_delivered(599, begun);
        assert_eq!(channel.presence_call(&limits, begun), Ok(()));
        assert_eq!(
            channel.presence_call(&limits, begun),
            Err(Exceeded::PresenceEvents)
        );
        assert_eq!(limits.event(begun), Ok(()));
    }

    #[test]
    fn joins_of_all_sockets_together_are_limited_and_handshakes_with_them() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_joins_per_second", "1")]);
        for joined in 0..60 {
            assert_eq!(limits.handshake(begun), Ok(()));
            assert_eq!(limits.socket(begun).join(begun), Ok(()), "{joined}");
        }
        assert_eq!(limits.socket(begun).join(begun), Err(Exceeded::Joins));
        assert_eq!(limits.handshake(begun), Err(Exceeded::Joins));
    }

    #[test]
    fn bytes_of_all_sockets_hold_up_what_is_sent_on() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_bytes_per_second", "1KiB")]);
        assert_eq!(limits.socket(begun).message(60 * 1024, begun), Ok(()));
        assert_eq!(limits.event(begun), Err(Exceeded::Bytes));
        // A heartbeat is still taken, on any socket.
        assert_eq!(limits.socket(begun).message(60, begun), Ok(()));
        assert_eq!(limits.event(begun + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn the_largest_payload_is_the_one_that_was_set() {
        let now = Instant::now();
        let (limits, _) = limits(now, &[("max_payload_bytes", "2KiB")]);
        assert_eq!(limits.payload(2048), Ok(()));
        assert_eq!(limits.payload(2049), Err(Exceeded::Payload));
    }

    #[test]
    fn by_default_nothing_of_the_whole_process_is_limited() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[]);
        limits.events_delivered(usize::MAX, begun);
        limits.presence_delivered(usize::MAX, begun);
        assert_eq!(limits.event(begun), Ok(()));
        assert_eq!(limits.batch(1_000_000, begun), Ok(()));
        assert_eq!(limits.request(begun), Ok(()));
        assert_eq!(limits.events_now(begun), None);
        assert_eq!(limits.handshake(begun), Ok(()));
        assert_eq!(limits.payload(3_000_500), Ok(()));
        assert_eq!(limits.payload(3_000_501), Err(Exceeded::Payload));
    }
}
