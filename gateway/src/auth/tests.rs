//! Tokens of the settings' own secret, case by case; other keys and issuers are in the modules below.

mod fixtures;
mod issuers;
mod remote;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use super::*;
use crate::config::Secret;

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
    let verified = verifier(&[]).verify(&token(&json!({"role": "", "exp": NOW as f64 + 0.6})), NOW);
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
        good.repeat(token::MAX_BYTES / good.len() + 1),
    ];
    for case in cases {
        assert_eq!(refused(&case), TokenError::Malformed, "{case}");
    }
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = encode(&json!({"role": "anon", "exp": NOW + 1}).to_string());
    for (header, payload) in [
        // Extensions that nobody here understands.
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, &*claims),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims),
        (r#"{"alg":"HS256","crit":[]}"#, &claims),
        (r#"{"alg":"HS256","crit":["a"],"crit":["b"]}"#, &claims),
        // Names that stand there twice.
        (r#"{"alg":"none","alg":"HS256"}"#, &claims),
        (
            r#"{"alg":"HS256"}"#,
            &encode(r#"{"role":"anon","role":"service_role","exp":1800000000}"#),
        ),
    ] {
        let message = format!("{}.{payload}", encode(header));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        let token = format!("{message}.{signature}");
        assert_eq!(refused(&token), TokenError::Malformed, "{header}");
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

#[test]
fn leeway_moves_the_end_and_nothing_else() {
    let lenient = verifier(&[("jwt_leeway", "10s")]);
    let expires = |exp: i64| lenient.verify(&token(&json!({"role": "anon", "exp": exp})), NOW);
    assert_eq!(expires(NOW - 9).unwrap().expires_at, NOW + 1);
    assert_eq!(
        expires(NOW - 10).unwrap_err(),
        TokenError::Expired { seconds_ago: 10 }
    );
}

#[test]
fn there_is_nothing_to_learn_without_an_issuer_to_ask() {
    let verifier = verifier(&[]);
    let unknown = token_with(
        &json!({"alg": "ES256", "kid": "k"}),
        &json!({"role": "anon", "exp": NOW + 1}),
        SECRET,
        Algorithm::HS256,
    );
    assert!(!verifier.may_learn(&unknown));
    assert!(!verifier.may_learn("tk_1_x"));
    assert!(verifier.still_valid(&token(&json!({"role": "anon", "exp": NOW - 1}))));
    assert!(!verifier.still_valid(&unknown));
}
