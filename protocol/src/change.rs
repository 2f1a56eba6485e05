//! The `postgres_changes` message, and what clients from before 2022 get in its place.

use std::fmt::Write as _;

use crate::json;
use crate::message::{Ref, close_frame, encode, open_frame};
use crate::topic::event;
use crate::version::Version;

/// Writes the frame that carries one change to the members of one group: the ids of all bindings of the channel that
/// match it, and `data` as [`ChangeData::to_json`] writes it. It has no refs, so members of equal topic, ids and version
/// share its bytes.
pub fn encode_change(version: Version, topic: &str, ids: &[u64], data: &str) -> String {
    let mut frame = String::with_capacity(data.len() + topic.len() + ids.len() * 11 + 96);
    open_frame(
        &mut frame,
        version,
        &Ref::NULL,
        &Ref::NULL,
        topic,
        event::POSTGRES_CHANGES,
    );
    frame.push_str("{\"ids\":[");
    for (position, id) in ids.iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(frame, "{comma}{id}");
    }
    frame.push_str("],\"data\":");
    frame.push_str(data);
    frame.push('}');
    close_frame(&mut frame, version, &Ref::NULL);
    frame
}

/// Writes the same for the channels of clients from before 2022 ([`crate::Config::bare`]): the type of the change is the
/// event, and `data` the payload. Members of equal topic and version share its bytes.
pub fn encode_bare_change(version: Version, topic: &str, kind: &str, data: &str) -> String {
    encode(version, &Ref::NULL, &Ref::NULL, topic, kind, data)
}

/// One change, as a subscriber may see it.
#[derive(Clone, Copy)]
pub struct ChangeData<'a> {
    pub schema: &'a str,
    pub table: &'a str,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub kind: &'static str,
    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    pub commit_timestamp: Option<&'a str>,
    /// JSON list of `{"name":…,"type":…}`.
    pub columns: &'a str,
    /// JSON object; for INSERT and UPDATE only.
    pub record: Option<&'a str>,
    /// JSON object; for UPDATE and DELETE only.
    pub old_record: Option<&'a str>,
    /// JSON list of text.
    pub errors: Option<&'a str>,
}

impl ChangeData<'_> {
    pub fn to_json(&self) -> String {
        let size = self.schema.len()
            + self.table.len()
            + self.columns.len()
            + [
                self.commit_timestamp,
                self.record,
                self.old_record,
                self.errors,
            ]
            .iter()
            .map(|part| part.map_or(4, str::len))
            .sum::<usize>()
            + 160;
        let mut out = String::with_capacity(size);
        out.push('{');
        json::push_member(&mut out, "schema", self.schema);
        out.push(',');
        json::push_member(&mut out, "table", self.table);
        out.push(',');
        json::push_member(&mut out, "type", self.kind);
        match self.commit_timestamp {
            Some(timestamp) => {
                out.push(',');
                json::push_member(&mut out, "commit_timestamp", timestamp);
            }
            None => out.push_str(",\"commit_timestamp\":null"),
        }
        out.push_str(",\"columns\":");
        out.push_str(self.columns);
        if let Some(record) = self.record {
            out.push_str(",\"record\":");
            out.push_str(record);
        }
        if let Some(old_record) = self.old_record {
            out.push_str(",\"old_record\":");
            out.push_str(old_record);
        }
        out.push_str(",\"errors\":");
        out.push_str(self.errors.unwrap_or("null"));
        out.push('}');
        out
    }
}
