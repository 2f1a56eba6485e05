//! What one socket, and one channel of it, may do. Each belongs to one task, so there is nothing to share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Exceeded, Limits};

/// For how long what a socket has not used is kept for it: people do things in bursts.
const BURST_SECONDS: f64 = 10.0;
/// A message of the greatest length may come this often at once, however low the limit of bytes is.
const LONGEST_MESSAGES: usize = 2;
/// A client that comes back joins all its channels at once, and may have to do so again soon.
const REJOINS: usize = 2;
const PRESENCE_WINDOW: Duration = Duration::from_secs(30);

/// How fast something may go on, and how much of it may come at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    per_second: f64,
    at_once: f64,
}

impl Allowance {
    fn new(per_second: u64, at_least: usize) -> Allowance {
        let per_second = per_second as f64;
        Allowance {
            per_second,
            at_once: (per_second * BURST_SECONDS).max(at_least as f64),
        }
    }

    pub(super) fn joins(per_second: u64, max_channels: usize) -> Allowance {
        Allowance::new(per_second, max_channels.saturating_mul(REJOINS))
    }

    pub(super) fn messages(per_second: u64, max_channels: usize) -> Allowance {
        Allowance::new(per_second, max_channels.saturating_mul(REJOINS))
    }

    pub(super) fn bytes(per_second: u64, max_message_bytes: usize) -> Allowance {
        Allowance::new(
            per_second,
            max_message_bytes.saturating_mul(LONGEST_MESSAGES),
        )
    }
}

/// What was used of an allowance and has not been forgotten yet.
#[derive(Debug, Clone, Copy)]
struct Used {
    amount: f64,
    at: Instant,
}

impl Used {
    fn nothing(now: Instant) -> Used {
        Used {
            amount: 0.0,
            at: now,
        }
    }

    /// Takes all of this amount, or nothing.
    fn take(&mut self, amount: usize, allowance: Option<Allowance>, now: Instant) -> bool {
        let Some(allowance) = allowance else {
            return true;
        };
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.amount = (self.amount - since * allowance.per_second).max(0.0);
        self.at = self.at.max(now);
        let after = self.amount + amount as f64;
        let fits = after <= allowance.at_once;
        if fits {
            self.amount = after;
        }
        fits
    }
}

/// One socket's share, so that a client that floods is cut off before it uses up everybody's.
#[derive(Debug)]
pub struct SocketLimits {
    all: Arc<Limits>,
    messages: Used,
    bytes: Used,
    joins: Used,
}

impl SocketLimits {
    pub(super) fn new(all: Arc<Limits>, now: Instant) -> SocketLimits {
        SocketLimits {
            all,
            messages: Used::nothing(now),
            bytes: Used::nothing(now),
            joins: Used::nothing(now),
        }
    }

    /// Those of the whole process.
    pub fn all(&self) -> &Limits {
        &self.all
    }

    /// A frame has come from the client, whatever it is: a ping, too. If it is too much the socket is to be closed.
    pub fn message(&mut self, bytes: usize, now: Instant) -> Result<(), Exceeded> {
        let all = &*self.all;
        all.bytes.count(bytes as u64, now);
        if !self.messages.take(1, all.socket_messages, now) {
            return Err(Exceeded::SocketMessages.counted());
        }
        if !self.bytes.take(bytes, all.socket_bytes, now) {
            return Err(Exceeded::SocketBytes.counted());
        }
        Ok(())
    }

    /// The client asks to join a channel: before anything is verified or asked for it.
    pub fn join(&mut self, now: Instant) -> Result<(), Exceeded> {
        if !self.joins.take(1, self.all.socket_joins, now) {
            return Err(Exceeded::SocketJoins.counted());
        }
        self.all.joins.take(1, now)
    }
}

/// What one channel of a socket may do.
#[derive(Debug, Default)]
pub struct ChannelLimits {
    window: Option<Instant>,
    calls: u64,
}

