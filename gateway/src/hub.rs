//! Routes a change to groups of equal subscriptions, and encodes it once for each.
//!
//! Subscriptions that would get byte-identical frames form a [`group`]. An [`index`] finds the groups by the value of a
//! column. The hub never waits and never authorizes: where rows are judged one by one, [`Hub::survey`] says which
//! questions there are, and [`Hub::deliver`] takes the answers.

pub mod columns;
mod encode;
pub mod filter;
pub mod flusher;
pub mod frame;
mod gate;
mod greeting;
mod group;
mod index;
mod missed;
pub mod outbox;
mod place;
mod recent;
mod rights;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use protocol::Version;
use tokio::sync::watch;

use self::{
    columns::ColumnSet,
    encode::Encoder,
    filter::Filter,
    group::{Group, GroupKey, Member},
    index::Index,
    outbox::{Frame, Outbox, Pushed, Signal},
    recent::Recent,
    rights::Rights,
};
pub use self::{
    gate::{Gate, Overflowed},
    greeting::{Announcement, Greeting},
    missed::{Missed, Older, Opening, Starts, View},
    place::Place,
    recent::Entry,
    rights::{Before, Unit},
};
use crate::{
    admission::Wanted,
    auth::Principal,
    authorizer::{Answers, Questions, Reads, Scope},
    catalog::{TableId, Tables},
    config::OldRecord,
    feed::{
        Read,
        change::{Change, Operation},
    },
    metrics::names,
};

/// The events of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Events {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
}

impl Events {
    fn include(self, operation: Operation) -> bool {
        match operation {
            Operation::Insert => self.insert,
            Operation::Update => self.update,
            Operation::Delete => self.delete,
            Operation::Truncate | Operation::Control => false,
        }
    }
}

/// One binding on one table, checked and authorized.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BoundBinding {
    pub id: u64,
    pub table: TableId,
    pub events: Events,
    pub filter: Arc<Filter>,
    pub columns: Arc<ColumnSet>,
    pub scope: Scope,
    /// What the verdict rests on: an old row that agrees with the new one in this is as visible.
    pub reads: Arc<Reads>,
}

/// What a channel has asked for.
pub struct Subscription {
    pub id: SubscriptionId,
    pub topic: Arc<str>,
    pub version: Version,
    pub bindings: Vec<BoundBinding>,
    pub principal: Arc<Principal>,
    pub outbox: Arc<Outbox>,
    /// From which the bindings were made, and can be made again.
    pub wanted: Wanted,
    /// When its verdicts were asked for, or earlier.
    pub verified: Moment,
}

/// A moment of the hub's clock, which ticks when rights may have changed.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    tick: u64,
    at: Instant,
}

impl Moment {
    pub fn tick(self) -> u64 {
        self.tick
    }
}

/// The catalog has changed since the bindings were made.
pub struct Outdated(pub Subscription);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionId(u64);

impl SubscriptionId {
    /// Never given twice in this process, so that whoever unsubscribes ends only its own subscription.
    pub fn next() -> SubscriptionId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        SubscriptionId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

pub struct Hub {
    state: Mutex<State>,
    encoder: Encoder,
    /// Rung when it is known how far the feed has come.
    progress: watch::Sender<()>,
}

struct State {
    groups: HashMap<usize, Box<Group>>,
    by_key: HashMap<GroupKey, usize>,
    index: Index,
    /// Where a subscription is: its group.
    subscriptions: HashMap<SubscriptionId, usize>,
    rights: Rights,
    next_group: usize,
    recent: Recent,
    place: Option<Place>,
    /// Surveys so far, and whether the last one's changes are still being judged and delivered.
    surveys: u64,
    delivering: bool,
}

/// What has to be asked before a batch can be delivered.
#[derive(Default)]
pub struct Survey {
    /// Rows to be judged, for each principal that would get them.
    pub questions: Questions,
    /// Rows to be matched by PostgreSQL, for each filter.
    pub filters: HashMap<(TableId, Arc<str>), Vec<usize>>,
}

impl Survey {
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.filters.is_empty()
    }
}

