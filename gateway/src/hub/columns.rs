//! Which columns of a table a subscriber gets, and how they are written.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    catalog::{Rendering, Table},
    feed::change::Record,
};

/// Sets that are in use, so that subscriptions which are alike share one: by itself it would be a kilobyte of each.
#[derive(Default)]
pub struct ColumnSets(Mutex<Vec<Known>>);

struct Known {
    table: Arc<Table>,
    places: Vec<usize>,
    cursor: bool,
    set: Arc<ColumnSet>,
}

/// Tables, times the ways in which clients look at them. Beyond that it begins anew.
const MOST_KNOWN: usize = 256;

impl ColumnSets {
    /// As [`ColumnSet::new`].
    pub fn get(&self, table: &Arc<Table>, places: &[usize], cursor: bool) -> Arc<ColumnSet> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A table that has changed is another one.
        let same = |known: &&Known| {
            Arc::ptr_eq(&known.table, table) && known.cursor == cursor && known.places == places
        };
        if let Some(known) = known.iter().find(same) {
            return known.set.clone();
        }
        if known.len() == MOST_KNOWN {
            known.clear();
        }
        let set = Arc::new(ColumnSet::new(table, places, cursor));
        known.push(Known {
            table: table.clone(),
            places: places.to_vec(),
            cursor,
            set: set.clone(),
        });
        set
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ColumnSet {
    columns: Vec<Written>,
    /// Every column of the table, each as the log has it: then the log's text is the wire's text.
    verbatim: bool,
    /// The list of names and types that goes with each change.
    described: String,
    /// Each record also has its change's cursor.
    cursor: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Written {
    name: Box<str>,
    /// As a JSON string, followed by a colon.
    label: Box<str>,
    key: bool,
    rendering: Rendering,
}

impl ColumnSet {
    /// `places` are places in the table's list of columns. `cursor`: whether the subscriber wants cursors as well.
    pub fn new(table: &Table, places: &[usize], cursor: bool) -> ColumnSet {
        let columns: Vec<_> = places
            .iter()
            .filter_map(|place| table.columns.get(*place))
            .map(|column| Written {
                name: column.name.clone(),
                label: format!("{}:", serde_json::Value::from(&*column.name)).into(),
                key: column.key,
                rendering: column.rendering(),
            })
            .collect();
        let described: Vec<_> = places
            .iter()
            .filter_map(|place| table.columns.get(*place))
            .map(|column| {
                format!(
                    r#"{{"name":{},"type":{}}}"#,
                    serde_json::Value::from(&*column.name),
                    serde_json::Value::from(&*column.type_name)
                )
            })
            .collect();
        ColumnSet {
            verbatim: columns.len() == table.columns.len()
                && columns
                    .iter()
                    .all(|column| column.rendering == Rendering::AsIs),
            described: format!("[{}]", described.join(",")),
            columns,
            cursor,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| &*column.name)
    }

    pub(super) fn described(&self) -> &str {
        &self.described
    }

    pub(super) fn has_cursor(&self) -> bool {
        self.cursor
    }

    /// The record as this subscriber gets it.
    pub(super) fn render(&self, record: &Record) -> String {
        // A change of the past may have had other columns, and one that was added a moment ago is not yet known here.
        let same = || {
            let mut names = self.columns.iter().map(|column| &column.name);
            record.len() == self.columns.len() && names.all(|name| record.value(name).is_some())
        };
        if self.verbatim && same() {
            return record.as_json().to_owned();
        }
        self.write(record, |_, _| true)
    }

    /// Only the primary key.
    pub(super) fn render_key(&self, record: &Record) -> String {
        self.write(record, |column, _| column.key)
    }

    /// Of the primary key what is short.
    pub(super) fn render_short_key(&self, record: &Record, longest: usize) -> String {
        self.write(record, |column, value| {
            column.key && value.len() <= longest && value != "null"
        })
    }

    /// Only what is short: for a change that is too large to be sent. No nulls (protocol §5.9).
    pub(super) fn render_short(&self, record: &Record, longest: usize) -> String {
        self.write(record, |_, value| value.len() <= longest && value != "null")
    }

    fn write(&self, record: &Record, wanted: impl Fn(&Written, &str) -> bool) -> String {
        let mut out = String::with_capacity(record.as_json().len());
        out.push('{');
        for column in &self.columns {
            let Some(value) = record
                .value(&column.name)
                .filter(|value| wanted(column, value))
            else {
                continue;
            };
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&column.label);
            match (column.rendering, value) {
                (Rendering::Float, "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"") => {
                    out.push_str("null");
                }
                // There is no other text in such a list, and a list of numbers has no quotes.
                (Rendering::Floats, value) if value.contains('"') => {
                    let mut parts = value.split('"');
                    out.push_str(parts.next().unwrap_or_default());
                    while let (Some(_), Some(after)) = (parts.next(), parts.next()) {
                        out.push_str("null");
                        out.push_str(after);
                    }
                }
                (Rendering::Bytea, value) => match value.strip_prefix("\"\\\\x") {
                    Some(hex) => {
                        out.push('"');
                        out.push_str(hex);
                    }
                    None => out.push_str(value),
                },
                (_, value) => out.push_str(value),
            }
        }
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Column;

    fn set(columns: &[(&str, &str, bool)]) -> ColumnSet {
        let columns: Vec<Column> = columns
            .iter()
            .map(|(name, base, key)| {
                serde_json::from_value(serde_json::json!({
                    "name": name, "type": base, "base": base, "kind": "b", "category": "X", "domain": false, "key": key,
                    "sent": true, "deterministic": true,
                }))
                .unwrap()
            })
            .collect();
        let places: Vec<_> = (0..columns.len()).collect();
        let table = Table {
            id: 1,
            oid: 1,
            schema: "public".into(),
            name: "things".into(),
            inserts: true,
            updates: true,
            deletes: true,
            full_identity: false,
            attached: 1,
            filtered: None,
            columns,
        };
        ColumnSet::new(&table, &places, false)
    }

    #[test]
    fn numbers_that_json_does_not_have_are_null_in_lists_too() {
        let set = set(&[("f", "_float8", false), ("t", "_text", false)]);
        let record =
            Record::parse(r#"{"f":[["NaN",1.50],["-Infinity",null]],"t":["NaN"]}"#.into()).unwrap();
        assert_eq!(
            set.render(&record),
            r#"{"f":[[null,1.50],[null,null]],"t":["NaN"]}"#
        );
    }

    #[test]
    fn of_a_row_that_is_too_large_short_values_remain_and_no_nulls() {
        let set = set(&[
            ("id", "text", true),
            ("part", "int4", true),
            ("body", "text", false),
            ("note", "text", false),
        ]);
        let long = "x".repeat(100);
        let record = format!(r#"{{"id":"{long}","part":7,"body":"short","note":null}}"#);
        let record = Record::parse(record.into()).unwrap();
        assert_eq!(
            set.render_short(&record, 64),
            r#"{"part":7,"body":"short"}"#
        );
        assert_eq!(set.render_short_key(&record, 64), r#"{"part":7}"#);
        assert_eq!(
            set.render_key(&record),
            format!(r#"{{"id":"{long}","part":7}}"#)
        );
    }
}
