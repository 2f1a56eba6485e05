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

    /// Whether what the channel sends may go on now. If that has to be asked first, it waits, with all that comes after it.
    pub(super) fn may_write(
        &mut self,
        topic: &str,
        waiting: Waiting,
        now: Now,
    ) -> Option<(Grant, Waiting)> {
        let age = self.rules.recheck.as_secs().cast_signed();
        let channel = self.channels.get_mut(topic)?;
        if !channel.key.private {
            return Some((Grant::ALL, waiting));
        }
        if let Some(pending) = &mut channel.pending {
            pending.push(waiting);
            return None;
        }
        match channel.write {
            Some((grant, asked)) if now.unix - asked < age => Some((grant, waiting)),
            _ => {
                let mut pending = Queue::default();
                pending.push(waiting);
                channel.pending = Some(pending);
                self.ask_rights(topic, Right::Write);
                None
            }
        }
    }

    pub(super) fn ask_rights(&mut self, topic: &str, right: Right) {
        self.questions += 1;
        let asked = self.questions;
        let Some(asker) = self
            .channels
            .get(topic)
            .and_then(|channel| self.asker(channel))
        else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(topic) {
            match right {
                Right::Read => channel.read_asked = asked,
                Right::Write => channel.write_asked = asked,
            }
            self.effects.push(Effect::AskRights(RightsQuestion {
                topic: channel.topic.clone(),
                asked,
                asker,
                right,
            }));
        }
    }

    /// The answer to a question about rights. One that nobody waits for any more is void.
    pub(in crate::connection) fn rights(
        &mut self,
        topic: &str,
        asked: u64,
        right: Right,
        answer: Result<Grant, ChannelError>,
        now: Now,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        match right {
            Right::Read if channel.read_asked == asked => match answer {
                Ok(read) => self.reads(topic, read),
                // An error in a policy means no.
                Err(ChannelError::Policy { .. }) => self.reads(topic, Grant::default()),
                // What was known holds until it can be asked again.
                Err(ChannelError::Canceled | ChannelError::Unavailable) => {}
            },
            Right::Write if channel.write_asked == asked => {
                let Some(pending) = channel.pending.take() else {
                    return;
                };
                let known = answer.is_ok();
                channel.write = Some((answer.unwrap_or_default(), now.unix));
                self.resume(pending.waiting, now);
                if !known && let Some(channel) = self.channels.get_mut(topic) {
                    channel.write = None;
                }
            }
            Right::Read | Right::Write => {}
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
        let doubtful: Vec<_> = self
            .joined()
            .filter(|channel| channel.key.private && channel.is_named(doubt))
            .map(|channel| channel.topic.clone())
            .collect();
        for topic in doubtful {
            if let Some(channel) = self.channels.get_mut(&topic) {
                channel.write = None;
                if channel.pending.is_some() {
                    self.ask_rights(&topic, Right::Write);
                }
            }
            self.ask_rights(&topic, Right::Read);
        }
    }

    /// A message was stored, or not.
    pub(in crate::connection) fn stored(&mut self, told: &Told, result: Result<(), String>) {
        let payload = match result {
            Ok(()) => protocol::ok_reply().to_owned(),
            Err(text) => protocol::error_text_reply(&text),
        };
        let here = self
            .channels
            .get(&*told.topic)
            .is_some_and(|channel| channel.member == told.member);
        if here && told.ack {
            self.reply(&told.join_ref, &told.reference, &told.topic, &payload);
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
