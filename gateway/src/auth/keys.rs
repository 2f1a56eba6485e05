//! Keys that check signatures: the shared secret, and sets of JSON Web Keys.
//!
//! A key holds a check for each algorithm that fits it, and a token names one of them: an RSA key has none for HS256, so
//! there is nothing to confuse. What is too weak or not understood is left out, with a reason.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::token::Token;

type Checks = Vec<(&'static str, Check)>;

static RSA: [(&str, &'static dyn VerificationAlgorithm); 6] = [
    ("RS256", &signature::RSA_PKCS1_2048_8192_SHA256),
    ("RS384", &signature::RSA_PKCS1_2048_8192_SHA384),
    ("RS512", &signature::RSA_PKCS1_2048_8192_SHA512),
    ("PS256", &signature::RSA_PSS_2048_8192_SHA256),
    ("PS384", &signature::RSA_PSS_2048_8192_SHA384),
    ("PS512", &signature::RSA_PSS_2048_8192_SHA512),
];
static HMAC: [(&str, hmac::Algorithm); 3] = [
    ("HS256", hmac::HMAC_SHA256),
    ("HS384", hmac::HMAC_SHA384),
    ("HS512", hmac::HMAC_SHA512),
];

enum Check {
    Public(ParsedPublicKey),
    // Much larger than the other.
    Shared(Box<hmac::Key>),
}

impl Check {
    fn holds(&self, token: &Token) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(token.signature()) else {
            return false;
        };
        let message = token.signed().as_bytes();
        match self {
            Check::Public(key) => key.verify_sig(message, &signature).is_ok(),
            Check::Shared(key) => hmac::verify(key, message, &signature).is_ok(),
        }
    }
}

/// Whether a published key could check this token, if only it were known.
pub(super) fn is_asymmetric(token: &Token) -> bool {
    let others = ["ES256", "ES384", "ES512", "EdDSA", "Ed25519"];
    let mut known = RSA.iter().map(|(alg, _)| *alg).chain(others);
    token
        .alg()
        .is_some_and(|alg| known.any(|known| known == alg))
}

/// A secret that server and issuer share.
pub(super) struct SharedSecret(Checks);

impl SharedSecret {
    /// Nothing when it is empty: an empty key would verify what anybody can sign.
    pub(super) fn new(secret: &[u8]) -> Option<SharedSecret> {
        (!secret.is_empty()).then(|| SharedSecret(shared(secret)))
    }

    /// Whether the signature is right; nothing if the token's algorithm takes no shared secret.
    pub(super) fn check(&self, token: &Token) -> Option<bool> {
        let (_, check) = self.0.iter().find(|(alg, _)| Some(*alg) == token.alg())?;
        Some(check.holds(token))
    }
}

/// The keys of a JWKS document.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: Vec<String>,
    /// Of the document, to tell whether it is another one.
    digest: Vec<u8>,
}

struct Key {
    kid: String,
    checks: Checks,
}

/// Where a document comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The settings, which are as secret as the shared secret.
    Settings,
    /// An address that anybody may read, so that a symmetric key in it is known to all.
    Public,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("this is no key set: `{{\"keys\":[…]}}` is wanted")]
    NoKeySet,
    #[error("no key of the set can be used: {0}")]
    NoKey(String),
}

impl KeySet {
    /// The keys that can be used. A set may be empty; one whose every key is unusable is an error.
    pub fn parse(document: &[u8], origin: Origin) -> Result<KeySet, KeySetError> {
        let document_value: Value =
            serde_json::from_slice(document).map_err(|_| KeySetError::NoKeySet)?;
        let listed = document_value
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(KeySetError::NoKeySet)?;
        let mut set = KeySet {
            keys: Vec::new(),
            skipped: Vec::new(),
            digest: digest::digest(&digest::SHA256, document).as_ref().to_vec(),
        };
        for (place, jwk) in listed.iter().enumerate() {
            match jwk
                .as_object()
                .ok_or("it is no object")
                .and_then(|jwk| key(jwk, origin))
            {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.skipped.push(format!("key {}: {reason}", place + 1)),
            }
        }
        if set.keys.is_empty() && !set.skipped.is_empty() {
            return Err(KeySetError::NoKey(set.skipped.join("; ")));
        }
        Ok(set)
    }

    /// Whether the signature is right; nothing if there is no key with the token's `kid` for its algorithm.
    pub(super) fn check(&self, token: &Token) -> Option<bool> {
        let kid = token.kid()?;
        let checks = self.keys.iter().filter(|key| key.kid == kid);
        let (_, check) = checks
            .flat_map(|key| &key.checks)
            .find(|(alg, _)| Some(*alg) == token.alg())?;
        Some(check.holds(token))
    }

