//! Who is kept out before there is a socket: by a limit, by the website of a script, by a header that is too long.

mod sockets;

use reqwest::{
    Method, Response, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{Client, TestDatabase, TestGateway, token::anon, wait::PATIENCE};

async fn gateway(settings: &[(&str, &str)]) -> TestGateway {
    TestGateway::start_with(&TestDatabase::new(None).await, settings).await
}

/// A browser's opening handshake, or that of something else if there is no origin.
async fn handshake(gateway: &TestGateway, token: &str, origin: Option<&str>) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if let Some(origin) = origin {
        headers.insert("origin", origin.parse().expect("a header's value"));
    }
    let url = gateway.url(&format!("/realtime/v1/websocket?vsn=2.0.0&apikey={token}"));
    reqwest::Client::new()
        .get(url)
        .headers(headers)
        .send()
        .await
        .expect("a response")
}

async fn refused(response: Response) -> (u16, String) {
    let status = response.status();
    assert_ne!(status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(
        response.headers()["content-type"],
        "application/json; charset=utf-8"
    );
    assert_eq!(response.headers()["connection"], "close");
    let body: Value = response.json().await.expect("JSON");
    let keys: Vec<_> = body.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["error"]);
    let error = body["error"].as_str().expect("a text").to_owned();
    (status.as_u16(), error)
}

async fn preflight(gateway: &TestGateway, path: &str, origin: &str) -> Response {
    reqwest::Client::new()
        .request(Method::OPTIONS, gateway.url(path))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "apikey,authorization,content-type,x-client-info",
        )
        .send()
        .await
        .expect("a response")
}

