//! What a subscription that starts in the past has to be given before its live changes, and how it is judged and written.
//!
//! Where each binding starts is a [`Mark`]. A change is given to the bindings whose mark does not cover it, if they match and if
//! its principal may see it *now*: verdicts are asked for after the changes were collected, or were taken after them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use protocol::Ref;

use super::{
    Announcement, Gate, Hub, Moment, Survey, Verdicts, gate::Overflowed, group::GroupKey,
    outbox::Frame, recent::Entry,
};
use crate::{
    auth::Principal,
    authorizer::Scope,
    catalog::{TableId, Tables},
    feed::{change::Change, mark::Mark, source::Source},
    hub::{BoundBinding, State, address},
};

/// Where bindings start, by their ids. Those that are not named start now.
#[derive(Clone)]
pub struct Starts {
    pub marks: HashMap<u64, Mark>,
    /// The marks mean something for this database alone.
    pub source: Arc<Source>,
}

/// What must be delivered before the gate opens.
pub struct Missed {
    pub gate: Arc<Gate>,
    /// Where each binding starts.
    pub starts: HashMap<u64, Mark>,
    /// From the log: the tables and keys of bindings that have missed more than is kept in memory.
    pub older: Vec<Older>,
    /// The log is asked for what comes before this; the rest is in `recent`.
    pub until: Mark,
    pub recent: Vec<Entry>,
}

/// Changes of a table, of one value of a column, that a mark does not cover.
#[derive(Clone, PartialEq, Eq)]
pub struct Older {
    pub table: TableId,
    pub key: Option<(Box<str>, Box<str>)>,
    pub since: Mark,
}

/// What becomes of a gate that is to be opened.
pub enum Opening {
    Open,
    /// These come first.
    Held(Vec<Entry>),
    /// More may be held when the hub has made progress.
    NotYet,
}

/// A subscription as it is at the moment.
pub struct View<'a> {
    starts: &'a HashMap<u64, Mark>,
    key: GroupKey,
    principal: Arc<Principal>,
    /// For each binding, whether its rows need no verdict.
    trusted: Vec<bool>,
}

impl State {
    pub(super) fn has_come_to(&self, starts: &Starts) -> bool {
        let begun = self.recent.start().is_some();
        let Some(place) = self.place.as_ref().filter(|_| begun) else {
            return false;
        };
        let here = place.mark();
        Arc::ptr_eq(&place.read.source, &starts.source)
            && starts.marks.values().all(|start| here.includes(start))
    }

    /// To be called when it [has come](State::has_come_to) to where the bindings start.
    pub(super) fn missed(
        &mut self,
        bindings: &[BoundBinding],
        starts: &Starts,
        gate: Arc<Gate>,
    ) -> Missed {
        let here = self.place.as_ref().map(super::Place::mark);
        let mut marks = starts.marks.clone();
        let mut older: Vec<Older> = Vec::new();
        let mut looked: Vec<Older> = Vec::new();
        let mut recent = BTreeMap::new();
        for binding in bindings {
            let key = binding.filter.fixed().next();
            let Some(since) = starts.marks.get(&binding.id) else {
                marks.extend(here.clone().map(|here| (binding.id, here)));
                continue;
            };
            let wanted = Older {
                table: binding.table,
                key: key.map(|(column, value)| (column.clone(), value.clone())),
                since: since.clone(),
            };
            // Equal questions have equal answers, and this holds everybody up.
            if looked.contains(&wanted) {
                continue;
            }
            let key = key.map(|(column, value)| (&**column, &**value));
            recent.extend(self.recent.missed(binding.table, key, since));
            if self
                .recent
                .start()
                .is_some_and(|start| !since.includes(start))
            {
                older.push(wanted.clone());
            }
            looked.push(wanted);
        }
        let until = self.recent.start().cloned().or(here);
        Missed {
            gate,
            starts: marks,
            older,
            // There is a start where it has come to one.
            until: until.unwrap_or_else(Mark::nothing),
            recent: recent.into_values().collect(),
        }
    }
}

impl Hub {
    /// Whether verdicts on a table may not hold any more that were taken at this moment.
    pub fn is_stale(&self, table: TableId, moment: Moment) -> bool {
        self.state().rights.stale_since_of(table) > moment.tick()
    }

    /// Whether all that a mark does not cover is kept in memory.
    pub fn remembers(&self, since: &Mark) -> bool {
        let state = self.state();
        state
            .recent
            .start()
            .is_some_and(|start| since.includes(start))
    }

