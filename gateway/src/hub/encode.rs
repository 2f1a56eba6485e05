//! Turns a change of the log into frames of the wire: once for each set of columns, and once for each group.

use std::sync::Arc;

use protocol::{ChangeData, Version, resume::CURSOR_KEY};

use super::{columns::ColumnSet, group::GroupKey};
use crate::{
    authorizer::Reads,
    catalog::Table,
    config::OldRecord,
    feed::change::{Change, Operation, Record},
};

/// Python's client closes its socket on a message of more than 1 MiB, and speaks only version 1.
const LARGEST_V1: usize = 1_048_576;
const TOO_LARGE: &str = r#"["Error 413: Payload Too Large"]"#;
/// The longest value that is kept of a change that is too large (protocol §5.9).
const SHORT: usize = 64;

pub(super) struct Encoder {
    pub(super) old_record: OldRecord,
    pub(super) max_change_bytes: usize,
}

impl Encoder {
    pub(super) fn change<'a>(&'a self, table: &'a Table, change: &'a Change) -> Encoding<'a> {
        Encoding {
            encoder: self,
            table,
            change,
            bodies: Vec::new(),
            cursor: None,
        }
    }
}

/// One change, and what has been encoded of it so far.
pub(super) struct Encoding<'a> {
    encoder: &'a Encoder,
    table: &'a Table,
    change: &'a Change,
    bodies: Vec<(Arc<ColumnSet>, Old, String)>,
    cursor: Option<String>,
}

/// How much of the old row goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    None,
    Key,
    Full,
}

impl Encoding<'_> {
    /// `cursor` is asked once, if somebody wants it.
    pub(super) fn frame(
        &mut self,
        group: &GroupKey,
        columns: &Arc<ColumnSet>,
        ids: &[u64],
        cursor: impl FnOnce() -> Option<String>,
    ) -> String {
        if columns.has_cursor() && self.cursor.is_none() {
            self.cursor = cursor();
        }
        let old = self.old(group, columns);
        let body = match self
            .bodies
            .iter()
            .position(|(set, as_old, _)| set == columns && *as_old == old)
        {
            Some(known) => known,
            None => {
                self.bodies
                    .push((columns.clone(), old, self.body(columns, old, false)));
                self.bodies.len() - 1
            }
        };
        let write = |data: &str| match group.bare {
            false => protocol::encode_change(group.version, &group.topic, ids, data),
            true => protocol::encode_bare_change(group.version, &group.topic, self.kind(), data),
        };
        let frame = write(&self.bodies[body].2);
        let largest = match group.version {
            Version::V1 => self.encoder.max_change_bytes.min(LARGEST_V1),
            Version::V2 => self.encoder.max_change_bytes,
        };
        if frame.len() <= largest {
            return frame;
        }
        write(&self.body(columns, old, true))
    }

    fn kind(&self) -> &'static str {
        match self.change.operation {
            Operation::Insert => "INSERT",
            Operation::Update => "UPDATE",
            Operation::Delete | Operation::Truncate | Operation::Control => "DELETE",
        }
    }

    /// The old row was judged only where it agrees with the new one in all that the verdict rests on. Otherwise no more of it
    /// goes along than what the new row says as well.
    fn old(&self, group: &GroupKey, columns: &Arc<ColumnSet>) -> Old {
        let wanted = match self.encoder.old_record {
            OldRecord::Identity if !self.table.full_identity => Old::Key,
            _ => Old::Full,
        };
        match (self.change.operation, &self.change.new, &self.change.old) {
            (Operation::Delete, _, Some(_)) => wanted,
            (Operation::Update, Some(new), Some(old)) => {
                let agree = |column: &str| old.value(column) == new.value(column);
                let judged = group
                    .bindings
                    .iter()
                    .filter(|binding| binding.table == self.table.id && binding.columns == *columns)
                    .any(|binding| match &*binding.reads {
                        Reads::Columns(reads) => reads.iter().all(|column| agree(column)),
                        Reads::WholeRow => false,
                    });
                let same_key = self
                    .table
                    .key_columns()
                    .all(|place| agree(&self.table.columns[place].name));
                match (judged, same_key) {
                    (true, _) => wanted,
                    (false, true) => Old::Key,
                    (false, false) => Old::None,
                }
            }
            _ => Old::None,
        }
    }

    fn body(&self, columns: &ColumnSet, old: Old, too_large: bool) -> String {
        let render = |record: &Record, old: Old| match (old, too_large) {
            (Old::None, _) => "{}".to_owned(),
            (Old::Key, false) => columns.render_key(record),
            (Old::Key, true) => columns.render_short_key(record, SHORT),
            (Old::Full, false) => columns.render(record),
            (Old::Full, true) => columns.render_short(record, SHORT),
        };
        let mut record = self
            .change
            .new
            .as_ref()
            .map(|record| render(record, Old::Full));
        let mut old_record = self.change.old.as_ref().map(|record| render(record, old));
        // The SDKs hand on every key of a record, and of a change only those that they know.
        if columns.has_cursor()
            && let Some(cursor) = &self.cursor
            && let Some(record) = record.as_mut().or(old_record.as_mut())
        {
            record.pop();
            let comma = if record.len() > 1 { "," } else { "" };
            record.push_str(&format!("{comma}\"{CURSOR_KEY}\":\"{cursor}\"}}"));
        }
        ChangeData {
            schema: &self.table.schema,
            table: &self.table.name,
            kind: self.kind(),
            commit_timestamp: Some(&self.change.committed_at),
            columns: columns.described(),
            record: record.as_deref(),
            old_record: old_record.as_deref(),
            errors: too_large.then_some(TOO_LARGE),
        }
        .to_json()
    }
}
