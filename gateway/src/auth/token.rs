//! The text of a JWT, taken apart. Nothing here is believed yet.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

/// No honest token is longer, and everything below is linear in the length.
pub(super) const MAX_BYTES: usize = 16 * 1024;

pub(super) struct Token {
    text: String,
    /// Where the signature begins in `text`.
    signature: usize,
    header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
}

impl Token {
    /// From text that is [`cleaned`]; nothing if it is no JWT, or one that must not be understood.
    pub(super) fn parse(text: String) -> Option<Token> {
        let (message, _) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let (header, claims) = (object(header)?, object(payload)?);
        // It lists extensions that must be understood, and none is known here.
        if header.contains_key("crit") {
            return None;
        }
        Some(Token {
            signature: message.len() + 1,
            header,
            claims,
            text,
        })
    }

    pub(super) fn signed(&self) -> &str {
        &self.text[..self.signature - 1]
    }

    pub(super) fn signature(&self) -> &str {
        &self.text[self.signature..]
    }

    pub(super) fn alg(&self) -> Option<&str> {
        self.header.get("alg")?.as_str()
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }
}

/// Percent-decoded, without white space; nothing if that cannot be, or if it is too long.
pub(super) fn cleaned(token: &str) -> Option<String> {
    if token.len() > MAX_BYTES {
        return None;
    }
    let mut decoded = percent_decoded(token)?;
    decoded.retain(|c| !c.is_whitespace());
    Some(decoded)
}

/// `%41` is `A`. Nothing if a `%` does not begin an escape, or the result is not UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let high = char::from(*bytes.get(at + 1)?).to_digit(16)?;
            let low = char::from(*bytes.get(at + 2)?).to_digit(16)?;
            decoded.push((high * 16 + low) as u8);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes)
        .ok()
        .map(|Unique(object)| object)
}

/// An object that names nothing twice: of two values, another program might believe the other one.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
                let mut object = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if object.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands there twice"));
                    }
                }
                Ok(Unique(object))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
