//! The body of a request that broadcasts several messages (protocol §6.4). Pure.
//!
//! Payloads are not parsed into a tree: they are sent on as the bytes that came.

use axum::http::StatusCode;
use protocol::json;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json as json_value};

use crate::limits::Exceeded;

use super::answer::{BLANK, INVALID, Refused, TOO_DEEP, TOO_LARGE};

/// More than that is an import. With the default rate of the peer no more than a hundred pass.
pub(super) const MOST_MESSAGES: usize = 1000;

#[derive(Debug)]
pub(super) struct Message<'a> {
    /// Without the leading `realtime:`.
    pub(super) topic: String,
    pub(super) event: String,
    pub(super) payload: &'a RawValue,
    pub(super) private: bool,
    /// Members get it in `meta`.
    pub(super) id: Option<String>,
}

/// The messages of a body: all, or what is wrong with each. `fits` says whether so many bytes may be sent to somebody.
pub(super) fn messages(
    body: &[u8],
    fits: impl Fn(usize) -> bool,
) -> Result<Vec<Message<'_>>, Refused> {
    let whole = |what: &str| Refused::fields(json_value!({ "messages": [what] }));
    let body = std::str::from_utf8(body).map_err(|_| Refused::not_json())?;
    if body.is_empty() {
        return Err(whole(BLANK));
    }
    let body: &RawValue = serde_json::from_str(body).map_err(|_| Refused::not_json())?;
    let messages = match body.get().starts_with('{') {
        true => json::pick(body.get(), ["messages"]).map_err(|_| Refused::not_json())?,
        false => [None],
    };
    let list = match messages {
        [None] => return Err(whole(BLANK)),
        [Some(null)] if null.get() == "null" => return Err(whole(BLANK)),
        [Some(list)] if list.get().starts_with('[') => list.get(),
        [Some(_)] => return Err(whole(INVALID)),
    };
    // A list it is, so what fails can only be its length.
    let items = json::items(list, MOST_MESSAGES).ok_or_else(|| {
        let too_many = Exceeded::Batch.refuses_request().unwrap_or_default();
        Refused::new(StatusCode::TOO_MANY_REQUESTS, too_many)
    })?;
    if items.is_empty() {
        return Err(whole(BLANK));
    }
    if items.iter().any(|item| !item.get().starts_with('{')) {
        return Err(whole(INVALID));
    }
    let mut messages = Vec::with_capacity(items.len());
    let mut errors = Vec::with_capacity(items.len());
    for item in items {
        let mut wrong = Wrong::default();
        messages.extend(message(item, &fits, &mut wrong));
        errors.push(Value::Object(wrong.0));
    }
    match messages.len() == errors.len() {
        true => Ok(messages),
        false => Err(Refused::fields(json_value!({ "messages": errors }))),
    }
}

/// What is wrong with a message, by its fields.
#[derive(Default)]
struct Wrong(Map<String, Value>);

impl Wrong {
    fn add<T>(&mut self, field: &str, what: &str) -> Option<T> {
        self.0.insert(field.to_owned(), json_value!([what]));
        None
    }
}

/// None if something is wrong; all that is wrong is said.
fn message<'a>(
    item: &'a RawValue,
    fits: impl Fn(usize) -> bool,
    wrong: &mut Wrong,
) -> Option<Message<'a>> {
    let names = ["topic", "event", "payload", "private", "id"];
    let Ok([topic, event, payload, private, id]) = json::pick(item.get(), names) else {
        return wrong.add("payload", INVALID);
    };
    let topic = needed("topic", topic, wrong);
    let event = needed("event", event, wrong);
    let id = text("id", id, wrong).map(|id| id.filter(|id| !id.is_empty()));
    let private = match private.map(RawValue::get) {
        None | Some("null" | "false" | "\"\"" | "\"false\"" | "\"0\"") => Some(false),
        Some("true" | "\"true\"" | "\"1\"") => Some(true),
        Some(_) => wrong.add("private", INVALID),
    };
    let beside = |text: Option<&String>| text.map_or(0, String::len);
    let beside = beside(event.as_ref()) + beside(id.as_ref().and_then(Option::as_ref));
    let payload = match payload.filter(|payload| payload.get() != "null") {
        None => wrong.add("payload", BLANK),
        Some(payload) if !payload.get().starts_with('{') => wrong.add("payload", INVALID),
        // Event and id go to everybody, too, and no limit of their own keeps them short.
        Some(payload) if !fits(payload.get().len() + beside) => wrong.add("payload", TOO_LARGE),
        Some(payload) if json::too_deep(payload.get()) => wrong.add("payload", TOO_DEEP),
        Some(payload) => Some(payload),
    };
    Some(Message {
        topic: topic?,
        event: event?,
        payload: payload?,
        private: private?,
        id: id?,
    })
}

/// A text that must be there.
fn needed(field: &str, value: Option<&RawValue>, wrong: &mut Wrong) -> Option<String> {
    match text(field, value, wrong)? {
        Some(text) if !text.trim().is_empty() => Some(text),
        _ => wrong.add(field, BLANK),
    }
}

