//! What a connection does about each message: decisions only, no I/O and no clock.
//!
//! A message goes in with the present time, and [`Effect`]s come out, to be carried out in their order.

use std::{collections::HashMap, sync::Arc};

use protocol::{
    ClientMessage, Config, HEARTBEAT_TOPIC, PresencePush, Ref, Refusal, SUBSCRIBED, UserBroadcast,
    Version, ends, event, extension,
};
use serde_json::value::RawValue;

use super::{
    authorize::Outcome,
    channel::{Channel, Joining, Phase, Waiting},
};
use crate::{
    auth::{Principal, TokenError, Verified, Verifier},
    config::UnauthorizedJoin,
    hub::{BoundBinding, SubscriptionId},
    topics::{MemberId, TopicKey},
};

/// Something to be done.
pub(super) enum Effect {
    Send(String),
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
    Track {
        key: TopicKey,
        id: MemberId,
        payload: Box<RawValue>,
    },
    Untrack {
        key: TopicKey,
        id: MemberId,
    },
    /// A join was answered, with this result.
    Joined(&'static str),
}

pub(super) struct Question {
    pub(super) topic: Arc<str>,
    pub(super) asked: u64,
    pub(super) principal: Arc<Principal>,
    pub(super) config: Arc<Config>,
    pub(super) ids: Arc<[u64]>,
}

pub(super) struct Subscribe {
    pub(super) id: SubscriptionId,
    pub(super) topic: Arc<str>,
    pub(super) bindings: Vec<BoundBinding>,
    pub(super) principal: Arc<Principal>,
    pub(super) replaced: Option<SubscriptionId>,
    pub(super) greeting: Vec<String>,
}

pub(super) struct Entrance {
    pub(super) topic: Arc<str>,
    pub(super) join_ref: Ref,
    pub(super) self_send: bool,
    pub(super) presence_enabled: bool,
    pub(super) presence_key: Arc<str>,
}

/// What an operator has set.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) max_channels: usize,
    pub(super) max_payload_bytes: usize,
    pub(super) unauthorized_join: UnauthorizedJoin,
    pub(super) presence_default: bool,
}

/// What may wait for a join. More is dropped: no client sends so much before it has its reply.
const WAITING_MESSAGES: usize = 64;
const WAITING_BYTES: usize = 256 << 10;

