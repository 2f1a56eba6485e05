//! Keys and tokens that another implementation made: every algorithm, and every confusion of them.

use super::*;

fn fixtures() -> Value {
    serde_json::from_str(include_str!("fixtures.json")).unwrap()
}

fn with_keys(fixtures: &Value) -> Verifier {
    verifier(&[("jwks", &fixtures["jwks"].to_string())])
}

fn rewritten(token: &str, header: Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

#[test]
fn every_algorithm_is_understood() {
    let fixtures = fixtures();
    let verifier = with_keys(&fixtures);
    let tokens = fixtures["tokens"].as_object().unwrap();
    assert_eq!(tokens.len(), 14);
    for (alg, token) in tokens {
        let token = token.as_str().unwrap();
        let verified = verifier
            .verify(token, NOW)
            .unwrap_or_else(|error| panic!("{alg}: {error}"));
        assert_eq!(&*verified.principal.subject, "usr_Ada");
        assert_eq!(verified.expires_at, 4_102_444_800);

        // Other claims under the same signature, and another signature.
        let mut parts: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"role":"service_role","exp":4102444800}"#);
        let signature = parts[2].to_owned();
        parts[1] = &claims;
        assert_eq!(
            verifier.verify(&parts.join("."), NOW).unwrap_err(),
            TokenError::Signature,
            "{alg}"
        );
        for wrong in [
            "",
            "AA",
            &signature[..signature.len() - 4],
            &format!("{signature}AAAA"),
        ] {
            let (message, _) = token.rsplit_once('.').unwrap();
            let token = format!("{message}.{wrong}");
            assert_eq!(
                verifier.verify(&token, NOW).unwrap_err(),
                TokenError::Signature,
                "{alg}"
            );
        }
    }
}

