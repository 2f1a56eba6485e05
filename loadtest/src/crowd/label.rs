//! Finds the labels of rows in what a server has sent, without reading the rest of it: whatever the protocol, somewhere in
//! there is the row's JSON, or the same as the text of another JSON, once or more than once.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::frame::Label;

/// The column that holds the label. It is also a name in a list of columns, and there no label follows.
const COLUMN: &str = "metadata";

/// Finds labels. One for each thread: it is prepared once.
pub(crate) struct Labels {
    column: Finder<'static>,
}

impl Labels {
    pub(crate) fn new() -> Self {
        Self {
            column: Finder::new(COLUMN),
        }
    }

    /// Hands out each label in this text; returns how many there were.
    pub(crate) fn each(&self, text: &[u8], mut take: impl FnMut(Label)) -> usize {
        let mut count = 0;
        let mut from = 0;
        while let Some((label, place)) = self.next(text, from) {
            take(label);
            count += 1;
            from = place.end;
        }
        count
    }

    /// The first label at or after a place, and where its object stands, braces included.
    pub(crate) fn next(&self, text: &[u8], mut from: usize) -> Option<(Label, Range<usize>)> {
        while let Some(found) = self.column.find(text.get(from..)?) {
            let after = from + found + COLUMN.len();
            if let Some((label, place)) = read(text, after) {
                return Some((label, place));
            }
            from = after;
        }
        None
    }
}

/// A label that begins here, after the name of its column.
fn read(text: &[u8], from: usize) -> Option<(Label, Range<usize>)> {
    // `":{`, with backslashes before the quote and blanks anywhere.
    let mut at = skip(text, from, b"\\\"");
    at = skip(text, expect(text, at, b':')?, b" \\\"");
    let start = at;
    at = expect(text, at, b'{')?;
    let (mut job, mut number, mut writer, mut run) = (None, None, None, None);
    loop {
        at = skip(text, at, b" ,\\\"");
        let name = match text.get(at)? {
            b'}' => break,
            _ => word(text, &mut at),
        };
        at = skip(text, at, b"\\\"");
        at = skip(text, expect(text, at, b':')?, b" ");
        let value = digits(text, &mut at)?;
        match name {
            b"j" => job = Some(value),
            b"n" => number = Some(value),
            b"w" => writer = usize::try_from(value).ok(),
            b"run" => run = u32::try_from(value).ok(),
            _ => return None,
        }
    }
    let label = Label {
        run: run?,
        writer: writer?,
        job: job?,
        number: number?,
    };
    Some((label, start..at + 1))
}

fn skip(text: &[u8], mut at: usize, these: &[u8]) -> usize {
    while text.get(at).is_some_and(|byte| these.contains(byte)) {
        at += 1;
    }
    at
}

fn expect(text: &[u8], at: usize, byte: u8) -> Option<usize> {
    (*text.get(at)? == byte).then_some(at + 1)
}

fn word<'a>(text: &'a [u8], at: &mut usize) -> &'a [u8] {
    let start = *at;
    while text.get(*at).is_some_and(u8::is_ascii_lowercase) {
        *at += 1;
    }
    &text[start..*at]
}

fn digits(text: &[u8], at: &mut usize) -> Option<u64> {
    let start = *at;
    let mut value: u64 = 0;
    while let Some(digit) = text.get(*at).filter(|byte| byte.is_ascii_digit()) {
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        *at += 1;
    }
    (*at > start).then_some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LABEL: Label = Label {
        run: 4_000_000_000,
        writer: 2,
        job: 40,
        number: 3,
    };

    fn row() -> Value {
        json!({
            "columns": [{"name": "metadata", "type": "jsonb"}, {"name": "content", "type": "text"}],
            "record": {"content": "about \"metadata\":{} and {\"j\":1}", "metadata": LABEL, "role": "user"},
        })
    }

    fn labels(text: &str) -> Vec<Label> {
        let mut found = Vec::new();
        let count = Labels::new().each(text.as_bytes(), |label| found.push(label));
        assert_eq!(count, found.len());
        found
    }

    #[test]
    fn finds_a_label_however_deep_its_text_is_quoted() {
        let mut text = row().to_string();
        for depth in 0..4 {
            assert_eq!(labels(&text), [LABEL], "{depth}: {text}");
            text = json!({ "data": text }).to_string();
        }
        // As PostgreSQL writes jsonb.
        let spaced = r#"{"metadata": {"j": 40, "n": 3, "w": 2, "run": 4000000000}}"#;
        assert_eq!(labels(spaced), [LABEL]);
    }

    #[test]
    fn finds_all_of_a_frame() {
        let text = format!("{}\n{}\n{{}}", row(), row());
        assert_eq!(labels(&text), [LABEL, LABEL]);
    }

    #[test]
    fn knows_where_it_stands() {
        let text = row().to_string();
        let (_, place) = Labels::new().next(text.as_bytes(), 0).unwrap();
        let label: Label = serde_json::from_str(&text[place]).unwrap();
        assert_eq!(label, LABEL);
    }

    #[test]
    fn what_is_no_label_is_none() {
        for text in [
            "",
            "metadata",
            r#""metadata":"#,
            r#""metadata":{"#,
            r#""metadata":{}"#,
            r#""metadata":null"#,
            r#""metadata":{"j":1,"n":2,"w":3}"#,
            r#""metadata":{"j":1,"n":2,"w":3,"run":4294967296}"#,
            r#""metadata":{"j":1,"n":2,"w":3,"run":-1}"#,
            r#""metadata":{"j":1,"n":2,"w":3,"run":1,"x":1}"#,
            r#""metadata":{"j":99999999999999999999,"n":2,"w":3,"run":1}"#,
            r#""metadata":{"j":1,"n":2,"w":3,"run":1"#,
        ] {
            assert_eq!(labels(text), [], "{text}");
        }
    }
}
