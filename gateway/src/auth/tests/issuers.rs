//! Several issuers at once: whose token it is, and what its claims come to.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::config::Issuer as Configured;

pub(super) struct Signer {
    kid: String,
    key: Ed25519KeyPair,
}

impl Signer {
    pub(super) fn new(kid: &str) -> Signer {
        Signer {
            kid: kid.to_owned(),
            key: Ed25519KeyPair::generate().unwrap(),
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid})
    }

    /// A token as BetterAuth makes them.
    pub(super) fn token(&self, claims: Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "EdDSA", "kid": self.kid});
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn configured(iss: &str, signer: &Signer) -> Configured {
    let document = json!({"keys": [signer.jwk()]}).to_string();
    let keys = KeySet::parse(document.as_bytes(), Origin::Settings).unwrap();
    Configured {
        iss: iss.to_owned(),
        secret: None,
        jwks: Some(Arc::new(keys)),
        jwks_url: None,
        aud: None,
        role_claim: "role".to_owned(),
        role_map: None,
        default_role: None,
        subject_claim: "sub".to_owned(),
    }
}

fn with_issuers(issuers: Vec<Configured>) -> Verifier {
    let base = [
        ("database_url", "postgres://localhost/x"),
        ("jwt_secret", SECRET),
    ];
    let mut settings = Settings::from_pairs(base).unwrap();
    settings.issuers = issuers;
    Verifier::new(&settings)
}

const BETTER_AUTH: &str = "http://localhost:3000";

#[test]
fn a_token_without_a_role_has_that_of_its_issuer() {
    let signer = Signer::new("b1");
    let mut better_auth = configured(BETTER_AUTH, &signer);
    better_auth.default_role = Some("authenticated".to_owned());
    better_auth.aud = Some(BETTER_AUTH.to_owned());
    let verifier = with_issuers(vec![better_auth]);
    let claims = json!({"sub": "Zk3q9", "iss": BETTER_AUTH, "aud": BETTER_AUTH, "exp": NOW + 900, "iat": NOW, "email": "a@b"});
    let verified = verifier.verify(&signer.token(claims.clone()), NOW).unwrap();
    assert_eq!(&*verified.principal.role, "authenticated");
    assert_eq!(&*verified.principal.subject, "Zk3q9");
    let seen: Value = serde_json::from_str(&verified.principal.claims).unwrap();
    let mut expected = claims.clone();
    expected["role"] = json!("authenticated");
    assert_eq!(seen, expected);

    let refused = |changes: Value| {
        let mut claims = claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        verifier.verify(&signer.token(claims), NOW).err()
    };
    let other = |text: &str| Some(TokenError::Other(text.to_owned()));
    assert_eq!(refused(json!({"aud": ["x", BETTER_AUTH]})), None);
    assert_eq!(
        refused(json!({"aud": ["x"]})),
        other("claim aud is not accepted here")
    );
    assert_eq!(
        refused(json!({"aud": null})),
        other("claim aud is not accepted here")
    );
    assert_eq!(refused(json!({"nbf": NOW})), None);
    assert_eq!(
        refused(json!({"nbf": NOW + 1})),
        other("the token is not good yet")
    );
    assert_eq!(
        refused(json!({"nbf": "0"})),
        other("claim nbf must be a number")
    );
    assert_eq!(
        refused(json!({"exp": NOW})),
        Some(TokenError::Expired { seconds_ago: 0 })
    );
    assert_eq!(
        refused(json!({"exp": null})),
        Some(TokenError::MissingClaims)
    );
    // Its own issuer is not this gateway's, which has a secret and not that key.
    assert_eq!(
        refused(json!({"iss": "http://localhost:3000/"})),
        Some(TokenError::Signer {
            kid: Some("b1".to_owned())
        })
    );
}