async fn hits(gateway: &TestGateway, limit: &str) -> u64 {
    let page = reqwest::get(gateway.url("/metrics"))
        .await
        .expect("a response")
        .text()
        .await
        .expect("a body");
    let line = format!("tidings_limits_hit_total{{limit=\"{limit}\"}} ");
    page.lines()
        .find_map(|metric| metric.strip_prefix(&line))
        .map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn while_too_many_join_no_socket_is_opened_and_those_that_are_open_live_on() {
    let gateway = gateway(&[("max_joins_per_second", "1")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let before = hits(&gateway, "max_joins_per_second").await;
    let limits = &gateway.app.limits;
    while limits.socket(Instant::now()).join(Instant::now()).is_ok() {}

    // Also for a token that is not good: it is not even looked at.
    for token in [&*anon(), "nonsense"] {
        assert_eq!(
            refused(handshake(&gateway, token, None).await).await,
            (429, "Too many joins per second".to_owned())
        );
    }
    assert!(hits(&gateway, "max_joins_per_second").await >= before + 3);
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_full_gateway_refuses_before_it_looks_at_a_token_and_lets_the_connection_go() {
    let gateway = gateway(&[("max_connections", "1")]).await;
    let _only = Client::v2(&gateway, &anon()).await;
    let before = hits(&gateway, "max_connections").await;
    for token in [&*anon(), "nonsense"] {
        assert_eq!(
            refused(handshake(&gateway, token, None).await).await,
            (429, "Too many connected users".to_owned())
        );
    }
    assert!(hits(&gateway, "max_connections").await >= before + 2);

    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    let request = format!(
        "GET /socket/websocket?apikey={} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        anon()
    );
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the request is sent");
    // Up to the end of the connection, which is ours to wait for.
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("the connection is closed")
        .expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.ends_with(r#"{"error":"Too many connected users"}"#));
}

#[tokio::test]
async fn only_the_websites_of_the_list_may_connect() {
    let list = "https://chat.example.org, https://*.apps.example.org,http://localhost:3000";
    let gateway = gateway(&[("allowed_origins", list)]).await;
    let token = anon();
    for origin in [
        None,
        Some("https://chat.example.org"),
        Some("https://one.apps.example.org"),
        Some("http://localhost:3000"),
    ] {
        let status = handshake(&gateway, &token, origin).await.status();
        assert_eq!(status, StatusCode::SWITCHING_PROTOCOLS, "{origin:?}");
    }
    for origin in [
        "https://evil.example",
        "http://chat.example.org",
        "https://chat.example.org:8443",
        "https://a.one.apps.example.org",
        "http://localhost:3001",
        "null",
    ] {
        // A good token or a bad one: a strange website learns nothing about it.
        for token in [&*token, "nonsense"] {
            let (status, error) = refused(handshake(&gateway, token, Some(origin)).await).await;
            assert_eq!(status, 403, "{origin}");
            assert!(error.contains("allowed_origins"), "{error}");
        }
    }
}

#[tokio::test]
async fn scripts_of_listed_websites_alone_may_read_answers() {
    let gateway = gateway(&[("allowed_origins", "https://chat.example.org")]).await;
    let allowed = "access-control-allow-origin";
    for path in [
        "/rest/v1/chat_messages",
        "/api/presence/room",
        "/api/ping",
        "/api/broadcast",
    ] {
        let good = preflight(&gateway, path, "https://chat.example.org").await;
        assert_eq!(good.status(), 200, "{path}");
        assert_eq!(good.headers()[allowed], "https://chat.example.org");
        let other = preflight(&gateway, path, "https://evil.example").await;
        assert_eq!(other.headers().get(allowed), None, "{path}");
        // Or a cache would give the one the answer that the other got.
        let vary = other.headers()["vary"].to_str().expect("text").to_owned();
        assert!(vary.to_lowercase().contains("origin"), "{vary}");
    }
    for (origin, expected) in [
        ("https://chat.example.org", Some("https://chat.example.org")),
        ("https://evil.example", None),
    ] {
        let response = reqwest::Client::new()
            .get(gateway.url("/api/ping"))
            .header("origin", origin)
            .send()
            .await
            .expect("a response");
        let got = response.headers().get(allowed);
        assert_eq!(got.map(|value| value.to_str().expect("text")), expected);
    }
}

#[tokio::test]
async fn every_endpoint_answers_the_preflight_of_the_sdks() {
    let gateway = gateway(&[]).await;
    for path in [
        "/rest/v1/chat_messages",
        "/realtime/v1/api/presence/room",
        "/api/presence/room",
        "/realtime/v1/api/ping",
        "/api/ping",
        "/realtime/v1/api/broadcast?apikey=x&vsn=2.0.0",
        "/api/broadcast",
        "/api/broadcast/room/events/hello",
    ] {
        let response = preflight(&gateway, path, "https://anywhere.example").await;
        assert_eq!(response.status(), 200, "{path}");
        let header = |name: &str| {
            let value = response.headers()[name].to_str().expect("text");
            value.to_lowercase()
        };
        assert_eq!(header("access-control-allow-origin"), "*", "{path}");
        assert!(header("access-control-allow-methods").contains("post"));
        let headers = header("access-control-allow-headers");
        for name in ["apikey", "authorization", "content-type", "x-client-info"] {
            assert!(headers.contains(name), "{path}: {headers}");
        }
    }
}

#[tokio::test]
async fn a_header_that_is_too_long_is_refused_unless_it_is_a_token_or_a_cookie() {
    let gateway = gateway(&[]).await;
    let ping = |name: &'static str, length: usize| {
        reqwest::Client::new()
            .get(gateway.url("/api/ping"))
            .header(name, "x".repeat(length))
            .send()
    };
    for (name, length, status) in [
        ("x-trace", 4096, 200),
        ("x-trace", 4097, 431),
        ("user-agent", 5000, 431),
        ("cookie", 5000, 200),
        ("authorization", 5000, 200),
        // More than a whole head may be.
        ("cookie", 70_000, 431),
    ] {
        let response = ping(name, length).await.expect("a response");
        assert_eq!(response.status().as_u16(), status, "{name}: {length}");
    }
    let body: Value = ping("x-trace", 5000)
        .await
        .expect("a response")
        .json()
        .await
        .expect("JSON");
    assert_eq!(
        body,
        json!({"error": "The header x-trace is longer than 4096 bytes"})
    );
}
