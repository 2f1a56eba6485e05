//! Binary frames of version 2.0.0: the user broadcast of clients (kind 3) and the one they are sent (kind 4).

use std::fmt;

use bytes::{Buf, Bytes};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::json;
use crate::message::{ClientMessage, Malformed, Ref, decode_text};
use crate::version::Version;

const KIND_PHOENIX_PUSH: u8 = 0;
const KIND_USER_BROADCAST_PUSH: u8 = 3;
const KIND_USER_BROADCAST: u8 = 4;

/// What a binary frame can hold.
#[derive(Clone, Debug)]
pub enum ClientFrame {
    /// A message of a 1.0.x socket, whose JSON may come in a binary frame.
    Message(ClientMessage),
    /// A kind 3 frame.
    Broadcast(UserBroadcast),
}

/// A broadcast as SDKs of Supabase send it on a 2.0.x socket.
#[derive(Clone)]
pub struct UserBroadcast {
    pub join_ref: Ref,
    pub reference: Ref,
    pub topic: String,
    /// The application's event; the message's own is always `broadcast`.
    pub event: String,
    /// Valid JSON, an object from the SDKs.
    pub metadata: Option<Box<RawValue>>,
    pub encoding: Encoding,
    /// Shares the memory of the frame. For [`Encoding::Json`] it has been checked: UTF-8, one JSON value.
    pub payload: Bytes,
}

/// What the payload of a user broadcast is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    Binary,
    Json,
}

/// Decodes a binary frame. An error means: count it, drop the frame, keep the connection and answer nothing.
pub fn decode_binary(version: Version, frame: Bytes) -> Result<ClientFrame, Malformed> {
    if version == Version::V1 {
        let text = std::str::from_utf8(&frame).map_err(|_| Malformed::NotUtf8)?;
        return decode_text(version, text).map(ClientFrame::Message);
    }
    match frame.first() {
        None => Err(Malformed::Empty),
        Some(&KIND_USER_BROADCAST_PUSH) => user_broadcast(frame).map(ClientFrame::Broadcast),
        Some(&KIND_PHOENIX_PUSH) => Err(Malformed::PhoenixPush),
        Some(&kind) => Err(Malformed::UnknownKind(kind)),
    }
}

/// Writes a kind 4 frame, the only kind that SDKs of Supabase decode. None if topic, event or metadata has more than
/// 255 bytes; such a message can still be sent as text when its payload is JSON.
pub fn encode_user_broadcast(
    topic: &str,
    event: &str,
    metadata: Option<&str>,
    encoding: Encoding,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let metadata = metadata.unwrap_or_default();
    let header = [
        KIND_USER_BROADCAST,
        u8::try_from(topic.len()).ok()?,
        u8::try_from(event.len()).ok()?,
        u8::try_from(metadata.len()).ok()?,
        match encoding {
            Encoding::Binary => 0,
            Encoding::Json => 1,
        },
    ];
    Some(
        [
            &header,
            topic.as_bytes(),
            event.as_bytes(),
            metadata.as_bytes(),
            payload,
        ]
        .concat(),
    )
}

fn user_broadcast(mut frame: Bytes) -> Result<UserBroadcast, Malformed> {
    let Some(&[_kind, join_ref, reference, topic, event, metadata, encoding]) =
        frame.first_chunk::<7>()
    else {
        return Err(Malformed::Truncated);
    };
    frame.advance(7);
    let join_ref = take_ref(&mut frame, join_ref)?;
    let reference = take_ref(&mut frame, reference)?;
    let topic = take_text(&mut frame, topic)?;
    let event = take_text(&mut frame, event)?;
    let metadata = match take_text(&mut frame, metadata)? {
        empty if empty.is_empty() => None,
        text if json::too_deep(&text) => return Err(Malformed::TooDeep),
        text => Some(RawValue::from_string(text).map_err(|_| Malformed::BadMetadata)?),
    };
    let encoding = match encoding {
        0 => Encoding::Binary,
        _ => Encoding::Json,
    };
    if encoding == Encoding::Json {
        // The payload goes into text frames as it is, so it must not be able to end the frame early.
        let text = std::str::from_utf8(&frame).map_err(|_| Malformed::NotUtf8)?;
        if json::too_deep(text) {
            return Err(Malformed::TooDeep);
        }
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| Malformed::BadPayload)?;
    }
    Ok(UserBroadcast {
        join_ref,
        reference,
        topic,
        event,
        metadata,
        encoding,
        payload: frame,
    })
}

fn take_ref(frame: &mut Bytes, size: u8) -> Result<Ref, Malformed> {
    match size {
        0 => Ok(Ref::NULL),
        _ => take_text(frame, size).map(|text| Ref::from_text(&text)),
    }
}

fn take_text(frame: &mut Bytes, size: u8) -> Result<String, Malformed> {
    let size = usize::from(size);
    if frame.len() < size {
        return Err(Malformed::Truncated);
    }
    let bytes = frame.split_to(size);
    // realtime-js 2.95 writes one byte for each character, which is Latin-1.
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => {
            let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            // What is longer cannot be passed on.
            (text.len() <= usize::from(u8::MAX))
                .then_some(text)
                .ok_or(Malformed::NotUtf8)
        }
    }
}

/// The payload is people's messages, so only its size is shown.
impl fmt::Debug for UserBroadcast {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("UserBroadcast")
            .field("join_ref", &self.join_ref)
            .field("reference", &self.reference)
            .field("topic", &self.topic)
            .field("event", &self.event)
            .field("encoding", &self.encoding)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
