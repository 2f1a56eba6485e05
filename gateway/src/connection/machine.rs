//! What a connection does about each message: decisions only, no I/O and no clock.
//!
//! A message goes in with the present time, and [`Effect`]s come out, to be carried out in their order. [`join`] holds how a channel
//! comes to be and keeps its rights, [`push`] what happens on one that is joined; this module how they end.

mod join;
mod private;
mod push;

use std::{collections::HashMap, sync::Arc, time::Duration};

use protocol::{
    ClientMessage, HEARTBEAT_TOPIC, PresencePush, Ref, Refusal, SUBSCRIBED, UserBroadcast, Version,
    ends, event, extension,
};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::channel::{Asked, Channel, Joining, Phase, Queue, Waiting};
use crate::{
    admission::{Outcome, Wanted},
    auth::{Principal, TokenError, Verified, Verifier, Whom},
    authorizer::{Asker, Grant, Right},
    config::UnauthorizedJoin,
    hub::{Announcement, BoundBinding, SubscriptionId},
    limits::{Exceeded, SocketLimits},
    topics::{MemberId, TopicKey},
};

/// Something to be done.
pub(super) enum Effect {
    Send(String),
    /// Ask the token's issuer for its key, then hand the message in again with [`Machine::learned`].
    Learn {
        token: String,
        message: ClientMessage,
        asked: u64,
    },
    /// Ask whether these bindings may be; the answer comes back to [`Machine::authorized`].
    Authorize(Question),
    Subscribe(Subscribe),
    Unsubscribe(SubscriptionId),
    Enter {
        key: TopicKey,
        id: MemberId,
        entrance: Entrance,
    },
    Leave {
        key: TopicKey,
        id: MemberId,
    },
    /// A member's rights are others now.
    Allow {
        key: TopicKey,
        id: MemberId,
        reads: Grant,
    },
    /// The answer comes back to [`Machine::rights`].
    AskRights(RightsQuestion),
    /// Store this broadcast; [`Machine::stored`] hears of it.
    Store {
        told: Told,
        asker: Asker,
        broadcast: UserBroadcast,
        keep: Option<Duration>,
    },
    /// Tell [`Machine::replicated`] when messages from the database arrive.
    AwaitFeed {
        topic: Arc<str>,
        member: MemberId,
    },
    Broadcast {
        key: TopicKey,
        id: MemberId,
        payload: Box<RawValue>,
    },
    BroadcastUser {
        key: TopicKey,
        id: MemberId,
        broadcast: UserBroadcast,
    },
    /// Then send one of these answers.
    Track {
        key: TopicKey,
        id: MemberId,
        payload: Box<RawValue>,
        tracked: String,
        full: String,
    },
    Untrack {
        key: TopicKey,
        id: MemberId,
    },
    /// A join was answered, with this result.
    Joined(&'static str),
    /// The socket ends, when all before this has been written.
    Close(Exceeded),
}

pub(super) struct Question {
    pub(super) topic: Arc<str>,
    pub(super) asked: u64,
    pub(super) principal: Arc<Principal>,
    pub(super) wanted: Wanted,
    /// There is no subscription yet: it may start in the past.
    pub(super) first: bool,
    /// The channel is private: what may it receive?
    pub(super) private: Option<Asker>,
    /// What was sent before: since when, in milliseconds since 1970, and how many messages.
    pub(super) replay: Option<(i64, i64)>,
}

pub(super) struct RightsQuestion {
    pub(super) topic: Arc<str>,
    pub(super) asked: u64,
    pub(super) asker: Asker,
    pub(super) right: Right,
}

/// Who is told what became of a message.
pub(super) struct Told {
    pub(super) topic: Arc<str>,
    pub(super) member: MemberId,
    pub(super) join_ref: Ref,
    pub(super) reference: Ref,
    pub(super) ack: bool,
}

pub(super) struct Subscribe {
    pub(super) id: SubscriptionId,
    pub(super) topic: Arc<str>,
    pub(super) bindings: Vec<BoundBinding>,
    pub(super) principal: Arc<Principal>,
    pub(super) wanted: Wanted,
    pub(super) replaced: Option<SubscriptionId>,
    pub(super) greeting: Vec<String>,
    pub(super) live: Announcement,
}

pub(super) struct Entrance {
    pub(super) topic: Arc<str>,
    pub(super) join_ref: Ref,
    pub(super) self_send: bool,
    pub(super) presence_enabled: bool,
    pub(super) presence_key: Arc<str>,
    pub(super) reads: Grant,
}

/// The present time, for tokens and for limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Seconds since 1970.
    pub(super) unix: i64,
    pub(super) instant: Instant,
}

/// What an operator has set.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) max_channels: usize,
    pub(super) unauthorized_join: UnauthorizedJoin,
    pub(super) presence_default: bool,
    /// Public channels are refused.
    pub(super) private_only: bool,
    /// How old the answer to a question about rights may become.
    pub(super) recheck: Duration,
}

