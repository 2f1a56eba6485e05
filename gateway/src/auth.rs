//! A token in, a principal or a named refusal out.
//!
//! The rules are those of the server whose clients we serve: the token may be percent-encoded and may hold white space,
//! `exp` has no leeway, `role` and `exp` must be there, and no other claim is looked at unless the settings name it. Tokens
//! are never logged; [`Principal`] hides its claims from `Debug`.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Map, Value};

use crate::config::{Secret, Settings};

/// No honest token is longer, and everything below is linear in the length.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Checks tokens against the keys and the expectations of the settings.
pub struct Verifier {
    /// Nothing when the secret is empty: an empty key would verify what anybody can sign.
    secret: Option<DecodingKey>,
    aud: Option<String>,
    iss: Option<String>,
}

impl Verifier {
    pub fn new(settings: &Settings) -> Verifier {
        let secret = settings.jwt_secret.expose();
        if secret.len() < 32 {
            tracing::warn!(
                "jwt_secret is shorter than 32 bytes and can be guessed from any token: use a longer one"
            );
        }
        Verifier {
            secret: (!secret.is_empty()).then(|| DecodingKey::from_secret(secret.as_bytes())),
            aud: settings.jwt_aud.clone(),
            iss: settings.jwt_iss.clone(),
        }
    }

    /// Who presents this token, and until when. `now_unix` is in seconds.
    pub fn verify(&self, token: &str, now_unix: i64) -> Result<Verified, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let token = cleaned(token).ok_or(TokenError::Malformed)?;
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = json_object(header).ok_or(TokenError::Malformed)?;
        let claims = json_object(payload).ok_or(TokenError::Malformed)?;

        self.check_signature(&header, message, signature)?;
        self.check_claims(claims, now_unix)
    }

    fn check_signature(
        &self,
        header: &Map<String, Value>,
        message: &str,
        signature: &str,
    ) -> Result<(), TokenError> {
        // Asymmetric algorithms need a key set, which is looked up by `kid`.
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            Some("HS256") => Some(Algorithm::HS256),
            Some("HS384") => Some(Algorithm::HS384),
            Some("HS512") => Some(Algorithm::HS512),
            _ => None,
        };
        let (Some(algorithm), Some(secret)) = (algorithm, &self.secret) else {
            return Err(TokenError::Signer {
                kid: header.get("kid").and_then(Value::as_str).map(str::to_owned),
            });
        };
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), secret, algorithm) {
            Ok(true) => Ok(()),
            // An error is a signature that is not base64.
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }

    fn check_claims(
        &self,
        claims: Map<String, Value>,
        now_unix: i64,
    ) -> Result<Verified, TokenError> {
        let expires_at = match claims.get("exp") {
            None | Some(Value::Null) => None,
            Some(exp) => Some(
                whole_seconds(exp)
                    .ok_or_else(|| TokenError::Other("claim exp must be a number".to_owned()))?,
            ),
        };
        if let Some(expires_at) = expires_at.filter(|exp| *exp <= now_unix) {
            return Err(TokenError::Expired {
                seconds_ago: now_unix.saturating_sub(expires_at),
            });
        }
        if claims.get("iat").is_some_and(|iat| !iat.is_number()) {
            return Err(TokenError::Other("claim iat must be a number".to_owned()));
        }
        for (name, wanted) in [("aud", &self.aud), ("iss", &self.iss)] {
            if let Some(wanted) = wanted
                && claims.get(name).and_then(Value::as_str) != Some(wanted)
            {
                return Err(TokenError::Other(format!(
                    "claim {name} is not accepted here"
                )));
            }
        }
        let role = match claims.get("role") {
            None | Some(Value::Null) => None,
            // PostgreSQL takes `none` for whoever logged in, which is the gateway itself.
            Some(Value::String(role)) if role == "none" => {
                return Err(TokenError::Other("claim role is `none`".to_owned()));
            }
            Some(Value::String(role)) => Some(role.as_str()),
            Some(_) => return Err(TokenError::Other("claim role must be text".to_owned())),
        };
        let (Some(role), Some(expires_at)) = (role, expires_at) else {
            return Err(TokenError::MissingClaims);
        };
        Ok(Verified {
            principal: Arc::new(Principal::new(role, &claims)),
            expires_at,
        })
    }
}

/// On whose behalf the database is asked.
#[derive(PartialEq, Eq, Hash)]
pub struct Principal {
    pub role: Box<str>,
    /// All claims, as compact JSON.
    pub claims: Box<str>,
    /// The claim `sub`, or nothing.
    pub subject: Box<str>,
}

