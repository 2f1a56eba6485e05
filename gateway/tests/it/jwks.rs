//! Two issuers at once: this gateway's own secret, and a BetterAuth whose keys are fetched and change.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::{Router, extract::State, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gateway::auth::now_unix;
use protocol::Version;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

use crate::support::{
    Client, TestDatabase,
    chat::{A1, ADA, B1, BOB, messages_of},
    process::{GatewayProcess, run},
    token::{SECRET, anon, authenticated},
    wait::{PATIENCE, wait_for},
};

/// What BetterAuth's JWT plug-in is to a gateway: keys at an address, and tokens without a role.
struct BetterAuth {
    url: String,
    keys: Arc<Mutex<Vec<(String, Ed25519KeyPair)>>>,
    asked: Arc<AtomicU32>,
}

type Shared = (Arc<Mutex<Vec<(String, Ed25519KeyPair)>>>, Arc<AtomicU32>);

impl BetterAuth {
    async fn start() -> BetterAuth {
        let (keys, asked): Shared = Shared::default();
        let answer = |State((keys, asked)): State<Shared>| async move {
            asked.fetch_add(1, Ordering::Relaxed);
            let keys = keys.lock().expect("the keys");
            let jwks: Vec<Value> = keys
                .iter()
                .map(|(kid, key)| {
                    let x = URL_SAFE_NO_PAD.encode(key.public_key());
                    json!({"alg": "EdDSA", "crv": "Ed25519", "kty": "OKP", "x": x, "kid": kid})
                })
                .collect();
            json!({"keys": jwks}).to_string()
        };
        let router = Router::new()
            .route("/api/auth/jwks", get(answer))
            .with_state((keys.clone(), asked.clone()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let issuer = BetterAuth { url, keys, asked };
        issuer.rotate("first");
        issuer
    }

    /// Forgets its keys and makes another.
    fn rotate(&self, kid: &str) {
        let key = Ed25519KeyPair::generate().expect("a key");
        *self.keys.lock().expect("the keys") = vec![(kid.to_owned(), key)];
    }

    fn token(&self, sub: &str) -> String {
        let claims = json!({
            "name": "Somebody", "email": "somebody@example.com", "emailVerified": true,
            "iat": now_unix(), "exp": now_unix() + 900, "sub": sub, "iss": self.url, "aud": self.url,
        });
        let keys = self.keys.lock().expect("the keys");
        let (kid, key) = &keys[0];
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!(
            "{}.{}",
            encode(json!({"alg": "EdDSA", "kid": kid})),
            encode(claims)
        );
        format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()))
        )
    }
}

#[tokio::test]
async fn better_auth_and_the_own_secret_serve_side_by_side_and_keys_rotate() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let issuer = BetterAuth::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tidings.toml");
    let url = &issuer.url;
    let settings = format!(
        "[[issuer]]\niss = \"{url}\"\naud = \"{url}\"\njwks_url = \"{url}/api/auth/jwks\"\ndefault_role = \"authenticated\"\n"
    );
    std::fs::write(&file, settings).expect("a file");
    let environment = [
        ("DATABASE_URL", database.gateway_url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_CONFIG", file.to_str().expect("text")),
    ];
    let gateway = GatewayProcess::start(&environment).await;

    let ada = issuer.token(ADA);
    let mut client = Client::connect_to(gateway.address, Version::V2, &ada).await;
    let channel = client.subscribe("own", messages_of("INSERT", A1)).await;
    assert!(
        client
            .refused("foreign", messages_of("INSERT", B1))
            .await
            .starts_with("Unauthorized: ")
    );
    let mut other = Client::connect_to(gateway.address, Version::V1, &authenticated(BOB)).await;
    other.subscribe("own", messages_of("INSERT", B1)).await;
    let post = |token: &str, session: &str| {
        reqwest::Client::new()
            .post(format!("http://{}/rest/v1/chat_messages", gateway.address))
            .bearer_auth(token)
            .body(json!({"session_id": session, "role": "user", "content": "hello"}).to_string())
    };
    let status = async |token: &str, session: &str| {
        post(token, session)
            .send()
            .await
            .expect("a response")
            .status()
    };
    assert_eq!(status(&ada, A1).await, StatusCode::CREATED);
    assert_eq!(client.change(&channel).await["record"]["content"], "hello");
    assert_eq!(status(&ada, B1).await, StatusCode::FORBIDDEN);

    // A new key: the gateway asks for it, though not more often than every five seconds.
    issuer.rotate("second");
    let bob = issuer.token(BOB);
    wait_for("the new key", || async {
        match status(&bob, B1).await {
            StatusCode::CREATED => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 2);
    assert_eq!(
        status(&ada, A1).await,
        StatusCode::UNAUTHORIZED,
        "its key has gone"
    );
    let told = client.event(&channel, "system").await;
    assert_eq!(
        (&told.payload["status"], &told.payload["extension"]),
        (&json!("error"), &json!("system"))
    );
    assert_eq!(
        client.event(&channel, "phx_close").await,
        channel.closed(Version::V2)
    );
    assert_eq!(status(&authenticated(ADA), A1).await, StatusCode::CREATED);

    // And at a join, whose socket goes on meanwhile.
    issuer.rotate("third");
    let mut joining = Client::connect_to(gateway.address, Version::V2, &anon()).await;
    let bob = issuer.token(BOB);
    let config = json!({"postgres_changes": messages_of("INSERT", B1)});
    // Not as fast as it can: joins have a limit, too.
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
    let until_learned = async {
        loop {
            pace.tick().await;
            let payload = json!({"config": config, "access_token": bob});
            let (_, reply) = joining.join("own", payload).await;
            if reply["status"] == "ok" {
                return;
            }
            let reason = reply["response"]["reason"].as_str().expect("a reason");
            assert!(reason.starts_with("JwtSignerError: "), "{reply}");
        }
    };
    timeout(PATIENCE, until_learned).await.expect("a join");
}

#[tokio::test]
async fn issuers_are_shown_without_their_secrets_and_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tidings.toml");
    let environment = [
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("TIDINGS_CONFIG", file.to_str().expect("text")),
    ];
    // No secret of its own is needed.
    let settings =
        "[[issuer]]\niss = \"https://a\"\nsecret = \"hunter2hunter2hunter2hunter2hunter2\"\n";
    std::fs::write(&file, settings).expect("a file");
    let shown = run(&["serve", "--print-config"], &environment).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("iss = \"https://a\"") && !shown.stdout.contains("hunter2"));

    let settings = "[[issuer]]\niss = \"https://a\"\nsecrt = \"hunter2\"\njwks = \"{}\"\n";
    std::fs::write(&file, settings).expect("a file");
    let refused = run(&["serve"], &environment).await;
    assert_eq!(refused.code, Some(2));
    for part in ["issuer 1", "secrt", "`secret`", "jwks: this is no key set"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("hunter2"));
}
