//! When verdicts were taken, and which have to be taken again.
//!
//! The hub has a clock that ticks when something has changed on which verdicts rest. A verdict that was asked for before the
//! last such tick of its table is *stale*: rows are then judged one by one for this subscriber, until it has been admitted anew.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Hub, Moment, State, SubscriptionId,
    group::{Group, Member},
    outbox::Signal,
};
use crate::{
    admission::Wanted,
    auth::Principal,
    catalog::TableId,
    feed::change::{Change, Operation},
    hub::BoundBinding,
};

/// Subscriptions of one group and one principal: what is asked for one is asked for all.
pub struct Unit {
    pub principal: Arc<Principal>,
    pub wanted: Wanted,
    members: Vec<SubscriptionId>,
}

/// For transactions that took rights away: since when the verdicts on a table had been stale before that. A row that such a
/// transaction deletes was there before it, and is judged by the rights of then.
pub type Before = HashMap<u64, HashMap<TableId, u64>>;

#[derive(Default)]
pub(super) struct Rights {
    clock: u64,
    /// When verdicts on a table last became doubtful.
    stale_since: HashMap<TableId, u64>,
    /// When the catalog itself last changed: what was bound before must be bound anew, not only judged.
    replanned_at: u64,
    /// Groups that a change names, to be asked about before all others.
    urgent: HashSet<usize>,
    /// Rows of a transaction that took rights away are still being delivered.
    held: bool,
}

impl Rights {
    fn is_stale(&self, member: &Member, table: TableId) -> bool {
        self.stale_since
            .get(&table)
            .is_some_and(|since| member.verified.tick < *since)
    }

    /// Since when verdicts are stale, for this change.
    pub(super) fn stale_since(&self, change: &Change, before: &Before) -> u64 {
        let before = match change.operation {
            Operation::Delete => before.get(&change.xid),
            _ => None,
        };
        let since = before.and_then(|before| before.get(&change.table));
        since
            .or(self.stale_since.get(&change.table))
            .copied()
            .unwrap_or(0)
    }

    /// Since when verdicts on a table are stale.
    pub(super) fn stale_since_of(&self, table: TableId) -> u64 {
        self.stale_since.get(&table).copied().unwrap_or(0)
    }

    pub(super) fn is_outdated(&self, verified: Moment) -> bool {
        verified.tick < self.replanned_at
    }

    fn needs_asking(&self, group: &Group, member: &Member) -> bool {
        self.is_outdated(member.verified)
            || group
                .key
                .bindings
                .iter()
                .any(|binding| self.is_stale(member, binding.table))
    }
}

impl Hub {
    /// Now, by the hub's clock: to be read before a verdict is asked for.
    pub fn moment(&self) -> Moment {
        Moment {
            tick: self.state().rights.clock,
            at: Instant::now(),
        }
    }

    /// Verdicts on these tables may not hold any more. `hints` are values that have changed, as JSON: who is named by one
    /// of them is asked about first.
    /// Returns since when they had been stale before. Nothing is [`stale`](Hub::stale) until [`Hub::release`].
    pub fn doubt<'a>(
        &self,
        tables: &[TableId],
        hints: impl Iterator<Item = &'a str>,
    ) -> HashMap<TableId, u64> {
        let mut state = self.state();
        let state = &mut *state;
        state.rights.held = true;
        state.rights.clock += 1;
        let clock = state.rights.clock;
        let before = tables
            .iter()
            .map(|table| {
                (
                    *table,
                    state.rights.stale_since.insert(*table, clock).unwrap_or(0),
                )
            })
            .collect();
        for hint in hints {
            for table in tables {
                state.rights.urgent.extend(state.index.named(*table, hint));
            }
        }
        before
    }

    /// All of the transactions that gave rise to doubt has been delivered: now subscriptions may be ended for it.
    pub fn release(&self) {
        self.state().rights.held = false;
    }

    /// The catalog has changed: every subscription must be admitted anew before it gets anything more.
    pub fn replan(&self, tables: impl Iterator<Item = TableId>) {
        let mut state = self.state();
        let rights = &mut state.rights;
        rights.held = false;
        rights.clock += 1;
        rights.replanned_at = rights.clock;
        for table in tables {
            rights.stale_since.insert(table, rights.clock);
        }
    }

    /// Subscriptions whose verdict is stale, those first that a change has named.
    pub fn stale(&self, most: usize) -> Vec<Unit> {
        let mut state = self.state();
        if state.rights.held {
            return Vec::new();
        }
        let urgent: Vec<_> = state.rights.urgent.iter().take(most).copied().collect();
        for group in &urgent {
            state.rights.urgent.remove(group);
        }
        let State { groups, rights, .. } = &*state;
        let mut units = Vec::new();
        for group in urgent
            .iter()
            .filter_map(|group| groups.get(group))
            .chain(groups.values())
        {
            if units.len() >= most {
                break;
            }
            collect(
                group,
                |member| rights.needs_asking(group, member),
                &mut units,
            );
        }
        units
    }

    /// Subscriptions that were last admitted longer ago than this.
    pub fn due(&self, age: Duration, most: usize) -> Vec<Unit> {
        let state = self.state();
        let mut units = Vec::new();
        if state.rights.held {
            return units;
        }
        for group in state.groups.values() {
            if units.len() >= most {
                break;
            }
            collect(
                group,
                |member| member.verified.at.elapsed() >= age,
                &mut units,
            );
        }
        units
    }

    pub fn subscriptions(&self) -> usize {
        self.state().subscriptions.len()
    }

    /// The subscriptions were admitted with these bindings, asked for at this moment.
    pub fn confirm(&self, unit: &Unit, bindings: &[BoundBinding], verified: Moment) {
        let mut state = self.state();
        for id in &unit.members {
            state.rebind(*id, bindings, verified);
        }
    }

    /// The subscriptions may not be any more. Their connections learn of it in their turn.
    pub fn revoke(&self, unit: &Unit) {
        self.end(unit, Signal::Revoked);
    }

    /// What the subscriptions ask for is not there any more.
    pub fn void(&self, unit: &Unit, reason: &Arc<str>) {
        self.end(unit, |id| Signal::Void(id, reason.clone()));
    }

    fn end(&self, unit: &Unit, signal: impl Fn(SubscriptionId) -> Signal) {
        let mut state = self.state();
        for id in &unit.members {
            if let Some(member) = state.remove(*id) {
                member.outbox.signal(signal(*id));
            }
        }
    }
}

fn collect(group: &Group, wanted: impl Fn(&Member) -> bool, units: &mut Vec<Unit>) {
    let mut found: HashMap<&Arc<Principal>, Unit> = HashMap::new();
    for member in group.members().iter().filter(|member| wanted(member)) {
        found
            .entry(&member.principal)
            .or_insert_with(|| Unit {
                principal: member.principal.clone(),
                wanted: member.wanted.clone(),
                members: Vec::new(),
            })
            .members
            .push(member.id);
    }
    units.extend(found.into_values());
}
