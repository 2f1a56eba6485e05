//! Broadcast, and who is online: what happens on a topic.
//!
//! A topic is a map of members behind synchronous methods. [`broadcast`] makes the frames of broadcasts, [`presence`] knows who is
//! online. What a member of a private topic gets is decided by its rights, which somebody else has asked for.

mod broadcast;
mod presence;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use protocol::{Encoding, Ref, Version};
use tokio::sync::oneshot;

pub use self::broadcast::{Broadcast, Stored};
use self::{
    broadcast::{Frames, Latest},
    presence::{Agenda, Presence, Tracked},
};
use crate::{
    authorizer::Grant,
    feed::snapshot::Snapshot,
    hub::outbox::{Outbox, Pushed},
    limits::Limits,
    metrics::names,
};

/// Public and private channels of the same name are different topics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// Boxed, because a map has room for four at least, and many topics have one.
    members: HashMap<MemberId, Box<Present>>,
    presence: Presence,
}

struct Present {
    member: Member,
    tracked: Option<Arc<Tracked>>,
    /// The place among the changes of presence up to which it has been told.
    told: u64,
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

pub struct Topics {
    limits: Arc<Limits>,
    topics: DashMap<TopicKey, Topic>,
    next_ref: AtomicU64,
    /// Refs of another process must differ.
    node: u64,
    agenda: Agenda,
    latest: Mutex<Latest>,
    /// Messages that members have stored and that are not published yet: they are not sent back to those members.
    expected: Mutex<VecDeque<Coming>>,
}

/// A message that a member has stored.
struct Coming {
    id: Box<str>,
    sender: MemberId,
    /// To be told when it has been sent to everybody.
    told: oneshot::Sender<()>,
}

/// More bytes between a replay and what is live are not given at once.
const MOST_BETWEEN: usize = 4 << 20;

/// A message that is being stored.
pub struct Expected<'a> {
    topics: &'a Topics,
    id: &'a str,
    pub published: oneshot::Receiver<()>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.topics.forget_expected(self.id);
    }
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
            agenda: Agenda::default(),
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
        // Held until the member is there: what is published meanwhile waits, and finds it.
        let latest = replay.as_ref().map(|_| self.latest());
        let between = match (&replay, &latest) {
            (Some(replay), Some(latest)) => {
                let mut between = latest.since(key, replay.asked).ok_or(Forgotten)?;
                between.retain(|message| !replay.seen.sees(message.xid));
                let bytes: usize = between.iter().map(|message| message.payload.len()).sum();
                // It joins again, and finds these among those before.
                if bytes > MOST_BETWEEN {
                    return Err(Forgotten);
                }
                between
            }
            _ => Vec::new(),
        };
        let mut topic = self.topics.entry(key.clone()).or_default();
        let mut seen = None;
        if let Some(replay) = replay {
            for message in &replay.messages {
                let frame = message.replayed(member.version, &member.topic, &member.join_ref);
                if let Some(frame) = frame {
                    member.outbox.push_greeting(frame);
                }
            }
            for message in between {
                let frame = Frames::new(message.broadcast()).get(member.version, &member.topic);
                if let Some(frame) = frame {
                    member.outbox.push_greeting(frame);
                }
            }
            seen = Some((replay.asked, replay.seen));
        }
        let mut told = topic.presence.end();
        if member.presence_enabled && member.reads.presence {
            told = self.greet(&mut topic, &member);
        }
        topic.members.insert(
            id,
            Box::new(Present {
                member,
                tracked: None,
                told,
                seen,
            }),
        );
        Ok(())
    }

    /// A member's rights are others now. What it may receive from now on begins with the present state.
    pub fn allow(&self, key: &TopicKey, id: MemberId, reads: Grant) {
        let Some(mut topic) = self.topics.get_mut(key) else {
            return;
        };
        // Taken out, so that it and the topic can both be looked at.
        let Some(mut present) = topic.members.remove(&id) else {
            return;
        };
        let gained = reads.presence && !present.member.reads.presence;
        present.member.reads = reads;
        if gained {
            present.told = match present.member.presence_enabled {
                true => self.greet(&mut topic, &present.member),
                false => topic.presence.end(),
            };
        }
        topic.members.insert(id, present);
    }

    /// Sends to every member but the sender, and to that one if it wants its own. Returns to how many.
    pub fn broadcast(
        &self,
        key: &TopicKey,
        sender: Option<MemberId>,
        broadcast: Broadcast<'_>,
    ) -> usize {
        self.spread(key, sender, broadcast, None).frames
    }

    /// `xid`: the transaction that has committed the message.
    fn spread(
        &self,
        key: &TopicKey,
        sender: Option<MemberId>,
        broadcast: Broadcast<'_>,
        xid: Option<u64>,
    ) -> Pushed {
        let Some(topic) = self.topics.get(key) else {
            return Pushed::default();
        };
        let mut crowded = Vec::new();
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
                if member.outbox.push(frame) {
                    crowded.push(member.outbox.clone());
                }
                sent += 1;
            }
        }
        metrics::counter!(names::BROADCASTS_OUT).increment(sent as u64);
        self.limits
            .events_delivered(sent, tokio::time::Instant::now());
        Pushed {
            frames: sent,
            crowded,
        }
    }

    /// A row of `realtime.messages` has been committed.
    pub fn publish(&self, key: &TopicKey, message: &Arc<Stored>) -> Pushed {
        let coming = self.coming(&message.id);
        let sender = coming.as_ref().map(|coming| coming.sender);
        // Held until all have it: who joins meanwhile has it either from here or from there.
        let mut latest = key.private.then(|| self.latest());
        if let Some(latest) = &mut latest {
            latest.push(key, message);
        }
        let pushed = self.spread(key, sender, message.broadcast(), Some(message.xid));
        if let Some(coming) = coming {
            // Whoever has stored it may have gone.
            let _ = coming.told.send(());
        }
        pushed
    }

    /// A member is about to store a message with this id. Forgotten when what is returned is dropped.
    pub fn expect<'a>(&'a self, id: &'a str, sender: MemberId) -> Expected<'a> {
        let (told, published) = oneshot::channel();
        let mut expected = self.expected();
        if expected.len() == MOST_EXPECTED {
            expected.pop_front();
        }
        expected.push_back(Coming {
            id: id.into(),
            sender,
            told,
        });
        Expected {
            topics: self,
            id,
            published,
        }
    }

    /// It was not stored, or it goes to nobody.
    pub fn forget_expected(&self, id: &str) {
        self.coming(id);
    }

    fn coming(&self, id: &str) -> Option<Coming> {
        let mut expected = self.expected();
        let place = expected.iter().position(|coming| *coming.id == *id)?;
        expected.remove(place)
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

    fn expected(&self) -> MutexGuard<'_, VecDeque<Coming>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
