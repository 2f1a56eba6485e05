//! Tokens, signed with the secret of the test gateways.

use gateway::{
    auth::{now_unix, sign},
    config::Secret,
};
use serde_json::{Value, json};

pub(crate) const SECRET: &str = "the secret of the tests, longer than 32 bytes";

/// A token with these claims. `exp` is in an hour unless they say otherwise; null leaves a claim out.
pub(crate) fn token(claims: Value) -> String {
    signed_with(claims, SECRET)
}

pub(crate) fn signed_with(claims: Value, secret: &str) -> String {
    let Value::Object(mut claims) = claims else {
        panic!("claims are an object");
    };
    claims.entry("exp").or_insert(json!(now_unix() + 3600));
    claims.entry("iat").or_insert(json!(now_unix()));
    claims.retain(|_, value| !value.is_null());
    sign(&claims, &Secret::new(secret)).expect("a token")
}

pub(crate) fn authenticated(sub: &str) -> String {
    token(json!({"role": "authenticated", "sub": sub}))
}

pub(crate) fn anon() -> String {
    token(json!({"role": "anon"}))
}

pub(crate) fn service_role() -> String {
    token(json!({"role": "service_role"}))
}
