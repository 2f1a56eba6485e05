//! Tokens: what each join and each new token of a channel costs.

use std::hint::black_box;

use gateway::{
    auth::{TokenError, Verifier, sign},
    config::{Secret, Settings},
};
use serde_json::{Map, Value};

use super::{Amount, Prepared, world};

const SECRET: &str = "a secret that is long enough for everybody";
/// A moment at which all tokens below are good.
const NOW: i64 = 1_800_000_000;
/// Keys, and tokens that they have signed.
const SIGNED: &str = include_str!("../../src/auth/tests/fixtures.json");

pub(super) fn hs256() -> Prepared {
    let token = hs256_token();
    accepted(verifier(None), token)
}

/// The signature is wrong: what an attacker can make the gateway do.
pub(super) fn forged() -> Prepared {
    let verifier = verifier(None);
    let mut token = hs256_token();
    let signature = token.len() - 43;
    token.replace_range(signature.., &"A".repeat(43));
    assert_eq!(
        verifier.verify(&token, NOW).err(),
        Some(TokenError::Signature)
    );
    Prepared::new(Amount::Elements(1), move || {
        black_box(verifier.verify(black_box(&token), NOW)).ok();
    })
}

pub(super) fn es256() -> Prepared {
    signed("ES256")
}

pub(super) fn rs256() -> Prepared {
    signed("RS256")
}

fn signed(algorithm: &str) -> Prepared {
    let signed: Value = serde_json::from_str(SIGNED).expect("JSON");
    let token = signed["tokens"][algorithm].as_str().expect("a token");
    accepted(
        verifier(Some(&signed["jwks"].to_string())),
        token.to_owned(),
    )
}

fn accepted(verifier: Verifier, token: String) -> Prepared {
    verifier.verify(&token, NOW).expect("a good token");
    Prepared::new(Amount::Elements(1), move || {
        drop(black_box(verifier.verify(black_box(&token), NOW)));
    })
}

fn hs256_token() -> String {
    let claims: Map<String, Value> = serde_json::from_str(&world::claims("a1")).expect("an object");
    sign(&claims, &Secret::new(SECRET)).expect("a token")
}

fn verifier(jwks: Option<&str>) -> Verifier {
    let mut pairs = vec![world::DATABASE, ("jwt_secret", SECRET)];
    pairs.extend(jwks.map(|jwks| ("jwks", jwks)));
    Verifier::new(&Settings::from_pairs(pairs).expect("valid settings"))
}