pub(super) struct Machine<'a> {
    version: Version,
    /// The token of the connect.
    token: Arc<str>,
    /// The `x-…` headers of the connect, as a JSON object.
    headers: Arc<str>,
    verifier: &'a Verifier,
    limits: SocketLimits,
    rules: Rules,
    /// Boxed, because a map has room for four at least, and most sockets have one.
    channels: HashMap<Arc<str>, Box<Channel>>,
    questions: u64,
    /// Topics for which a message waits until its token's key is known, with the question's number.
    learning: HashMap<String, u64>,
    effects: Vec<Effect>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        version: Version,
        token: Arc<str>,
        headers: Arc<str>,
        verifier: &'a Verifier,
        limits: SocketLimits,
        rules: Rules,
    ) -> Machine<'a> {
        Machine {
            version,
            token,
            headers,
            verifier,
            limits,
            rules,
            channels: HashMap::new(),
            questions: 0,
            learning: HashMap::new(),
            effects: Vec::new(),
        }
    }

    /// A frame has come, of whatever kind.
    pub(super) fn count(&mut self, bytes: usize, now: Instant) -> Result<(), Exceeded> {
        self.limits.message(bytes, now)
    }

    /// What is to be done since the last call.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn message(&mut self, message: ClientMessage, now: Now) {
        match (&*message.topic, &*message.event) {
            (HEARTBEAT_TOPIC, event::HEARTBEAT) => {
                self.reply(
                    &Ref::NULL,
                    &message.reference,
                    &message.topic,
                    protocol::ok_reply(),
                );
            }
            (_, event::JOIN) => self.join(message, now, true),
            (_, event::LEAVE) => self.leave(&message),
            _ => self.push(message, now),
        }
    }

    /// Ends the channels whose token is not trusted any more.
    pub(super) fn revalidate(&mut self) {
        let lost: Vec<_> = self
            .joined()
            .filter_map(|channel| {
                let error = channel
                    .tokens()
                    .find_map(|(token, _)| self.verifier.trust(token).err())?;
                Some((channel.topic.clone(), join::ended_by(error)))
            })
            .collect();
        for (topic, why) in lost {
            self.end(&topic, &why);
        }
    }

    /// The answer to a question. One that nobody waits for any more is void.
    /// `read`: what it may receive, or why it is refused.
    pub(super) fn authorized(
        &mut self,
        topic: &str,
        asked: u64,
        outcome: Outcome,
        read: Result<Grant, Refusal>,
        now: Now,
    ) {
        let Some(channel) = self
            .channels
            .get_mut(topic)
            .filter(|channel| channel.asked == asked)
        else {
            return;
        };
        match std::mem::replace(&mut channel.phase, Phase::Joined) {
            Phase::Joining(joining) => self.finish_join(topic, *joining, outcome, read, now),
            Phase::Joined => {
                channel.live = None;
                let next = channel.next_token.take();
                self.finish_renewal(topic, outcome, read);
                if let Some(next) = next {
                    self.renew(*next, now, true);
                }
            }
        }
    }

    /// When the next token expires.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.joined().map(Channel::expires_at).min()
    }

    /// Ends the channels whose token has expired.
    pub(super) fn expire(&mut self, now: Now) {
        let expired: Vec<_> = self
            .joined()
            .filter(|channel| channel.expires_at() <= now.unix)
            .map(|channel| (channel.topic.clone(), channel.expires_at()))
            .collect();
        for (topic, expires_at) in expired {
            self.end(&topic, &ends::token_expired(now.unix - expires_at));
        }
    }

    /// The hub has ended a subscription, because its principal may not have it any more.
    pub(super) fn revoked(&mut self, id: SubscriptionId) {
        if let Some((topic, sub_topic)) = self
            .subscribed(id)
            .map(|channel| (channel.topic.clone(), channel.key.sub_topic.clone()))
        {
            self.end(&topic, &ends::lost_read_right(&sub_topic));
        }
    }

    /// The hub has ended a subscription, because what it asks for exists no more. The channel lives on.
    pub(super) fn void(&mut self, id: SubscriptionId, reason: &str) {
        if let Some(topic) = self.subscribed(id).map(|channel| channel.topic.clone()) {
            self.void_channel(&topic, reason.to_owned());
        }
    }

    /// Whether an operator means somebody who uses this connection.
    pub(super) fn concerns(&self, whom: &Whom, now: Now) -> bool {
        self.channels.values().any(|channel| {
            channel
                .tokens()
                .any(|(_, verified)| whom.fits(&verified.principal))
        }) || self
            .verifier
            .verify(&self.token, now.unix)
            .is_ok_and(|verified| whom.fits(&verified.principal))
    }

    /// The hub's subscription cannot be given what it missed: the channel should be joined again.
    pub(super) fn failed(&mut self, id: SubscriptionId) {
        if let Some(topic) = self.subscribed(id).map(|channel| channel.topic.clone()) {
            self.crash(&topic);
        }
    }

    /// The channel cannot be given what was sent before: it should be joined again.
    pub(super) fn broken(&mut self, topic: &str) {
        self.crash(topic);
    }

    fn subscribed(&mut self, id: SubscriptionId) -> Option<&mut Channel> {
        self.channels
            .values_mut()
            .find(|channel| channel.subscription == Some(id))
            .map(|channel| &mut **channel)
    }

    /// Leaves everything: the socket is gone.
    pub(super) fn close(&mut self) {
        for (_, channel) in std::mem::take(&mut self.channels) {
            self.drop_channel(*channel);
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The bytes that wait on all channels but this one.
    fn waiting_elsewhere(&self, topic: &str) -> usize {
        let others = self
            .channels
            .values()
            .filter(|other| *other.topic != *topic);
        others.map(|channel| channel.waiting_bytes()).sum()
    }

    /// A channel that is still joining gets its reply first.
    fn joined(&self) -> impl Iterator<Item = &Channel> {
        self.channels
            .values()
            .map(|channel| &**channel)
            .filter(|channel| matches!(channel.phase, Phase::Joined))
    }

    fn leave(&mut self, message: &ClientMessage) {
        let ClientMessage {
            join_ref,
            reference,
            topic,
            ..
        } = message;
        // A join that still waits for its token's key is left, too.
        self.learning.remove(topic);
        let Some(channel) = self.channels.get(&**topic) else {
            return self.reply(join_ref, reference, topic, protocol::ok_reply());
        };
        // A leave of an older self of the channel says nothing about this one.
        if !join_ref.is_null() && *join_ref != channel.join_ref {
            return;
        }
        // What it has sent before goes first.
        let others = self.waiting_elsewhere(topic);
        let pending = self
            .channels
            .get_mut(&**topic)
            .and_then(|channel| channel.pending.as_mut());
        if let Some(pending) = pending
            && pending
                .push(Waiting::Message(message.clone()), others)
                .is_none()
        {
            return;
        }
        if let Some(channel) = self.channels.remove(&**topic) {
            let (join_ref, sent) = (channel.join_ref.clone(), channel.sent_join_ref.clone());
            self.drop_channel(*channel);
            self.reply(&join_ref, reference, topic, protocol::ok_reply());
            self.close_replaced(topic, Some(sent));
        }
    }

    /// Ends a channel for good: clients do not join it again by themselves.
    fn end(&mut self, topic: &str, message: &str) {
        let Some(channel) = self.channels.remove(topic) else {
            return;
        };
        let told = system(self.version, &channel, false, extension::SYSTEM, message);
        let sent = channel.sent_join_ref.clone();
        self.drop_channel(*channel);
        self.effects.push(Effect::Send(told));
        self.close_replaced(topic, Some(sent));
    }

    /// Ends a channel that clients join again by themselves.
    fn crash(&mut self, topic: &str) {
        if let Some(channel) = self.channels.remove(topic) {
            let sent = channel.sent_join_ref.clone();
            self.drop_channel(*channel);
            let frame = protocol::encode(
                self.version,
                &sent,
                &sent,
                topic,
                event::ERROR,
                protocol::CHANNEL_CRASH,
            );
            self.effects.push(Effect::Send(frame));
        }
    }

    fn drop_channel(&mut self, channel: Channel) {
        self.effects
            .extend(channel.subscription.map(Effect::Unsubscribe));
        if matches!(channel.phase, Phase::Joined) {
            self.effects.push(Effect::Leave {
                key: channel.key,
                id: channel.member,
            });
        }
    }

    fn close_replaced(&mut self, topic: &str, join_ref: Option<Ref>) {
        let frame = join_ref.map(|join_ref| closed(self.version, topic, &join_ref));
        self.effects.extend(frame.map(Effect::Send));
    }

    fn reply(&mut self, join_ref: &Ref, reference: &Ref, topic: &str, payload: &str) {
        let reply = self.encode_reply(join_ref, reference, topic, payload);
        self.effects.push(Effect::Send(reply));
    }

    fn encode_reply(&self, join_ref: &Ref, reference: &Ref, topic: &str, payload: &str) -> String {
        protocol::encode(
            self.version,
            join_ref,
            reference,
            topic,
            event::REPLY,
            payload,
        )
    }
}

/// What says that a channel's bindings are live.
fn announcement(version: Version, channel: &Channel) -> Announcement {
    Announcement {
        version,
        topic: channel.topic.clone(),
        sub_topic: channel.key.sub_topic.clone(),
        join_ref: channel.join_ref.clone(),
        cursor: channel
            .wanted
            .config
            .bindings
            .iter()
            .any(|binding| binding.cursor),
    }
}

fn system(version: Version, channel: &Channel, ok: bool, extension: &str, message: &str) -> String {
    let payload = protocol::system(ok, extension, message, &channel.key.sub_topic);
    protocol::encode(
        version,
        &channel.join_ref,
        &Ref::NULL,
        &channel.topic,
        event::SYSTEM,
        &payload,
    )
}

/// `phx_close` has the channel's `join_ref` in both places.
fn closed(version: Version, topic: &str, join_ref: &Ref) -> String {
    protocol::encode(version, join_ref, join_ref, topic, event::CLOSE, "{}")
}

#[cfg(test)]
mod tests;
