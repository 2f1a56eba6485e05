//! A request that broadcasts one message: its query, its content type, its payload (protocol §6.5). Pure.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use protocol::{Encoding, TOPIC_PREFIX, broadcast::Persist, json};
use serde_json::{json as json_value, value::RawValue};

use super::answer::{BLANK, Refused, TOO_DEEP, TOO_LARGE};

/// What a frame that carries bytes can say of topic and event. Their lengths are one byte each.
const MOST_NAME_BYTES: usize = 255;

/// What stands in the query. A key `private` in the body is the payload's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) private: bool,
    /// Only messages of private channels can be replayed, so only these are stored.
    pub(super) persist: Option<Persist>,
}

impl Parameters {
    pub(super) fn parse(query: &[(String, String)]) -> Parameters {
        let last = |name: &str| {
            let last = query.iter().rev().find(|(key, _)| key == name);
            last.map(|(_, value)| value.as_str())
        };
        let keep = last("persist[ttl]");
        let persist = (keep.is_some() || last("persist") == Some("true")).then(|| Persist {
            keep: keep.and_then(|seconds| seconds.parse().ok().map(Duration::from_secs)),
        });
        let private = last("private") == Some("true");
        Parameters {
            private,
            persist: persist.filter(|_| private),
        }
    }
}

pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Refused> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Encoding::Json);
    };
    let value = value.to_str().unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "application/json" => Ok(Encoding::Json),
        "application/octet-stream" => Ok(Encoding::Binary),
        _ => Err(Refused::content_type()),
    }
}

/// The payload as members get it. `fits` says whether so many bytes may be sent to somebody.
pub(super) fn payload(
    topic: &str,
    event: &str,
    encoding: Encoding,
    body: Bytes,
    fits: impl Fn(usize) -> bool,
) -> Result<Bytes, Refused> {
    let wrong = |field: &str, what: &str| Refused::fields(json_value!({ field: [what] }));
    for (field, name, before) in [("topic", topic, TOPIC_PREFIX), ("event", event, "")] {
        if name.trim().is_empty() {
            return Err(wrong(field, BLANK));
        }
        // Of JSON a text frame can be made, whatever the names; of bytes none.
        let most = MOST_NAME_BYTES - before.len();
        if encoding == Encoding::Binary && name.len() > most {
            return Err(wrong(field, &format!("should be at most {most} byte(s)")));
        }
    }
    if !fits(body.len()) {
        return Err(wrong("payload", TOO_LARGE));
    }
    match encoding {
        Encoding::Binary => Ok(body),
        Encoding::Json if body.is_empty() => Ok(Bytes::from_static(b"{}")),
        Encoding::Json => {
            let text = std::str::from_utf8(&body).map_err(|_| Refused::not_json())?;
            let value: &RawValue = serde_json::from_str(text).map_err(|_| Refused::not_json())?;
            if json::too_deep(value.get()) {
                return Err(wrong("payload", TOO_DEEP));
            }
            Ok(match value.get() {
                object if object.starts_with('{') => body.slice_ref(object.as_bytes()),
                // Clients take no payload but an object.
                other => Bytes::from(format!(r#"{{"_json":{other}}}"#)),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn query(text: &str) -> Parameters {
        let uri = format!("/?{text}").parse().expect("a URI");
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri);
        Parameters::parse(&query.expect("a query"))
    }

    #[test]
    fn only_private_messages_are_stored() {
        let keep = |keep| Some(Persist { keep });
        let minute = Some(Duration::from_secs(60));
        for (text, private, persist) in [
            ("", false, None),
            ("apikey=x&vsn=2.0.0", false, None),
            ("private=true", true, None),
            ("private=1", false, None),
            ("private=TRUE", false, None),
            ("private=true&persist=true", true, keep(None)),
            ("private=true&persist=false", true, None),
            ("private=true&persist[ttl]=60", true, keep(minute)),
            ("private=true&persist%5Bttl%5D=60", true, keep(minute)),
            ("private=true&persist%5Bttl%5D=soon", true, keep(None)),
            ("persist=true", false, None),
        ] {
            assert_eq!(query(text), Parameters { private, persist }, "{text}");
        }
    }

    #[test]
    fn content_types_may_have_parameters() {
        for (value, expected) in [
            ("application/json", Some(Encoding::Json)),
            ("Application/JSON; charset=utf-8", Some(Encoding::Json)),
            ("application/octet-stream", Some(Encoding::Binary)),
            ("text/plain", None),
            ("", None),
        ] {
            let value = HeaderValue::from_static(value);
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.clone())]);
            assert_eq!(encoding(&headers).ok(), expected, "{value:?}");
        }
        assert_eq!(encoding(&HeaderMap::new()).ok(), Some(Encoding::Json));
    }

    #[test]
    fn an_object_stays_as_it_came_and_all_else_is_wrapped() {
        for (body, expected) in [
            (" {\"x\": 1.50 }\n", "{\"x\": 1.50 }"),
            ("", "{}"),
            ("[1, 2]", "{\"_json\":[1, 2]}"),
            ("null", "{\"_json\":null}"),
            ("\"text\"", "{\"_json\":\"text\"}"),
        ] {
            let got = payload("t", "e", Encoding::Json, body.into(), |_| true);
            assert_eq!(got.expect("a payload"), expected, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let long = "x".repeat(250);
        for (topic, event, encoding, body, expected) in [
            (
                " ",
                "e",
                Encoding::Json,
                "{}",
                r#"{"topic":["can't be blank"]}"#,
            ),
            (
                "t",
                " ",
                Encoding::Binary,
                "",
                r#"{"event":["can't be blank"]}"#,
            ),
            (
                &*long,
                "e",
                Encoding::Binary,
                "",
                r#"{"topic":["should be at most 246 byte(s)"]}"#,
            ),
            (
                "t",
                "e",
                Encoding::Json,
                &*deep,
                r#"{"payload":["is nested too deeply"]}"#,
            ),
            (
                "t",
                "e",
                Encoding::Binary,
                "12345",
                r#"{"payload":["Payload size exceeds tenant limit"]}"#,
            ),
        ] {
            let fits = |bytes: usize| bytes != 5;
            let refused = payload(topic, event, encoding, body.to_owned().into(), fits);
            let expected = Refused::fields(serde_json::from_str(expected).expect("JSON"));
            let refused = refused.expect_err(topic);
            assert_eq!(format!("{refused:?}"), format!("{expected:?}"));
        }
        for body in ["{", "{} x", "\u{feff}{}", " "] {
            let refused = payload("t", "e", Encoding::Json, body.into(), |_| true);
            assert!(format!("{refused:?}").contains("not JSON"), "{body}");
        }
        let bytes = Bytes::from_static(b"\"\xff\"");
        assert!(payload("t", "e", Encoding::Json, bytes, |_| true).is_err());
    }
}
