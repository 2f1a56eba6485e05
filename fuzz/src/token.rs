//! The gateway's reader of tokens, compiled here by itself, and what is seen of a token before it is believed.

#[path = "../../gateway/src/auth/token.rs"]
mod text;

pub const MAX_BYTES: usize = text::MAX_BYTES;

/// A token that was understood. Nothing of it is true yet.
pub struct Read {
    /// As it was read: without white space and escapes.
    pub cleaned: String,
    pub signed: String,
    pub signature: String,
    pub algorithm: Option<String>,
    pub key: Option<String>,
    /// The claims, as JSON.
    pub claims: String,
}

pub fn read(text: &str) -> Option<Read> {
    let cleaned = text::cleaned(text)?;
    let token = text::Token::parse(cleaned.clone())?;
    Some(Read {
        cleaned,
        signed: token.signed().to_owned(),
        signature: token.signature().to_owned(),
        algorithm: token.alg().map(str::to_owned),
        key: token.kid().map(str::to_owned),
        claims: serde_json::Value::Object(token.claims).to_string(),
    })
}

pub fn cleaned(text: &str) -> Option<String> {
    text::cleaned(text)
}
