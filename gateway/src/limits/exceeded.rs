//! Which limit was hit, and what its client is told: the one place that knows.

use protocol::{Refusal, close, ends};

use crate::metrics::names;

/// A limit that was hit. `docs/limits.md` has a line for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("too many sockets are open")]
    Connections,
    #[error("there are too many joins a second")]
    Joins,
    #[error("this socket has too many channels")]
    Channels,
    #[error("there are too many messages a second")]
    Events,
    /// The messages of one HTTP request, together with what was sent lately.
    #[error("there are too many messages in this request")]
    Batch,
    #[error("there are too many presence messages a second")]
    PresenceEvents,
    #[error("clients send too many bytes a second")]
    Bytes,
    #[error("this channel calls presence too often")]
    PresenceCalls,
    #[error("the payload is too large")]
    Payload,
    #[error("too much presence is tracked")]
    PresenceBytes,
    #[error("this socket joins too often")]
    SocketJoins,
    #[error("this socket sends too many messages a second")]
    SocketMessages,
    #[error("this socket sends too many bytes a second")]
    SocketBytes,
}

impl Exceeded {
    #[cfg(test)]
    pub(super) const ALL: [Exceeded; 13] = [
        Exceeded::Connections,
        Exceeded::Joins,
        Exceeded::Channels,
        Exceeded::Events,
        Exceeded::Batch,
        Exceeded::PresenceEvents,
        Exceeded::Bytes,
        Exceeded::PresenceCalls,
        Exceeded::Payload,
        Exceeded::PresenceBytes,
        Exceeded::SocketJoins,
        Exceeded::SocketMessages,
        Exceeded::SocketBytes,
    ];

    /// The setting that says how much would have been allowed. It is the metric's label, too.
    pub fn setting(self) -> &'static str {
        match self {
            Exceeded::Connections => "max_connections",
            Exceeded::Joins => "max_joins_per_second",
            Exceeded::Channels => "max_channels",
            Exceeded::Events | Exceeded::Batch => "max_events_per_second",
            Exceeded::PresenceEvents => "max_presence_events_per_second",
            Exceeded::Bytes => "max_bytes_per_second",
            Exceeded::PresenceCalls => "max_presence_calls",
            Exceeded::Payload => "max_payload_bytes",
            Exceeded::PresenceBytes => "max_presence_bytes",
            Exceeded::SocketJoins => "max_socket_joins_per_second",
            Exceeded::SocketMessages => "max_socket_messages_per_second",
            Exceeded::SocketBytes => "max_socket_bytes_per_second",
        }
    }

    /// The text of the `system` error after which the channel ends with a `phx_close`. For a payload that is that of a track;
    /// a broadcast is not passed on, and an acknowledgement says so.
    pub fn ends_channel(self) -> Option<&'static str> {
        match self {
            Exceeded::Events | Exceeded::Bytes => Some(ends::TOO_MANY_MESSAGES),
            Exceeded::PresenceEvents => Some(ends::TOO_MANY_PRESENCE_MESSAGES),
            Exceeded::PresenceCalls => Some(ends::CLIENT_PRESENCE_RATE),
            Exceeded::Payload => Some(ends::TRACK_TOO_LARGE),
            _ => None,
        }
    }

    /// The reason in the reply to a track.
    pub fn refuses_track(self) -> Option<&'static str> {
        match self {
            Exceeded::PresenceBytes => Some(protocol::presence::FULL),
            _ => None,
        }
    }

    /// The reason in the reply to a join.
    pub fn refuses_join(self) -> Option<Refusal> {
        match self {
            Exceeded::Joins | Exceeded::SocketJoins => Some(Refusal::TooManyJoins),
            Exceeded::Channels => Some(Refusal::TooManyChannels),
            _ => None,
        }
    }

    /// The code with which the socket is then closed; after the reply, where there is one.
    pub fn closes_socket(self) -> Option<u16> {
        match self {
            Exceeded::Joins | Exceeded::SocketJoins => Some(close::JOIN_RATE),
            Exceeded::SocketMessages | Exceeded::SocketBytes => Some(close::TOO_MUCH),
            _ => None,
        }
    }

    /// The `error` of a handshake that is refused with 429.
    pub fn refuses_handshake(self) -> Option<&'static str> {
        match self {
            Exceeded::Connections => Some("Too many connected users"),
            Exceeded::Joins => Some("Too many joins per second"),
            _ => None,
        }
    }

    /// The `message` of an HTTP request that is refused with 429, once its token was looked at.
    pub fn refuses_request(self) -> Option<&'static str> {
        match self {
            Exceeded::Events => Some("You have exceeded your rate limit"),
            Exceeded::Batch => Some("Too many messages to broadcast, please reduce the batch size"),
            _ => None,
        }
    }

    /// Counts it. What is decided in this module is counted already.
    pub fn counted(self) -> Exceeded {
        metrics::counter!(names::LIMITS_HIT, "limit" => self.setting()).increment(1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table;

    #[test]
    fn every_limit_is_a_setting_and_is_described() {
        let page = include_str!("../../../docs/limits.md");
        for exceeded in Exceeded::ALL {
            let name = exceeded.setting();
            assert!(table::find(name).is_some(), "{name} is no setting");
            let line = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")))
                .unwrap_or_else(|| panic!("docs/limits.md has no line for {name}"));
            if let Some(table::Default::Value(default)) =
                table::find(name).map(|setting| setting.default)
            {
                assert!(
                    line.contains(&format!("| `{default}` |")),
                    "{line}: {default}"
                );
            }
            let answers = [
                exceeded.ends_channel(),
                exceeded.refuses_track(),
                exceeded.refuses_handshake(),
                exceeded.refuses_request(),
            ];
            for answer in answers.into_iter().flatten() {
                assert!(line.contains(answer), "{line}: {answer}");
            }
            if let Some(refusal) = exceeded.refuses_join() {
                assert!(line.contains(&refusal.to_string()), "{line}: {refusal}");
            }
            if let Some(code) = exceeded.closes_socket() {
                assert!(line.contains(&code.to_string()), "{line}: {code}");
            }
        }
    }

    #[test]
    fn everybody_who_is_refused_is_told() {
        for exceeded in Exceeded::ALL {
            let told = exceeded.refuses_handshake().is_some()
                || exceeded.ends_channel().is_some()
                || exceeded.refuses_join().is_some()
                || exceeded.refuses_track().is_some()
                || exceeded.closes_socket().is_some()
                || exceeded.refuses_request().is_some();
            assert!(told, "{exceeded:?}");
        }
    }
}
