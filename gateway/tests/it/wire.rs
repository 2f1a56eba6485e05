//! The socket: the handshake and its refusals, framing, malformed input, close codes.

use std::time::Duration;

use protocol::Version;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite;

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway,
    token::{anon, signed_with, token},
    wait::{PATIENCE, wait_for},
};

async fn gateway() -> TestGateway {
    TestGateway::start(&TestDatabase::new(None).await).await
}

fn upgrade_headers() -> HeaderMap {
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    headers
        .into_iter()
        .map(|(name, value)| {
            (
                name.parse().expect("a name"),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

async fn refusal(gateway: &TestGateway, query: &str, headers: HeaderMap) -> (u16, String, String) {
    let url = gateway.url(&format!("/realtime/v1/websocket{query}"));
    let response = reqwest::Client::new()
        .get(url)
        .headers(headers)
        .send()
        .await
        .expect("a response");
    let content_type = response.headers().get("content-type").cloned();
    let content_type = content_type.map_or(String::new(), |value| {
        value.to_str().expect("text").to_owned()
    });
    (
        response.status().as_u16(),
        content_type,
        response.text().await.expect("a body"),
    )
}

#[tokio::test]
async fn a_connect_is_refused_with_the_status_and_the_text_of_the_protocol() {
    let gateway = gateway().await;
    let good = anon();
    let past = gateway::auth::now_unix() - 60;
    let no_kid = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln";
    let kid = "eyJhbGciOiJFUzI1NiIsImtpZCI6IksifQ.e30.c2ln";
    let none = "eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYW5vbiIsImV4cCI6OTk5OTk5OTk5OX0.";
    let signer = r#"Failed to generate JWT signer, check your JWT secret or JWKS configuration"#;
    let signer_kid = r#"Failed to generate JWT signer for key ID (kid) "K", check your JWT secret or JWKS configuration"#;
    let cases = [
        (String::new(), 401, "API key is missing"),
        ("?vsn=1.0.0".to_owned(), 401, "API key is missing"),
        ("?apikey=".to_owned(), 401, "API key is missing"),
        (
            "?apikey=nonsense".to_owned(),
            401,
            "The token provided is not a valid JWT",
        ),
        (
            format!("?apikey={}", token(json!({"role": "anon", "exp": past}))),
            401,
            "Token has expired",
        ),
        (
            format!("?apikey={}", token(json!({"sub": "x"}))),
            401,
            "Fields `role` and `exp` are required in JWT",
        ),
        (
            format!("?apikey={}", token(json!({"role": "anon", "exp": null}))),
            401,
            "Fields `role` and `exp` are required in JWT",
        ),
        (
            format!(
                "?apikey={}",
                signed_with(
                    json!({"role": "anon"}),
                    "another secret, which is not the gateway's"
                )
            ),
            401,
            "Failed to validate JWT signature",
        ),
        (format!("?apikey={no_kid}"), 401, signer),
        (format!("?apikey={kid}"), 401, signer_kid),
        (format!("?apikey={none}"), 401, signer),
        (
            format!(
                "?apikey={}",
                token(json!({"role": "anon", "exp": "9999999999"}))
            ),
            500,
            "Error connecting to Realtime",
        ),
        (
            format!(
                "?apikey={}",
                token(json!({"role": "anon", "iat": "yesterday"}))
            ),
            500,
            "Error connecting to Realtime",
        ),
    ];
    for (query, status, message) in cases {
        let (got, content_type, body) = refusal(&gateway, &query, upgrade_headers()).await;
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{query}: {body}"));
        assert_eq!(
            (got, &body),
            (status, &json!({"error": message})),
            "{query}"
        );
        assert_eq!(content_type, "application/json; charset=utf-8");
    }

    for vsn in ["1", "2.0", "3.0.0", "latest"] {
        let query = format!("?apikey={good}&vsn={vsn}");
        let (status, _, body) = refusal(&gateway, &query, upgrade_headers()).await;
        assert_eq!((status, &*body), (403, ""), "vsn {vsn}");
    }
    // The version comes before the token, the token before the upgrade.
    assert_eq!(
        refusal(&gateway, "?vsn=9.9.9", upgrade_headers()).await.0,
        403
    );
    assert_eq!(refusal(&gateway, "", HeaderMap::new()).await.0, 401);
    assert_eq!(
        refusal(&gateway, &format!("?apikey={good}"), HeaderMap::new())
            .await
            .0,
        400
    );

    // The header wins over the parameter.
    let mut headers = upgrade_headers();
    headers.insert("x-api-key", HeaderValue::from_static("nonsense"));
    assert_eq!(
        refusal(&gateway, &format!("?apikey={good}"), headers)
            .await
            .0,
        401
    );
}

#[tokio::test]
async fn one_socket_too_many_is_refused_and_a_place_that_is_given_back_is_free() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start_with(&database, &[("max_connections", "2")]).await;
    let first = Client::v2(&gateway, &anon()).await;
    let _second = Client::v2(&gateway, &anon()).await;
    let query = format!("?apikey={}", anon());
    let (status, _, body) = refusal(&gateway, &query, upgrade_headers()).await;
    assert_eq!(
        (status, &*body),
        (429, r#"{"error":"Too many connected users"}"#)
    );
    drop(first);
    let place = || async {
        match gateway
            .app
            .connections
            .load(std::sync::atomic::Ordering::Acquire)
        {
            1 => Ok(()),
            open => Err(format!("{open} are open")),
        }
    };
    wait_for("a free place", place).await;
    Client::v2(&gateway, &anon()).await.until_heartbeat().await;
}

#[tokio::test]
async fn the_bare_path_serves_as_well_and_the_token_may_come_in_a_header() {
    let gateway = gateway().await;
    // White space in a token is dropped. Neither a sub-protocol nor compression is agreed to.
    let spaced = anon().replacen('.', " . ", 1);
    let request = format!(
        "GET /socket/websocket?vsn=2.0.7&log_level=info&apikey=nonsense HTTP/1.1\r\nHost: x\r\nOrigin: https://example.com\r\n\
         Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: phoenix\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\nX-Api-Key: {spaced}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the request is sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8())
            .await
            .expect("an answer in time");
        head.push(byte.expect("a byte"));
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    assert!(
        !head.contains("sec-websocket-protocol") && !head.contains("sec-websocket-extensions"),
        "{head}"
    );
}

/// What came in `malformed` must leave no trace: the next answer is the heartbeat's.
async fn ignored(client: &mut Client, malformed: &str) {
    client.send_text(malformed).await;
    assert_eq!(client.until_heartbeat().await, [], "after {malformed:.100}");
}

#[tokio::test]
async fn malformed_text_is_dropped_without_an_answer() {
    let gateway = gateway().await;
    let deep = format!(
        "[null,\"1\",\"phoenix\",\"heartbeat\",{}{}]",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let long_ref = format!(
        "[null,\"{}\",\"phoenix\",\"heartbeat\",{{}}]",
        "r".repeat(300)
    );
    let mut v2 = Client::v2(&gateway, &anon()).await;
    for malformed in [
        "",
        " ",
        "hello",
        "{",
        "[",
        "null",
        "true",
        "17",
        "\"text\"",
        "[]",
        "[null,\"1\",\"phoenix\",\"heartbeat\"]",
        "[null,\"1\",\"phoenix\",\"heartbeat\",{}",
        "[null,\"1\",\"phoenix\",\"heartbeat\",{}]]",
        "[null,\"1\",7,\"heartbeat\",{}]",
        "[null,\"1\",\"phoenix\",null,{}]",
        "[null,{},\"phoenix\",\"heartbeat\",{}]",
        "{\"topic\":\"phoenix\",\"event\":\"heartbeat\",\"payload\":{},\"ref\":\"1\"}",
        "[null,\"1\",\"phoenix\",\"heartbeat\",{\"a\":\"\\ud800\"",
        &deep,
        &long_ref,
    ] {
        ignored(&mut v2, malformed).await;
    }
    let mut v1 = Client::v1(&gateway, &anon()).await;
    for malformed in [
        "",
        "not json",
        "{}",
        "{\"event\":\"heartbeat\",\"payload\":{},\"ref\":\"1\"}",
        "{\"topic\":\"phoenix\",\"payload\":{},\"ref\":\"1\"}",
        "{\"topic\":\"phoenix\",\"event\":\"heartbeat\",\"ref\":\"1\"}",
        "{\"topic\":\"phoenix\",\"event\":\"heartbeat\",\"payload\":{}}",
        "{\"topic\":null,\"event\":\"heartbeat\",\"payload\":{},\"ref\":\"1\"}",
        "[null,\"1\",\"phoenix\",\"heartbeat\",{}]",
    ] {
        ignored(&mut v1, malformed).await;
    }
}

#[tokio::test]
async fn malformed_binary_is_dropped_without_an_answer() {
    let gateway = gateway().await;
    let mut v2 = Client::v2(&gateway, &anon()).await;
    let channel = v2
        .joined(
            "room",
            json!({"broadcast": {"self": true, "ack": true}, "presence": {"enabled": false}}),
        )
        .await;
    let push =
        |sizes: [u8; 5], encoding: u8, rest: &[u8]| [&[3], &sizes[..], &[encoding], rest].concat();
    let topic: &[u8] = channel.topic.as_bytes();
    for malformed in [
        vec![],
        vec![3],
        vec![3, 0, 0, 13, 1],
        vec![9, 0, 0, 0, 0, 0, 0],
        // Kinds of plain Phoenix clients, which SDKs could not read.
        [
            &[0, 1, 1, 13, 9][..],
            b"11",
            topic,
            b"broadcast",
            b"\x01\x02",
        ]
        .concat(),
        [&[2, 13, 1][..], topic, b"e\x01"].concat(),
        // Shorter than the header says; JSON that is none; a payload that is not UTF-8; metadata that is no JSON.
        push([0, 0, 13, 200, 0], 1, topic),
        push([0, 0, 13, 1, 0], 1, &[topic, b"e{\"a\":"].concat()),
        push([0, 0, 13, 1, 0], 1, &[topic, b"e\"\xff\""].concat()),
        push([0, 0, 13, 1, 3], 1, &[topic, b"ex=y{}"].concat()),
    ] {
        let shown = format!("{malformed:?}");
        v2.send_binary(malformed).await;
        assert_eq!(v2.until_heartbeat().await, [], "after {shown}");
    }
    let mut v1 = Client::v1(&gateway, &anon()).await;
    for malformed in [&[3, 0, 0, 0, 0, 0, 0][..], b"\xff\xff", b"[1]"] {
        v1.send_binary(malformed).await;
        assert_eq!(v1.until_heartbeat().await, []);
    }
    // JSON in a binary frame is a message of version 1.
    v1.send_binary(*br#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"b"}"#)
        .await;
    assert_eq!(v1.reply("b").await.payload["status"], "ok");
}

#[tokio::test]
async fn what_is_unusual_but_valid_is_understood() {
    let gateway = gateway().await;
    let mut v2 = Client::v2(&gateway, &anon()).await;
    // More than five items; refs that are numbers or null; a payload that nobody reads.
    v2.send_text("[null,\"a\",\"phoenix\",\"heartbeat\",{},1,2]")
        .await;
    assert_eq!(v2.reply("a").await.payload["status"], "ok");
    v2.send_text(" [ null , 7 , \"phoenix\" , \"heartbeat\" , null ] ")
        .await;
    let reply = v2
        .expect("a reply", |message| message.event == "phx_reply")
        .await;
    assert_eq!((reply.reference, reply.join_ref), (json!(7), Value::Null));
    v2.send_text("[\"x\",null,\"phoenix\",\"heartbeat\",\"text\"]")
        .await;
    let reply = v2
        .expect("a reply", |message| message.event == "phx_reply")
        .await;
    assert_eq!(
        (reply.reference, reply.join_ref),
        (Value::Null, Value::Null)
    );

    let mut v1 = Client::v1(&gateway, &anon()).await;
    v1.send_text(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":null,"more":1}"#)
        .await;
    let reply = v1
        .expect("a reply", |message| message.event == "phx_reply")
        .await;
    assert_eq!(reply.reference, Value::Null);
}

#[tokio::test]
async fn pings_are_answered_and_a_close_is_returned() {
    let gateway = gateway().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    use futures::{SinkExt, StreamExt};
    let ping = tungstenite::Message::Ping(b"abc".to_vec().into());
    client.socket.send(ping).await.expect("the ping is sent");
    let pong = client
        .socket
        .next()
        .await
        .expect("a frame")
        .expect("a pong");
    assert_eq!(pong, tungstenite::Message::Pong(b"abc".to_vec().into()));
    client.socket.close(None).await.expect("the close is sent");
    assert_eq!(client.next().await, Incoming::Closed(None));
}

#[tokio::test]
async fn a_message_that_is_too_big_closes_with_1009() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start_with(&database, &[("max_message_bytes", "20000")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let padded = |size: usize| {
        let frame = r#"[null,"p","phoenix","heartbeat",{"pad":""}]"#;
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(size - frame.len())))
    };
    client.send_text(padded(20_000)).await;
    assert_eq!(client.reply("p").await.payload["status"], "ok");
    client.send_text(padded(20_001)).await;
    assert_eq!(client.closed().await, Some(1009));
}

#[tokio::test]
async fn text_that_is_not_utf_8_closes_with_1007_and_a_broken_frame_with_1002() {
    let gateway = gateway().await;
    // Masked with zeros: the payload as it is.
    for (frame, code) in [
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe][..], 1007),
        // A reserved opcode; a frame without a mask.
        (&[0x83, 0x80, 0, 0, 0, 0][..], 1002),
        (&[0x81, 0x02, b'h', b'i'][..], 1002),
    ] {
        let mut client = Client::v2(&gateway, &anon()).await;
        client
            .socket
            .get_mut()
            .write_all(frame)
            .await
            .expect("bytes are sent");
        assert_eq!(client.closed().await, Some(code), "{frame:?}");
    }
}

#[tokio::test]
async fn a_silent_client_is_closed_with_1000_and_a_ping_counts_as_a_sign_of_life() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start_with(&database, &[("idle_timeout", "600ms")]).await;
    let begun = tokio::time::Instant::now();
    let mut silent = Client::v2(&gateway, &anon()).await;
    let mut alive = Client::v2(&gateway, &anon()).await;
    let pinging = async {
        use futures::SinkExt;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let ping = tungstenite::Message::Ping(Vec::new().into());
            alive.socket.send(ping).await.expect("the ping is sent");
        }
    };
    let code = tokio::select! {
        code = silent.closed() => code,
        () = pinging => None,
    };
    assert_eq!(code, Some(1000));
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(alive.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_gateway_that_stops_closes_with_1012_and_accepts_nobody() {
    let gateway = gateway().await;
    let mut clients = Vec::new();
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &anon()).await;
        client.joined("room", json!({})).await;
        clients.push(client);
    }
    let ((), codes) = tokio::join!(gateway.stop(), async {
        let mut codes = Vec::new();
        for client in &mut clients {
            codes.push(client.closed().await);
        }
        codes
    });
    assert_eq!(codes, [Some(1012), Some(1012)]);
    assert!(TcpStream::connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_closed_with_a_code_of_its_own_and_others_go_on() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start_with(&database, &[("outbox_bytes", "256KiB")]).await;
    let quiet = json!({"presence": {"enabled": false}});
    let mut stuck = Client::v2(&gateway, &anon()).await;
    stuck.joined("flood", quiet.clone()).await;
    let mut reader = Client::v2(&gateway, &anon()).await;
    let readers = reader.joined("flood", quiet.clone()).await;
    let mut sender = Client::v2(&gateway, &anon()).await;
    let senders = sender
        .joined(
            "flood",
            json!({"presence": {"enabled": false}, "broadcast": {"ack": true}}),
        )
        .await;

    // Enough for the buffers of the kernel on both sides and then some; one at a time, so that whoever reads keeps up. Not for
    // long: whoever is closed has a few seconds to read on.
    let text = "x".repeat(100_000);
    for n in 0..40 {
        let payload = json!({"type": "broadcast", "event": "e", "payload": {"n": n, "text": text}});
        let reference = sender.push(&senders, "broadcast", payload).await;
        assert_eq!(sender.reply(&reference).await.payload["status"], "ok");
        let got = reader.event(&readers, "broadcast").await;
        assert_eq!(got.payload["payload"]["n"], n);
    }
    // What it had not read yet comes first, without a gap; then the end.
    let mut next = 0;
    let code = loop {
        match stuck.next().await {
            Incoming::Message(message) => {
                assert_eq!(message.payload["payload"]["n"], next);
                next += 1;
            }
            Incoming::Binary(_) => panic!("nobody sent bytes"),
            Incoming::Closed(code) => break code,
        }
    };
    assert_eq!(code, Some(4008));
    assert!(next < 40);
}
