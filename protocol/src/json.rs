//! Reading JSON piece by piece without building a tree, and writing JSON strings.
//!
//! Clients send values that are only passed on. They stay text here: a member is looked up by walking over its object
//! once, so what a hostile message costs is bounded by its own size.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// How deeply objects and lists may be nested in what a client sends.
///
/// serde_json skips over a raw value without recursion and so without a limit. Others that the value is passed on to do
/// recurse (Python's parser gives up at 1000 levels, PostgreSQL's at its stack limit), hence a limit of our own.
pub const MAX_DEPTH: usize = 128;

/// Finds the named members of a JSON object; of members with the same name the last counts, as everywhere.
pub fn pick<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    read(object, |json| json.deserialize_map(Pick(names)))
}

/// All members of a JSON object in their order.
pub(crate) fn entries(object: &str) -> Option<Vec<(Cow<'static, str>, &RawValue)>> {
    read(object, |json| json.deserialize_map(Entries)).ok()
}

/// The first `N` items of a JSON array, the rest is only checked.
pub(crate) fn first_items<const N: usize>(
    array: &str,
) -> serde_json::Result<[Option<&RawValue>; N]> {
    read(array, |json| json.deserialize_seq(FirstItems::<N>))
}

/// The items of a JSON array; none if it is not an array, or has more than `max`.
pub fn items(array: &str, max: usize) -> Option<Vec<&RawValue>> {
    read(array, |json| json.deserialize_seq(Items { max }))
        .ok()
        .filter(|items| items.len() <= max)
}

/// The text of a JSON string; none for any other value.
pub fn text(value: &RawValue) -> Option<String> {
    let json = value.get();
    json.starts_with('"')
        .then(|| serde_json::from_str(json).ok())
        .flatten()
}

pub(crate) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

pub(crate) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Whether the text nests deeper than [`MAX_DEPTH`]. The text need not be valid JSON.
pub fn too_deep(json: &str) -> bool {
    let mut depth = 0usize;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    let escape = text
        .bytes()
        .any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    if escape {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// Appends `"name":"text"`; the name must need no escaping.
pub(crate) fn push_member(out: &mut String, name: &str, text: &str) {
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
    push_string(out, text);
}

fn read<'a, T>(
    json: &'a str,
    visit: impl FnOnce(
        &mut serde_json::Deserializer<serde_json::de::StrRead<'a>>,
    ) -> serde_json::Result<T>,
) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = visit(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Pick<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(position) = map.next_key_seed(Position(&self.0))? {
            match position.and_then(|position| found.get_mut(position)) {
                Some(slot) => *slot = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Which of the names a key is, found without copying the key.
struct Position<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(Cow<'static, str>, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

struct FirstItems<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for FirstItems<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        for slot in &mut found {
            *slot = seq.next_element()?;
            if slot.is_none() {
                return Ok(found);
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// Keeps at most `max + 1` items, which is enough to see that there are too many.
struct Items {
    max: usize,
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() <= self.max {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_name_and_the_last_of_equals_counts() {
        let found = pick(r#"{"a":1,"b\u0063":[2],"a":{"x":3}}"#, ["a", "bc", "d"]).unwrap();
        assert_eq!(
            found.map(|value| value.map(RawValue::get)),
            [Some(r#"{"x":3}"#), Some("[2]"), None]
        );
        assert!(pick("[1]", ["a"]).is_err());
        assert!(pick(r#"{"a":1} x"#, ["a"]).is_err());
    }

    #[test]
    fn long_lists_are_refused_without_being_kept() {
        assert_eq!(items("[1,2]", 2).map(|items| items.len()), Some(2));
        assert!(items("[1,2,3,4,5]", 2).is_none());
        assert!(items("[1,2,3,", 2).is_none());
        assert!(items("{}", 2).is_none());
    }

    #[test]
    fn depth_is_counted_outside_of_strings_only() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!too_deep(&nested(MAX_DEPTH)));
        assert!(too_deep(&nested(MAX_DEPTH + 1)));
        assert!(!too_deep(&format!(r#""\"{}""#, "[".repeat(500))));
        assert!(!too_deep(&"[],".repeat(500)));
        assert!(!too_deep(r#""unterminated \"#));
    }

    #[test]
    fn strings_are_escaped_when_they_need_it() {
        for text in [
            "plain",
            "é🦀",
            "a\"b",
            "a\\b",
            "line\nbreak",
            "\u{1}\u{7f}",
            "",
        ] {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