/// What was answered: the places of rows in the batch.
#[derive(Default)]
pub struct Verdicts {
    visible: HashMap<(TableId, Arc<Principal>), HashSet<usize>>,
    matching: HashMap<(TableId, Arc<str>), HashSet<usize>>,
}

impl Verdicts {
    pub fn new(answers: Answers, matching: HashMap<(TableId, Arc<str>), Vec<usize>>) -> Verdicts {
        Verdicts {
            visible: answers
                .into_iter()
                .map(|(key, places)| (key, places.into_iter().collect()))
                .collect(),
            matching: matching
                .into_iter()
                .map(|(key, places)| (key, places.into_iter().collect()))
                .collect(),
        }
    }

    fn may_see(&self, table: TableId, member: &Member, place: usize) -> bool {
        let visible = |principal: &Arc<Principal>| self.visible.get(&(table, principal.clone()));
        visible(&member.principal)
            .or_else(|| visible(member.former.as_ref()?))
            .is_some_and(|places| places.contains(&place))
    }

    fn matches(&self, table: TableId, filter: &Filter, place: usize) -> bool {
        filter.rest.as_ref().is_none_or(|rest| {
            self.matching
                .get(&(table, rest.clone()))
                .is_some_and(|places| places.contains(&place))
        })
    }
}

impl Hub {
    /// `recent_bytes`: how much of the latest changes is kept for those who come back.
    pub fn new(old_record: OldRecord, max_change_bytes: usize, recent_bytes: usize) -> Hub {
        Hub {
            state: Mutex::new(State {
                groups: HashMap::new(),
                by_key: HashMap::new(),
                index: Index::default(),
                subscriptions: HashMap::new(),
                rights: Rights::default(),
                next_group: 0,
                recent: Recent::new(recent_bytes),
                place: None,
                surveys: 0,
                delivering: false,
            }),
            progress: watch::Sender::new(()),
            encoder: Encoder {
                old_record,
                max_change_bytes,
            },
        }
    }

    /// Subscribes. The greeting goes into the outbox before the first change can, with nothing in between; `replaced` ends in
    /// the same moment, so that a subscription that is made anew neither misses nor doubles a change. One that `starts`
    /// somewhere in the past is held back, and what it has to be given first is returned.
    pub fn subscribe(
        &self,
        subscription: Subscription,
        replaced: Option<SubscriptionId>,
        greeting: &Greeting,
        starts: Option<&Starts>,
    ) -> Result<Option<Missed>, Box<Outdated>> {
        let mut state = self.state();
        let ahead = starts.is_some_and(|starts| !state.has_come_to(starts));
        if ahead || state.rights.is_outdated(subscription.verified) {
            return Err(Box::new(Outdated(subscription)));
        }
        let (former, mut gate) = match replaced.map(|replaced| state.take(replaced)) {
            None => (None, None),
            // A batch that was surveyed before this moment and is delivered after it has asked about the former principal.
            Some(Some(member)) => (Some(member.principal), member.gate),
            // It ended meanwhile, and nobody knows what came since.
            Some(None) => {
                let failed = Signal::Failed(subscription.id);
                subscription.outbox.signal(failed);
                return Ok(None);
            }
        };
        for frame in &greeting.frames {
            subscription.outbox.push_greeting(frame.clone());
        }
        let Subscription {
            id,
            topic,
            version,
            bindings,
            principal,
            outbox,
            wanted,
            verified,
        } = subscription;
        let mut missed = None;
        match (&gate, starts) {
            (Some(gate), _) => gate.move_to(id),
            (None, Some(starts)) if replaced.is_none() => {
                // Nobody has asked about it for the changes that are being judged now.
                let unasked = state.delivering.then_some(state.surveys);
                let closed = Arc::new(Gate::new(id, unasked, outbox.limits()));
                gate = Some(closed.clone());
                missed = Some(state.missed(&bindings, starts, closed));
            }
            (None, _) => {}
        }
        if gate.is_none()
            && let Some(live) = &greeting.live
        {
            outbox.push_greeting(live.frame(state.place.as_ref()));
        }
        state.insert(
            GroupKey {
                topic,
                version,
                bindings,
                bare: wanted.config.bare,
            },
            Member {
                id,
                principal,
                outbox,
                wanted,
                verified,
                former,
                gate,
            },
        );
        Ok(missed)
    }

