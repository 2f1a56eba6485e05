//! The latest changes, kept for those who come back: most of them missed only these.
//!
//! Bounded in bytes; what is older is in the log. Changes are found by the value of a column as subscriptions are, with an
//! index that is made for a column when it is first asked for: a thousand clients that return at once must not look at every
//! change a thousand times.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    catalog::TableId,
    feed::{Read, change::Change, mark::Mark},
};

/// A change, and the read that brought it.
#[derive(Clone)]
pub struct Entry {
    pub read: Arc<Read>,
    pub change: Arc<Change>,
}

pub(super) struct Recent {
    limit: usize,
    bytes: usize,
    entries: VecDeque<Entry>,
    /// The number of the first entry. Numbers go on, so that the indexes need not be rewritten when entries go.
    first: u64,
    tables: HashMap<TableId, Table>,
    /// What had been handed on before the first entry.
    start: Option<Mark>,
}

#[derive(Default)]
struct Table {
    all: VecDeque<u64>,
    by_column: HashMap<Box<str>, HashMap<Box<str>, VecDeque<u64>>>,
}

/// Columns with an index, for each table. Clients choose by which columns they filter.
const MOST_COLUMNS: usize = 8;
/// What an entry costs beside its change.
const OVERHEAD: usize = 128;

impl Recent {
    pub(super) fn new(limit: usize) -> Recent {
        Recent {
            limit,
            bytes: 0,
            entries: VecDeque::new(),
            first: 0,
            tables: HashMap::new(),
            start: None,
        }
    }

    /// Forgets everything; what comes next begins after this.
    pub(super) fn begin(&mut self, start: Option<Mark>) {
        *self = Recent {
            start,
            first: self.first + self.entries.len() as u64,
            ..Recent::new(self.limit)
        };
    }

    pub(super) fn start(&self) -> Option<&Mark> {
        self.start.as_ref()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let number = self.first + self.entries.len() as u64;
        let table = self.tables.entry(entry.change.table).or_default();
        table.all.push_back(number);
        for (column, values) in &mut table.by_column {
            if let Some(value) = entry.change.image().and_then(|image| image.value(column)) {
                values.entry(value.into()).or_default().push_back(number);
            }
        }
        self.bytes += entry.change.size() + OVERHEAD;
        self.entries.push_back(entry);
        while self.bytes > self.limit && self.entries.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        self.first += 1;
        self.bytes -= entry.change.size() + OVERHEAD;
        self.start = Some(entry.read.mark(entry.change.sequence));
        let Some(table) = self.tables.get_mut(&entry.change.table) else {
            return;
        };
        table.all.pop_front();
        for (column, values) in &mut table.by_column {
            let Some(value) = entry.change.image().and_then(|image| image.value(column)) else {
                continue;
            };
            if let Some(numbers) = values.get_mut(value) {
                numbers.pop_front();
                if numbers.is_empty() {
                    values.remove(value);
                }
            }
        }
    }

    /// The changes of a table, of one value if `key` names one, that a mark does not cover. In their order.
    pub(super) fn missed(
        &mut self,
        table: TableId,
        key: Option<(&str, &str)>,
        since: &Mark,
    ) -> Vec<(u64, Entry)> {
        let Recent {
            entries,
            first,
            tables,
            ..
        } = self;
        let Some(table) = tables.get_mut(&table) else {
            return Vec::new();
        };
        let at = |number: u64| entries.get((number - *first) as usize);
        let numbers = match key {
            None => Some(&table.all),
            Some((column, value)) => {
                if !table.by_column.contains_key(column) && table.by_column.len() < MOST_COLUMNS {
                    let mut values: HashMap<Box<str>, VecDeque<u64>> = HashMap::new();
                    for number in &table.all {
                        let image = at(*number).and_then(|entry| entry.change.image());
                        if let Some(value) = image.and_then(|image| image.value(column)) {
                            values.entry(value.into()).or_default().push_back(*number);
                        }
                    }
                    table.by_column.insert(column.into(), values);
                }
                match table.by_column.get(column) {
                    Some(values) => values.get(value),
                    // Too many columns: whoever asks looks at all of them.
                    None => Some(&table.all),
                }
            }
        };
        let mut missed = Vec::new();
        let mut last: Option<&Arc<Read>> = None;
        for number in numbers.into_iter().flatten().rev() {
            let Some(entry) = at(*number) else { continue };
            if last.is_none_or(|read| !Arc::ptr_eq(read, &entry.read)) {
                // The rest is covered, too.
                if since.includes(&entry.read.end()) {
                    break;
                }
                last = Some(&entry.read);
            }
            if !since.covers(entry.change.xid, entry.change.sequence) {
                missed.push((*number, entry.clone()));
            }
        }
        missed.reverse();
        missed
    }
}
