//! Broadcast between clients, and who is online: what happens on a topic without the database.
//!
//! A topic is a map of members behind synchronous methods. Frames are encoded once for each serializer version.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use dashmap::DashMap;
use protocol::{Encoding, Ref, Version, event};
use serde_json::value::RawValue;

use crate::{
    hub::outbox::{Frame, Outbox},
    metrics::names,
};

/// Public and private channels of the same name are different topics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicKey {
    pub private: bool,
    /// Without the leading `realtime:`.
    pub sub_topic: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(u64);

impl MemberId {
    /// Never given twice in this process, so that whoever leaves takes away only its own entry.
    pub fn next() -> MemberId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        MemberId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A channel of a connection, as its topic sees it.
pub struct Member {
    pub topic: Arc<str>,
    pub version: Version,
    pub join_ref: Ref,
    pub outbox: Arc<Outbox>,
    /// It gets its own broadcasts, too.
    pub self_send: bool,
    /// It gets a `presence_state` when it joins.
    pub presence_enabled: bool,
    pub presence_key: Arc<str>,
}

/// What is broadcast, in the form in which it came.
pub enum Broadcast<'a> {
    /// A text frame's payload: relayed as it is.
    Message(&'a RawValue),
    /// A kind 3 frame, or the server's own.
    User {
        event: &'a str,
        encoding: Encoding,
        payload: &'a [u8],
    },
}

#[derive(Default)]
struct Topic {
    members: HashMap<MemberId, Present>,
}

struct Present {
    member: Member,
    tracked: Option<Tracked>,
}

struct Tracked {
    payload: Box<RawValue>,
    phx_ref: String,
    /// The payload with its refs, as clients get it.
    meta: String,
}

#[derive(Default)]
pub struct Topics {
    topics: DashMap<TopicKey, Topic>,
    next_ref: AtomicU64,
    /// Refs of another process must differ.
    node: u32,
}

impl Topics {
    pub fn new() -> Topics {
        Topics {
            node: rand::random(),
            ..Topics::default()
        }
    }

    /// Joins, and sends the member the presence state before any later diff.
    pub fn join(&self, key: &TopicKey, id: MemberId, member: Member) {
        let mut topic = self.topics.entry(key.clone()).or_default();
        if member.presence_enabled {
            let state = topic.state();
            member.outbox.push_greeting(Frame::text(protocol::encode(
                member.version,
                &member.join_ref,
                &Ref::NULL,
                &member.topic,
                event::PRESENCE_STATE,
                &state,
            )));
        }
        topic.members.insert(
            id,
            Present {
                member,
                tracked: None,
            },
        );
    }

    /// Leaves; others learn that it is no longer online.
    pub fn leave(&self, key: &TopicKey, id: MemberId) {
        if let Some(mut topic) = self.topics.get_mut(key)
            && let Some(left) = topic.members.remove(&id)
            && let Some(tracked) = left.tracked
        {
            topic.announce(None, Some((&left.member.presence_key, &tracked.meta)));
        }
        self.topics
            .remove_if(key, |_, topic| topic.members.is_empty());
    }

    /// Tracks a payload in place of the one tracked before. The same payload again changes nothing.
    pub fn track(&self, key: &TopicKey, id: MemberId, payload: &RawValue) {
        let Some(mut topic) = self.topics.get_mut(key) else {
            return;
        };
        let Some(present) = topic.members.get_mut(&id) else {
            return;
        };
        let before = present.tracked.take();
        if let Some(before) = &before
            && before.payload.get() == payload.get()
        {
            present.tracked = Some(Tracked {
                payload: before.payload.clone(),
                phx_ref: before.phx_ref.clone(),
                meta: before.meta.clone(),
            });
            return;
        }
        let phx_ref = format!(
            "{:08x}{:x}",
            self.node,
            self.next_ref.fetch_add(1, Ordering::Relaxed)
        );
        let meta = protocol::presence::meta(
            payload,
            &phx_ref,
            before.as_ref().map(|before| &*before.phx_ref),
        );
        present.tracked = Some(Tracked {
            payload: payload.to_owned(),
            phx_ref,
            meta: meta.clone(),
        });
        let presence_key = present.member.presence_key.clone();
        topic.announce(
            Some((&presence_key, &meta)),
            before
                .as_ref()
                .map(|before| (&*presence_key, &*before.meta)),
        );
    }

    /// Stops tracking. Nothing happens if nothing was tracked.
    pub fn untrack(&self, key: &TopicKey, id: MemberId) {
        let Some(mut topic) = self.topics.get_mut(key) else {
            return;
        };
        let Some(present) = topic.members.get_mut(&id) else {
            return;
        };
        if let Some(tracked) = present.tracked.take() {
            let presence_key = present.member.presence_key.clone();
            topic.announce(None, Some((&presence_key, &tracked.meta)));
        }
    }