    /// Ends a subscription. One that has ended already stays so.
    pub fn unsubscribe(&self, id: SubscriptionId) {
        self.state().remove(id);
    }

    /// What must be asked before these changes can be delivered.
    pub fn survey(&self, batch: &[Arc<Change>], before: &Before) -> Survey {
        let mut state = self.state();
        state.surveys += 1;
        state.delivering = true;
        let mut survey = Survey::default();
        for (place, change) in batch.iter().enumerate() {
            let Some(image) = change.image() else {
                continue;
            };
            let stale_since = state.rights.stale_since(change, before);
            for (group, binding) in state.index.candidates(change.table, image) {
                let Some(group) = state.groups.get(&group) else {
                    continue;
                };
                let binding = &group.key.bindings[binding];
                if !binding.events.include(change.operation) || !binding.filter.holds(image) {
                    continue;
                }
                if let Some(rest) = &binding.filter.rest {
                    let places = survey
                        .filters
                        .entry((change.table, rest.clone()))
                        .or_default();
                    if places.last() != Some(&place) {
                        places.push(place);
                    }
                }
                let mut ask = |principal: &Arc<Principal>| {
                    let places = survey
                        .questions
                        .entry((change.table, principal.clone()))
                        .or_default();
                    if places.last() != Some(&place) {
                        places.push(place);
                    }
                };
                if binding.scope == Scope::PerRow {
                    group.principals().for_each(&mut ask);
                } else if group.oldest_tick() < stale_since {
                    let stale = group
                        .members()
                        .iter()
                        .filter(|member| member.verified.tick < stale_since);
                    stale.for_each(|member| ask(&member.principal));
                }
            }
        }
        survey
    }

    /// Delivers one change of a batch: to everyone whose binding matches, and who may see it. The crowded should be waited for
    /// before the next one.
    pub fn deliver(
        &self,
        tables: &Tables,
        read: &Arc<Read>,
        change: &Arc<Change>,
        place: usize,
        verdicts: &Verdicts,
        before: &Before,
    ) -> Pushed {
        let (Some(table), Some(image)) = (tables.get(change.table), change.image()) else {
            return Pushed::default();
        };
        let mut state = self.state();
        let entry = Entry {
            read: read.clone(),
            change: change.clone(),
        };
        state.recent.push(entry.clone());
        state.place = Some(Place {
            read: read.clone(),
            reached: change.sequence,
        });
        let mut hits: Vec<(usize, usize)> = state
            .index
            .candidates(change.table, image)
            .filter(|(group, binding)| {
                state.groups.get(group).is_some_and(|group| {
                    let binding = &group.key.bindings[*binding];
                    binding.events.include(change.operation) && binding.filter.holds(image)
                })
            })
            .collect();
        hits.sort_unstable();
        hits.dedup();

        let stale_since = state.rights.stale_since(change, before);
        let mut encoded = self.encoder.change(table, change);
        let mut crowded = Vec::new();
        let mut deliveries = 0;
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            let Some(group) = state.groups.get(&hits[0].0) else {
                continue;
            };
            for gate in group
                .members()
                .iter()
                .filter_map(|member| member.gate.as_ref())
            {
                gate.hold(&entry);
            }
            let hits = hits.iter().map(|(_, binding)| *binding).filter(|binding| {
                let filter = &group.key.bindings[*binding].filter;
                verdicts.matches(change.table, filter, place)
            });
            let addressed = address(&group.key, hits);
            // A verdict is about the principal and the row, not about the binding that found it.
            let decided = addressed.iter().any(|message| message.decided);
            for Addressed { columns, ids, .. } in addressed {
                let cursor = || Some(read.cursor(change.sequence));
                let frame = Frame::text(encoded.frame(&group.key, columns, &ids, cursor));
                for member in group
                    .members()
                    .iter()
                    .filter(|member| member.gate.is_none())
                {
                    let trusted = decided && member.verified.tick >= stale_since;
                    if trusted || verdicts.may_see(change.table, member, place) {
                        if member.outbox.push(frame.clone()) {
                            crowded.push(member.outbox.clone());
                        }
                        deliveries += 1;
                    }
                }
            }
        }
        metrics::counter!(names::DELIVERIES).increment(deliveries as u64);
        Pushed {
            frames: deliveries,
            crowded,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One message: to which bindings of a channel it goes.
struct Addressed<'a> {
    columns: &'a Arc<ColumnSet>,
    ids: Vec<u64>,
    /// One of the bindings needs no verdict on the row.
    decided: bool,
}

/// Bindings with different column lists get a message each, and each binding is in one message.
fn address(group: &GroupKey, hits: impl Iterator<Item = usize>) -> Vec<Addressed<'_>> {
    let mut messages: Vec<Addressed<'_>> = Vec::with_capacity(1);
    for binding in hits.map(|binding| &group.bindings[binding]) {
        let decided = binding.scope == Scope::Decided;
        match messages
            .iter_mut()
            .find(|message| *message.columns == binding.columns)
        {
            Some(message) => {
                if !message.ids.contains(&binding.id) {
                    message.ids.push(binding.id);
                }
                message.decided |= decided;
            }
            None => messages.push(Addressed {
                columns: &binding.columns,
                ids: vec![binding.id],
                decided,
            }),
        }
    }
    messages
}

