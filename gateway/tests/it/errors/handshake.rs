//! Refusals at the handshake.

use super::*;

#[tokio::test]
async fn every_refused_handshake_is_on_the_page() {
    let world = gateway(&[("allowed_origins", "https://chat.example.org")]).await;
    walk("At the handshake", [0, 1], async |[status, text]| {
        Box::pin(refused(&world, status, text)).await
    })
    .await;
}

async fn refused(world: &TestGateway, status: &str, text: &str) -> [String; 2] {
    let whole = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let handshake =
        async |gateway: &TestGateway, query: &str, without: &str, origin: Option<&str>| {
            let url = gateway.url(&format!("/realtime/v1/websocket?{query}"));
            let mut request = reqwest::Client::new().get(url);
            for (name, value) in whole.iter().filter(|(name, _)| *name != without) {
                request = request.header(*name, *value);
            }
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            answer(request).await
        };
    let good = format!("apikey={}", anon());
    let bad = |what| format!("apikey={}", wrong_token(what));
    let (got, body) = match text {
        "this is a websocket: `Connection: Upgrade` and `Upgrade: websocket` are wanted" => {
            handshake(world, &good, "upgrade", None).await
        }
        "`Sec-WebSocket-Version: 13` is wanted" => {
            handshake(world, &good, "sec-websocket-version", None).await
        }
        "`Sec-WebSocket-Key` is wanted" => handshake(world, &good, "sec-websocket-key", None).await,
        "API key is missing" => handshake(world, "", "", None).await,
        "The token provided is not a valid JWT" => {
            handshake(world, &bad("malformed"), "", None).await
        }
        "Token has expired" => handshake(world, &bad("expired"), "", None).await,
        "Fields `role` and `exp` are required in JWT" => {
            handshake(world, &bad("incomplete"), "", None).await
        }
        "Failed to validate JWT signature" => handshake(world, &bad("forged"), "", None).await,
        "Failed to generate JWT signer for key ID (kid) \"…\", check your JWT secret or JWKS configuration" => {
            handshake(world, &bad("unknown key"), "", None).await
        }
        "Failed to generate JWT signer, check your JWT secret or JWKS configuration" => {
            handshake(world, &bad("no key"), "", None).await
        }
        "This website may not connect: its origin is not in the gateway's setting allowed_origins" => {
            handshake(world, &good, "", Some("https://evil.example")).await
        }
        "" => handshake(world, &format!("{good}&vsn=3.0.0"), "", None).await,
        "Too many connected users" => {
            let full = gateway(&[("max_connections", "1")]).await;
            let _only = Client::v2(&full, &anon()).await;
            handshake(&full, &good, "", None).await
        }
        "Too many joins per second" => {
            let busy = gateway(&[("max_joins_per_second", "1")]).await;
            let now = tokio::time::Instant::now();
            while busy.app.limits.socket(now).join(now).is_ok() {}
            handshake(&busy, &good, "", None).await
        }
        "Error connecting to Realtime" => handshake(world, &bad("other claim"), "", None).await,
        "Server is stopping" => {
            // It stops only when its sockets have been told, each at a moment of its own.
            let stopping = gateway(&[("drain_spread", "20s"), ("drain", "30s")]).await;
            let mut sockets = Vec::new();
            for _ in 0..8 {
                sockets.push(Client::v2(&stopping, &anon()).await);
            }
            stop(&stopping);
            stopping.app.lifecycle.soft().cancelled().await;
            let answer = handshake(&stopping, &good, "", None).await;
            stopping.app.lifecycle.stop_now();
            answer
        }
        other => panic!("no provoker for {status} {other:?}"),
    };
    let told = match &*got {
        "400" => body.strip_suffix('\n').expect("a line").to_owned(),
        _ if body.is_empty() => body,
        _ => {
            let error: Value = serde_json::from_str(&body).expect("JSON");
            let text = error["error"].as_str().expect("a text").to_owned();
            assert_eq!(body, json!({ "error": text }).to_string());
            text
        }
    };
    [got, told]
}
