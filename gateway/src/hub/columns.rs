//! Which columns of a table a subscriber gets, and how they are written.

use crate::{
    catalog::{Rendering, Table},
    feed::change::Record,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    rendering: Kind,
}

/// [`Rendering`], hashable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    AsIs,
    Float,
    Bytea,
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
                rendering: match column.rendering() {
                    Rendering::AsIs => Kind::AsIs,
                    Rendering::Float => Kind::Float,
                    Rendering::Bytea => Kind::Bytea,
                },
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
                && columns.iter().all(|column| column.rendering == Kind::AsIs),
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
                (Kind::Float, "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"") => out.push_str("null"),
                (Kind::Bytea, value) => match value.strip_prefix("\"\\\\x") {
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