pub(super) struct Machine<'a> {
    version: Version,
    /// The token of the connect.
    token: String,
    verifier: &'a Verifier,
    rules: Rules,
    channels: HashMap<Arc<str>, Channel>,
    questions: u64,
    effects: Vec<Effect>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        version: Version,
        token: String,
        verifier: &'a Verifier,
        rules: Rules,
    ) -> Machine<'a> {
        Machine {
            version,
            token,
            verifier,
            rules,
            channels: HashMap::new(),
            questions: 0,
            effects: Vec::new(),
        }
    }

    /// What is to be done since the last call.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn message(&mut self, message: ClientMessage, now: i64) {
        match (&*message.topic, &*message.event) {
            (HEARTBEAT_TOPIC, event::HEARTBEAT) => {
                self.reply(
                    &Ref::NULL,
                    &message.reference,
                    &message.topic,
                    protocol::ok_reply(),
                );
            }
            (_, event::JOIN) => self.join(message, now),
            (_, event::LEAVE) => self.leave(&message),
            _ => self.push(message, now),
        }
    }

    pub(super) fn user_broadcast(&mut self, broadcast: UserBroadcast) {
        let Some(channel) = self.channels.get_mut(&*broadcast.topic) else {
            let UserBroadcast {
                reference, topic, ..
            } = broadcast;
            return self.reply(
                &Ref::NULL,
                &reference,
                &topic,
                &Refusal::UnmatchedTopic.reply(),
            );
        };
        if let Phase::Joining(joining) = &mut channel.phase {
            return wait(joining, Waiting::Broadcast(broadcast));
        }
        let (key, id) = (channel.key.clone(), channel.member);
        let small = broadcast.payload.len() <= self.rules.max_payload_bytes;
        let (ack, join_ref) = (channel.config.broadcast.ack, channel.join_ref.clone());
        if ack {
            self.acknowledge(&join_ref, &broadcast.reference, &broadcast.topic, small);
        }
        if small {
            self.effects
                .push(Effect::BroadcastUser { key, id, broadcast });
        }
    }

    /// The answer to a question. One that nobody waits for any more is void.
    pub(super) fn authorized(&mut self, topic: &str, asked: u64, outcome: Outcome, now: i64) {
        let Some(channel) = self
            .channels
            .get_mut(topic)
            .filter(|channel| channel.asked == asked)
        else {
            return;
        };
        match std::mem::replace(&mut channel.phase, Phase::Joined) {
            Phase::Joining(joining) => self.finish_join(topic, joining, outcome, now),
            Phase::Joined => self.finish_renewal(topic, outcome),
        }
    }

    /// When the next token expires.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.joined()
            .map(|channel| channel.verified.expires_at)
            .min()
    }

    /// Ends the channels whose token has expired.
    pub(super) fn expire(&mut self, now: i64) {
        let expired: Vec<_> = self
            .joined()
            .filter(|channel| channel.verified.expires_at <= now)
            .map(|channel| (channel.topic.clone(), channel.verified.expires_at))
            .collect();
        for (topic, expires_at) in expired {
            self.end(&topic, &ends::token_expired(now - expires_at));
        }
    }

    /// Leaves everything: the socket is gone.
    pub(super) fn close(&mut self) {
        for (_, channel) in std::mem::take(&mut self.channels) {
            self.drop_channel(channel);
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// A channel that is still joining gets its reply first.
    fn joined(&self) -> impl Iterator<Item = &Channel> {
        self.channels
            .values()
            .filter(|channel| matches!(channel.phase, Phase::Joined))
    }

    fn join(&mut self, message: ClientMessage, now: i64) {
        let refuse = |machine: &mut Self, refusal: Refusal| {
            machine.effects.push(Effect::Joined(refusal.label()));
            // Without a channel of ours, there is no join_ref to speak of.
            let join_ref = if refusal == Refusal::UnmatchedTopic {
                &Ref::NULL
            } else {
                &message.join_ref
            };
            machine.reply(
                join_ref,
                &message.reference,
                &message.topic,
                &refusal.reply(),
            );
        };
        let sub_topic: Arc<str> = match protocol::sub_topic(&message.topic) {
            Ok(sub_topic) => sub_topic.into(),
            Err(refusal) => return refuse(self, refusal),
        };
        // The channel that this one replaces ends now, whatever becomes of this one; the client hears of it after the reply.
        let replaced = self.channels.remove(&*message.topic).map(|old| {
            let close = self.version == Version::V2 || (!old.join_ref.is_null() && !old.told_error);
            let join_ref = old.join_ref.clone();
            self.drop_channel(old);
            close.then_some(join_ref)
        });
        let replaces = replaced.flatten();

        let join = protocol::parse_join(&message.payload);
        if !join.invalid.is_empty() {
            tracing::debug!(fields = ?join.invalid, "InvalidJoinPayload: fields of the wrong type got their default");
        }
        let token = join.token(&self.token).to_owned();
        let verified = if self.channels.len() >= self.rules.max_channels {
            Err(Refusal::TooManyChannels)
        } else {
            self.verifier.verify(&token, now).map_err(refusal)
        };
        let verified = verified.and_then(|verified| {
            if join.config.private {
                // What a private channel may do is asked of the policies of realtime.messages. There are none yet.
                Err(Refusal::Unauthorized {
                    topic: sub_topic.to_string(),
                })
            } else if join.config.broadcast.replay.is_some() {
                Err(Refusal::ReplayOnPublicChannel)
            } else {
                Ok(verified)
            }
        });
        let verified = match verified {
            Ok(verified) => verified,
            Err(refusal) => {
                refuse(self, refusal);
                return self.close_replaced(&message.topic, replaces);
            }
        };

        let topic: Arc<str> = message.topic.into();
        let ids: Arc<[u64]> = protocol::assign_ids(&join.config.bindings).into();
        let channel = Channel {
            key: TopicKey {
                private: false,
                sub_topic,
            },
            join_ref: if message.join_ref.is_null() {
                message.reference.clone()
            } else {
                message.join_ref.clone()
            },
            config: Arc::new(join.config),
            ids,
            token,
            verified,
            member: MemberId::next(),
            subscription: None,
            phase: Phase::Joining(Joining {
                reference: message.reference,
                join_ref: message.join_ref,
                replaces,
                waiting: Vec::new(),
                waiting_bytes: 0,
            }),
            asked: 0,
            told_error: false,
            topic: topic.clone(),
        };
        let has_bindings = !channel.config.bindings.is_empty();
        self.channels.insert(topic.clone(), channel);
        let asked = self.ask(&topic, has_bindings);
        if !has_bindings {
            self.authorized(&topic, asked, Outcome::Bound(Vec::new()), now);
        }
    }

    /// Starts a question about a channel's bindings, and voids the one before.
    fn ask(&mut self, topic: &Arc<str>, really: bool) -> u64 {
        self.questions += 1;
        let asked = self.questions;
        if let Some(channel) = self.channels.get_mut(topic) {
            channel.asked = asked;
            if really {
                self.effects.push(Effect::Authorize(Question {
                    topic: topic.clone(),
                    asked,
                    principal: channel.verified.principal.clone(),
                    config: channel.config.clone(),
                    ids: channel.ids.clone(),
                }));
            }
        }
        asked
    }

    fn finish_join(&mut self, topic: &str, joining: Joining, outcome: Outcome, now: i64) {
        let Joining {
            reference,
            join_ref,
            replaces,
            waiting,
            ..
        } = joining;
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let sub_topic = channel.key.sub_topic.clone();
        let bindings: Vec<_> = channel
            .config
            .bindings
            .iter()
            .zip(channel.ids.iter().copied())
            .collect();
        let reply = protocol::encode(
            self.version,
            &join_ref,
            &reference,
            topic,
            event::REPLY,
            &protocol::join_reply(&bindings),
        );
        let wanted = !bindings.is_empty();
        drop(bindings);

        let refusal = match &outcome {
            Outcome::Unavailable => Some(Refusal::DatabaseUnavailable),
            Outcome::Denied if self.rules.unauthorized_join == UnauthorizedJoin::Refuse => {
                Some(Refusal::Unauthorized {
                    topic: sub_topic.to_string(),
                })
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.channels.remove(topic);
            self.effects.push(Effect::Joined(refusal.label()));
            self.reply(&join_ref, &reference, topic, &refusal.reply());
            self.close_replaced(topic, replaces);
            // Whatever waited finds no channel, and is answered so.
            return self.resume(waiting, now);
        }

        self.effects.push(Effect::Joined("ok"));
        match outcome {
            Outcome::Bound(bound) if !bound.is_empty() => {
                let id = SubscriptionId::next();
                channel.subscription = Some(id);
                let mut greeting = vec![reply];
                greeting.extend(replaces.map(|old| closed(self.version, topic, &old)));
                greeting.push(system(
                    self.version,
                    channel,
                    true,
                    extension::POSTGRES_CHANGES,
                    SUBSCRIBED,
                ));
                self.effects.push(Effect::Subscribe(Subscribe {
                    id,
                    topic: channel.topic.clone(),
                    bindings: bound,
                    principal: channel.verified.principal.clone(),
                    replaced: None,
                    greeting,
                }));
            }
            outcome => {
                let problem = match outcome {
                    Outcome::Wrong(refusal) => Some(refusal.to_string()),
                    Outcome::Denied => Some(ends::no_read_right(&sub_topic)),
                    Outcome::Bound(_) | Outcome::Unavailable => None,
                };
                channel.told_error = problem.is_some();
                let told = match &problem {
                    Some(problem) => Some(system(
                        self.version,
                        channel,
                        false,
                        extension::POSTGRES_CHANGES,
                        problem,
                    )),
                    None => wanted.then(|| {
                        system(
                            self.version,
                            channel,
                            true,
                            extension::POSTGRES_CHANGES,
                            SUBSCRIBED,
                        )
                    }),
                };
                self.effects.push(Effect::Send(reply));
                self.close_replaced(topic, replaces);
                self.effects.extend(told.map(Effect::Send));
            }
        }

        let Some(channel) = self.channels.get(topic) else {
            return;
        };
        let presence = &channel.config.presence;
        self.effects.push(Effect::Enter {
            key: channel.key.clone(),
            id: channel.member,
            entrance: Entrance {
                topic: channel.topic.clone(),
                join_ref: channel.join_ref.clone(),
                self_send: channel.config.broadcast.self_send,
                presence_enabled: presence.enabled.unwrap_or(self.rules.presence_default),
                presence_key: match &presence.key {
                    Some(key) => key.as_str().into(),
                    None => uuid::Uuid::new_v4().to_string().into(),
                },
            },
        });
        self.resume(waiting, now);
    }

    /// The bindings were asked about again for a new token.
    fn finish_renewal(&mut self, topic: &str, outcome: Outcome) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        match outcome {
            Outcome::Bound(bindings) => {
                let id = SubscriptionId::next();
                let replaced = channel.subscription.replace(id);
                let told = system(
                    self.version,
                    channel,
                    true,
                    extension::POSTGRES_CHANGES,
                    SUBSCRIBED,
                );
                self.effects.push(Effect::Subscribe(Subscribe {
                    id,
                    topic: channel.topic.clone(),
                    bindings,
                    principal: channel.verified.principal.clone(),
                    replaced,
                    greeting: vec![told],
                }));
            }
            Outcome::Wrong(refusal) => {
                channel.told_error = true;
                let told = system(
                    self.version,
                    channel,
                    false,
                    extension::POSTGRES_CHANGES,
                    &refusal.to_string(),
                );
                let ended = channel.subscription.take();
                self.effects.extend(ended.map(Effect::Unsubscribe));
                self.effects.push(Effect::Send(told));
            }
            Outcome::Denied => {
                let sub_topic = channel.key.sub_topic.clone();
                self.end(topic, &ends::no_read_right(&sub_topic));
            }
            // It should come back: the new token may well be good.
            Outcome::Unavailable => {
                if let Some(channel) = self.channels.remove(topic) {
                    let join_ref = channel.join_ref.clone();
                    self.drop_channel(channel);
                    let frame = protocol::encode(
                        self.version,
                        &join_ref,
                        &join_ref,
                        topic,
                        event::ERROR,
                        protocol::CHANNEL_CRASH,
                    );
                    self.effects.push(Effect::Send(frame));
                }
            }
        }
    }

    fn resume(&mut self, waiting: Vec<Waiting>, now: i64) {
        for waiting in waiting {
            match waiting {
                Waiting::Message(message) => self.message(message, now),
                Waiting::Broadcast(broadcast) => self.user_broadcast(broadcast),
            }
        }
    }

    fn leave(&mut self, message: &ClientMessage) {
        let ClientMessage {
            join_ref,
            reference,
            topic,
            ..
        } = message;
        let Some(channel) = self.channels.get(&**topic) else {
            return self.reply(join_ref, reference, topic, protocol::ok_reply());
        };
        // A leave of an older self of the channel says nothing about this one.
        if !join_ref.is_null() && *join_ref != channel.join_ref {
            return;
        }
        if let Some(channel) = self.channels.remove(&**topic) {
            let join_ref = channel.join_ref.clone();
            self.drop_channel(channel);
            self.reply(&join_ref, reference, topic, protocol::ok_reply());
            self.close_replaced(topic, Some(join_ref));
        }
    }

    fn push(&mut self, message: ClientMessage, now: i64) {
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return self.reply(
                &Ref::NULL,
                &message.reference,
                &message.topic,
                &Refusal::UnmatchedTopic.reply(),
            );
        };
        if let Phase::Joining(joining) = &mut channel.phase {
            return wait(joining, Waiting::Message(message));
        }
        match &*message.event {
            event::ACCESS_TOKEN => self.renew(message, now),
            event::BROADCAST => self.broadcast(message),
            event::PRESENCE => self.presence(message),
            // Unknown events get no answer.
            _ => {}
        }
    }

    /// A new token for a channel. There is never a reply.
    fn renew(&mut self, message: ClientMessage, now: i64) {
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return;
        };
        let Some(token) =
            protocol::parse_access_token(&message.payload).filter(|token| *token != channel.token)
        else {
            return;
        };
        let verified: Result<Verified, _> = self.verifier.verify(&token, now);
        channel.token = token;
        match verified {
            Ok(verified) => {
                channel.verified = verified;
                let (topic, has_bindings) =
                    (channel.topic.clone(), !channel.config.bindings.is_empty());
                if has_bindings {
                    self.ask(&topic, true);
                }
            }
            Err(error) => self.end(&message.topic, &ended_by(error)),
        }
    }

    fn broadcast(&mut self, message: ClientMessage) {
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        if !protocol::broadcast::is_relayable(&message.payload) {
            return;
        }
        let (key, id) = (channel.key.clone(), channel.member);
        let small = message.payload.get().len() <= self.rules.max_payload_bytes;
        let (ack, join_ref) = (channel.config.broadcast.ack, channel.join_ref.clone());
        if ack {
            self.acknowledge(&join_ref, &message.reference, &message.topic, small);
        }
        if small {
            self.effects.push(Effect::Broadcast {
                key,
                id,
                payload: message.payload,
            });
        }
    }

    fn acknowledge(&mut self, join_ref: &Ref, reference: &Ref, topic: &str, small: bool) {
        if small {
            self.reply(join_ref, reference, topic, protocol::ok_reply());
        } else {
            self.reply(
                join_ref,
                reference,
                topic,
                &protocol::error_reply("payload_size_exceeded"),
            );
        }
    }

    /// Every presence push is answered, after those whom it concerns have heard of it.
    fn presence(&mut self, message: ClientMessage) {
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        let (key, id, join_ref) = (
            channel.key.clone(),
            channel.member,
            channel.join_ref.clone(),
        );
        let (effect, answer) = match protocol::presence::parse(&message.payload) {
            PresencePush::Track(payload) if payload.get().len() > self.rules.max_payload_bytes => {
                return self.end(&message.topic, ends::TRACK_TOO_LARGE);
            }
            PresencePush::Track(payload) => (
                Some(Effect::Track { key, id, payload }),
                protocol::ok_reply().to_owned(),
            ),
            PresencePush::Untrack => (
                Some(Effect::Untrack { key, id }),
                protocol::ok_reply().to_owned(),
            ),
            PresencePush::NoEvent => (None, protocol::ok_reply().to_owned()),
            PresencePush::NotAMap => (None, protocol::error_reply(protocol::presence::NOT_A_MAP)),
            PresencePush::Unknown => (None, protocol::empty_error_reply().to_owned()),
        };
        self.effects.extend(effect);
        self.reply(&join_ref, &message.reference, &message.topic, &answer);
    }

    /// Ends a channel for good: clients do not join it again by themselves.
    fn end(&mut self, topic: &str, message: &str) {
        let Some(channel) = self.channels.remove(topic) else {
            return;
        };
        let told = system(self.version, &channel, false, extension::SYSTEM, message);
        let join_ref = channel.join_ref.clone();
        self.drop_channel(channel);
        self.effects.push(Effect::Send(told));
        self.close_replaced(topic, Some(join_ref));
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
        self.effects.push(Effect::Send(protocol::encode(
            self.version,
            join_ref,
            reference,
            topic,
            event::REPLY,
            payload,
        )));
    }
}