impl Principal {
    fn new(role: &str, claims: &Map<String, Value>) -> Principal {
        let subject = match claims.get("sub") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(sub)) => sub.clone(),
            Some(other) => other.to_string(),
        };
        Principal {
            role: role.into(),
            claims: Value::Object(claims.clone()).to_string().into(),
            subject: subject.into(),
        }
    }

    /// A role of our own choosing with no claims but that: what the server itself does, it does as somebody.
    pub fn of_role(role: &str) -> Principal {
        let claims = Map::from_iter([("role".to_owned(), Value::from(role))]);
        Principal::new(role, &claims)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct Verified {
    pub principal: Arc<Principal>,
    /// Seconds since 1970.
    pub expires_at: i64,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the token's signature is wrong: is it signed with this gateway's secret?")]
    Signature,
    #[error("there is no key for the token's algorithm and key id")]
    Signer { kid: Option<String> },
    #[error("the token expired {seconds_ago} seconds ago")]
    Expired { seconds_ago: i64 },
    #[error("the token lacks the claim `role` or `exp`")]
    MissingClaims,
    #[error("{0}")]
    Other(String),
}

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

/// Seconds since 1970, as [`Verifier::verify`] wants them.
pub fn now_unix() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

/// Percent-decoded, without white space.
fn cleaned(token: &str) -> Option<String> {
    let decoded = percent_decoded(token)?;
    Some(decoded.chars().filter(|c| !c.is_whitespace()).collect())
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

fn json_object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A number of seconds; decimals are rounded, and what is beyond all time is the end of it.
fn whole_seconds(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    number
        .as_i64()
        .or_else(|| number.as_u64().map(|_| i64::MAX))
        .or_else(|| number.as_f64().map(|seconds| seconds.round() as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
    const NOW: i64 = 1_700_000_000;

    fn verifier(pairs: &[(&str, &str)]) -> Verifier {
        let base = [
            ("database_url", "postgres://localhost/x"),
            ("jwt_secret", SECRET),
        ];
        let settings = Settings::from_pairs(base.into_iter().chain(pairs.iter().copied())).unwrap();
        Verifier::new(&settings)
    }

    fn token_with(header: &Value, claims: &Value, secret: &str, algorithm: Algorithm) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn token(claims: &Value) -> String {
        token_with(&json!({"alg": "HS256"}), claims, SECRET, Algorithm::HS256)
    }

    fn refused(token: &str) -> TokenError {
        verifier(&[]).verify(token, NOW).unwrap_err()
    }

    #[test]
    fn a_good_token_becomes_a_principal() {
        for (alg, algorithm) in [
            ("HS256", Algorithm::HS256),
            ("HS384", Algorithm::HS384),
            ("HS512", Algorithm::HS512),
        ] {
            let claims =
                json!({"role": "authenticated", "exp": NOW + 1, "sub": "usr_Ada", "n": {"a": [1]}});
            let token = token_with(&json!({"alg": alg, "kid": "k"}), &claims, SECRET, algorithm);
            let verified = verifier(&[]).verify(&token, NOW).unwrap();
            assert_eq!(&*verified.principal.role, "authenticated");
            assert_eq!(&*verified.principal.subject, "usr_Ada");
            assert_eq!(
                serde_json::from_str::<Value>(&verified.principal.claims).unwrap(),
                claims
            );
            assert_eq!(verified.expires_at, NOW + 1);
            assert!(!format!("{verified:?}").contains("usr_Ada"));
        }
    }

    #[test]
    fn escapes_and_white_space_are_undone() {
        let token = token(&json!({"role": "anon", "exp": NOW + 9}));
        let folded = format!(" {}\n", token.replacen('.', "%2E \t", 1));
        assert!(verifier(&[]).verify(&folded, NOW).is_ok());
        assert_eq!(refused(&format!("{token}%")), TokenError::Malformed);
        assert_eq!(refused(&format!("{token}%zz")), TokenError::Malformed);
        assert_eq!(refused(&format!("{token}%ff")), TokenError::Malformed);
    }

    #[test]
    fn claims_are_judged_one_by_one() {
        let other = |text: &str| TokenError::Other(text.to_owned());
        let cases = [
            (
                json!({"role": "anon", "exp": NOW}),
                TokenError::Expired { seconds_ago: 0 },
            ),
            (
                json!({"role": "anon", "exp": NOW - 7}),
                TokenError::Expired { seconds_ago: 7 },
            ),
            (
                json!({"role": "anon", "exp": -1.0e300}),
                TokenError::Expired {
                    seconds_ago: i64::MAX,
                },
            ),
            (
                json!({"exp": NOW - 7}),
                TokenError::Expired { seconds_ago: 7 },
            ),
            (
                json!({"role": "anon", "exp": "9999999999"}),
                other("claim exp must be a number"),
            ),
            (
                json!({"role": "anon", "exp": NOW + 1, "iat": "1"}),
                other("claim iat must be a number"),
            ),
            (
                json!({"role": 1, "exp": NOW + 1}),
                other("claim role must be text"),
            ),
            (
                json!({"role": "none", "exp": NOW + 1}),
                other("claim role is `none`"),
            ),
            (json!({"role": "anon"}), TokenError::MissingClaims),
            (
                json!({"role": "anon", "exp": null}),
                TokenError::MissingClaims,
            ),
            (json!({"exp": NOW + 1}), TokenError::MissingClaims),
            (
                json!({"role": null, "exp": NOW + 1}),
                TokenError::MissingClaims,
            ),
        ];
        for (claims, expected) in cases {
            assert_eq!(refused(&token(&claims)), expected, "{claims}");
        }
        let verified =
            verifier(&[]).verify(&token(&json!({"role": "", "exp": NOW as f64 + 0.6})), NOW);
        assert_eq!(verified.unwrap().expires_at, NOW + 1);
    }

    #[test]
    fn keys_and_algorithms_that_do_not_fit_are_told_apart() {
        let claims = json!({"role": "anon", "exp": NOW + 1});
        let wrong = token_with(
            &json!({"alg": "HS256"}),
            &claims,
            "another",
            Algorithm::HS256,
        );
        assert_eq!(refused(&wrong), TokenError::Signature);
        let confused = token_with(&json!({"alg": "HS512"}), &claims, SECRET, Algorithm::HS256);
        assert_eq!(refused(&confused), TokenError::Signature);
        let tampered = token(&claims)
            .replace('.', ".e30.")
            .replacen(".e30.", ".", 1);
        assert_eq!(refused(&tampered), TokenError::Malformed);

        for (header, kid) in [
            (json!({"alg": "none"}), None),
            (json!({"alg": "none", "kid": 7}), None),
            (json!({"alg": "RS256", "kid": "one"}), Some("one")),
            (json!({"alg": 256}), None),
            (json!({}), None),
        ] {
            let token = token_with(&header, &claims, SECRET, Algorithm::HS256);
            let kid = kid.map(str::to_owned);
            assert_eq!(refused(&token), TokenError::Signer { kid }, "{header}");
        }
        let unsigned = token_with(&json!({"alg": "none"}), &claims, SECRET, Algorithm::HS256);
        let unsigned = &unsigned[..=unsigned.rfind('.').unwrap()];
        assert_eq!(refused(unsigned), TokenError::Signer { kid: None });
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let good = token(&json!({"role": "anon", "exp": NOW + 1}));
        let (header, rest) = good.split_once('.').unwrap();
        let cases = [
            String::new(),
            "abc".to_owned(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            format!("{good}.x"),
            format!("é.{rest}"),
            format!("{header}=.{rest}"),
            format!("W10.{rest}"),
            good.repeat(MAX_TOKEN_BYTES / good.len() + 1),
        ];
        for case in cases {
            assert_eq!(refused(&case), TokenError::Malformed, "{case}");
        }
        let bad_signature = format!("{}.!!", good.rsplit_once('.').unwrap().0);
        assert_eq!(refused(&bad_signature), TokenError::Signature);
    }

    #[test]
    fn configured_claims_must_match_exactly() {
        let strict = verifier(&[("jwt_aud", "chat"), ("jwt_iss", "us")]);
        let check = |aud: Value, iss: Value| {
            let token = token(&json!({"role": "anon", "exp": NOW + 1, "aud": aud, "iss": iss}));
            strict.verify(&token, NOW).is_ok()
        };
        assert!(check(json!("chat"), json!("us")));
        assert!(!check(json!("chat"), json!("them")));
        assert!(!check(json!(["chat"]), json!("us")));
        assert!(!check(json!(null), json!("us")));
    }

    #[test]
    fn what_is_signed_here_verifies_here_and_nothing_is_signed_or_verified_without_a_secret() {
        let claims = json!({"role": "anon", "exp": NOW + 1});
        let claims = claims.as_object().unwrap();
        let token = sign(claims, &Secret::new(SECRET)).unwrap();
        assert!(verifier(&[]).verify(&token, NOW).is_ok());
        assert!(sign(claims, &Secret::new("")).is_err());

        let mut settings = Settings::from_pairs([
            ("database_url", "postgres://localhost/x"),
            ("jwt_secret", SECRET),
        ])
        .unwrap();
        settings.jwt_secret = Secret::new("");
        let keyless = Verifier::new(&settings);
        assert_eq!(
            keyless.verify(&token, NOW).unwrap_err(),
            TokenError::Signer { kid: None }
        );
    }
}
