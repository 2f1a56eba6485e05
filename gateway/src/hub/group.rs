//! Subscriptions that get the same bytes.

use std::{collections::HashMap, sync::Arc};

use protocol::Version;

use super::{BoundBinding, Moment, SubscriptionId, gate::Gate, outbox::Outbox};
use crate::{admission::Wanted, auth::Principal};

/// All that decides which bytes a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) topic: Arc<str>,
    pub(super) version: Version,
    pub(super) bindings: Vec<BoundBinding>,
    /// As clients from before 2022 want it.
    pub(super) bare: bool,
}

pub(super) struct Member {
    pub(super) id: SubscriptionId,
    pub(super) principal: Arc<Principal>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) wanted: Wanted,
    pub(super) verified: Moment,
    /// Whom it was for before its token was replaced.
    pub(super) former: Option<Arc<Principal>>,
    /// Closed while it is given what it missed.
    pub(super) gate: Option<Arc<Gate>>,
}

pub(super) struct Group {
    pub(super) key: GroupKey,
    members: Vec<Member>,
    places: HashMap<SubscriptionId, usize>,
    /// How many members each principal has: a row is judged once for all of them.
    principals: HashMap<Arc<Principal>, usize>,
    /// The tick at which the member was verified that was verified longest ago, and how many were verified then.
    oldest_tick: u64,
    at_oldest: usize,
}

impl Group {
    pub(super) fn new(key: GroupKey) -> Group {
        Group {
            key,
            members: Vec::new(),
            places: HashMap::new(),
            principals: HashMap::new(),
            oldest_tick: u64::MAX,
            at_oldest: 0,
        }
    }

    pub(super) fn insert(&mut self, member: Member) {
        *self.principals.entry(member.principal.clone()).or_default() += 1;
        self.count(member.verified.tick);
        self.places.insert(member.id, self.members.len());
        self.members.push(member);
    }

    pub(super) fn remove(&mut self, id: SubscriptionId) -> Option<Member> {
        let place = self.places.remove(&id)?;
        let member = self.members.swap_remove(place);
        if let Some(moved) = self.members.get(place) {
            self.places.insert(moved.id, place);
        }
        if let Some(count) = self.principals.get_mut(&member.principal) {
            *count -= 1;
            if *count == 0 {
                self.principals.remove(&member.principal);
            }
        }
        self.discount(member.verified.tick);
        Some(member)
    }

    pub(super) fn last_verified(&self, id: SubscriptionId) -> Option<Moment> {
        self.places
            .get(&id)
            .map(|place| self.members[*place].verified)
    }

    pub(super) fn member(&self, id: SubscriptionId) -> Option<&Member> {
        self.places.get(&id).map(|place| &self.members[*place])
    }

    pub(super) fn open_gate(&mut self, id: SubscriptionId) {
        if let Some(place) = self.places.get(&id) {
            self.members[*place].gate = None;
        }
    }

    /// A member was admitted again.
    pub(super) fn verify(&mut self, id: SubscriptionId, verified: Moment) {
        let Some(place) = self.places.get(&id) else {
            return;
        };
        let before = std::mem::replace(&mut self.members[*place].verified, verified);
        self.count(verified.tick);
        self.discount(before.tick);
    }

    fn count(&mut self, tick: u64) {
        if tick < self.oldest_tick {
            (self.oldest_tick, self.at_oldest) = (tick, 0);
        }
        self.at_oldest += usize::from(tick == self.oldest_tick);
    }

    fn discount(&mut self, tick: u64) {
        if tick != self.oldest_tick {
            return;
        }
        self.at_oldest = self.at_oldest.saturating_sub(1);
        if self.at_oldest == 0 {
            let ticks = || self.members.iter().map(|member| member.verified.tick);
            self.oldest_tick = ticks().min().unwrap_or(u64::MAX);
            self.at_oldest = ticks().filter(|tick| *tick == self.oldest_tick).count();
        }
    }

    pub(super) fn oldest_tick(&self) -> u64 {
        self.oldest_tick
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn principals(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.principals.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