fn wait(joining: &mut Joining, waiting: Waiting) {
    let bytes = joining.waiting_bytes + waiting.size();
    if joining.waiting.len() < WAITING_MESSAGES && bytes <= WAITING_BYTES {
        joining.waiting_bytes = bytes;
        joining.waiting.push(waiting);
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

/// Why a join is refused, by what is wrong with its token.
fn refusal(error: TokenError) -> Refusal {
    match error {
        TokenError::Malformed => Refusal::MalformedJwt,
        TokenError::Signature => Refusal::JwtSignature,
        TokenError::Signer { kid } => Refusal::JwtSigner { kid },
        TokenError::Expired { seconds_ago } => Refusal::TokenExpired { seconds_ago },
        TokenError::MissingClaims => Refusal::MissingClaims,
        TokenError::Other(_) => Refusal::Unknown,
    }
}

/// Why a channel ends, by what is wrong with the token that was pushed.
fn ended_by(error: TokenError) -> String {
    match error {
        TokenError::Malformed => ends::MALFORMED_JWT.to_owned(),
        TokenError::Signature => ends::JWT_SIGNATURE.to_owned(),
        TokenError::Signer { kid } => ends::jwt_signer(kid.as_deref()),
        TokenError::Expired { seconds_ago } => ends::token_expired(seconds_ago),
        TokenError::MissingClaims | TokenError::Other(_) => ends::MISSING_CLAIMS.to_owned(),
    }
}

#[cfg(test)]
mod tests;