impl ChannelLimits {
    /// The client tracks, untracks, or sends another presence message that has an event.
    pub fn presence_call(&mut self, all: &Limits, now: Instant) -> Result<(), Exceeded> {
        if let Some(most) = all.presence_calls {
            let over = self
                .window
                .is_none_or(|begun| now.saturating_duration_since(begun) >= PRESENCE_WINDOW);
            if over {
                *self = ChannelLimits {
                    window: Some(now),
                    calls: 0,
                };
            }
            if self.calls >= most {
                return Err(Exceeded::PresenceCalls.counted());
            }
            self.calls += 1;
        }
        all.presence.take(1, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::limits;
    use super::*;

    fn accepted(times: usize, mut attempt: impl FnMut() -> Result<(), Exceeded>) -> usize {
        (0..times).take_while(|_| attempt().is_ok()).count()
    }

    #[test]
    fn a_socket_may_send_in_bursts_and_floods_are_too_much() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_socket_messages_per_second", "50")]);
        let mut socket = limits.socket(begun);
        assert_eq!(accepted(10_000, || socket.message(10, begun)), 500);
        assert_eq!(socket.message(10, begun), Err(Exceeded::SocketMessages));
        // As much again as time goes by, and no more than a burst.
        let later = begun + Duration::from_secs(2);
        assert_eq!(accepted(10_000, || socket.message(10, later)), 100);
        let much_later = begun + Duration::from_secs(3600);
        assert_eq!(accepted(10_000, || socket.message(10, much_later)), 500);
        // A clock that was read before does not count twice.
        assert_eq!(socket.message(10, begun), Err(Exceeded::SocketMessages));
        // Others have their own.
        assert_eq!(limits.socket(begun).message(10, begun), Ok(()));
    }

    #[test]
    fn a_steady_sender_below_the_limit_is_never_refused() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_socket_messages_per_second", "50")]);
        let mut socket = limits.socket(begun);
        for tick in 0..50 * 600 {
            let now = begun + Duration::from_millis(20 * tick);
            assert_eq!(socket.message(100, now), Ok(()), "{tick}");
        }
    }

    #[test]
    fn a_message_of_the_greatest_length_always_fits_once() {
        let begun = Instant::now();
        let (limits, settings) = limits(begun, &[("max_socket_bytes_per_second", "1KiB")]);
        let mut socket = limits.socket(begun);
        let longest = settings.max_message_bytes;
        assert_eq!(accepted(10, || socket.message(longest, begun)), 2);
        assert_eq!(socket.message(longest, begun), Err(Exceeded::SocketBytes));
    }

    #[test]
    fn all_channels_may_be_joined_at_once_and_joining_in_a_loop_ends() {
        let begun = Instant::now();
        let (limits, settings) = limits(begun, &[("max_socket_joins_per_second", "5")]);
        let mut socket = limits.socket(begun);
        let most = 2 * settings.max_channels;
        assert_eq!(accepted(10_000, || socket.join(begun)), most);
        assert_eq!(socket.join(begun), Err(Exceeded::SocketJoins));
        let later = begun + Duration::from_secs(1);
        assert_eq!(accepted(10_000, || socket.join(later)), 5);
    }

    #[test]
    fn presence_calls_are_counted_for_each_channel_in_windows_of_thirty_seconds() {
        let begun = Instant::now();
        let (limits, _) = limits(begun, &[("max_presence_calls", "5")]);
        let mut channel = ChannelLimits::default();
        assert_eq!(accepted(10, || channel.presence_call(&limits, begun)), 5);
        let almost = begun + Duration::from_millis(29_999);
        assert_eq!(
            channel.presence_call(&limits, almost),
            Err(Exceeded::PresenceCalls)
        );
        assert_eq!(
            ChannelLimits::default().presence_call(&limits, almost),
            Ok(())
        );
        let later = begun + Duration::from_secs(30);
        assert_eq!(accepted(10, || channel.presence_call(&limits, later)), 5);
    }

    #[test]
    fn what_is_not_limited_is_not_refused() {
        let begun = Instant::now();
        let (limits, _) = limits(
            begun,
            &[
                ("max_socket_messages_per_second", "0"),
                ("max_socket_bytes_per_second", "none"),
                ("max_socket_joins_per_second", "0"),
                ("max_presence_calls", "0"),
            ],
        );
        let (mut socket, mut channel) = (limits.socket(begun), ChannelLimits::default());
        assert_eq!(
            accepted(100_000, || socket.message(5_000_000, begun)),
            100_000
        );
        assert_eq!(accepted(100_000, || socket.join(begun)), 100_000);
        assert_eq!(
            accepted(100_000, || channel.presence_call(&limits, begun)),
            100_000
        );
    }
}
