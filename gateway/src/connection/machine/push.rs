//! What clients push on a channel: broadcasts, presence, tokens.

use super::*;

impl Machine<'_> {
    pub(super) fn push(&mut self, message: ClientMessage, now: Now) {
        let others = self.joining_beside(&message.topic);
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return self.reply(
                &Ref::NULL,
                &message.reference,
                &message.topic,
                &Refusal::UnmatchedTopic.reply(),
            );
        };
        if let Phase::Joining(joining) = &mut channel.phase {
            // What has no place is dropped.
            let _ = joining.waiting.push(Waiting::Message(message), others);
            return;
        }
        match &*message.event {
            event::ACCESS_TOKEN => self.renew(message, now, true),
            event::BROADCAST => self.broadcast(message, now),
            event::PRESENCE => self.presence(message, now),
            // Unknown events get no answer, and count.
            _ => {
                self.event(&message.topic, now);
            }
        }
    }

    pub(in crate::connection) fn user_broadcast(&mut self, broadcast: UserBroadcast, now: Now) {
        let others = self.joining_beside(&broadcast.topic);
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
            let _ = joining.waiting.push(Waiting::Broadcast(broadcast), others);
            return;
        }
        let topic = channel.topic.clone();
        let Some((grant, Waiting::Broadcast(broadcast))) =
            self.may_write(&topic, Waiting::Broadcast(broadcast), now)
        else {
            return;
        };
        if !self.event(&topic, now) {
            return;
        }
        let size = broadcast.payload.len();
        let Some(sender) = self.sender(&topic, &broadcast.reference, size, grant) else {
            return;
        };
        let persist = broadcast
            .metadata
            .as_deref()
            .and_then(protocol::broadcast::persist);
        let Some(persist) = persist.filter(|_| sender.key.private) else {
            self.acknowledge(&sender.told, Ok(()));
            let Sender { key, told } = sender;
            let id = told.member;
            return self
                .effects
                .push(Effect::BroadcastUser { key, id, broadcast });
        };
        let asker = self
            .channels
            .get(&topic)
            .and_then(|channel| self.asker(channel));
        if let Some(channel) = self.channels.get_mut(&topic) {
            channel.storing = true;
        }
        self.effects.extend(asker.map(|asker| Effect::Store {
            told: sender.told,
            asker,
            broadcast,
            keep: persist.keep,
        }));
    }

    /// For what comes while a channel is joining: the bytes that wait elsewhere. Nobody else needs to know.
    fn joining_beside(&self, topic: &str) -> usize {
        let channel = self.channels.get(topic);
        match channel.map(|channel| &channel.phase) {
            Some(Phase::Joining(_)) => self.waiting_elsewhere(topic),
            _ => 0,
        }
    }

    fn broadcast(&mut self, message: ClientMessage, now: Now) {
        if !protocol::broadcast::is_relayable(&message.payload) {
            return;
        }
        let topic = message.topic.clone();
        let Some((grant, Waiting::Message(message))) =
            self.may_write(&topic, Waiting::Message(message), now)
        else {
            return;
        };
        if !self.event(&topic, now) {
            return;
        }
        let size = message.payload.get().len();
        let Some(sender) = self.sender(&topic, &message.reference, size, grant) else {
            return;
        };
        self.acknowledge(&sender.told, Ok(()));
        self.effects.push(Effect::Broadcast {
            key: sender.key,
            id: sender.told.member,
            payload: message.payload,
        });
    }

    /// Where a broadcast of this size goes, and who hears what became of it. None if it goes nowhere.
    fn sender(
        &mut self,
        topic: &str,
        reference: &Ref,
        size: usize,
        grant: Grant,
    ) -> Option<Sender> {
        let channel = self.channels.get(topic)?;
        let told = Told {
            topic: channel.topic.clone(),
            member: channel.member,
            join_ref: channel.join_ref.clone(),
            reference: reference.clone(),
            ack: channel.wanted.config.broadcast.ack,
        };
        let key = channel.key.clone();
        if self.limits.all().payload(size).is_err() {
            self.acknowledge(&told, Err("payload_size_exceeded"));
            return None;
        }
        if !grant.broadcast {
            let reason = protocol::no_write_right(&key.sub_topic);
            self.acknowledge(&told, Err(&reason));
            return None;
        }
        Some(Sender { key, told })
    }

    /// Counts an event. False if that was too many, which has ended the channel.
    fn event(&mut self, topic: &str, now: Now) -> bool {
        match self.limits.all().event(now.instant) {
            Ok(()) => true,
            Err(exceeded) => {
                self.end(topic, ending(exceeded));
                false
            }
        }
    }

    fn acknowledge(&mut self, told: &Told, result: Result<(), &str>) {
        if told.ack {
            let payload = match result {
                Ok(()) => protocol::ok_reply().to_owned(),
                Err(reason) => protocol::error_reply(reason),
            };
            self.reply(&told.join_ref, &told.reference, &told.topic, &payload);
        }
    }

    /// Every presence push is answered, after those whom it concerns have heard of it.
    fn presence(&mut self, message: ClientMessage, now: Now) {
        let topic = message.topic.clone();
        let Some((grant, Waiting::Message(message))) =
            self.may_write(&topic, Waiting::Message(message), now)
        else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&*topic) else {
            return;
        };
        let (key, id, join_ref) = (
            channel.key.clone(),
            channel.member,
            channel.join_ref.clone(),
        );
        let push = protocol::presence::parse(&message.payload);
        let limits = self.limits.all();
        let counted = match &push {
            PresencePush::NoEvent => Ok(()),
            PresencePush::Track(payload) => channel
                .limits
                .presence_call(limits, now.instant)
                .and_then(|()| limits.payload(payload.get().len())),
            _ => channel.limits.presence_call(limits, now.instant),
        };
        if let Err(exceeded) = counted {
            return self.end(&topic, ending(exceeded));
        }
        let (effect, answer) = match push {
            PresencePush::Track(_) if !grant.presence => {
                (None, protocol::empty_error_reply().to_owned())
            }
            PresencePush::Track(payload) => {
                let full = Exceeded::PresenceBytes.refuses_track().unwrap_or_default();
                let full = protocol::error_reply(full);
                let bytes = payload.get().len();
                if !self.may_hold(&topic, bytes) {
                    return self.reply(&join_ref, &message.reference, &topic, &full);
                }
                let reply =
                    |answer| self.encode_reply(&join_ref, &message.reference, &topic, answer);
                let (tracked, full) = (reply(protocol::ok_reply()), reply(&full));
                let Some(channel) = self.channels.get_mut(&*topic) else {
                    return;
                };
                channel.tracked_bytes = bytes;
                // Who tracks hears of others, too, if it may.
                let before = channel.reads();
                channel.presence = true;
                let reads = channel.reads();
                if reads != before {
                    let (key, id) = (key.clone(), id);
                    self.effects.push(Effect::Allow { key, id, reads });
                }
                return self.effects.push(Effect::Track {
                    key,
                    id,
                    payload,
                    tracked,
                    full,
                });
            }
            PresencePush::Untrack => {
                channel.tracked_bytes = 0;
                (
                    Some(Effect::Untrack { key, id }),
                    protocol::ok_reply().to_owned(),
                )
            }
            PresencePush::NoEvent => (None, protocol::ok_reply().to_owned()),
            PresencePush::NotAMap => (None, protocol::error_reply(protocol::presence::NOT_A_MAP)),
            PresencePush::Unknown => (None, protocol::empty_error_reply().to_owned()),
        };
        self.effects.extend(effect);
        self.reply(&join_ref, &message.reference, &message.topic, &answer);
    }

    /// Whether all that this socket tracks, with so much on this channel, is not too much.
    fn may_hold(&self, topic: &str, bytes: usize) -> bool {
        let others = self.channels.iter().filter(|(other, _)| ***other != *topic);
        let others: usize = others.map(|(_, channel)| channel.tracked_bytes).sum();
        self.limits.all().presence_bytes(others + bytes).is_ok()
    }
}

/// A channel that may send.
struct Sender {
    key: TopicKey,
    told: Told,
}

/// What a channel is told that asks for too much.
fn ending(exceeded: Exceeded) -> &'static str {
    exceeded.ends_channel().unwrap_or(ends::TOO_MANY_MESSAGES)
}
