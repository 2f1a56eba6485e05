//! How a channel is joined, and how it keeps its rights when its token is replaced.

use protocol::Replay;

use super::*;
use crate::limits::ChannelLimits;

/// A channel keeps its topic and what it asked for, so both are bounded; the longest token and a hundred filters fit.
const MAX_TOPIC_BYTES: usize = 1024;
const MAX_JOIN_BYTES: usize = 64 << 10;

impl Machine<'_> {
    pub(super) fn join(&mut self, message: ClientMessage, now: Now, may_learn: bool) {
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
        if message.topic.len() > MAX_TOPIC_BYTES || message.payload.get().len() > MAX_JOIN_BYTES {
            let message_of = |what, most: usize| Refusal::Fault {
                message: format!("the {what} is longer than {most} bytes"),
            };
            let refusal = match message.topic.len() > MAX_TOPIC_BYTES {
                true => message_of("topic", MAX_TOPIC_BYTES),
                false => message_of("join's payload", MAX_JOIN_BYTES),
            };
            return refuse(self, refusal);
        }
        // One that comes again, with its token known, was counted before.
        if may_learn && let Err(exceeded) = self.limits.join(now.instant) {
            refuse(
                self,
                exceeded.refuses_join().unwrap_or(Refusal::TooManyJoins),
            );
            return self.effects.push(Effect::Close(exceeded));
        }
        let join = protocol::parse_join_to(&sub_topic, &message.payload);
        // Most join with the token that they connect with.
        let token = match join.token(&self.token) {
            same if *same == *self.token => self.token.clone(),
            other => other.into(),
        };
        if may_learn && self.verifier.may_learn(&token) {
            return self.learn(token.to_string(), message);
        }
        self.learning.remove(&message.topic);

        // The channel that this one replaces ends now, whatever becomes of this one; the client hears of it after the reply.
        let replaced = self.channels.remove(&*message.topic).map(|old| {
            // Without a ref, clients would take the end of the old one for that of the new one.
            let close = !old.sent_join_ref.is_null()
                && (self.version == Version::V2 || old.problem.is_none());
            let sent = old.sent_join_ref.clone();
            self.drop_channel(*old);
            close.then_some(sent)
        });
        let replaces = replaced.flatten();

        if !join.invalid.is_empty() {
            tracing::debug!(fields = ?join.invalid, "InvalidJoinPayload: fields of the wrong type got their default");
        }
        let verified = if self.rules.private_only && !join.config.private {
            Err(Refusal::PrivateOnly)
        } else if self.channels.len() >= self.rules.max_channels {
            Exceeded::Channels.counted();
            Err(Refusal::TooManyChannels)
        } else {
            self.verifier.verify(&token, now.unix).map_err(refusal)
        };
        let verified = verified.and_then(|verified| match join.config.broadcast.replay {
            Some(_) if !join.config.private => Err(Refusal::ReplayOnPublicChannel),
            // What is wrong with it otherwise is said to those who may read.
            _ => Ok(verified),
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
        let private = join.config.private;
        let presence = join.config.presence.enabled;
        let channel = Channel {
            key: TopicKey { private, sub_topic },
            join_ref: if message.join_ref.is_null() {
                message.reference.clone()
            } else {
                message.join_ref.clone()
            },
            sent_join_ref: message.join_ref.clone(),
            wanted: Wanted {
                config: Arc::new(join.config),
                ids,
            },
            token,
            verified,
            member: MemberId::next(),
            subscription: None,
            was_live: false,
            phase: Phase::Joining(Box::new(Joining {
                reference: message.reference,
                join_ref: message.join_ref,
                replaces,
                waiting: Queue::default(),
                doubted: false,
            })),
            asked: 0,
            problem: None,
            live: None,
            next_token: None,
            topic: topic.clone(),
            read: Grant::ALL,
            write: None,
            pending: None,
            read_asked: None,
            write_asked: None,
            storing: false,
            presence: presence.unwrap_or(self.rules.presence_default),
            tracked_bytes: 0,
            limits: ChannelLimits::default(),
        };
        let must_ask = channel.must_ask();
        self.channels.insert(topic.clone(), Box::new(channel));
        let asked = self.ask(&topic, must_ask);
        if !must_ask {
            let nothing = Outcome::Bound(Vec::new());
            self.authorized(&topic, asked, nothing, Ok(Grant::ALL), now);
        }
    }

    /// Starts a question about a channel's bindings, and voids the one before.
    pub(super) fn ask(&mut self, topic: &Arc<str>, really: bool) -> u64 {
        self.questions += 1;
        let asked = self.questions;
        let private = self
            .channels
            .get(topic)
            .and_then(|channel| self.asker(channel));
        if let Some(channel) = self.channels.get_mut(topic) {
            channel.asked = asked;
            let replay = match (&channel.phase, channel.wanted.config.broadcast.replay) {
                (Phase::Joining(_), Some(Replay::Valid { since_ms, limit })) => {
                    Some((since_ms, limit))
                }
                _ => None,
            };
            if really {
                self.effects.push(Effect::Authorize(Question {
                    private,
                    replay,
                    topic: topic.clone(),
                    asked,
                    principal: channel.verified.principal.clone(),
                    wanted: channel.wanted.clone(),
                    first: channel.subscription.is_none(),
                }));
            }
        }
        asked
    }

    pub(super) fn finish_join(
        &mut self,
        topic: &str,
        joining: Joining,
        outcome: Outcome,
        read: Result<Grant, Refusal>,
        now: Now,
    ) {
        let Joining {
            reference,
            join_ref,
            replaces,
            waiting,
            doubted,
            ..
        } = joining;
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let sub_topic = channel.key.sub_topic.clone();
        let bindings: Vec<_> = channel
            .wanted
            .config
            .bindings
            .iter()
            .zip(channel.wanted.ids.iter().copied())
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

        let read = read.and_then(|read| {
            channel.read = read;
            let (reads, replay) = (channel.reads(), channel.wanted.config.broadcast.replay);
            match replay {
                _ if reads.is_empty() || (replay.is_some() && !reads.broadcast) => {
                    Err(Refusal::Unauthorized {
                        topic: sub_topic.to_string(),
                    })
                }
                Some(Replay::Invalid) => Err(Refusal::ReplayParams),
                _ => Ok(()),
            }
        });
        // Keys of issuers and bots may have gone since it was verified.
        let trusted = self.verifier.trust(&channel.token);
        let refusal = match &outcome {
            _ if trusted.is_err() => trusted.err().map(refusal),
            _ if read.is_err() => read.err(),
            // Who waits for the bindings is told by the reply that they are wrong.
            Outcome::Wrong(refusal) if channel.wanted.config.wait.is_some() => {
                Some(Refusal::BadBindings {
                    message: refusal.to_string(),
                })
            }
            Outcome::Unavailable => Some(Refusal::DatabaseUnavailable),
            Outcome::Refused(error) => Some(Refusal::Resume(error.clone())),
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
            return self.resume(waiting.waiting, now);
        }

        self.effects.push(Effect::Joined("ok"));
        match outcome {
            Outcome::Bound(bound) if !bound.is_empty() => {
                let id = SubscriptionId::next();
                channel.subscription = Some(id);
                channel.was_live = true;
                let mut greeting = vec![reply];
                greeting.extend(replaces.map(|old| closed(self.version, topic, &old)));
                let live = announcement(self.version, channel);
                self.effects.push(Effect::Subscribe(Subscribe {
                    id,
                    topic: channel.topic.clone(),
                    bindings: bound,
                    principal: channel.verified.principal.clone(),
                    wanted: channel.wanted.clone(),
                    replaced: None,
                    greeting,
                    live,
                }));
            }
            outcome => {
                let problem = match outcome {
                    Outcome::Wrong(refusal) => Some(refusal.to_string()),
                    Outcome::Denied => Some(ends::no_read_right(&sub_topic)),
                    Outcome::Bound(_) | Outcome::Refused(_) | Outcome::Unavailable => None,
                };
                channel.problem.clone_from(&problem);
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
        let presence = &channel.wanted.config.presence;
        let ready = channel.wanted.config.broadcast.replication_ready;
        let await_feed = ready.then(|| Effect::AwaitFeed {
            topic: channel.topic.clone(),
            member: channel.member,
        });
        self.effects.push(Effect::Enter {
            key: channel.key.clone(),
            id: channel.member,
            entrance: Entrance {
                topic: channel.topic.clone(),
                join_ref: channel.join_ref.clone(),
                self_send: channel.wanted.config.broadcast.self_send,
                presence_enabled: channel.presence,
                reads: channel.reads(),
                presence_key: match &presence.key {
                    Some(key) if protocol::presence::is_usable_key(key) => key.as_str().into(),
                    _ => uuid::Uuid::new_v4().to_string().into(),
                },
            },
        });
        self.effects.extend(await_feed);
        if doubted {
            self.ask_rights(topic, Right::Read);
        }
        self.resume(waiting.waiting, now);
    }

    /// The bindings and rights were asked about again for a new token.
    pub(super) fn finish_renewal(
        &mut self,
        topic: &str,
        outcome: Outcome,
        read: Result<Grant, Refusal>,
    ) {
        match read {
            Ok(read) => self.reads(topic, read),
            Err(Refusal::Unauthorized { .. }) => self.reads(topic, Grant::default()),
            // It should come back: the new token may well be good.
            Err(_) => return self.crash(topic),
        }
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let has_bindings = !channel.wanted.config.bindings.is_empty();
        let Some(channel) = self.channels.get_mut(topic).filter(|_| has_bindings) else {
            return;
        };
        let cursors = || {
            channel
                .wanted
                .config
                .bindings
                .iter()
                .any(|binding| binding.cursor)
        };
        match outcome {
            // What it missed meanwhile begins where it was, which the client knows, and not where it joined.
            Outcome::Bound(_)
                if channel.subscription.is_none() && channel.was_live && cursors() =>
            {
                self.crash(topic);
            }
            Outcome::Bound(bindings) => {
                channel.problem = None;
                channel.was_live = true;
                let id = SubscriptionId::next();
                let replaced = channel.subscription.replace(id);
                let live = announcement(self.version, channel);
                self.effects.push(Effect::Subscribe(Subscribe {
                    id,
                    topic: channel.topic.clone(),
                    bindings,
                    principal: channel.verified.principal.clone(),
                    wanted: channel.wanted.clone(),
                    replaced,
                    greeting: Vec::new(),
                    live,
                }));
            }
            Outcome::Wrong(refusal) => self.void_channel(topic, refusal.to_string()),
            // It was let in although it may not see what it names, and still may not.
            Outcome::Denied
                if self.rules.unauthorized_join == UnauthorizedJoin::System
                    && channel.subscription.is_none() => {}
            Outcome::Denied => {
                let sub_topic = channel.key.sub_topic.clone();
                self.end(topic, &ends::no_read_right(&sub_topic));
            }
            // It should come back: the new token may well be good.
            Outcome::Refused(_) | Outcome::Unavailable => self.crash(topic),
        }
    }

    /// A new token for a channel. There is never a reply.
    pub(super) fn renew(&mut self, message: ClientMessage, now: Now, may_learn: bool) {
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return;
        };
        let Some(token) = protocol::parse_access_token(&message.payload)
            .filter(|token| **token != *channel.token)
        else {
            return;
        };
        if may_learn && self.verifier.may_learn(&token) {
            return self.learn(token.to_string(), message);
        }
        if channel.live.is_some() {
            channel.next_token = Some(Box::new(message));
            return;
        }
        let verified: Result<Verified, _> = self.verifier.verify(&token, now.unix);
        let before = std::mem::replace(&mut channel.token, token.into());
        match verified {
            Ok(verified) => {
                let before = (before, std::mem::replace(&mut channel.verified, verified));
                let must_ask = channel.must_ask();
                channel.live = must_ask.then(|| Box::new(before));
                // What is sent from here on is sent with the new token, and what was asked for the old one says nothing of it.
                channel.write = None;
                channel.read_asked = None;
                channel.write_asked = None;
                let pending = channel.pending.is_some() && !channel.storing;
                let topic = channel.topic.clone();
                if must_ask {
                    self.ask(&topic, true);
                }
                if pending {
                    self.ask_rights(&topic, Right::Write);
                }
            }
            Err(error) => self.end(&message.topic, &ended_by(error)),
        }
    }

    /// A message whose token was not known comes again, now that it is or never will be.
    pub(in crate::connection) fn learned(&mut self, message: ClientMessage, asked: u64, now: Now) {
        if self.learning.remove(&message.topic) == Some(asked) {
            match &*message.event {
                event::JOIN => self.join(message, now, false),
                _ => self.renew(message, now, false),
            }
        }
    }

    pub(super) fn learn(&mut self, token: String, message: ClientMessage) {
        self.questions += 1;
        self.learning.insert(message.topic.clone(), self.questions);
        self.effects.push(Effect::Learn {
            token,
            message,
            asked: self.questions,
        });
    }

    /// The catalog has changed: bindings that were wrong may be right now.
    pub(in crate::connection) fn retry(&mut self) {
        let wrong: Vec<_> = self
            .joined()
            .filter(|channel| channel.problem.is_some() && channel.subscription.is_none())
            .map(|channel| channel.topic.clone())
            .collect();
        for topic in wrong {
            self.ask(&topic, true);
        }
    }

    /// The bindings are not live any more, and the channel lives on. It is told once.
    pub(super) fn void_channel(&mut self, topic: &str, problem: String) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let ended = channel.subscription.take();
        if channel.problem.as_ref() != Some(&problem) {
            let told = system(
                self.version,
                channel,
                false,
                extension::POSTGRES_CHANGES,
                &problem,
            );
            self.effects.push(Effect::Send(told));
        }
        channel.problem = Some(problem);
        self.effects.extend(ended.map(Effect::Unsubscribe));
    }

    pub(super) fn resume(&mut self, waiting: Vec<Waiting>, now: Now) {
        for waiting in waiting {
            match waiting {
                Waiting::Message(message) => self.message(message, now),
                Waiting::Broadcast(broadcast) => self.user_broadcast(broadcast, now),
            }
        }
    }
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
pub(super) fn ended_by(error: TokenError) -> String {
    match error {
        TokenError::Malformed => ends::MALFORMED_JWT.to_owned(),
        TokenError::Signature => ends::JWT_SIGNATURE.to_owned(),
        TokenError::Signer { kid } => ends::jwt_signer(kid.as_deref()),
        TokenError::Expired { seconds_ago } => ends::token_expired(seconds_ago),
        TokenError::MissingClaims | TokenError::Other(_) => ends::MISSING_CLAIMS.to_owned(),
    }
}
