//! A channel that a connection has joined, or is joining.

use std::sync::Arc;

use protocol::{ClientMessage, Ref, UserBroadcast};

use crate::{
    admission::Wanted,
    auth::Verified,
    authorizer::Grant,
    hub::SubscriptionId,
    limits::ChannelLimits,
    private::Doubt,
    topics::{MemberId, TopicKey},
};

pub(super) struct Channel {
    /// As in the client's frames, with the leading `realtime:`.
    pub(super) topic: Arc<str>,
    pub(super) key: TopicKey,
    /// The join's `join_ref`, or its `ref` if that was null.
    pub(super) join_ref: Ref,
    /// The join's `join_ref` as it came, which its end repeats.
    pub(super) sent_join_ref: Ref,
    pub(super) wanted: Wanted,
    pub(super) token: Arc<str>,
    pub(super) verified: Verified,
    pub(super) member: MemberId,
    pub(super) subscription: Option<SubscriptionId>,
    /// It has had a subscription.
    pub(super) was_live: bool,
    pub(super) phase: Phase,
    /// While a new token is being asked about: the token of the subscription that is still live, and what it is good for. It
    /// ends the channel when it expires, whatever is pushed meanwhile.
    pub(super) live: Option<Box<(Arc<str>, Verified)>>,
    /// A token that came while another was being asked about.
    pub(super) next_token: Option<Box<ClientMessage>>,
    /// The newest question that was asked for this channel; an answer to an older one is void.
    pub(super) asked: u64,
    /// Why its bindings are not live, as it was told. It makes Python's client join again without leaving.
    pub(super) problem: Option<String>,
    /// What its token may receive. On a public channel everything.
    pub(super) read: Grant,
    /// What its token may send, and when that was asked, in seconds since 1970. None on a public channel, and if it is not known.
    pub(super) write: Option<(Grant, i64)>,
    /// While that is being asked: what is to be sent.
    pub(super) pending: Option<Queue>,
    /// The questions about its rights that are under way: one of each kind at most.
    pub(super) read_asked: Option<Asked>,
    pub(super) write_asked: Option<Asked>,
    /// A message is being stored, which must not be overtaken.
    pub(super) storing: bool,
    /// Presence is on: it was asked for, or it has tracked since.
    pub(super) presence: bool,
    /// How much it tracks, or has tried to.
    pub(super) tracked_bytes: usize,
    pub(super) limits: ChannelLimits,
}

/// A question that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) number: u64,
    /// Something has changed since: what it says in favour may be from before.
    pub(super) doubted: bool,
    /// How many messages were waiting when it was asked: for these its answer counts in any case.
    pub(super) covers: usize,
}

pub(super) enum Phase {
    Joining(Box<Joining>),
    Joined,
}

pub(super) struct Joining {
    /// The `ref` and the `join_ref` of the join, for its reply.
    pub(super) reference: Ref,
    pub(super) join_ref: Ref,
    /// The `join_ref` of the channel that this one replaces, which is closed after the reply.
    pub(super) replaces: Option<Ref>,
    /// What came for the channel meanwhile.
    pub(super) waiting: Queue,
    /// Rights may have been lost since they were asked for.
    pub(super) doubted: bool,
}

/// What waits until something is known.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: Vec<Waiting>,
    bytes: usize,
}

/// What may wait. More is dropped: no client sends so much before it has an answer.
const WAITING_MESSAGES: usize = 256;
const WAITING_BYTES: usize = 1 << 20;
/// On all channels of a socket together.
const SOCKET_BYTES: usize = 8 << 20;

impl Queue {
    /// What had its place before.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.bytes += waiting.size();
        self.waiting.push(waiting);
    }

    /// `others`: the bytes that wait on the other channels of the socket. If nothing waits, one message has its place, however large
    /// it is. What has none is given back.
    pub(super) fn push(&mut self, waiting: Waiting, others: usize) -> Option<Waiting> {
        let bytes = self.bytes + waiting.size();
        let fits = self.waiting.len() < WAITING_MESSAGES
            && (bytes <= WAITING_BYTES || self.waiting.is_empty())
            && (others + bytes <= SOCKET_BYTES || others + self.bytes == 0);
        if !fits {
            return Some(waiting);
        }
        self.put_back(waiting);
        None
    }
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
            .map_or(i64::MAX, |live| live.1.expires_at);
        self.verified.expires_at.min(live)
    }

    /// Whether the database decides about it.
    pub(super) fn must_ask(&self) -> bool {
        self.key.private || !self.wanted.config.bindings.is_empty()
    }

    /// The bytes that wait on it.
    pub(super) fn waiting_bytes(&self) -> usize {
        let joining = match &self.phase {
            Phase::Joining(joining) => joining.waiting.bytes,
            Phase::Joined => 0,
        };
        joining + self.pending.as_ref().map_or(0, |pending| pending.bytes)
    }

    /// What it receives.
    pub(super) fn reads(&self) -> Grant {
        Grant {
            broadcast: self.read.broadcast,
            presence: self.read.presence && (self.presence || !self.key.private),
        }
    }

    /// Whether a doubt may concern its rights.
    pub(super) fn is_named(&self, doubt: &Doubt) -> bool {
        let Doubt::Named(names) = doubt else {
            return true;
        };
        let topic = &*self.key.sub_topic;
        let mut parts = topic.split([':', '/', '.']);
        names.contains(topic)
            || names.contains(&*self.verified.principal.subject)
            || parts.any(|part| names.contains(part))
    }

    /// The tokens on which it rests.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (&str, &Verified)> {
        let live = self.live.iter().map(|live| (&*live.0, &live.1));
        live.chain([(&*self.token, &self.verified)])
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