    /// The subscription behind a gate. None if it has ended.
    pub fn view<'a>(&self, missed: &'a Missed) -> Option<View<'a>> {
        let state = self.state();
        let id = missed.gate.holder();
        let group = state.groups.get(state.subscriptions.get(&id)?)?;
        let member = group.member(id)?;
        let trusted = |binding: &BoundBinding| {
            let stale_since = state.rights.stale_since_of(binding.table);
            binding.scope == Scope::Decided && member.verified.tick() >= stale_since
        };
        Some(View {
            starts: &missed.starts,
            trusted: group.key.bindings.iter().map(trusted).collect(),
            key: group.key.clone(),
            principal: member.principal.clone(),
        })
    }

    /// Opens the gate if nothing is held any more, and says so to the client. Otherwise what is held comes first.
    pub fn open(&self, gate: &Arc<Gate>, live: &Announcement) -> Result<Opening, Overflowed> {
        let mut state = self.state();
        let held = gate.take()?;
        if !held.is_empty() {
            return Ok(Opening::Held(held));
        }
        if state.delivering && gate.unasked == Some(state.surveys) {
            return Ok(Opening::NotYet);
        }
        let id = gate.holder();
        let State {
            groups,
            subscriptions,
            place,
            ..
        } = &mut *state;
        let group = subscriptions
            .get(&id)
            .and_then(|group| groups.get_mut(group));
        if let Some(group) = group
            && let Some(member) = group.member(id)
        {
            member.outbox.push_greeting(live.frame(place.as_ref()));
            group.open_gate(id);
        }
        Ok(Opening::Open)
    }

    /// Tells subscriptions that asked for cursors how far they have come: the cursor of a quiet one would grow old.
    pub fn tell_cursors(&self) {
        let state = self.state();
        let Some(place) = &state.place else { return };
        let cursor = place.cursor();
        for group in state.groups.values() {
            if !group
                .key
                .bindings
                .iter()
                .any(|binding| binding.columns.has_cursor())
            {
                continue;
            }
            let topic = &group.key.topic;
            let sub_topic = topic.strip_prefix(protocol::TOPIC_PREFIX).unwrap_or(topic);
            let payload = protocol::system_with_cursor(
                true,
                protocol::extension::POSTGRES_CHANGES,
                protocol::resume::CURSOR,
                sub_topic,
                Some(&cursor),
            );
            let frame = Frame::text(protocol::encode(
                group.key.version,
                &Ref::NULL,
                &Ref::NULL,
                topic,
                protocol::event::SYSTEM,
                &payload,
            ));
            for member in group
                .members()
                .iter()
                .filter(|member| member.gate.is_none())
            {
                member.outbox.push(frame.clone());
            }
        }
    }

    /// The frames by which a change reaches those bindings of a subscription that have missed it.
    pub fn write_missed(
        &self,
        tables: &Tables,
        view: &View<'_>,
        change: &Change,
        place: usize,
        verdicts: &Verdicts,
        cursor: impl Fn(Option<&Mark>) -> Option<String>,
    ) -> Vec<Frame> {
        let Some(table) = tables.get(change.table) else {
            return Vec::new();
        };
        let hits: Vec<usize> = view
            .hits(change)
            .filter(|binding| {
                let filter = &view.key.bindings[*binding].filter;
                verdicts.matches(change.table, filter, place)
            })
            .collect();
        let seen = hits.iter().any(|binding| view.trusted[*binding])
            || verdicts.sees(change.table, &view.principal, place);
        if !seen {
            return Vec::new();
        }
        let mut frames = Vec::with_capacity(1);
        // Bindings that start at different places have different cursors for the same change.
        let mut rest = hits;
        while let Some(first) = rest.first() {
            let start = view.start(*first);
            let (same, others): (Vec<usize>, Vec<usize>) = rest
                .iter()
                .partition(|binding| view.start(**binding) == start);
            let mut encoded = self.encoder.change(table, change);
            for message in address(&view.key, same.into_iter()) {
                let frame =
                    encoded.frame(&view.key, message.columns, &message.ids, || cursor(start));
                frames.push(Frame::text(frame));
            }
            rest = others;
        }
        frames
    }

    /// The frame by which a row of the past reaches a binding. The last one has a cursor.
    pub fn write_history(
        &self,
        tables: &Tables,
        view: &View<'_>,
        id: u64,
        row: &Change,
        cursor: Option<&str>,
    ) -> Vec<Frame> {
        let Some(table) = tables.get(row.table) else {
            return Vec::new();
        };
        let hits = (0..view.key.bindings.len()).filter(|binding| {
            let binding = &view.key.bindings[*binding];
            binding.id == id && binding.table == row.table
        });
        let mut encoded = self.encoder.change(table, row);
        address(&view.key, hits)
            .into_iter()
            .map(|message| {
                let cursor = || cursor.map(str::to_owned);
                Frame::text(encoded.frame(&view.key, message.columns, &message.ids, cursor))
            })
            .collect()
    }
}

impl View<'_> {
    /// The subscription is for somebody else, or for something else than it was.
    pub fn differs(&self, other: &View<'_>) -> bool {
        self.principal != other.principal
            || self.key.bindings != other.key.bindings
            || self.trusted != other.trusted
    }

    /// What must be asked before these changes can be delivered.
    pub fn survey<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Survey {
        let mut survey = Survey::default();
        for (place, change) in changes.enumerate() {
            // A binding that surely matches, and needs no verdict; one that does need it.
            let (mut sure, mut doubtful) = (false, false);
            for binding in self.hits(change) {
                let rest = &self.key.bindings[binding].filter.rest;
                sure |= self.trusted[binding] && rest.is_none();
                doubtful |= !self.trusted[binding];
                if let Some(rest) = rest {
                    let key = (change.table, rest.clone());
                    let places = survey.filters.entry(key).or_default();
                    if places.last() != Some(&place) {
                        places.push(place);
                    }
                }
            }
            if doubtful && !sure {
                let key = (change.table, self.principal.clone());
                survey.questions.entry(key).or_default().push(place);
            }
        }
        survey
    }

    fn start(&self, binding: usize) -> Option<&Mark> {
        self.starts.get(&self.key.bindings[binding].id)
    }

    fn hits<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = usize> + 'a {
        let image = change.image();
        let bindings = self.key.bindings.iter().enumerate();
        bindings.filter_map(move |(place, binding)| {
            let start = self.starts.get(&binding.id)?;
            let hit = binding.table == change.table
                && binding.events.include(change.operation)
                && binding.filter.holds(image?)
                && !covers(start, change);
            hit.then_some(place)
        })
    }
}

impl Verdicts {
    fn sees(&self, table: TableId, principal: &Arc<Principal>, place: usize) -> bool {
        self.visible
            .get(&(table, principal.clone()))
            .is_some_and(|places| places.contains(&place))
    }
}

fn covers(start: &Mark, change: &Change) -> bool {
    start.covers(change.xid, change.sequence)
}
