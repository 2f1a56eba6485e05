//! The settings that say how much clients may ask for. `docs/limits.md` says what becomes of those who ask for more.

use super::parse;
use super::sources::Reader;

/// None means that there is no limit.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    pub joins_per_second: Option<u64>,
    pub events_per_second: Option<u64>,
    pub presence_events_per_second: Option<u64>,
    pub bytes_per_second: Option<u64>,
    /// Within thirty seconds, on one channel.
    pub presence_calls: Option<u64>,
    pub payload_bytes: usize,
    /// What is tracked on one topic, and over one socket.
    pub presence_bytes: usize,
    pub socket_joins_per_second: Option<u64>,
    pub socket_messages_per_second: Option<u64>,
    pub socket_bytes_per_second: Option<u64>,
}

impl LimitSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> LimitSettings {
        let mut limit = |name| reader.value(name, parse::limit).flatten();
        LimitSettings {
            joins_per_second: limit("max_joins_per_second"),
            events_per_second: limit("max_events_per_second"),
            presence_events_per_second: limit("max_presence_events_per_second"),
            bytes_per_second: limit("max_bytes_per_second"),
            presence_calls: limit("max_presence_calls"),
            socket_joins_per_second: limit("max_socket_joins_per_second"),
            socket_messages_per_second: limit("max_socket_messages_per_second"),
            socket_bytes_per_second: limit("max_socket_bytes_per_second"),
            payload_bytes: reader.size("max_payload_bytes"),
            presence_bytes: reader.size("max_presence_bytes"),
        }
    }
}
