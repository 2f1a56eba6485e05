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
    /// It has had a subscription.
    pub(super) was_live: bool,
    pub(super) phase: Phase,
    /// While a new token is being asked about: the token of the subscription that is still live, and what it is good for. It
    /// ends the channel when it expires, whatever is pushed meanwhile.
    pub(super) live: Option<(String, Verified)>,
    /// A token that came while another was being asked about.
    pub(super) next_token: Option<ClientMessage>,
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

impl Channel {
    /// When it ends by itself.
    pub(super) fn expires_at(&self) -> i64 {
        let live = self
            .live
            .as_ref()
            .map_or(i64::MAX, |(_, live)| live.expires_at);
        self.verified.expires_at.min(live)
    }

    /// The tokens on which it rests.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (&str, &Verified)> {
        let live = self
            .live
            .iter()
            .map(|(token, verified)| (token.as_str(), verified));
        live.chain([(self.token.as_str(), &self.verified)])
    }
}

impl Waiting {
    pub(super) fn size(&self) -> usize {
        match self {
            Waiting::Message(message) => {
                message.payload.get().len() + message.topic.len() + message.event.len()
            }
            Waiting::Broadcast(broadcast) => {
                broadcast.payload.len() + broadcast.topic.len() + broadcast.event.len()
            }
        }
    }
}
