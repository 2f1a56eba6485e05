//! What clients push on a channel: broadcasts, presence, tokens.

use super::*;

impl Machine<'_> {
    pub(super) fn push(&mut self, message: ClientMessage, now: i64) {
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
            event::ACCESS_TOKEN => self.renew(message, now, true),
            event::BROADCAST => self.broadcast(message),
            event::PRESENCE => self.presence(message),
            // Unknown events get no answer.
            _ => {}
        }
    }

    pub(in crate::connection) fn user_broadcast(&mut self, broadcast: UserBroadcast) {
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
        let (ack, join_ref) = (
            channel.wanted.config.broadcast.ack,
            channel.join_ref.clone(),
        );
        if ack {
            self.acknowledge(&join_ref, &broadcast.reference, &broadcast.topic, small);
        }
        if small {
            self.effects
                .push(Effect::BroadcastUser { key, id, broadcast });
        }
    }

    pub(super) fn broadcast(&mut self, message: ClientMessage) {
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        if !protocol::broadcast::is_relayable(&message.payload) {
            return;
        }
        let (key, id) = (channel.key.clone(), channel.member);
        let small = message.payload.get().len() <= self.rules.max_payload_bytes;
        let (ack, join_ref) = (
            channel.wanted.config.broadcast.ack,
            channel.join_ref.clone(),
        );
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

    pub(super) fn acknowledge(
        &mut self,
        join_ref: &Ref,
        reference: &Ref,
        topic: &str,
        small: bool,
    ) {
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
    pub(super) fn presence(&mut self, message: ClientMessage) {
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
}

fn wait(joining: &mut Joining, waiting: Waiting) {
    let bytes = joining.waiting_bytes + waiting.size();
    if joining.waiting.len() < WAITING_MESSAGES && bytes <= WAITING_BYTES {
        joining.waiting_bytes = bytes;
        joining.waiting.push(waiting);
    }
}
