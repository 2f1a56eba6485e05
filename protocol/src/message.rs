//! Text frames: the object form of version 1.0.0 and the array form of version 2.0.0.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::json;
use crate::version::Version;

/// A message that a client pushed.
#[derive(Clone)]
pub struct ClientMessage {
    pub join_ref: Ref,
    pub reference: Ref,
    pub topic: String,
    pub event: String,
    /// As it came, any JSON value.
    pub payload: Box<RawValue>,
}

/// Decodes a text frame. An error means: count it, drop the frame, keep the connection and answer nothing.
pub fn decode_text(version: Version, text: &str) -> Result<ClientMessage, Malformed> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(Malformed::Empty);
    }
    // The opening bracket is looked at first, so that serde only ever complains about syntax: its complaints about types
    // quote the value, which may be a token and must not get into a log.
    let form = match version {
        Version::V1 => '{',
        Version::V2 => '[',
    };
    if !text.starts_with(form) {
        return Err(Malformed::WrongForm);
    }
    if json::too_deep(text) {
        return Err(Malformed::TooDeep);
    }
    match version {
        Version::V1 => {
            let [topic, event, payload, reference, join_ref] =
                json::pick(text, ["topic", "event", "payload", "ref", "join_ref"])?;
            Ok(ClientMessage {
                join_ref: join_ref.map_or(Ok(Ref::NULL), Ref::from_raw)?,
                reference: Ref::from_raw(reference.ok_or(Malformed::MissingField("ref"))?)?,
                topic: name(topic, "topic")?,
                event: name(event, "event")?,
                payload: payload
                    .ok_or(Malformed::MissingField("payload"))?
                    .to_owned(),
            })
        }
        Version::V2 => {
            let [
                Some(join_ref),
                Some(reference),
                topic @ Some(_),
                event @ Some(_),
                Some(payload),
            ] = json::first_items(text)?
            else {
                return Err(Malformed::TooFewItems);
            };
            Ok(ClientMessage {
                join_ref: Ref::from_raw(join_ref)?,
                reference: Ref::from_raw(reference)?,
                topic: name(topic, "topic")?,
                event: name(event, "event")?,
                payload: payload.to_owned(),
            })
        }
    }
}

/// Writes a whole text frame. `payload` must be the text of a JSON **object**: clients break on anything else.
///
/// Version 1 never carries the `join_ref` to a client, and always the `ref`, as null when there is none.
pub fn encode(
    version: Version,
    join_ref: &Ref,
    reference: &Ref,
    topic: &str,
    event: &str,
    payload: &str,
) -> String {
    // The fixed parts of a version 1 frame are 42 bytes, those of a version 2 frame fewer.
    let size = payload.len() + topic.len() + event.len() + 64;
    let mut frame =
        String::with_capacity(size + join_ref.as_json().len() + reference.as_json().len());
    open_frame(&mut frame, version, join_ref, reference, topic, event);
    frame.push_str(payload);
    close_frame(&mut frame, version, reference);
    frame
}

/// Everything before the payload.
pub(crate) fn open_frame(
    frame: &mut String,
    version: Version,
    join_ref: &Ref,
    reference: &Ref,
    topic: &str,
    event: &str,
) {
    match version {
        Version::V1 => {
            frame.push_str("{\"topic\":");
            json::push_string(frame, topic);
            frame.push_str(",\"event\":");
            json::push_string(frame, event);
            frame.push_str(",\"payload\":");
        }
        Version::V2 => {
            frame.push('[');
            frame.push_str(join_ref.as_json());
            frame.push(',');
            frame.push_str(reference.as_json());
            frame.push(',');
            json::push_string(frame, topic);
            frame.push(',');
            json::push_string(frame, event);
            frame.push(',');
        }
    }
}

/// Everything after the payload.
pub(crate) fn close_frame(frame: &mut String, version: Version, reference: &Ref) {
    match version {
        Version::V1 => {
            frame.push_str(",\"ref\":");
            frame.push_str(reference.as_json());
            frame.push('}');
        }
        Version::V2 => frame.push(']'),
    }
}