    /// Why keys were left out.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// Two are equal if they come from the same text.
impl PartialEq for KeySet {
    fn eq(&self, other: &KeySet) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

fn key(jwk: &Map<String, Value>, origin: Origin) -> Result<Key, &'static str> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kid = text("kid").ok_or("it has no `kid`, by which tokens name their key")?;
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err("its `use` is not `sig`");
    }
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    if operations.is_some_and(|operations| !operations.iter().any(|name| name == "verify")) {
        return Err("its `key_ops` lack `verify`");
    }
    let mut checks = match text("kty") {
        Some("RSA") => rsa(jwk)?,
        Some("EC") => elliptic(jwk)?,
        Some("OKP") => edwards(jwk)?,
        Some("oct") if origin == Origin::Public => {
            return Err("it is a secret, and was published");
        }
        Some("oct") => match bytes(jwk, "k") {
            Some(secret) if !secret.is_empty() => shared(&secret),
            _ => return Err("its `k` is not base64url, or is empty"),
        },
        _ => return Err("its `kty` is none of RSA, EC, OKP and oct"),
    };
    if let Some(only) = text("alg") {
        // Two names of one thing.
        let only = if only == "EdDSA" { "Ed25519" } else { only };
        checks.retain(|(alg, _)| *alg == only || (*alg == "EdDSA" && only == "Ed25519"));
    }
    if checks.is_empty() {
        return Err("its `alg` is not known, or does not fit the key");
    }
    Ok(Key {
        kid: kid.to_owned(),
        checks,
    })
}

fn shared(secret: &[u8]) -> Checks {
    HMAC.iter()
        .map(|(alg, algorithm)| {
            (
                *alg,
                Check::Shared(Box::new(hmac::Key::new(*algorithm, secret))),
            )
        })
        .collect()
}

fn rsa(jwk: &Map<String, Value>) -> Result<Checks, &'static str> {
    const UNREADABLE: &str = "its `n` or `e` cannot be read";
    let number = |name| {
        let bytes = bytes(jwk, name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec())
    };
    let n = number("n").ok_or(UNREADABLE)?;
    let e = number("e").ok_or(UNREADABLE)?;
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err("an RSA key of 2048 to 8192 bits is wanted");
    }
    // With an exponent of 1, every message is its own signature.
    if e.as_slice() == [1] || e.last().is_none_or(|last| last % 2 == 0) {
        return Err("its exponent `e` is unsafe");
    }
    let der = RsaPublicKeyComponents { n, e }
        .as_der()
        .map_err(|_| UNREADABLE)?;
    RSA.iter()
        .map(|(alg, algorithm)| {
            let key = ParsedPublicKey::new(*algorithm, der.as_ref()).map_err(|_| UNREADABLE)?;
            Ok((*alg, Check::Public(key)))
        })
        .collect()
}

fn elliptic(jwk: &Map<String, Value>) -> Result<Checks, &'static str> {
    let (alg, algorithm, length): (_, &'static dyn VerificationAlgorithm, _) =
        match jwk.get("crv").and_then(Value::as_str) {
            Some("P-256") => ("ES256", &signature::ECDSA_P256_SHA256_FIXED, 32),
            Some("P-384") => ("ES384", &signature::ECDSA_P384_SHA384_FIXED, 48),
            Some("P-521") => ("ES512", &signature::ECDSA_P521_SHA512_FIXED, 66),
            _ => return Err("its `crv` is none of P-256, P-384 and P-521"),
        };
    let coordinate = |name| bytes(jwk, name).filter(|bytes| bytes.len() == length);
    let (x, y) = coordinate("x")
        .zip(coordinate("y"))
        .ok_or("its `x` or `y` cannot be read, or has the wrong length")?;
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    let key = ParsedPublicKey::new(algorithm, point).map_err(|_| "it is no point of its curve")?;
    Ok(vec![(alg, Check::Public(key))])
}

fn edwards(jwk: &Map<String, Value>) -> Result<Checks, &'static str> {
    if jwk.get("crv").and_then(Value::as_str) != Some("Ed25519") {
        return Err("its `crv` is not Ed25519");
    }
    let x = bytes(jwk, "x").ok_or("its `x` cannot be read")?;
    ["EdDSA", "Ed25519"]
        .into_iter()
        .map(|alg| {
            let key = ParsedPublicKey::new(&signature::ED25519, &x)
                .map_err(|_| "its `x` is no Ed25519 key")?;
            Ok((alg, Check::Public(key)))
        })
        .collect()
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    let text = jwk.get(name)?.as_str()?;
    // Some issuers pad.
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}
