//! An issuer whose keys are fetched: it rotates them, fails, hangs, and answers with anything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::issuers::Signer;
use super::*;
use crate::auth::jwks::Remote;
use crate::auth::refresh::Timing;
use crate::lifecycle::Drain;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(100);

#[derive(Clone)]
enum Answer {
    Keys(Value),
    Status(StatusCode),
    Text(String),
    Elsewhere,
    Never,
}

struct Server {
    answer: Mutex<Answer>,
    asked: AtomicU32,
}

impl Server {
    async fn start(answer: Answer) -> (Arc<Server>, String) {
        let server = Arc::new(Server {
            answer: Mutex::new(answer),
            asked: AtomicU32::new(0),
        });
        let router = Router::new()
            .route("/jwks", get(Server::handle))
            .with_state(server.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, url)
    }

    async fn handle(State(server): State<Arc<Server>>) -> Response {
        server.asked.fetch_add(1, Ordering::Relaxed);
        let answer = server.answer.lock().unwrap().clone();
        match answer {
            Answer::Keys(keys) => json!({"keys": keys}).to_string().into_response(),
            Answer::Status(status) => status.into_response(),
            Answer::Text(text) => text.into_response(),
            Answer::Elsewhere => (StatusCode::FOUND, [(header::LOCATION, "/jwks")]).into_response(),
            Answer::Never => std::future::pending().await,
        }
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A verifier that knows nothing but this issuer's keys, and has asked for them once.
async fn verifier(url: &str, gap: Duration) -> (Verifier, Lifecycle) {
    let timing = Timing {
        every: LONG,
        after_failure: LONG,
        gap,
        wait: 3 * SHORT,
    };
    let mut verifier = super::verifier(&[]);
    verifier.own = verifier
        .own
        .with_remote(Remote::with_timing("test", url, timing, SHORT));
    let lifecycle = Lifecycle::new(Drain::within(LONG));
    verifier.start_fetching(&lifecycle).await;
    (verifier, lifecycle)
}

fn claims() -> Value {
    json!({"role": "anon", "exp": NOW + 1})
}

#[tokio::test]
async fn a_new_key_is_learned_and_an_old_one_forgotten() {
    let (first, second) = (Signer::new("1"), Signer::new("2"));
    let (server, url) = Server::start(Answer::Keys(json!([first.jwk()]))).await;
    let (verifier, _lifecycle) = verifier(&url, Duration::ZERO).await;
    let (old, new) = (first.token(claims()), second.token(claims()));
    assert!(verifier.verify(&old, NOW).is_ok());
    assert!(!verifier.may_learn(&old), "it is known");

    let mut changes = verifier.changes();
    changes.mark_unchanged();
    server.answers(Answer::Keys(json!([second.jwk()])));
    assert_eq!(
        verifier.verify(&new, NOW).unwrap_err(),
        TokenError::Signer {
            kid: Some("2".to_owned())
        }
    );
    assert!(verifier.may_learn(&new));
    // What no published key could check is not asked about.
    let unsigned = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": "2"}).to_string());
    let unsigned = format!("{unsigned}.{}", new.split_once('.').unwrap().1);
    assert!(!verifier.may_learn(&unsigned));
    verifier.learn(&new).await;
    assert!(verifier.verify(&new, NOW).is_ok());
    assert!(changes.has_changed().unwrap());
    assert!(verifier.still_valid(&new) && !verifier.still_valid(&old));
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn an_issuer_that_fails_takes_no_key_away() {
    let (known, unknown) = (Signer::new("1"), Signer::new("2"));
    let (server, url) = Server::start(Answer::Keys(json!([known.jwk()]))).await;
    let (verifier, _lifecycle) = verifier(&url, Duration::ZERO).await;
    let (good, bad) = (known.token(claims()), unknown.token(claims()));
    let secret = json!({"kty": "oct", "kid": "2", "k": "c2VjcmV0"});
    for (asked, answer) in [
        Answer::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Answer::Status(StatusCode::NOT_FOUND),
        Answer::Text("<html>sign in</html>".to_owned()),
        Answer::Text("{}".to_owned()),
        Answer::Text(format!(
            "{{\"keys\":[],\"x\":\"{}\"}}",
            "x".repeat(300 * 1024)
        )),
        Answer::Elsewhere,
        Answer::Keys(json!([secret])),
        Answer::Never,
    ]
    .into_iter()
    .enumerate()
    {
        server.answers(answer);
        verifier.learn(&bad).await;
        assert_eq!(server.asked() as usize, asked + 2);
        assert!(verifier.verify(&good, NOW).is_ok());
        assert!(verifier.verify(&bad, NOW).is_err());
    }
    // It is back, and has forgotten everybody on purpose.
    server.answers(Answer::Keys(json!([])));
    verifier.learn(&bad).await;
    assert!(!verifier.still_valid(&good));
}

#[tokio::test]
async fn unknown_keys_are_asked_about_once_in_a_while_however_many_come() {
    let (known, unknown) = (Signer::new("1"), Signer::new("2"));
    let (server, url) = Server::start(Answer::Keys(json!([known.jwk()]))).await;
    let (verifier, _lifecycle) = verifier(&url, LONG).await;
    let bad = unknown.token(claims());
    assert!(!verifier.may_learn(&bad));
    for _ in 0..100 {
        assert!(verifier.verify_or_learn(&bad).await.is_err());
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_is_found_later() {
    let signer = Signer::new("1");
    let (server, url) = Server::start(Answer::Never).await;
    let (verifier, _lifecycle) = verifier(&url, Duration::ZERO).await;
    let token = signer.token(json!({"role": "anon", "exp": now_unix() + 60}));
    assert!(verifier.verify_or_learn(&token).await.is_err());
    server.answers(Answer::Keys(json!([signer.jwk()])));
    assert!(verifier.verify_or_learn(&token).await.is_ok());
}
