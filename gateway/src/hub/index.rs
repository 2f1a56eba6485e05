//! Finds the bindings that may match a row: by the value of one column, so that the cost does not grow with the number
//! of sessions. Bindings without a condition that names values are in a list that every row of the table visits.

use std::collections::HashMap;

use super::{
    BoundBinding,
    filter::{Filter, Test},
};
use crate::{catalog::TableId, feed::change::Record};

/// A binding: its group, and its place there.
type Entry = (usize, usize);

#[derive(Default)]
pub(super) struct Index {
    tables: HashMap<TableId, TableIndex>,
}

#[derive(Default)]
struct TableIndex {
    keyed: HashMap<Box<str>, HashMap<Box<str>, Bucket>>,
    unkeyed: Vec<Entry>,
}

/// What is known of one value of a column.
#[derive(Default)]
struct Bucket {
    /// Bindings that are looked up by it.
    entries: Vec<Entry>,
    /// Bindings with a condition that names it, however they are looked up. The fewer, the better it tells them apart.
    mentions: usize,
}

impl Index {
    pub(super) fn insert(&mut self, group: usize, bindings: &[BoundBinding]) {
        for (place, binding) in bindings.iter().enumerate() {
            let table = self.tables.entry(binding.table).or_default();
            for (test, values) in binding.filter.looked_up() {
                let column = table.keyed.entry(test.column.clone()).or_default();
                for value in values {
                    column.entry(value.clone()).or_default().mentions += 1;
                }
            }
            match table.best(&binding.filter) {
                Some((test, values)) => {
                    for value in values {
                        if let Some(bucket) = table
                            .keyed
                            .get_mut(&test.column)
                            .and_then(|column| column.get_mut(value))
                        {
                            bucket.entries.push((group, place));
                        }
                    }
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
            let mut keyed = false;
            for (test, values) in binding.filter.looked_up() {
                keyed = true;
                let Some(column) = table.keyed.get_mut(&test.column) else {
                    continue;
                };
                for value in values {
                    if let Some(bucket) = column.get_mut(value) {
                        bucket.entries.retain(|(other, _)| *other != group);
                        bucket.mentions -= 1;
                        if bucket.mentions == 0 {
                            column.remove(value);
                        }
                    }
                }
                if column.is_empty() {
                    table.keyed.remove(&test.column);
                }
            }
            if !keyed {
                table.unkeyed.retain(|(other, _)| *other != group);
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
                        .flat_map(|bucket| &bucket.entries)
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
            .flat_map(|bucket| &bucket.entries)
            .map(|(group, _)| *group)
    }
}

impl TableIndex {
    /// The condition by which a binding is best looked up: whose values the fewest others name, or else whose type promises that few
    /// rows have them.
    fn best<'a>(&self, filter: &'a Filter) -> Option<(&'a Test, &'a [Box<str>])> {
        filter.looked_up().min_by_key(|(test, values)| {
            let column = self.keyed.get(&test.column);
            let known = values.iter().filter_map(|value| column?.get(value));
            let mentions: usize = known.map(|bucket| bucket.mentions).sum();
            (mentions, test.spread)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        authorizer::{Reads, Scope},
        catalog::Spread,
        hub::{Events, columns::ColumnSet, filter::Check},
    };

    fn binding(conditions: &[(&str, Spread, &[&str])]) -> [BoundBinding; 1] {
        let tests = conditions.iter().map(|(column, spread, values)| Test {
            column: (*column).into(),
            spread: *spread,
            check: Check::OneOf {
                values: values.iter().map(|value| Box::from(*value)).collect(),
                or_null: false,
            },
            negate: false,
        });
        [BoundBinding {
            id: 1,
            table: 1,
            events: Events {
                insert: true,
                update: true,
                delete: true,
            },
            filter: Arc::new(Filter {
                tests: tests.collect(),
                rest: None,
            }),
            columns: Arc::new(ColumnSet::default()),
            scope: Scope::Decided,
            reads: Arc::new(Reads::WholeRow),
        }]
    }

    fn found(index: &Index, row: &str) -> Vec<usize> {
        let record = Record::parse(row.into()).expect("a record");
        let mut groups: Vec<_> = index
            .candidates(1, &record)
            .map(|(group, _)| group)
            .collect();
        groups.sort_unstable();
        groups
    }

    #[test]
    fn each_value_of_a_list_finds_the_binding_once() {
        let mut index = Index::default();
        let list = binding(&[("n", Spread::Usual, &["1", "2"])]);
        let none = binding(&[("n", Spread::Usual, &[])]);
        let all = binding(&[]);
        index.insert(1, &list);
        index.insert(2, &none);
        index.insert(3, &all);
        assert_eq!(found(&index, r#"{"n":1}"#), [1, 3]);
        assert_eq!(found(&index, r#"{"n":2}"#), [1, 3]);
        assert_eq!(found(&index, r#"{"n":3}"#), [3]);
        for (group, bindings) in [(1, list), (2, none), (3, all)] {
            index.remove(group, &bindings);
        }
        assert!(index.tables.is_empty());
    }

    #[test]
    fn a_row_visits_those_only_whose_rarest_value_it_has() {
        let mut index = Index::default();
        let mut bindings = Vec::new();
        for n in 0..1_000 {
            let room = n.to_string();
            // In either order, and with a value that everybody names.
            let mut conditions = vec![
                ("kind", Spread::Usual, &["\"user\""][..]),
                ("flag", Spread::Small, &["true", "false"][..]),
            ];
            let rooms = [room.as_str()];
            conditions.insert(n % 3, ("room", Spread::Usual, &rooms));
            bindings.push(binding(&conditions));
        }
        for (group, bindings) in bindings.iter().enumerate() {
            index.insert(group, bindings);
        }
        // The first one could not know.
        let visited = found(&index, r#"{"room":500,"kind":"user","flag":true}"#);
        assert!(visited.contains(&500) && visited.len() <= 2, "{visited:?}");
        for (group, bindings) in bindings.iter().enumerate() {
            index.remove(group, bindings);
        }
        assert!(index.tables.is_empty());
    }

    #[test]
    fn where_nothing_is_known_the_type_decides() {
        let mut index = Index::default();
        index.insert(
            1,
            &binding(&[
                ("flag", Spread::Small, &["true"]),
                ("body", Spread::Usual, &["\"x\""]),
                ("room", Spread::Wide, &["\"r\""]),
            ]),
        );
        assert_eq!(
            found(&index, r#"{"flag":true,"body":"x","room":"s"}"#),
            [0; 0]
        );
        assert_eq!(found(&index, r#"{"room":"r"}"#), [1]);
    }
}