/// A `ref` or `join_ref`: an opaque JSON string, number or null, kept as the JSON text that came and sent back so.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Ref(Option<Arc<str>>);

impl Ref {
    /// No reference.
    pub const NULL: Ref = Ref(None);

    /// The longest reference, in bytes of JSON text without the quotes; more does not fit into a binary frame.
    pub const MAX_BYTES: usize = 255;

    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    pub fn as_json(&self) -> &str {
        self.0.as_deref().unwrap_or("null")
    }

    /// A text reference, as binary frames carry it.
    pub fn from_text(text: &str) -> Ref {
        let mut json = String::with_capacity(text.len() + 2);
        json::push_string(&mut json, text);
        Ref(Some(json.into()))
    }

    fn from_raw(value: &RawValue) -> Result<Ref, Malformed> {
        let json = value.get();
        let limit = match json.as_bytes().first() {
            Some(b'n') => return Ok(Ref::NULL),
            Some(b'"') => Ref::MAX_BYTES + 2,
            Some(b'-' | b'0'..=b'9') => Ref::MAX_BYTES,
            _ => return Err(Malformed::BadRef),
        };
        if json.len() > limit {
            return Err(Malformed::BadRef);
        }
        Ok(Ref(Some(json.into())))
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ref({})", self.as_json())
    }
}

/// Payloads carry tokens and people's messages, so only their size is shown.
impl fmt::Debug for ClientMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientMessage")
            .field("join_ref", &self.join_ref)
            .field("reference", &self.reference)
            .field("topic", &self.topic)
            .field("event", &self.event)
            .field("payload_bytes", &self.payload.get().len())
            .finish()
    }
}

/// Why a frame was not understood. Such a frame is dropped without an answer, and the connection goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    #[error("the message is empty")]
    Empty,
    #[error("the message is not valid JSON")]
    NotJson(#[from] serde_json::Error),
    #[error("the message is not UTF-8")]
    NotUtf8,
    #[error(
        "the message does not have the form of the socket's vsn: an object for 1.0.x, an array for 2.0.x"
    )]
    WrongForm,
    #[error("the message is nested deeper than {} levels", json::MAX_DEPTH)]
    TooDeep,
    #[error("the message has no `{0}`; the key must be there, if only with null")]
    MissingField(&'static str),
    #[error("the message has fewer than the five items join_ref, ref, topic, event, payload")]
    TooFewItems,
    #[error("`{0}` is not text")]
    NotText(&'static str),
    #[error("a ref is neither null nor a number nor text of at most 255 bytes")]
    BadRef,
    #[error("binary frames of kind 0 (plain Phoenix push) are not served; send kind 3 or text")]
    PhoenixPush,
    #[error("binary frames of kind {0} are unknown; clients send kind 3")]
    UnknownKind(u8),
    #[error("the binary frame is shorter than its header says")]
    Truncated,
    #[error("the metadata of the broadcast is not valid JSON")]
    BadMetadata,
    #[error("the payload of the broadcast is marked as JSON and is not valid JSON")]
    BadPayload,
}

impl Malformed {
    /// The cause in one word, for a metric.
    pub fn label(&self) -> &'static str {
        match self {
            Malformed::Empty => "empty",
            Malformed::NotJson(_) => "not_json",
            Malformed::NotUtf8 => "not_utf8",
            Malformed::WrongForm => "wrong_form",
            Malformed::TooDeep => "too_deep",
            Malformed::MissingField(_) => "missing_field",
            Malformed::TooFewItems => "too_few_items",
            Malformed::NotText(_) => "not_text",
            Malformed::BadRef => "bad_ref",
            Malformed::PhoenixPush => "phoenix_push",
            Malformed::UnknownKind(_) => "unknown_kind",
            Malformed::Truncated => "truncated",
            Malformed::BadMetadata => "bad_metadata",
            Malformed::BadPayload => "bad_payload",
        }
    }
}

fn name(value: Option<&RawValue>, field: &'static str) -> Result<String, Malformed> {
    let value = value.ok_or(Malformed::MissingField(field))?;
    json::text(value).ok_or(Malformed::NotText(field))
}
