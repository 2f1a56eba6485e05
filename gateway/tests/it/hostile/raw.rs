//! A websocket of which every byte is the attacker's choice.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::support::wait::PATIENCE;

/// Not final; further frames of the message follow.
pub(super) const MORE: u8 = 0;
pub(super) const FINAL: u8 = 0x80;
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// A frame, masked with zeros: its payload stands there as it is.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = announced(first, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

/// The header of a frame that claims to be so long.
pub(super) fn announced(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..126 => header.push(0x80 | length as u8),
        126..0x1_0000 => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend([0; 4]);
    header
}

pub(super) fn request(token: &str) -> String {
    format!(
        "GET /realtime/v1/websocket?vsn=2.0.0&apikey={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
}

pub(super) struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Upgraded, with an offer to compress.
    pub(super) async fn connect(address: SocketAddr, token: &str) -> Raw {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = request(token);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let declined = !head.to_lowercase().contains("sec-websocket-extensions");
        assert!(declined, "{head}");
        Raw { stream }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("bytes are sent");
    }

    /// Waits for the answer to a ping.
    pub(super) async fn pong(&mut self) {
        let pong = async {
            while let Some((first, _)) = read_frame(&mut self.stream).await {
                if first == FINAL | PONG {
                    return;
                }
            }
            panic!("closed without an answer");
        };
        timeout(PATIENCE, pong).await.expect("a pong in time");
    }

    /// The payloads of the next replies; other messages are dropped.
    pub(super) async fn replies(&mut self, count: usize, replies: &mut Vec<Value>) {
        let expected = replies.len() + count;
        let reading = async {
            while replies.len() < expected {
                let (first, payload) = read_frame(&mut self.stream).await.expect("a frame");
                if first != FINAL | TEXT {
                    continue;
                }
                let mut message: Value = serde_json::from_slice(&payload).expect("a message");
                if message[3] == "phx_reply" {
                    replies.push(message[4].take());
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("replies in time");
    }

    pub(super) fn split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.stream.into_split()
    }

    /// The code with which the gateway closes; 0 for an end without.
    pub(super) async fn closed(&mut self) -> u16 {
        closed(&mut self.stream).await
    }
}

/// The code with which the gateway closes; 0 for an end without.
pub(super) async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> u16 {
    let closed = async {
        loop {
            match read_frame(stream).await {
                Some((first, payload)) if first == FINAL | CLOSE => {
                    let code = payload.first_chunk::<2>();
                    return code.map_or(0, |code| u16::from_be_bytes(*code));
                }
                Some(_) => {}
                None => return 0,
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("an end in time")
}

/// The head of a response.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer in time");
    String::from_utf8(head).expect("text")
}

/// Reads until the other end has closed; returns how much that was.
pub(super) async fn drain(mut stream: impl AsyncReadExt + Unpin) -> usize {
    let mut buffer = vec![0; 64 * 1024];
    let mut all = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        all += count;
    }
    all
}

/// The first byte and the payload of a frame of the gateway's; none at the end.
async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? {
        126 => stream.read_u16().await.ok()?.into(),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first, payload))
}
