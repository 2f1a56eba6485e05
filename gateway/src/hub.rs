//! Routes a change to groups of equal subscriptions, and encodes it once for each.
//!
//! Subscriptions that would get byte-identical frames form a [`group`]. An [`index`] finds the groups by the value of a
//! column. The hub never waits and never authorizes: where rows are judged one by one, [`Hub::survey`] says which
//! questions there are, and [`Hub::deliver`] takes the answers.

pub mod columns;
mod encode;
pub mod filter;
mod group;
mod index;
pub mod outbox;
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

pub use self::rights::{Before, Unit};
use self::{
    columns::ColumnSet,
    encode::Encoder,
    filter::Filter,
    group::{Group, GroupKey, Member},
    index::Index,
    outbox::{Frame, Outbox},
    rights::Rights,
};
use crate::{
    admission::Wanted,
    auth::Principal,
    authorizer::{Answers, Questions, Reads, Scope},
    catalog::{TableId, Tables},
    config::OldRecord,
    feed::change::{Change, Operation},
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
}

#[derive(Default)]
struct State {
    groups: HashMap<usize, Group>,
    by_key: HashMap<GroupKey, usize>,
    index: Index,
    /// Where a subscription is: its group.
    subscriptions: HashMap<SubscriptionId, usize>,
    rights: Rights,
    next_group: usize,
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
    pub fn new(old_record: OldRecord, max_change_bytes: usize) -> Hub {
        Hub {
            state: Mutex::default(),
            encoder: Encoder {
                old_record,
                max_change_bytes,
            },
        }
    }

    /// Subscribes. `greeting` goes into the outbox before the first change can, with nothing in between; `replaced` ends in the
    /// same moment, so that a subscription that is made anew neither misses nor doubles a change.
    pub fn subscribe(
        &self,
        subscription: Subscription,
        replaced: Option<SubscriptionId>,
        greeting: &[Frame],
    ) -> Result<(), Box<Outdated>> {
        let mut state = self.state();
        if state.rights.is_outdated(subscription.verified) {
            return Err(Box::new(Outdated(subscription)));
        }
        // A batch that was surveyed before this moment and is delivered after it has asked about the former principal.
        let former = replaced
            .and_then(|replaced| state.remove(replaced))
            .map(|member| member.principal);
        for frame in greeting {
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
        state.insert(
            GroupKey {
                topic,
                version,
                bindings,
            },
            Member {
                id,
                principal,
                outbox,
                wanted,
                verified,
                former,
            },
        );
        Ok(())
    }

    /// Ends a subscription. One that has ended already stays so.
    pub fn unsubscribe(&self, id: SubscriptionId) {
        self.state().remove(id);
    }

    /// What must be asked before these changes can be delivered.
    pub fn survey(&self, batch: &[Change], before: &Before) -> Survey {
        let state = self.state();
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
                if !binding.events.include(change.operation) || !binding.filter.equals_match(image)
                {
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

    /// Delivers one change of a batch: to everyone whose binding matches, and who may see it. Returns how full the
    /// fullest of their outboxes is, from 0 to 1.
    pub fn deliver(
        &self,
        tables: &Tables,
        change: &Change,
        place: usize,
        verdicts: &Verdicts,
        before: &Before,
    ) -> f32 {
        let (Some(table), Some(image)) = (tables.get(change.table), change.image()) else {
            return 0.0;
        };
        let state = self.state();
        let mut hits: Vec<(usize, usize)> = state
            .index
            .candidates(change.table, image)
            .filter(|(group, binding)| {
                state.groups.get(group).is_some_and(|group| {
                    let binding = &group.key.bindings[*binding];
                    binding.events.include(change.operation)
                        && binding.filter.equals_match(image)
                        && verdicts.matches(change.table, &binding.filter, place)
                })
            })
            .collect();
        hits.sort_unstable();
        hits.dedup();

        let stale_since = state.rights.stale_since(change, before);
        let mut encoded = self.encoder.change(table, change);
        let mut fullest = 0_f32;
        let mut deliveries = 0;
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            let Some(group) = state.groups.get(&hits[0].0) else {
                continue;
            };
            // Bindings with different column lists get a message each, and each binding is in one message.
            let mut by_columns: Vec<(&Arc<ColumnSet>, Vec<u64>, bool)> = Vec::with_capacity(1);
            for (_, binding) in hits {
                let binding = &group.key.bindings[*binding];
                let decided = binding.scope == Scope::Decided;
                match by_columns
                    .iter_mut()
                    .find(|(columns, ..)| **columns == binding.columns)
                {
                    Some((_, ids, any_decided)) => {
                        if !ids.contains(&binding.id) {
                            ids.push(binding.id);
                        }
                        *any_decided |= decided;
                    }
                    None => by_columns.push((&binding.columns, vec![binding.id], decided)),
                }
            }
            // A verdict is about the principal and the row, not about the binding that found it.
            let decided = by_columns.iter().any(|(.., decided)| *decided);
            for (columns, ids, _) in by_columns {
                let frame = Frame::text(encoded.frame(&group.key, columns, &ids));
                for member in group.members() {
                    let trusted = decided && member.verified.tick >= stale_since;
                    if trusted || verdicts.may_see(change.table, member, place) {
                        fullest = fullest.max(member.outbox.push(frame.clone()));
                        deliveries += 1;
                    }
                }
            }
        }
        metrics::counter!(names::DELIVERIES).increment(deliveries);
        fullest
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, key: GroupKey, member: Member) {
        let place = match self.by_key.get(&key) {
            Some(place) => *place,
            None => {
                self.next_group += 1;
                self.index.insert(self.next_group, &key.bindings);
                self.by_key.insert(key.clone(), self.next_group);
                self.groups.insert(self.next_group, Group::new(key));
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
        if let Some(member) = self.remove(id) {
            self.insert(key, Member { verified, ..member });
        }
    }
}

#[cfg(test)]
mod tests;
