//! A committed change, as the log tells it. Not a wire type: the hub turns it into one.

use std::{collections::HashMap, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::catalog::TableId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
    /// Not a change of a watched table: something that verdicts rest on has changed. `table` is then the id of
    /// `tidings.depended`, or [`CATALOG`].
    Control,
}

impl Operation {
    /// As the log writes it.
    pub fn parse(letter: u8) -> Option<Operation> {
        match letter {
            b'I' => Some(Operation::Insert),
            b'U' => Some(Operation::Update),
            b'D' => Some(Operation::Delete),
            b'T' => Some(Operation::Truncate),
            b'C' => Some(Operation::Control),
            _ => None,
        }
    }
}

/// Stands for the catalog itself: policies, grants, functions, columns.
pub const CATALOG: TableId = 0;

#[derive(Debug)]
pub struct Change {
    pub sequence: i64,
    /// The transaction that made it.
    pub xid: u64,
    pub table: TableId,
    pub operation: Operation,
    /// UTC, ISO 8601 with milliseconds.
    pub committed_at: Box<str>,
    /// How long ago it was made when it was read, in seconds.
    pub age: f64,
    pub new: Option<Record>,
    pub old: Option<Record>,
}

impl Change {
    /// The row that filters and policies judge: the new one, or the old one of a DELETE.
    pub fn image(&self) -> Option<&Record> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// The values of both images, as JSON.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        [&self.new, &self.old]
            .into_iter()
            .flatten()
            .flat_map(|record| {
                record
                    .values
                    .values()
                    .map(|place| &record.text[place.clone()])
            })
    }

    pub fn size(&self) -> usize {
        [&self.new, &self.old]
            .into_iter()
            .flatten()
            .map(|record| record.text.len())
            .sum::<usize>()
            + 128
    }
}

/// A row as JSON text, with the places of its values.
#[derive(Debug)]
pub struct Record {
    text: Box<str>,
    values: HashMap<Box<str>, Range<usize>>,
}

impl Record {
    pub fn parse(text: Box<str>) -> Result<Record, serde_json::Error> {
        #[derive(Deserialize)]
        struct Fields<'a>(#[serde(borrow)] HashMap<Box<str>, &'a RawValue>);

        let Fields(fields) = serde_json::from_str(&text)?;
        let start = text.as_ptr() as usize;
        let values = fields
            .into_iter()
            .map(|(name, value)| {
                // Each value is borrowed from the text, so the distance of the two addresses is its place in it.
                let from = value.get().as_ptr() as usize - start;
                (name, from..from + value.get().len())
            })
            .collect();
        Ok(Record { text, values })
    }

    /// The whole row as a JSON object.
    pub fn as_json(&self) -> &str {
        &self.text
    }

    /// How many columns the row has.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The JSON of one column, if the row has it.
    pub fn value(&self, column: &str) -> Option<&str> {
        self.values
            .get(column)
            .map(|place| &self.text[place.clone()])
    }

    /// A JSON object of just these columns; those that the row lacks are left out.
    pub fn project<'a>(&self, columns: impl IntoIterator<Item = &'a str>) -> String {
        let mut projected = String::from("{");
        for column in columns {
            if let Some(value) = self.value(column) {
                if projected.len() > 1 {
                    projected.push(',');
                }
                projected.push_str(&serde_json::Value::from(column).to_string());
                projected.push(':');
                projected.push_str(value);
            }
        }
        projected.push('}');
        projected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_bytes() {
        let record = Record::parse(
            r#"{"id":9007199254740993,"a b":"x\"y","n":12.50,"j":{"k":[1, 2]},"z":null}"#.into(),
        )
        .unwrap();
        assert_eq!(record.value("id"), Some("9007199254740993"));
        assert_eq!(record.value("a b"), Some(r#""x\"y""#));
        assert_eq!(record.value("n"), Some("12.50"));
        assert_eq!(record.value("j"), Some(r#"{"k":[1, 2]}"#));
        assert_eq!(record.value("z"), Some("null"));
        assert_eq!(record.value("missing"), None);
        assert_eq!(
            record.project(["n", "missing", "a b"]),
            r#"{"n":12.50,"a b":"x\"y"}"#
        );
    }

    #[test]
    fn only_objects_are_records() {
        for text in ["[]", "1", "", "{\"a\":}"] {
            assert!(Record::parse(text.into()).is_err(), "{text}");
        }
    }
}