#[test]
fn an_algorithm_fits_its_kind_of_key_and_no_other() {
    let fixtures = fixtures();
    let verifier = with_keys(&fixtures);
    let algorithms = fixtures["tokens"].as_object().unwrap();
    let kinds = [
        (
            "rsa",
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
        ("ec256", vec!["ES256"]),
        ("ec384", vec!["ES384"]),
        ("ec512", vec!["ES512"]),
        ("ed", vec!["EdDSA", "Ed25519"]),
        // An unknown kid leaves HMAC to the shared secret, as does one that is no symmetric key.
        ("oct", vec![]),
    ];
    for (kid, fitting) in kinds {
        for (alg, token) in algorithms {
            let token = rewritten(token.as_str().unwrap(), json!({"alg": alg, "kid": kid}));
            let expected = match alg.starts_with("HS") || fitting.contains(&alg.as_str()) {
                true => TokenError::Signature,
                false => TokenError::Signer {
                    kid: Some(kid.to_owned()),
                },
            };
            if alg.starts_with("HS") && kid == "oct" {
                continue;
            }
            let error = match verifier.verify(&token, NOW) {
                Err(error) => error,
                // The header that it was made with: nothing was rewritten.
                Ok(_) => continue,
            };
            assert_eq!(error, expected, "{alg} with {kid}");
        }
    }
    for header in [
        json!({"alg": "none", "kid": "rsa"}),
        json!({"alg": "NONE", "kid": "rsa"}),
        json!({"alg": "", "kid": "rsa"}),
        json!({"alg": "rs256", "kid": "rsa"}),
        json!({"alg": "Ed448", "kid": "ed"}),
        json!({"alg": "RS256", "kid": "unknown"}),
        json!({"alg": "RS256", "kid": ["rsa"]}),
        json!({"alg": "RS256"}),
    ] {
        let token = rewritten(algorithms["RS256"].as_str().unwrap(), header.clone());
        let error = verifier.verify(&token, NOW).unwrap_err();
        assert!(
            matches!(error, TokenError::Signer { .. }),
            "{header}: {error}"
        );
    }
}

#[test]
fn public_keys_are_no_secrets_and_weak_ones_no_keys() {
    let fixtures = fixtures();
    let refused = fixtures["refused"].as_object().unwrap();
    // With a shared secret, and without one.
    let both = with_keys(&fixtures);
    let mut settings = Settings::from_pairs([
        ("database_url", "postgres://localhost/x"),
        ("jwks", &fixtures["jwks"].to_string()),
    ])
    .expect("no secret is needed beside a key set");
    settings.jwt_secret = Secret::new("");
    let keys_alone = Verifier::new(&settings);
    for (name, token) in refused {
        let token = token.as_str().unwrap();
        let alone = keys_alone.verify(token, NOW).unwrap_err();
        assert!(
            matches!(alone, TokenError::Signer { .. }),
            "{name}: {alone}"
        );
        assert!(both.verify(token, NOW).is_err(), "{name}");
    }
    for (alg, token) in fixtures["tokens"].as_object().unwrap() {
        assert!(
            keys_alone.verify(token.as_str().unwrap(), NOW).is_ok(),
            "{alg}"
        );
    }
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----";
    let base = [
        ("database_url", "postgres://localhost/x"),
        ("jwt_secret", pem),
    ];
    assert!(
        Settings::from_pairs(base)
            .unwrap_err()
            .to_string()
            .contains("jwks")
    );
}

#[test]
fn what_cannot_be_used_is_left_out_with_a_reason() {
    let fixtures = fixtures();
    let good = &fixtures["jwks"]["keys"][0];
    let with = |changes: Value| {
        let mut jwk = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    };
    let cases = [
        (json!(7), "no object"),
        (with(json!({"kid": null})), "kid"),
        (with(json!({"kid": 7})), "kid"),
        (with(json!({"use": "enc"})), "use"),
        (with(json!({"key_ops": ["encrypt"]})), "key_ops"),
        (with(json!({"kty": "DSA"})), "kty"),
        (with(json!({"alg": "ES256"})), "alg"),
        (with(json!({"alg": "RSA-OAEP"})), "alg"),
        (with(json!({"n": "!"})), "`n`"),
        (with(json!({"n": "AQAB"})), "2048"),
        (with(json!({"e": "AQ"})), "exponent"),
        (with(json!({"e": "Ag"})), "exponent"),
        (with(json!({"e": ""})), "exponent"),
        (
            json!({"kty": "EC", "kid": "k", "crv": "secp256k1", "x": "AA", "y": "AA"}),
            "crv",
        ),
        (
            json!({"kty": "EC", "kid": "k", "crv": "P-256", "x": "AA", "y": "AA"}),
            "length",
        ),
        (
            json!({"kty": "EC", "kid": "k", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43)}),
            "curve",
        ),
        (
            json!({"kty": "OKP", "kid": "k", "crv": "Ed448", "x": "AA"}),
            "Ed25519",
        ),
        (
            json!({"kty": "OKP", "kid": "k", "crv": "Ed25519", "x": "AA"}),
            "Ed25519",
        ),
        (json!({"kty": "oct", "kid": "k", "k": ""}), "`k`"),
    ];
    for (jwk, reason) in cases {
        let document = json!({"keys": [jwk, good]}).to_string();
        let keys = KeySet::parse(document.as_bytes(), Origin::Settings).unwrap();
        assert_eq!(keys.skipped().len(), 1, "{jwk}");
        assert!(
            keys.skipped()[0].contains(reason),
            "{jwk}: {:?}",
            keys.skipped()
        );
        let alone = json!({"keys": [jwk]}).to_string();
        let error = KeySet::parse(alone.as_bytes(), Origin::Settings).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let secret = json!({"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}]}).to_string();
    assert!(KeySet::parse(secret.as_bytes(), Origin::Settings).is_ok());
    assert!(KeySet::parse(secret.as_bytes(), Origin::Public).is_err());
    for garbage in ["", "[]", "{}", "{\"keys\":{}}", "<html>"] {
        assert_eq!(
            KeySet::parse(garbage.as_bytes(), Origin::Public).unwrap_err(),
            KeySetError::NoKeySet
        );
    }
    assert_eq!(
        KeySet::parse(b"{\"keys\":[]}", Origin::Public)
            .unwrap()
            .len(),
        0
    );
}
