//! Tokens that this program makes itself, for `tidings token` and the demo.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use crate::config::Secret;

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("an empty secret signs nothing: set jwt_secret")]
    EmptySecret,
    #[error("the claims cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// A token with these claims, signed with HS256.
pub fn sign(claims: &Map<String, Value>, secret: &Secret) -> Result<String, SignError> {
    let secret = secret.expose();
    if secret.is_empty() {
        return Err(SignError::EmptySecret);
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).map_err(SignError::Sign)
}
