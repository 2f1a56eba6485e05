//! A crowd against small servers of the tests' own.

use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::dialect::plain::Plain;
use super::split::text_header;
use super::*;
use crate::frame::Label;

const RUN: u32 = 9;

fn message(job: u64, number: u64) -> Vec<u8> {
    let label = Label {
        run: RUN,
        writer: 0,
        job,
        number,
    };
    let text = json!({"record": {"metadata": label, "content": "x".repeat(400)}}).to_string();
    [text_header(text.len()), text.into_bytes()].concat()
}

/// Accepts websockets, and says hello in the same packet as the answer to the handshake.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
    let request = String::from_utf8(request).unwrap();
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    let accept = derive_accept_key(key.as_bytes());
    let answer =
        format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    let hello = [text_header(5), b"hello".to_vec()].concat();
    stream
        .write_all(&[answer.into_bytes(), hello].concat())
        .await
        .unwrap();
    stream
}

async fn gather(readers: usize) -> (Crowd, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let meter = Meter::new(Duration::from_millis(1), 1000, Duration::ZERO);
    meter.start_at(Instant::now());
    let terms = Terms {
        authority: listener.local_addr().unwrap().to_string(),
        run: RUN,
        writers: 1,
        meter: Arc::new(meter),
        connecting: 8,
    };
    let dialects = (0..readers).map(|_| {
        let dialect: Box<dyn Dialect> = Box::new(Plain::new("/"));
        Ok(dialect)
    });
    let server = async {
        let mut streams = Vec::new();
        for _ in 0..readers {
            streams.push(accept(&listener).await);
        }
        streams
    };
    let (crowd, streams) = tokio::join!(Crowd::gather(terms, dialects), server);
    (crowd.unwrap(), streams)
}

async fn wait(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < deadline, "it does not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_everything() {
    let (crowd, mut streams) = gather(5).await;
    let all: Vec<u8> = (0..300).flat_map(|job| message(job, job + 1)).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        // Cut somewhere else for each.
        for piece in all.chunks(20_000 + index * 777) {
            stream.write_all(piece).await.unwrap();
        }
    }
    wait(|| crowd.deliveries() == 1500).await;
    let seen = crowd.disperse().await.unwrap();
    assert_eq!(seen.faults(1500), Vec::<String>::new());
    assert_eq!(seen.from_due.len(), 1500);
    assert!(
        seen.sample
            .is_some_and(|frame| frame.starts_with(b"{\"record\""))
    );
    // Who leaves says so: a masked frame that closes.
    let mut goodbye = [0; 2];
    streams[0].read_exact(&mut goodbye).await.unwrap();
    assert_eq!(goodbye, [0x88, 0x82]);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_counted_and_an_end_is_told() {
    let (crowd, mut streams) = gather(3).await;
    for number in [1, 2, 2, 4] {
        streams[0]
            .write_all(&message(number, number))
            .await
            .unwrap();
    }
    // A ping is answered; the end comes together with the last bytes.
    streams[1].write_all(&[0x89, 2, b'h', b'i']).await.unwrap();
    let mut pong = [0; 8];
    streams[1].read_exact(&mut pong).await.unwrap();
    assert_eq!(pong[..2], [0x8a, 0x82]);
    let close = [&[0x88, 5][..], &4008_u16.to_be_bytes(), b"bye"].concat();
    streams[1].write_all(&close).await.unwrap();
    streams.remove(2);
    wait(|| crowd.ended() == 2 && crowd.deliveries() == 4).await;
    let seen = crowd.disperse().await.unwrap();
    assert_eq!((seen.doubled, seen.missed), (1, 1));
    let reasons: Vec<&str> = seen.ends.keys().map(String::as_str).collect();
    assert_eq!(
        reasons,
        [
            "the connection ended",
            "the server closed the connection: 4008 bye"
        ]
    );
}
