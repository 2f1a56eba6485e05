//! The URL, its parameters and headers, and what the token of the connect is good for (protocol §1).

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use gateway::auth::now_unix;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::support::{
    Client, TestDatabase, TestGateway,
    token::{anon, authenticated, token},
    wait::PATIENCE,
};

async fn gateway() -> TestGateway {
    TestGateway::start(&TestDatabase::new(None).await).await
}

/// A socket at this path, or the status of the refusal.
async fn open(
    gateway: &TestGateway,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, (u16, String)> {
    let url = format!("ws://{}{path}", gateway.address);
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("a header's value");
        request.headers_mut().insert(*name, value);
    }
    let stream = TcpStream::connect(gateway.address).await;
    let stream = stream.expect("a connection");
    let answer = timeout(PATIENCE, Box::pin(client_async(request, stream))).await;
    match answer.expect("an answer in time") {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let status = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            Err((status, String::from_utf8(body).expect("text")))
        }
        Err(error) => panic!("{path}: {error}"),
    }
}

/// The first text that comes back.
async fn answer(socket: &mut WebSocketStream<TcpStream>, text: &str) -> String {
    let sent = socket.send(Message::text(text)).await;
    sent.expect("the frame is sent");
    let next = timeout(PATIENCE, socket.next()).await;
    match next.expect("an answer in time") {
        Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
        other => panic!("no text: {other:?}"),
    }
}

#[tokio::test]
async fn without_a_version_it_is_1_0_0_and_parameters_that_nobody_knows_are_ignored() {
    let gateway = gateway().await;
    let object = (
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#,
        r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}"#,
    );
    let array = (
        r#"[null,"1","phoenix","heartbeat",{}]"#,
        r#"[null,"1","phoenix","phx_reply",{"status":"ok","response":{}}]"#,
    );
    for (query, (said, expected)) in [
        ("", object),
        ("&vsn=1.0.0&log_level=nonsense", object),
        (
            "&vsn=1.0.9&eventsPerSecond=10&x=%FF&apikeys=no&log_level=",
            object,
        ),
        ("&vsn=2.0.0&log_level=warning", array),
        ("&vsn=2.0.12&log_level=error&x", array),
    ] {
        for path in ["/realtime/v1/websocket", "/socket/websocket"] {
            let path = format!("{path}?apikey={}{query}", anon());
            let mut socket = open(&gateway, &path, &[]).await.expect("a socket");
            assert_eq!(answer(&mut socket, said).await, expected, "{path}");
        }
    }
    for vsn in ["", "1", "1.0", "1.1.0", "2.0", "2.1.0", "3.0.0", "1.0.0.0"] {
        let path = format!("/realtime/v1/websocket?apikey={}&vsn={vsn}", anon());
        let refused = open(&gateway, &path, &[]).await.err();
        assert_eq!(refused, Some((403, String::new())), "{vsn}");
    }
}

#[tokio::test]
async fn no_other_header_than_x_api_key_opens_a_socket() {
    let gateway = gateway().await;
    let (key, path) = (anon(), "/realtime/v1/websocket?vsn=2.0.0");
    let bearer = format!("Bearer {key}");
    let headers = [("apikey", &*key), ("authorization", &*bearer)];
    let missing = (401, r#"{"error":"API key is missing"}"#.to_owned());
    assert_eq!(open(&gateway, path, &headers).await.err(), Some(missing));
    let headers = [("x-api-key", &*key)];
    assert!(open(&gateway, path, &headers).await.is_ok());
}

/// The greatest message of the protocol, with the settings as they come.
#[tokio::test]
async fn a_message_has_at_most_5_000_000_bytes() {
    let gateway = gateway().await;
    let padded = |size: usize| {
        let frame = r#"[null,"p","phoenix","heartbeat",{"pad":""}]"#;
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(size - frame.len())))
    };
    // The last one is still being sent when it is closed, and is told why all the same.
    for (size, fits) in [(5_000_000, true), (5_000_001, false), (30_000_000, false)] {
        let mut client = Client::v2(&gateway, &anon()).await;
        client.send_text(padded(size)).await;
        match fits {
            true => assert_eq!(client.reply("p").await.payload["status"], "ok"),
            false => assert_eq!(client.closed().await, Some(1009)),
        }
    }
}

#[tokio::test]
async fn the_token_of_the_connect_is_not_looked_at_again() {
    let gateway = gateway().await;
    let short = token(json!({"role": "anon", "exp": now_unix() + 4}));
    let mut client = Client::v2(&gateway, &short).await;
    let config = json!({"broadcast": {"self": true}, "presence": {"enabled": false}});
    let lasting = json!({"config": config, "access_token": authenticated("somebody")});
    let (kept, reply) = client.join("kept", lasting.clone()).await;
    assert_eq!(reply["status"], "ok");
    let (ending, reply) = client.join("ending", json!({"config": config})).await;
    assert_eq!(reply["status"], "ok");
    // It has the token of the connect, and ends with it.
    let told = client.event(&ending, "system").await.payload;
    let message = told["message"].as_str().expect("text").to_owned();
    assert!(message.starts_with("Token has expired "), "{message}");
    client.event(&ending, "phx_close").await;

    // The socket is as good as before, for those who bring a token of their own.
    let said = json!({"type": "broadcast", "event": "e", "payload": {}});
    client.push(&kept, "broadcast", said.clone()).await;
    assert_eq!(client.event(&kept, "broadcast").await.payload, said);
    assert_eq!(client.join("new", lasting).await.1["status"], "ok");
    let (_, reply) = client.join("ending", json!({"config": config})).await;
    let reason = reply["response"]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("InvalidJWTToken: Token has expired "));
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn claims_that_no_setting_names_are_not_looked_at() {
    let gateway = gateway().await;
    let odd = token(json!({
        "role": "anon", "nbf": now_unix() + 1000, "aud": ["elsewhere"], "iss": "https://elsewhere.example", "sub": 7, "jti": null,
    }));
    let mut client = Client::v2(&gateway, &odd).await;
    let join = json!({"config": {}, "access_token": odd});
    assert_eq!(client.join("room", join).await.1["status"], "ok");
}

#[tokio::test]
async fn nothing_is_sent_before_the_client_has_said_something() {
    let gateway = gateway().await;
    let path = format!("/realtime/v1/websocket?apikey={}", anon());
    let mut socket = open(&gateway, &path, &[]).await.expect("a socket");
    // What is said to others does not count.
    let mut other = Client::v2(&gateway, &anon()).await;
    let config = json!({"broadcast": {"ack": true}});
    let channel = other.joined("room", config).await;
    let said = json!({"type": "broadcast", "event": "e", "payload": {}});
    let reference = other.push(&channel, "broadcast", said).await;
    other.reply(&reference).await;
    let early = timeout(Duration::from_millis(200), socket.next()).await;
    assert!(early.is_err(), "{early:?}");
}
