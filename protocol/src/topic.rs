//! Topic and event names.

use crate::reply::Refusal;

/// What every channel's topic begins with; the rest is the sub-topic.
pub const TOPIC_PREFIX: &str = "realtime:";

/// The topic of heartbeats, which is no channel.
pub const HEARTBEAT_TOPIC: &str = "phoenix";

/// The sub-topic of a channel's topic, or the reason to refuse a join to it.
pub fn sub_topic(topic: &str) -> Result<&str, Refusal> {
    match topic.strip_prefix(TOPIC_PREFIX) {
        None => Err(Refusal::UnmatchedTopic),
        Some("") => Err(Refusal::TopicNameRequired),
        Some(sub_topic) => Ok(sub_topic),
    }
}

/// The events of messages.
pub mod event {
    pub const JOIN: &str = "phx_join";
    pub const LEAVE: &str = "phx_leave";
    pub const REPLY: &str = "phx_reply";
    pub const CLOSE: &str = "phx_close";
    pub const ERROR: &str = "phx_error";
    pub const HEARTBEAT: &str = "heartbeat";
    pub const ACCESS_TOKEN: &str = "access_token";
    pub const SYSTEM: &str = "system";
    pub const POSTGRES_CHANGES: &str = "postgres_changes";
    pub const BROADCAST: &str = "broadcast";
    pub const PRESENCE: &str = "presence";
    pub const PRESENCE_STATE: &str = "presence_state";
    pub const PRESENCE_DIFF: &str = "presence_diff";
}
