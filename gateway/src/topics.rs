//! Broadcast, and who is online: what happens on a topic.
//!
//! A topic is a map of members behind synchronous methods. [`broadcast`] makes the frames. What a member of a private topic gets
//! is decided by its rights, which somebody else has asked for.

mod broadcast;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use protocol::{Encoding, Ref, Version, event};
use serde_json::value::RawValue;

pub use self::broadcast::{Broadcast, Stored};
use self::broadcast::{Frames, Latest, slot};
use crate::{
    authorizer::Grant,
    feed::snapshot::Snapshot,
    hub::outbox::{Frame, Outbox},
    limits::Limits,
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
    /// What it may receive.
    pub reads: Grant,
}

/// What was on a private topic before a channel joined it.
pub struct Replay {
    /// When that was asked.
    pub asked: Instant,
    /// Which transactions the answer takes into account: of these, nothing more is to come.
    pub seen: Snapshot,
    /// The oldest first.
    pub messages: Vec<Stored>,
}

/// More was published since a replay was asked for than is remembered: the channel has to join again.
#[derive(Debug, PartialEq, Eq)]
pub struct Forgotten;

#[derive(Default)]
struct Topic {
    members: HashMap<MemberId, Present>,
}

struct Present {
    member: Member,
    tracked: Option<Tracked>,
    /// What it was given when it joined takes these transactions into account: of these, nothing more is to come. Since when.
    seen: Option<(Instant, Snapshot)>,
}

/// How late a message may come that was seen before. Later its transaction's number may stand for another one: after a crash of
/// the database numbers are given out again.
const LATE: Duration = Duration::from_secs(600);

impl Present {
    fn has_seen(&self, xid: u64) -> bool {
        self.seen
            .as_ref()
            .is_some_and(|(since, seen)| since.elapsed() < LATE && seen.sees(xid))
    }
}

struct Tracked {
    payload: Box<RawValue>,
    phx_ref: String,
    /// The payload with its refs, as clients get it.
    meta: String,
}

pub struct Topics {
    limits: Arc<Limits>,
    topics: DashMap<TopicKey, Topic>,
    next_ref: AtomicU64,
    /// Refs of another process must differ.
    node: u32,
    latest: Mutex<Latest>,
    /// Messages that members have stored and that are not published yet: they are not sent back to those members.
    expected: Mutex<VecDeque<(Box<str>, MemberId)>>,
}

/// Stored messages that are on their way through the log. More are in flight only if it stands still.
const MOST_EXPECTED: usize = 10_000;

impl Topics {
    pub fn new(limits: Arc<Limits>) -> Topics {
        Topics {
            limits,
            topics: DashMap::new(),
            next_ref: AtomicU64::new(0),
            node: rand::random(),
            latest: Mutex::default(),
            expected: Mutex::default(),
        }
    }

    /// Joins, and sends the member what was before, then the presence state, before any later diff.
    pub fn join(
        &self,
        key: &TopicKey,
        id: MemberId,
        member: Member,
        replay: Option<Replay>,
    ) -> Result<(), Forgotten> {
        // Under the topic's lock: what is published from now on waits for it, and finds the member.
        let mut topic = self.topics.entry(key.clone()).or_default();
        let mut seen = None;
        if let Some(replay) = replay {
            let Some(between) = self.latest().since(key, replay.asked) else {
                drop(topic);
                self.topics
                    .remove_if(key, |_, topic| topic.members.is_empty());
                return Err(Forgotten);
            };
            for message in &replay.messages {
                let frame = message.replayed(member.version, &member.topic, &member.join_ref);
                if let Some(frame) = frame {
                    member.outbox.push_greeting(frame);
                }
            }
            for message in between {
                if !replay.seen.sees(message.xid) {
                    let frame = Frames::new(message.broadcast()).get(member.version, &member.topic);
                    if let Some(frame) = frame {
                        member.outbox.push_greeting(frame);
                    }
                }
            }
            seen = Some((replay.asked, replay.seen));
        }
        if member.presence_enabled && member.reads.presence {
            topic.greet(&member);
        }
        topic.members.insert(
            id,
            Present {
                member,
                tracked: None,
                seen,
            },
        );
        Ok(())
    }

    /// A member's rights are others now. What it may receive from now on begins with the present state.
    pub fn allow(&self, key: &TopicKey, id: MemberId, reads: Grant) {
        let Some(mut topic) = self.topics.get_mut(key) else {
            return;
        };
        let Some(present) = topic.members.get_mut(&id) else {
            return;
        };
        let gained = reads.presence && !present.member.reads.presence;
        present.member.reads = reads;
        if gained
            && let Some(present) = topic.members.get(&id)
            && present.member.presence_enabled
        {
            topic.greet(&present.member);
        }
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
        self.spread(key, sender, broadcast, None)
    }

    /// `xid`: the transaction that has committed the message.
    fn spread(
        &self,
        key: &TopicKey,
        sender: Option<MemberId>,
        broadcast: Broadcast<'_>,
        xid: Option<u64>,
    ) -> usize {
        let Some(topic) = self.topics.get(key) else {
            return 0;
        };
        let mut frames = Frames::new(broadcast);
        let mut sent = 0;
        for (member_id, present) in &topic.members {
            let member = &present.member;
            let own = Some(*member_id) == sender && !member.self_send;
            if own || !member.reads.broadcast {
                continue;
            }
            if xid.is_some_and(|xid| present.has_seen(xid)) {
                continue;
            }
            if let Some(frame) = frames.get(member.version, &member.topic) {
                member.outbox.push(frame);
                sent += 1;
            }
        }
        metrics::counter!(names::BROADCASTS_OUT).increment(sent as u64);
        self.limits
            .events_delivered(sent, tokio::time::Instant::now());
        sent
    }

    /// A row of `realtime.messages` has been committed.
    pub fn publish(&self, key: &TopicKey, message: &Arc<Stored>) -> usize {
        if key.private {
            self.latest().push(key, message);
        }
        let sender = self.forget_expected(&message.id);
        self.spread(key, sender, message.broadcast(), Some(message.xid))
    }

    /// A member is about to store a message with this id.
    pub fn expect(&self, id: &str, sender: MemberId) {
        let mut expected = self.expected();
        if expected.len() == MOST_EXPECTED {
            expected.pop_front();
        }
        expected.push_back((id.into(), sender));
    }

    /// It was not stored, or it has come.
    pub fn forget_expected(&self, id: &str) -> Option<MemberId> {
        let mut expected = self.expected();
        let place = expected.iter().position(|(other, _)| **other == *id)?;
        expected.remove(place).map(|(_, sender)| sender)
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
                id: None,
            },
        )
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expected(&self) -> MutexGuard<'_, VecDeque<(Box<str>, MemberId)>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Sends a member the presence state.
    fn greet(&self, member: &Member) {
        member.outbox.push_greeting(Frame::text(protocol::encode(
            member.version,
            &member.join_ref,
            &Ref::NULL,
            &member.topic,
            event::PRESENCE_STATE,
            &self.state(),
        )));
    }

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
            if !member.reads.presence {
                continue;
            }
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

#[cfg(test)]
mod tests;