impl State {
    fn insert(&mut self, key: GroupKey, member: Member) {
        let place = match self.by_key.get(&key) {
            Some(place) => *place,
            None => {
                self.next_group += 1;
                self.index.insert(self.next_group, &key.bindings);
                self.by_key.insert(key.clone(), self.next_group);
                self.groups
                    .insert(self.next_group, Box::new(Group::new(key)));
                metrics::gauge!(names::GROUPS).increment(1);
                self.next_group
            }
        };
        self.subscriptions.insert(member.id, place);
        if let Some(group) = self.groups.get_mut(&place) {
            group.insert(member);
        }
    }

    fn remove(&mut self, id: SubscriptionId) -> Option<Member> {
        let member = self.take(id)?;
        if let Some(gate) = &member.gate {
            gate.end();
        }
        Some(member)
    }

    /// The same, for a subscription that goes on as another one.
    fn take(&mut self, id: SubscriptionId) -> Option<Member> {
        let place = self.subscriptions.remove(&id)?;
        let group = self.groups.get_mut(&place)?;
        let member = group.remove(id);
        if group.is_empty()
            && let Some(group) = self.groups.remove(&place)
        {
            self.by_key.remove(&group.key);
            self.index.remove(place, &group.key.bindings);
            metrics::gauge!(names::GROUPS).decrement(1);
        }
        member
    }

    /// Gives a subscription the bindings that it was admitted with now. One that has ended meanwhile stays so.
    fn rebind(&mut self, id: SubscriptionId, bindings: &[BoundBinding], verified: Moment) {
        let Some(group) = self
            .subscriptions
            .get(&id)
            .and_then(|place| self.groups.get_mut(place))
        else {
            return;
        };
        // Two may have been asked about the same; the older answer must not undo the newer.
        if self.rights.is_outdated(verified)
            || group
                .last_verified(id)
                .is_none_or(|last| verified.tick < last.tick)
        {
            return;
        }
        if group.key.bindings == bindings {
            group.verify(id, verified);
            return;
        }
        let key = GroupKey {
            bindings: bindings.to_vec(),
            ..group.key.clone()
        };
        if let Some(member) = self.take(id) {
            self.insert(key, Member { verified, ..member });
        }
    }
}

#[cfg(test)]
mod tests;