/// A text that may be missing; None if it is something else.
fn text(field: &str, value: Option<&RawValue>, wrong: &mut Wrong) -> Option<Option<String>> {
    match value.filter(|value| value.get() != "null") {
        None => Some(None),
        Some(value) => match json::text(value) {
            Some(text) => Some(Some(text)),
            None => wrong.add(field, INVALID),
        },
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    use super::*;

    fn parse(body: &str) -> Result<Vec<Message<'_>>, Refused> {
        messages(body.as_bytes(), |bytes| bytes <= 40)
    }

    async fn refused(body: &str) -> (u16, String) {
        let response = parse(body).expect_err(body).into_response();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body");
        let body = String::from_utf8(body.to_bytes().to_vec()).expect("text");
        (status, body)
    }

    #[test]
    fn a_payload_stays_as_it_came() {
        let body = r#" {"messages": [{"topic":"r","topic":"room","event":"e","payload": {"x": 1.50,"x":2 },"more":[]}]} "#;
        let parsed = parse(body).expect("messages");
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].payload.get(), r#"{"x": 1.50,"x":2 }"#);
        assert_eq!(
            (&*parsed[0].topic, parsed[0].private, &parsed[0].id),
            ("room", false, &None)
        );
    }

    #[test]
    fn private_is_what_stands_for_it() {
        for (value, private) in [
            ("true", true),
            ("\"true\"", true),
            ("\"1\"", true),
            ("false", false),
            ("\"false\"", false),
            ("\"0\"", false),
            ("null", false),
        ] {
            let body = format!(
                r#"{{"messages":[{{"topic":"t","event":"e","payload":{{}},"private":{value},"id":"7"}}]}}"#
            );
            let parsed = parse(&body).expect("messages");
            assert_eq!(parsed[0].private, private, "{value}");
            assert_eq!(parsed[0].id.as_deref(), Some("7"));
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_of_each_message() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let of_one = [
            (r#"{"topic":"t","event":"e","payload":{}}"#.to_owned(), "{}"),
            (
                r#"{"topic":"t"}"#.to_owned(),
                r#"{"event":["can't be blank"],"payload":["can't be blank"]}"#,
            ),
            (
                r#"{"topic":" ","event":7,"payload":null}"#.to_owned(),
                r#"{"event":["is invalid"],"payload":["can't be blank"],"topic":["can't be blank"]}"#,
            ),
            (
                r#"{"topic":"t","event":"e","payload":[],"private":1,"id":7}"#.to_owned(),
                r#"{"id":["is invalid"],"payload":["is invalid"],"private":["is invalid"]}"#,
            ),
            (
                format!(
                    r#"{{"topic":"t","event":"e","payload":{{"x":"{}"}}}}"#,
                    "x".repeat(40)
                ),
                r#"{"payload":["Payload size exceeds tenant limit"]}"#,
            ),
            (
                format!(
                    r#"{{"topic":"t","event":"{}","payload":{{}}}}"#,
                    "e".repeat(40)
                ),
                r#"{"payload":["Payload size exceeds tenant limit"]}"#,
            ),
        ];
        let items: Vec<_> = of_one.iter().map(|(item, _)| &**item).collect();
        let expected: Vec<_> = of_one.iter().map(|(_, errors)| *errors).collect();
        assert_eq!(
            refused(&format!(r#"{{"messages":[{}]}}"#, items.join(","))).await,
            (
                422,
                format!(r#"{{"errors":{{"messages":[{}]}}}}"#, expected.join(","))
            )
        );
        let deep =
            format!(r#"{{"messages":[{{"topic":"t","event":"e","payload":{{"x":{deep}}}}}]}}"#);
        let deep = messages(deep.as_bytes(), |_| true).expect_err("too deep");
        assert!(
            format!("{deep:?}").contains("is nested too deeply"),
            "{deep:?}"
        );
    }

    #[tokio::test]
    async fn a_body_without_messages_is_refused_as_a_whole() {
        for (body, status, what) in [
            ("", 422, "can't be blank"),
            ("{}", 422, "can't be blank"),
            ("[]", 422, "can't be blank"),
            ("7", 422, "can't be blank"),
            (r#"{"messages":[]}"#, 422, "can't be blank"),
            (r#"{"messages":null}"#, 422, "can't be blank"),
            (r#"{"messages":{}}"#, 422, "is invalid"),
            (r#"{"messages":"x"}"#, 422, "is invalid"),
            (r#"{"messages":[7]}"#, 422, "is invalid"),
            (r#"{"messages":[}"#, 400, "The body is not JSON"),
            (r#"{"messages":[]} x"#, 400, "The body is not JSON"),
            (" ", 400, "The body is not JSON"),
        ] {
            let (got, text) = refused(body).await;
            assert_eq!(got, status, "{body}: {text}");
            assert!(text.contains(what), "{body}: {text}");
        }
        let many = vec!["{}"; MOST_MESSAGES + 1].join(",");
        let (status, text) = refused(&format!(r#"{{"messages":[{many}]}}"#)).await;
        assert_eq!(status, 429, "{text:.200}");
        assert!(text.contains("reduce the batch size"), "{text:.200}");
    }
}