    /// Sends to every member but the sender, and to that one if it wants its own. Returns to how many.
    pub fn broadcast(
        &self,
        key: &TopicKey,
        sender: Option<MemberId>,
        broadcast: Broadcast<'_>,
    ) -> usize {
        let Some(topic) = self.topics.get(key) else {
            return 0;
        };
        let mut frames = Frames::new(broadcast);
        let mut sent = 0;
        for (id, present) in &topic.members {
            if Some(*id) == sender && !present.member.self_send {
                continue;
            }
            if let Some(frame) = frames.get(present.member.version, &present.member.topic) {
                present.member.outbox.push(frame);
                sent += 1;
            }
        }
        metrics::counter!(names::BROADCASTS_OUT).increment(sent as u64);
        sent
    }

    /// A broadcast of the server's own. `payload` is the text of a JSON object.
    pub fn send(&self, private: bool, sub_topic: &str, event: &str, payload: &str) -> usize {
        let key = TopicKey {
            private,
            sub_topic: sub_topic.into(),
        };
        self.broadcast(
            &key,
            None,
            Broadcast::User {
                event,
                encoding: Encoding::Json,
                payload: payload.as_bytes(),
            },
        )
    }

    /// Who is online, as `presence_state` has it.
    pub fn presences(&self, private: bool, sub_topic: &str) -> String {
        let key = TopicKey {
            private,
            sub_topic: sub_topic.into(),
        };
        self.topics
            .get(&key)
            .map_or_else(|| "{}".to_owned(), |topic| topic.state())
    }
}

impl Topic {
    fn state(&self) -> String {
        let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for present in self.members.values() {
            if let Some(tracked) = &present.tracked {
                keys.entry(&present.member.presence_key)
                    .or_default()
                    .push(&tracked.meta);
            }
        }
        protocol::presence::state(keys)
    }

    /// Members of public channels get the diff whether they enabled presence or not (protocol §7.3).
    fn announce(&self, joined: Option<(&str, &str)>, left: Option<(&str, &str)>) {
        let entry = |entry: Option<(&str, &str)>| {
            entry.map(|(key, meta)| (key.to_owned(), [meta.to_owned()]))
        };
        let payload = protocol::presence::diff(entry(joined), entry(left));
        let mut by_version: [Option<Frame>; 2] = [None, None];
        for present in self.members.values() {
            let member = &present.member;
            let frame = by_version[slot(member.version)].get_or_insert_with(|| {
                Frame::text(protocol::encode(
                    member.version,
                    &Ref::NULL,
                    &Ref::NULL,
                    &member.topic,
                    event::PRESENCE_DIFF,
                    &payload,
                ))
            });
            member.outbox.push(frame.clone());
        }
    }
}

fn slot(version: Version) -> usize {
    match version {
        Version::V1 => 0,
        Version::V2 => 1,
    }
}

/// One broadcast, encoded at most once for each version.
struct Frames<'a> {
    broadcast: Broadcast<'a>,
    encoded: [Option<Option<Frame>>; 2],
}

impl<'a> Frames<'a> {
    fn new(broadcast: Broadcast<'a>) -> Frames<'a> {
        Frames {
            broadcast,
            encoded: [None, None],
        }
    }

    /// None where the version cannot say it.
    fn get(&mut self, version: Version, topic: &str) -> Option<Frame> {
        let broadcast = &self.broadcast;
        self.encoded[slot(version)]
            .get_or_insert_with(|| encode(broadcast, version, topic))
            .clone()
    }
}

fn encode(broadcast: &Broadcast<'_>, version: Version, topic: &str) -> Option<Frame> {
    let text = |payload: &str| {
        Frame::text(protocol::encode(
            version,
            &Ref::NULL,
            &Ref::NULL,
            topic,
            event::BROADCAST,
            payload,
        ))
    };
    match broadcast {
        Broadcast::Message(payload) => Some(text(payload.get())),
        Broadcast::User {
            event,
            encoding,
            payload,
        } => {
            if version == Version::V2
                && let Some(frame) =
                    protocol::encode_user_broadcast(topic, event, None, *encoding, payload)
            {
                return Some(Frame::Binary(Bytes::from(frame)));
            }
            match encoding {
                Encoding::Binary => None,
                Encoding::Json => {
                    let payload = std::str::from_utf8(payload).ok()?;
                    Some(text(&protocol::broadcast::payload(event, payload, None)))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
