//! Who is online on a topic: what is tracked, and how far each member has been told.
//!
//! Each change has a place in one sequence, and each member has been told of all changes up to some place. A diff is what lies between two
//! places. So however many changes a diff holds, and whenever a member gets it: its state and its diffs add up to what everybody has.
//!
//! A change is told at once while little happens. When n clients come to one topic together that would be n² frames; then whoever made a
//! change is told at once, with all before it, and the others after a pause that grows with their number.

mod agenda;
mod frames;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::{Ref, Version, event};
use serde_json::value::RawValue;
use tokio::time::Instant;

pub(super) use self::agenda::Agenda;
use super::{Member, MemberId, Topic, TopicKey, Topics, broadcast::slot};
use crate::{hub::outbox::Frame, limits::Exceeded, metrics::names};

/// What it may take to tell one member: so that presence takes a part of one processor, however many come and go.
const PAUSE_PER_MEMBER: Duration = Duration::from_micros(50);
/// Shorter ones are not worth a timer: the topic is small.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Nobody waits longer. (The peer tells after up to 1.5 s.)
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// When so much has not been told, the pause is over: each who changes something meanwhile is told all before it.
const UNTOLD_CHANGES: usize = 512;
const UNTOLD_BYTES: usize = 128 << 10;
/// Changes for which a topic where little happens keeps room.
const KEEP: usize = 8;
/// A smaller state is made anew for each who joins.
const WORTH_KEEPING: usize = 4 << 10;

/// What one member tracks.
pub(super) struct Tracked {
    /// That of its ref.
    number: u64,
    key: Arc<str>,
    phx_ref: String,
    /// The payload with its refs, as clients get it.
    meta: String,
    /// As JSON, with its key.
    bytes: usize,
}

struct Change {
    left: Option<Arc<Tracked>>,
    joined: Option<Arc<Tracked>>,
}

/// A `presence_state`, without the head that differs for each member, and what did not fit into it.
pub(super) struct State {
    place: u64,
    payload: String,
    rest: Vec<Frame>,
}

#[derive(Default)]
pub(super) struct Presence {
    /// By the numbers of their refs. What was tracked last comes last, as it does for clients that put diffs together.
    tracked: BTreeMap<u64, Arc<Tracked>>,
    bytes: usize,
    /// The changes that not everybody knows, and the place of the first.
    untold: Vec<Change>,
    first: u64,
    untold_bytes: usize,
    told_at: Option<Instant>,
    /// When everybody is to be told.
    due: Option<Instant>,
    /// For each version the last state that was told. While it is followed by all that has changed since, nobody needs a newer one.
    states: [Option<Arc<State>>; 2],
}

/// What telling has come to.
pub(super) struct Telling {
    /// To how many channels states and diffs were handed.
    pub(super) frames: usize,
    /// When the others are to be told, if that is to be remembered.
    pub(super) due: Option<Instant>,
}

impl Topics {
    /// Tracks a payload in place of the one tracked before. The same payload again changes nothing. Fails if there is no room.
    pub fn track(&self, key: &TopicKey, id: MemberId, payload: &RawValue) -> Result<(), Exceeded> {
        let Some(mut topic) = self.topics.get_mut(key) else {
            return Ok(());
        };
        let Topic { members, presence } = &mut *topic;
        let Some(present) = members.get_mut(&id) else {
            return Ok(());
        };
        let before = present.tracked.clone();
        // Under the topic's lock: the order of the numbers is that of the changes.
        let number = self.next_ref.fetch_add(1, Ordering::Relaxed);
        let key_of = present.member.presence_key.clone();
        let tracked = Tracked::new(number, self.node, key_of, payload, before.as_deref());
        if let Some(before) = &before
            && before.is_same(&tracked)
        {
            return Ok(());
        }
        let bytes = presence.bytes - before.as_ref().map_or(0, |before| before.bytes);
        self.limits.presence_bytes(bytes + tracked.bytes)?;
        let tracked = Arc::new(tracked);
        present.tracked = Some(tracked.clone());
        presence.change(before, Some(tracked));
        self.tell(key, &mut topic, Some(id));
        Ok(())
    }

    /// Stops tracking. Nothing happens if nothing was tracked.
    pub fn untrack(&self, key: &TopicKey, id: MemberId) {
        if let Some(mut topic) = self.topics.get_mut(key)
            && let Some(present) = topic.members.get_mut(&id)
            && let Some(tracked) = present.tracked.take()
        {
            topic.presence.change(Some(tracked), None);
            self.tell(key, &mut topic, Some(id));
        }
    }