#[test]
fn an_issuer_signs_for_itself_alone() {
    let (a, b) = (Signer::new("k"), Signer::new("k"));
    let verifier = with_issuers(vec![configured("a", &a), configured("b", &b)]);
    let claims = |iss: Value| json!({"iss": iss, "role": "anon", "exp": NOW + 1, "sub": "x"});
    assert!(verifier.verify(&a.token(claims(json!("a"))), NOW).is_ok());
    assert!(verifier.verify(&b.token(claims(json!("b"))), NOW).is_ok());
    assert_eq!(
        verifier
            .verify(&a.token(claims(json!("b"))), NOW)
            .unwrap_err(),
        TokenError::Signature
    );
    // Nobody's, or written as nobody writes it: the gateway's own secret decides.
    for iss in [json!("c"), json!(null), json!(["a"]), json!("A")] {
        let error = verifier
            .verify(&a.token(claims(iss.clone())), NOW)
            .unwrap_err();
        assert!(matches!(error, TokenError::Signer { .. }), "{iss}");
        assert!(verifier.verify(&token(&claims(iss)), NOW).is_ok());
    }
    // Whoever knows that secret is not thereby one of the others.
    let forged = verifier
        .verify(&token(&claims(json!("a"))), NOW)
        .unwrap_err();
    assert_eq!(forged, TokenError::Signer { kid: None });
}

#[test]
fn roles_and_subjects_are_those_that_the_settings_make_of_them() {
    let signer = Signer::new("k");
    let mut mapped = configured("mapped", &signer);
    mapped.role_claim = "groups/role".to_owned();
    mapped.role_map = Some([("admin".to_owned(), "service_role".to_owned())].into());
    mapped.subject_claim = "user_id".to_owned();
    let mut lenient = configured("lenient", &signer);
    lenient.role_map = mapped.role_map.clone();
    lenient.default_role = Some("authenticated".to_owned());
    let verifier = with_issuers(vec![mapped, lenient, configured("plain", &signer)]);
    let verify = |claims: Value| {
        let mut claims = claims;
        claims["exp"] = json!(NOW + 1);
        verifier.verify(&signer.token(claims), NOW)
    };

    let admin = verify(
        json!({"iss": "mapped", "groups/role": "admin", "role": "x", "user_id": 7, "sub": "y"}),
    )
    .unwrap();
    assert_eq!(
        (&*admin.principal.role, &*admin.principal.subject),
        ("service_role", "7")
    );
    let seen: Value = serde_json::from_str(&admin.principal.claims).unwrap();
    assert_eq!(
        (&seen["role"], &seen["sub"]),
        (&json!("service_role"), &json!(7))
    );
    // The claim that names the subject is the only one that does.
    let nobody = verify(json!({"iss": "mapped", "groups/role": "admin", "sub": "y"})).unwrap();
    assert_eq!(&*nobody.principal.subject, "");
    assert!(!nobody.principal.claims.contains("\"sub\""));

    let missing = |claims: Value| verify(claims).unwrap_err();
    assert_eq!(
        missing(json!({"iss": "mapped", "role": "admin"})),
        TokenError::MissingClaims
    );
    // A role that the map lacks is no role here, least of all a database's of that name.
    assert_eq!(
        missing(json!({"iss": "mapped", "groups/role": "service_role"})),
        TokenError::MissingClaims
    );
    let user = verify(json!({"iss": "lenient", "role": "service_role"})).unwrap();
    assert_eq!(&*user.principal.role, "authenticated");
    assert_eq!(
        &*verify(json!({"iss": "plain", "role": "anon"}))
            .unwrap()
            .principal
            .role,
        "anon"
    );
    assert_eq!(missing(json!({"iss": "plain"})), TokenError::MissingClaims);
    assert!(matches!(
        missing(json!({"iss": "plain", "role": "none"})),
        TokenError::Other(_)
    ));
    assert!(matches!(
        missing(json!({"iss": "plain", "role": ["anon"]})),
        TokenError::Other(_)
    ));
}
