//! Opens a websocket on a plain socket. What the server has sent right behind its answer is not lost.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::dialect::Request;

/// An answer with longer headers is none to a websocket.
const HEADERS: usize = 16 << 10;

/// The socket, and what came after the answer.
pub(super) async fn open(
    authority: &str,
    request: &Request,
) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(authority)
        .await
        .with_context(|| format!("cannot connect to {authority}"))?;
    stream.set_nodelay(true)?;
    let key = generate_key();
    stream
        .write_all(ask(authority, request, &key).as_bytes())
        .await?;
    let mut answer = Vec::new();
    let end = loop {
        if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            break end;
        }
        ensure!(answer.len() < HEADERS, "the server's headers do not end");
        ensure!(
            stream.read_buf(&mut answer).await? > 0,
            "the server hung up: {}",
            String::from_utf8_lossy(&answer)
        );
    };
    let rest = answer.split_off(end + 4);
    check(&String::from_utf8_lossy(&answer), &key)
        .with_context(|| String::from_utf8_lossy(&rest).into_owned())?;
    Ok((stream, rest))
}

fn ask(authority: &str, request: &Request, key: &str) -> String {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
        request.path
    );
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

fn check(answer: &str, key: &str) -> anyhow::Result<()> {
    let mut lines = answer.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        bail!("the server refused the connection: {status}");
    }
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"))
        .is_some_and(|(_, value)| value.trim() == derive_accept_key(key.as_bytes()));
    ensure!(accepted, "the server did not answer to this request");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_to_the_question() {
        let key = generate_key();
        let accept = derive_accept_key(key.as_bytes());
        let answer = |status: &str, accept: &str| {
            format!("HTTP/1.1 {status}\r\nUpgrade: websocket\r\nsec-websocket-ACCEPT: {accept}\r\n")
        };
        check(&answer("101 Switching Protocols", &accept), &key).unwrap();
        assert!(check(&answer("101 Switching Protocols", "other"), &key).is_err());
        assert!(check(&answer("403 Forbidden", &accept), &key).is_err());
        assert!(check("", &key).is_err());
    }

    #[test]
    fn a_dialect_may_add_headers() {
        let request = Request {
            path: "/x?y=1".to_owned(),
            headers: vec![("Origin", "http://a".to_owned())],
        };
        let text = ask("h:1", &request, "k");
        assert!(text.starts_with("GET /x?y=1 HTTP/1.1\r\nHost: h:1\r\n"));
        assert!(text.ends_with("Sec-WebSocket-Key: k\r\nOrigin: http://a\r\n\r\n"));
    }
}
