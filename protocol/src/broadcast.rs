//! Payloads of `broadcast` messages.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::json;

/// Whether a client's broadcast can be passed on: its payload must be an object, which is then relayed whole.
pub fn is_relayable(payload: &RawValue) -> bool {
    json::is_object(payload)
}

/// The payload for a broadcast that came as a kind 3 frame, over REST as a single message, or from the database.
/// `payload` and `meta` are JSON text.
pub fn payload(event: &str, payload: &str, meta: Option<&str>) -> String {
    let mut out = with_capacity(event, payload, meta);
    out.push('{');
    json::push_member(&mut out, "event", event);
    out.push_str(",\"payload\":");
    out.push_str(payload);
    finish(out, meta)
}

/// The payload for a broadcast that came in a REST batch or is replayed; the peer writes these with the payload first.
pub fn payload_first(event: &str, payload: &str, meta: Option<&str>) -> String {
    let mut out = with_capacity(event, payload, meta);
    out.push_str("{\"payload\":");
    out.push_str(payload);
    out.push(',');
    json::push_member(&mut out, "event", event);
    finish(out, meta)
}

/// The `meta` of a message that has an id, and the metadata of its kind 4 frame.
pub fn meta(id: &str, replayed: bool) -> String {
    let mut out = String::with_capacity(id.len() + 28);
    out.push('{');
    if replayed {
        out.push_str("\"replayed\":true,");
    }
    json::push_member(&mut out, "id", id);
    out.push('}');
    out
}

fn with_capacity(event: &str, payload: &str, meta: Option<&str>) -> String {
    String::with_capacity(event.len() + payload.len() + meta.map_or(0, str::len) + 64)
}

fn finish(mut out: String, meta: Option<&str>) -> String {
    out.push_str(",\"type\":\"broadcast\"");
    if let Some(meta) = meta {
        out.push_str(",\"meta\":");
        out.push_str(meta);
    }
    out.push('}');
    out
}

/// A client wants its broadcast to be stored, so that it can be replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Persist {
    /// For how long; None leaves it to the server.
    pub keep: Option<Duration>,
}

/// Reads the metadata of a kind 3 frame: `{"persist":true}` or `{"persist":{"ttl":seconds}}`.
pub fn persist(metadata: &RawValue) -> Option<Persist> {
    let [wanted] = json::pick(metadata.get(), ["persist"]).ok()?;
    let wanted = wanted?;
    match wanted.get() {
        "true" => Some(Persist { keep: None }),
        object if object.starts_with('{') => {
            let [ttl] = json::pick(object, ["ttl"]).ok()?;
            let keep = ttl.and_then(|ttl| ttl.get().parse().ok());
            Some(Persist {
                keep: keep.map(Duration::from_secs),
            })
        }
        _ => None,
    }
}
