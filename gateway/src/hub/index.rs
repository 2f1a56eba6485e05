//! Finds the bindings that may match a row: by the value of one column, so that the cost does not grow with the number
//! of sessions. Bindings without an `eq` condition are in a list that every row of the table visits.

use std::collections::HashMap;

use super::BoundBinding;
use crate::{catalog::TableId, feed::change::Record};

/// A binding: its group, and its place there.
type Entry = (usize, usize);

#[derive(Default)]
pub(super) struct Index {
    tables: HashMap<TableId, TableIndex>,
}

#[derive(Default)]
struct TableIndex {
    keyed: HashMap<Box<str>, HashMap<Box<str>, Vec<Entry>>>,
    unkeyed: Vec<Entry>,
}

impl Index {
    pub(super) fn insert(&mut self, group: usize, bindings: &[BoundBinding]) {
        for (place, binding) in bindings.iter().enumerate() {
            let table = self.tables.entry(binding.table).or_default();
            match binding.filter.equals.first() {
                Some((column, value)) => {
                    table
                        .keyed
                        .entry(column.clone())
                        .or_default()
                        .entry(value.clone())
                        .or_default()
                        .push((group, place));
                }
                None => table.unkeyed.push((group, place)),
            }
        }
    }

    pub(super) fn remove(&mut self, group: usize, bindings: &[BoundBinding]) {
        for binding in bindings {
            let Some(table) = self.tables.get_mut(&binding.table) else {
                continue;
            };
            match binding.filter.equals.first() {
                Some((column, value)) => {
                    if let Some(values) = table.keyed.get_mut(column) {
                        if let Some(entries) = values.get_mut(value) {
                            entries.retain(|(other, _)| *other != group);
                            if entries.is_empty() {
                                values.remove(value);
                            }
                        }
                        if values.is_empty() {
                            table.keyed.remove(column);
                        }
                    }
                }
                None => table.unkeyed.retain(|(other, _)| *other != group),
            }
            if table.keyed.is_empty() && table.unkeyed.is_empty() {
                self.tables.remove(&binding.table);
            }
        }
    }

    pub(super) fn candidates<'a>(
        &'a self,
        table: TableId,
        image: &'a Record,
    ) -> impl Iterator<Item = Entry> + 'a {
        let table = self.tables.get(&table);
        let keyed =
            table
                .into_iter()
                .flat_map(|table| &table.keyed)
                .flat_map(|(column, values)| {
                    image
                        .value(column)
                        .and_then(|value| values.get(value))
                        .into_iter()
                        .flatten()
                });
        let unkeyed = table.into_iter().flat_map(|table| &table.unkeyed);
        keyed.chain(unkeyed).copied()
    }

    /// The groups that a value names, in whatever column.
    pub(super) fn named<'a>(
        &'a self,
        table: TableId,
        value: &'a str,
    ) -> impl Iterator<Item = usize> + 'a {
        self.tables
            .get(&table)
            .into_iter()
            .flat_map(|table| table.keyed.values())
            .filter_map(move |values| values.get(value))
            .flatten()
            .map(|(group, _)| *group)
    }
}
