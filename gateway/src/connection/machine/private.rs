//! What a private channel may do: who may receive is known since its join, who may send is asked when it first sends.

use super::*;
use crate::{
    authorizer::{ChannelError, Grant, Right},
    private::Doubt,
};

impl Machine<'_> {
    /// Who asks about a channel's rights. None on a public one.
    pub(super) fn asker(&self, channel: &Channel) -> Option<Asker> {
        channel.key.private.then(|| Asker {
            principal: channel.verified.principal.clone(),
            topic: channel.key.sub_topic.clone(),
            headers: self.headers.clone(),
        })
    }

    /// Whether rights are held that may be lost.
    pub(in crate::connection) fn has_private(&self) -> bool {
        self.channels.values().any(|channel| channel.key.private)
    }

    /// Whether what the channel sends may go on now. If that has to be asked first, or something before it is being stored, it
    /// waits, with all that comes after it.
    pub(super) fn may_write(
        &mut self,
        topic: &str,
        waiting: Waiting,
        now: Now,
    ) -> Option<(Grant, Waiting)> {
        let age = self.rules.recheck.as_secs().max(1).cast_signed();
        let channel = self.channels.get_mut(topic)?;
        if !channel.key.private {
            return Some((Grant::ALL, waiting));
        }
        let known = match (&channel.pending, channel.write) {
            (None, Some((grant, asked))) if !channel.storing => Some((grant, asked)),
            _ => None,
        };
        let Some((grant, asked)) = known else {
            let others = self.waiting_elsewhere(topic);
            let channel = self.channels.get_mut(topic)?;
            let unknown = channel.write.is_none() && channel.write_asked.is_none();
            let pending = channel.pending.get_or_insert_default();
            let refused = pending.push(waiting, others);
            if unknown && !channel.storing {
                self.ask_rights(topic, Right::Write);
            }
            if let Some(refused) = refused {
                self.crowded_out(topic, &refused);
            }
            return None;
        };
        // An answer that has only grown old holds until there is another one.
        if now.unix - asked >= age && channel.write_asked.is_none() {
            self.ask_rights(topic, Right::Write);
        }
        Some((grant, waiting))
    }

    /// Too much waits already.
    fn crowded_out(&mut self, topic: &str, refused: &Waiting) {
        let Some(channel) = self.channels.get(topic) else {
            return;
        };
        let (reference, ack) = match refused {
            Waiting::Broadcast(broadcast) => {
                (&broadcast.reference, channel.wanted.config.broadcast.ack)
            }
            Waiting::Message(message) if message.event == event::PRESENCE => {
                (&message.reference, true)
            }
            Waiting::Message(message) => (&message.reference, channel.wanted.config.broadcast.ack),
        };
        if ack {
            let (join_ref, topic) = (channel.join_ref.clone(), channel.topic.clone());
            let reply = protocol::error_reply(protocol::TOO_MUCH_WAITS);
            self.reply(&join_ref, reference, &topic, &reply);
        }
    }

    /// Asks, unless that is under way.
    pub(super) fn ask_rights(&mut self, topic: &str, right: Right) {
        let Some(asker) = self
            .channels
            .get(topic)
            .and_then(|channel| self.asker(channel))
        else {
            return;
        };
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let covers = channel
            .pending
            .as_ref()
            .map_or(0, |pending| pending.waiting.len());
        let asked = match right {
            Right::Read => &mut channel.read_asked,
            Right::Write => &mut channel.write_asked,
        };
        if let Some(asked) = asked {
            asked.doubted = true;
            return;
        }
        self.questions += 1;
        let number = self.questions;
        *asked = Some(Asked {
            number,
            doubted: false,
            covers,
        });
        self.effects.push(Effect::AskRights(RightsQuestion {
            topic: channel.topic.clone(),
            asked: number,
            asker,
            right,
        }));
    }

    /// The answer to a question about rights. One that nobody waits for any more is void.
    pub(in crate::connection) fn rights(
        &mut self,
        topic: &str,
        number: u64,
        right: Right,
        answer: Result<Grant, ChannelError>,
        now: Now,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let asked = match right {
            Right::Read => &mut channel.read_asked,
            Right::Write => &mut channel.write_asked,
        };
        let Some(Asked {
            doubted, covers, ..
        }) = asked.take_if(|asked| asked.number == number)
        else {
            return;
        };
        let answer = match answer {
            Ok(grant) => Some(grant),
            // An error in a policy means no.
            Err(ChannelError::Policy { .. }) => Some(Grant::default()),
            // What was known holds until it can be asked again.
            Err(ChannelError::Canceled | ChannelError::Unavailable) => None,
        };
        match (right, answer) {
            // A no counts at once, also if something has changed since.
            (Right::Read, Some(read)) => self.reads(topic, read),
            (Right::Read, None) => {}
            (Right::Write, answer) => {
                let grant = answer.or(channel.write.map(|(grant, _)| grant));
                let mut waiting = match channel.storing {
                    false => channel.pending.take().unwrap_or_default().waiting,
                    true => Vec::new(),
                };
                let later = match doubted {
                    true => waiting.split_off(covers.min(waiting.len())),
                    false => Vec::new(),
                };
                channel.write = Some((grant.unwrap_or_default(), now.unix));
                self.resume(waiting, now);
                let Some(channel) = self.channels.get_mut(topic) else {
                    return;
                };
                if doubted || grant.is_none() {
                    channel.write = None;
                }
                if !later.is_empty() {
                    let pending = channel.pending.get_or_insert_default();
                    later
                        .into_iter()
                        .for_each(|waiting| pending.put_back(waiting));
                    if !channel.storing {
                        self.ask_rights(topic, Right::Write);
                    }
                }
            }
        }
        if doubted && right == Right::Read {
            self.ask_rights(topic, Right::Read);
        }
    }

    /// Sends what has waited, as far as it may.
    fn go_on(&mut self, topic: &str, now: Now) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        if channel.storing {
            return;
        }
        if let Some(pending) = channel.pending.take() {
            self.resume(pending.waiting, now);
        }
    }

    /// What the channel may receive, as it was asked anew. A right that was held and is lost ends it.
    pub(super) fn reads(&mut self, topic: &str, read: Grant) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let before = channel.reads();
        channel.read = read;
        let now = channel.reads();
        let sub_topic = channel.key.sub_topic.clone();
        if now.is_empty() {
            return self.end(topic, &ends::no_read_right(&sub_topic));
        }
        if (before.broadcast && !now.broadcast) || (before.presence && !now.presence) {
            return self.end(topic, &ends::lost_read_right(&sub_topic));
        }
        if now != before {
            self.effects.push(Effect::Allow {
                key: channel.key.clone(),
                id: channel.member,
                reads: now,
            });
        }
    }

    /// Something has changed on which rights rest: those whom it may concern are asked about again.
    pub(in crate::connection) fn doubt(&mut self, doubt: &Doubt) {
        let mut doubtful = Vec::new();
        for channel in self.channels.values_mut() {
            if !channel.key.private || !channel.is_named(doubt) {
                continue;
            }
            match &mut channel.phase {
                Phase::Joining(joining) => joining.doubted = true,
                Phase::Joined => {
                    channel.write = None;
                    if let Some(asked) = &mut channel.write_asked {
                        asked.doubted = true;
                    }
                    doubtful.push(channel.topic.clone());
                }
            }
        }
        for topic in doubtful {
            self.ask_rights(&topic, Right::Read);
        }
    }

    /// Rights that were asked for long ago are asked for again. Until there is an answer they hold.
    pub(in crate::connection) fn recheck(&mut self) {
        let private = self.joined().filter(|channel| channel.key.private);
        let topics: Vec<_> = private.map(|channel| channel.topic.clone()).collect();
        for topic in topics {
            self.ask_rights(&topic, Right::Read);
        }
    }

    /// A message was stored, or not.
    pub(in crate::connection) fn stored(
        &mut self,
        told: &Told,
        result: Result<(), String>,
        now: Now,
    ) {
        let payload = match result {
            Ok(()) => protocol::ok_reply().to_owned(),
            Err(text) => protocol::error_text_reply(&text),
        };
        let Some(channel) = self
            .channels
            .get_mut(&*told.topic)
            .filter(|channel| channel.member == told.member)
        else {
            return;
        };
        channel.storing = false;
        let ask = channel.write.is_none() && channel.pending.is_some();
        if told.ack {
            self.reply(&told.join_ref, &told.reference, &told.topic, &payload);
        }
        match ask {
            true => self.ask_rights(&told.topic, Right::Write),
            false => self.go_on(&told.topic, now),
        }
    }

    /// Whether messages from the database arrive, for a channel that wanted to know.
    pub(in crate::connection) fn replicated(&mut self, topic: &str, member: MemberId, ready: bool) {
        let Some(channel) = self
            .channels
            .get(topic)
            .filter(|channel| channel.member == member)
        else {
            return;
        };
        if ready {
            let message = protocol::REPLICATION_READY;
            let told = system(self.version, channel, true, extension::SYSTEM, message);
            self.effects.push(Effect::Send(told));
        } else {
            self.end(topic, ends::REPLICATION_TIMEOUT);
        }
    }
}
