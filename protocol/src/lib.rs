//! The Supabase Realtime wire protocol: every frame, both ways.
//!
//! This crate names what travels over the socket, decodes what clients send and writes what they are sent. It does no I/O,
//! reads no clock and needs no runtime, so the gateway and the load test share it. Whatever bytes come in, decoding
//! answers with a value or a [`Malformed`]; it never panics and never recurses.

mod binary;
mod binding;
pub mod broadcast;
mod change;
pub mod close;
mod filter;
mod join;
pub mod json;
mod list;
mod message;
pub mod presence;
mod reply;
pub mod resume;
mod system;
mod topic;
mod version;

pub use binary::{ClientFrame, Encoding, UserBroadcast, decode_binary, encode_user_broadcast};
pub use binding::{
    Binding, BindingRefusal, EventKind, Field, MAX_BINDINGS, Select, Target, assign_ids,
};
pub use change::{ChangeData, encode_bare_change, encode_change};
pub use filter::{Condition, FilterError, Operator, describe_params, parse_filter};
pub use join::{
    BroadcastConfig, Config, Join, PresenceConfig, Replay, join_reply, parse_access_token,
    parse_join, parse_join_to,
};
pub use json::MAX_DEPTH;
pub use message::{ClientMessage, Malformed, Ref, decode_text, encode};
pub use presence::PresencePush;
pub use reply::{
    CHANNEL_CRASH, Refusal, TOO_MUCH_WAITS, empty_error_reply, error_reply, error_text_reply,
    no_write_right, ok_reply,
};
pub use system::{
    REPLICATION_READY, SERVER_DISCONNECT, SUBSCRIBED, ends, extension, system, system_with_cursor,
};
pub use topic::{HEARTBEAT_TOPIC, TOPIC_PREFIX, event, sub_topic};
pub use version::Version;
