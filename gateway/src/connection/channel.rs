//! A channel that a connection has joined, or is joining.

use std::sync::Arc;

use protocol::{ClientMessage, Ref, UserBroadcast};

use crate::{
    admission::Wanted,
    auth::Verified,
    hub::SubscriptionId,
    topics::{MemberId, TopicKey},
};

pub(super) struct Channel {
    /// As in the client's frames, with the leading `realtime:`.
    pub(super) topic: Arc<str>,
    pub(super) key: TopicKey,
    /// The join's `join_ref`, or its `ref` if that was null.
    pub(super) join_ref: Ref,
    pub(super) wanted: Wanted,
    pub(super) token: String,
    pub(super) verified: Verified,
    pub(super) member: MemberId,
    pub(super) subscription: Option<SubscriptionId>,
    pub(super) phase: Phase,
    /// The newest question that was asked for this channel; an answer to an older one is void.
    pub(super) asked: u64,
    /// Why its bindings are not live, as it was told. It makes Python's client join again without leaving.
    pub(super) problem: Option<String>,
}

pub(super) enum Phase {
    Joining(Joining),
    Joined,
}

pub(super) struct Joining {
    /// The `ref` and the `join_ref` of the join, for its reply.
    pub(super) reference: Ref,
    pub(super) join_ref: Ref,
    /// The `join_ref` of the channel that this one replaces, which is closed after the reply.
    pub(super) replaces: Option<Ref>,
    /// What came for the channel meanwhile.
    pub(super) waiting: Vec<Waiting>,
    pub(super) waiting_bytes: usize,
}

pub(super) enum Waiting {
    Message(ClientMessage),
    Broadcast(UserBroadcast),
}

impl Waiting {
    pub(super) fn size(&self) -> usize {
        match self {
            Waiting::Message(message) => message.payload.get().len(),
            Waiting::Broadcast(broadcast) => broadcast.payload.len(),
        }
    }
}