    /// Leaves; others learn that it is no longer online.
    pub fn leave(&self, key: &TopicKey, id: MemberId) {
        if let Some(mut topic) = self.topics.get_mut(key)
            && let Some(left) = topic.members.remove(&id)
            && let Some(tracked) = left.tracked
        {
            topic.presence.change(Some(tracked), None);
            self.tell(key, &mut topic, None);
        }
        self.topics
            .remove_if(key, |_, topic| topic.members.is_empty());
    }

    /// Who is online, as `presence_state` has it.
    pub fn presences(&self, private: bool, sub_topic: &str) -> String {
        let key = TopicKey {
            private,
            sub_topic: sub_topic.into(),
        };
        self.topics
            .get(&key)
            .map_or_else(|| "{}".to_owned(), |topic| topic.presence.now())
    }

    /// Tells members what they have not been told at once. Never ends.
    pub async fn run(&self) {
        loop {
            self.agenda.next().await;
            while self.tell_next(Instant::now()) {
                // A large topic is work for milliseconds; others have a turn in between.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Returns whether it was a topic's time.
    pub(super) fn tell_next(&self, now: Instant) -> bool {
        let Some(key) = self.agenda.take(now) else {
            return false;
        };
        if let Some(mut topic) = self.topics.get_mut(&key) {
            self.count(topic.tell_due(now), now);
        }
        true
    }

    /// Returns up to which change the member has been told then.
    pub(super) fn greet(&self, topic: &mut Topic, member: &Member) -> u64 {
        let (place, frames) = topic.greet(member);
        self.count(frames, Instant::now());
        place
    }

    fn tell(&self, key: &TopicKey, topic: &mut Topic, by: Option<MemberId>) {
        let now = Instant::now();
        let Telling { frames, due } = topic.tell(by, now);
        self.count(frames, now);
        if let Some(due) = due {
            self.agenda.add(due, key);
        }
    }

    fn count(&self, frames: usize, now: Instant) {
        metrics::counter!(names::PRESENCE_OUT).increment(frames as u64);
        self.limits.presence_delivered(frames, now);
    }
}

impl Tracked {
    pub(super) fn new(
        number: u64,
        node: u64,
        key: Arc<str>,
        payload: &RawValue,
        before: Option<&Tracked>,
    ) -> Tracked {
        let phx_ref = format!("{node:016x}{number:x}");
        let prev = before.map(|before| &*before.phx_ref);
        let meta = protocol::presence::meta(payload, &phx_ref, prev);
        let bytes = meta.len() + protocol::presence::key_bytes(&key);
        Tracked {
            number,
            key,
            phx_ref,
            meta,
            bytes,
        }
    }

    pub(super) fn is_same(&self, other: &Tracked) -> bool {
        protocol::presence::is_same(&self.meta, &other.meta)
    }

    fn entry(&self) -> (&str, &str) {
        (&self.key, &self.meta)
    }
}

impl Presence {
    /// The place after the last change.
    pub(super) fn end(&self) -> u64 {
        self.first + self.untold.len() as u64
    }

    pub(super) fn change(&mut self, left: Option<Arc<Tracked>>, joined: Option<Arc<Tracked>>) {
        if let Some(left) = &left {
            self.tracked.remove(&left.number);
            self.bytes -= left.bytes;
            self.untold_bytes += left.bytes;
        }
        if let Some(joined) = &joined {
            self.tracked.insert(joined.number, joined.clone());
            self.bytes += joined.bytes;
            self.untold_bytes += joined.bytes;
        }
        self.untold.push(Change { left, joined });
    }

    /// All that is tracked now, as `presence_state` has it.
    pub(super) fn now(&self) -> String {
        frames::all(self.entries())
    }

    fn state(&mut self, version: Version, topic: &str) -> Arc<State> {
        let first = self.first;
        let known = self.states[slot(version)].take();
        let state = known
            .filter(|state| state.place >= first)
            .unwrap_or_else(|| Arc::new(self.encode(version, topic)));
        if state.payload.len() >= WORTH_KEEPING {
            self.states[slot(version)] = Some(state.clone());
        }
        state
    }

    #[cfg(test)]
    pub(super) fn state_of(&self, version: Version) -> Option<Arc<State>> {
        self.states[slot(version)].clone()
    }

    #[cfg(test)]
    pub(super) fn waits(&self) -> bool {
        self.due.is_some()
    }

    fn encode(&self, version: Version, topic: &str) -> State {
        let (payload, rest) = frames::state(version, topic, self.entries());
        State {
            place: self.end(),
            payload,
            rest,
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Tracked> {
        self.tracked.values().map(|tracked| &**tracked)
    }

    /// What has changed since a place. Nothing if it has come to nothing.
    fn since(&self, place: u64, version: Version, topic: &str) -> Vec<Frame> {
        let from = place.saturating_sub(self.first) as usize;
        let (mut joins, mut leaves) = (BTreeMap::new(), BTreeMap::new());
        for Change { left, joined } in self.untold.get(from..).unwrap_or_default() {
            if let Some(left) = left
                && joins.remove(&left.number).is_none()
            {
                leaves.insert(left.number, &**left);
            }
            if let Some(joined) = joined {
                joins.insert(joined.number, &**joined);
            }
        }
        let joins: Vec<_> = joins.into_values().collect();
        let leaves: Vec<_> = leaves.into_values().collect();
        frames::diffs(version, topic, &joins, &leaves)
    }

    fn is_full(&self) -> bool {
        self.untold.len() >= UNTOLD_CHANGES || self.untold_bytes >= UNTOLD_BYTES
    }

    fn all_told(&mut self, now: Instant) {
        self.first = self.end();
        self.untold.clear();
        self.untold_bytes = 0;
        self.told_at = Some(now);
        self.due = None;
        self.untold.shrink_to(KEEP);
        let first = self.first;
        for state in &mut self.states {
            *state = state.take().filter(|state| state.place >= first);
        }
    }
}

impl Topic {
    /// Sends a member the presence state. What it has been told then, it returns, and how many frames that were.
    pub(super) fn greet(&mut self, member: &Member) -> (u64, usize) {
        let state = self.presence.state(member.version, &member.topic);
        member.outbox.push_greeting(Frame::text(protocol::encode(
            member.version,
            &member.join_ref,
            &Ref::NULL,
            &member.topic,
            event::PRESENCE_STATE,
            &state.payload,
        )));
        for frame in &state.rest {
            member.outbox.push_greeting(frame.clone());
        }
        (state.place, 1 + state.rest.len())
    }

    /// Something has changed: tells everybody, or whoever did it at once and the others soon.
    pub(super) fn tell(&mut self, by: Option<MemberId>, now: Instant) -> Telling {
        let pause = pause(self.members.len());
        let at = self.presence.told_at.map_or(now, |told| told + pause);
        if at <= now || self.presence.is_full() {
            let frames = self.tell_all(now);
            return Telling { frames, due: None };
        }
        let mut frames = 0;
        if let Some(present) = by.and_then(|by| self.members.get_mut(&by))
            && present.member.reads.presence
        {
            let member = &present.member;
            let diffs = self
                .presence
                .since(present.told, member.version, &member.topic);
            present.told = self.presence.end();
            frames = diffs.len();
            for frame in diffs {
                member.outbox.push(frame);
            }
        }
        let due = self.presence.due.is_none().then_some(at);
        self.presence.due = self.presence.due.or(due);
        Telling { frames, due }
    }

    /// Tells everybody if it is time. Otherwise there is another time for it, or nothing to tell.
    pub(super) fn tell_due(&mut self, now: Instant) -> usize {
        match self.presence.due.is_some_and(|due| due <= now) {
            true => self.tell_all(now),
            false => 0,
        }
    }

    /// Members of public channels are told whether they enabled presence or not (protocol §7.3).
    fn tell_all(&mut self, now: Instant) -> usize {
        let end = self.presence.end();
        // Nearly all have been told up to the same place.
        let mut encoded: BTreeMap<(u64, usize), Vec<Frame>> = BTreeMap::new();
        let mut sent = 0;
        for present in self.members.values_mut() {
            let member = &present.member;
            if member.reads.presence && present.told < end {
                let frames = encoded
                    .entry((present.told, slot(member.version)))
                    .or_insert_with(|| {
                        self.presence
                            .since(present.told, member.version, &member.topic)
                    });
                sent += frames.len();
                for frame in frames {
                    member.outbox.push(frame.clone());
                }
            }
            present.told = end;
        }
        self.presence.all_told(now);
        sent
    }
}

fn pause(members: usize) -> Duration {
    let pause = PAUSE_PER_MEMBER
        .saturating_mul(u32::try_from(members).unwrap_or(u32::MAX))
        .min(LONGEST_PAUSE);
    match pause < SHORTEST_PAUSE {
        true => Duration::ZERO,
        false => pause,
    }
}
