//! Subscriptions that get the same bytes.

use std::{collections::HashMap, sync::Arc};

use protocol::Version;

use super::{BoundBinding, SubscriptionId, outbox::Outbox};
use crate::auth::Principal;

/// All that decides which bytes a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) topic: Arc<str>,
    pub(super) version: Version,
    pub(super) bindings: Vec<BoundBinding>,
}

pub(super) struct Member {
    pub(super) id: SubscriptionId,
    pub(super) principal: Arc<Principal>,
    pub(super) outbox: Arc<Outbox>,
}

pub(super) struct Group {
    pub(super) key: GroupKey,
    members: Vec<Member>,
    places: HashMap<SubscriptionId, usize>,
    /// How many members each principal has: a row is judged once for all of them.
    principals: HashMap<Arc<Principal>, usize>,
}

impl Group {
    pub(super) fn new(key: GroupKey) -> Group {
        Group {
            key,
            members: Vec::new(),
            places: HashMap::new(),
            principals: HashMap::new(),
        }
    }

    pub(super) fn insert(&mut self, member: Member) {
        *self.principals.entry(member.principal.clone()).or_default() += 1;
        self.places.insert(member.id, self.members.len());
        self.members.push(member);
    }

    pub(super) fn remove(&mut self, id: SubscriptionId) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
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
