//! Presence: what clients push, and the payloads of `presence_state` and `presence_diff`.

use serde_json::value::RawValue;

use crate::json;

/// A `presence` push. Every push is answered.
#[derive(Clone, Debug)]
pub enum PresencePush {
    /// Track this object in place of the one tracked before.
    Track(Box<RawValue>),
    Untrack,
    /// A track whose payload is no object, or one with names that are no text (half of a surrogate pair): the error reply is
    /// [`NOT_A_MAP`], and the channel lives on.
    NotAMap,
    /// No event: answered with ok, nothing is done.
    NoEvent,
    /// Another event: answered with an error reply without a reason.
    Unknown,
}

/// The reason in the reply to a track for which there is no more room.
pub const FULL: &str = "Presence is full: too many bytes are tracked";

/// The reason in the reply to [`PresencePush::NotAMap`].
pub const NOT_A_MAP: &str = "Presence track payload must be a map";

/// Reads the payload of a `presence` push.
pub fn parse(payload: &RawValue) -> PresencePush {
    if !json::is_object(payload) {
        return PresencePush::NoEvent;
    }
    let Ok([event, tracked]) = json::pick(payload.get(), ["event", "payload"]) else {
        return PresencePush::NoEvent;
    };
    let Some(event) = event else {
        return PresencePush::NoEvent;
    };
    match json::text(event) {
        Some(event) if event.eq_ignore_ascii_case("track") => match tracked {
            None => PresencePush::Track(empty_object()),
            // Names are read, since [`meta`] has to tell them apart.
            Some(tracked) if json::pick(tracked.get(), []).is_ok() => {
                PresencePush::Track(tracked.to_owned())
            }
            Some(_) => PresencePush::NotAMap,
        },
        Some(event) if event.eq_ignore_ascii_case("untrack") => PresencePush::Untrack,
        None if json::is_null(event) => PresencePush::NoEvent,
        _ => PresencePush::Unknown,
    }
}

/// One meta: the tracked object with its `phx_ref`, and after an update the ref that it replaced. Keys of these names in
/// the tracked object are overwritten, because clients tell metas apart by them.
pub fn meta(payload: &RawValue, phx_ref: &str, prev: Option<&str>) -> String {
    let mut out =
        String::with_capacity(payload.get().len() + phx_ref.len() + prev.map_or(0, str::len) + 40);
    out.push('{');
    json::push_member(&mut out, "phx_ref", phx_ref);
    if let Some(prev) = prev {
        out.push(',');
        json::push_member(&mut out, "phx_ref_prev", prev);
    }
    for (key, value) in json::entries(payload.get()).unwrap_or_default() {
        if key != "phx_ref" && key != "phx_ref_prev" {
            out.push(',');
            json::push_string(&mut out, &key);
            out.push(':');
            out.push_str(value.get());
        }
    }
    out.push('}');
    out
}

/// Whether two metas have nothing but their refs to tell them apart. Keys may come in any order.
pub fn is_same(one: &str, other: &str) -> bool {
    let tracked = |meta| {
        let mut entries = json::entries(meta)?;
        entries.retain(|(key, _)| key != "phx_ref" && key != "phx_ref_prev");
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Some(entries)
    };
    match (tracked(one), tracked(other)) {
        (Some(one), Some(other)) => one
            .iter()
            .map(|(key, value)| (key, value.get()))
            .eq(other.iter().map(|(key, value)| (key, value.get()))),
        _ => false,
    }
}

/// How much of a message a key takes, with what belongs to it.
pub fn key_bytes(key: &str) -> usize {
    let mut out = String::new();
    json::push_string(&mut out, key);
    out.len() + ":{\"metas\":[]},".len()
}

/// Whether clients can have a key like this. JavaScript's, which keep presence in a plain object, find there what every object
/// has, take it for somebody's presence, and fail.
pub fn is_usable_key(key: &str) -> bool {
    const OF_EVERY_OBJECT: [&str; 12] = [
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
    ];
    !OF_EVERY_OBJECT.contains(&key)
}

/// The payload of `presence_state`: for each key its metas, written by [`meta`]. Each key must come once.
pub fn state<K, M>(entries: impl IntoIterator<Item = (K, M)>) -> String
where
    K: AsRef<str>,
    M: IntoIterator<Item: AsRef<str>>,
{
    let mut out = String::new();
    push_entries(&mut out, entries);
    out
}

/// The payload of `presence_diff`. Both sides are always there, if only as `{}`.
pub fn diff<K, M, L, N>(
    joins: impl IntoIterator<Item = (K, M)>,
    leaves: impl IntoIterator<Item = (L, N)>,
) -> String
where
    K: AsRef<str>,
    M: IntoIterator<Item: AsRef<str>>,
    L: AsRef<str>,
    N: IntoIterator<Item: AsRef<str>>,
{
    let mut out = String::from("{\"joins\":");
    push_entries(&mut out, joins);
    out.push_str(",\"leaves\":");
    push_entries(&mut out, leaves);
    out.push('}');
    out
}

fn push_entries<K, M>(out: &mut String, entries: impl IntoIterator<Item = (K, M)>)
where
    K: AsRef<str>,
    M: IntoIterator<Item: AsRef<str>>,
{
    out.push('{');
    for (position, (key, metas)) in entries.into_iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        json::push_string(out, key.as_ref());
        out.push_str(":{\"metas\":[");
        for (position, meta) in metas.into_iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            out.push_str(meta.as_ref());
        }
        out.push_str("]}");
    }
    out.push('}');
}

fn empty_object() -> Box<RawValue> {
    // The text is valid JSON, so the other arm is never taken; [`meta`] would treat its null as an empty object, too.
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metas_are_the_same_if_only_their_refs_differ() {
        for (one, other, same) in [
            (
                r#"{"phx_ref":"1","a":1}"#,
                r#"{"phx_ref":"2","phx_ref_prev":"1","a":1}"#,
                true,
            ),
            (r#"{"a":1,"b":[1]}"#, r#"{"b":[1],"a":1}"#, true),
            ("{}", "{}", true),
            (r#"{"a":1}"#, r#"{"a":"1"}"#, false),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#, false),
            // As numbers of JavaScript they would be equal.
            (
                r#"{"a":12345678901234567891}"#,
                r#"{"a":12345678901234567892}"#,
                false,
            ),
        ] {
            assert_eq!(is_same(one, other), same, "{one} and {other}");
        }
    }

    #[test]
    fn a_key_takes_what_it_takes_in_a_message() {
        let empty = state(Vec::<(&str, [&str; 0])>::new()).len();
        for key in ["ada", "\"\u{1}é", "\u{1f600}"] {
            // The first of a message has no comma before it.
            assert_eq!(
                state([(key, [""])]).len() + 1,
                empty + key_bytes(key),
                "{key}"
            );
        }
    }
}
