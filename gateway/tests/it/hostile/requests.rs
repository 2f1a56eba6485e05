//! HTTP that is none, or too much of it.

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{MIB, NOISE, Stand, raw::head};
use crate::support::{
    chat::{A1, ADA},
    token::authenticated,
    wait::PATIENCE,
};

/// The status of the answer to these bytes, 0 if the connection just ends.
async fn status(stand: &Stand, bytes: &[u8]) -> u16 {
    let stream = TcpStream::connect(stand.gateway.address).await;
    let mut stream = stream.expect("a connection");
    // It may be answered and closed before all is sent.
    let _ = stream.write_all(bytes).await;
    let head = head(&mut stream).await;
    let status = head.strip_prefix("HTTP/1.1 ").map(|rest| &rest[..3]);
    status.map_or(0, |status| status.parse().expect("a number"))
}

fn post(more: &str) -> Vec<u8> {
    let token = authenticated(ADA);
    format!(
        "POST /rest/v1/chat_messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\n{more}"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_too_much_or_none_are_refused() {
    let mut stand = Stand::new(&[]).await;
    let get = |more: &str| format!("GET /livez HTTP/1.1\r\nHost: x\r\n{more}\r\n").into_bytes();
    let large = format!("X-Large: {}\r\n", "x".repeat(70_000));
    let many: String = (0..200)
        .map(|number| format!("X-{number}: x\r\n"))
        .collect();
    let deep = format!(
        r#"{{"session_id":"{A1}","role":"user","content":{}{}}}"#,
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    let cases: [(&str, Vec<u8>, &[u16]); 10] = [
        ("a good one", get(""), &[200]),
        ("a large header", get(&large), &[431]),
        ("many headers", get(&many), &[431]),
        (
            "a long path",
            format!("GET /{} HTTP/1.1\r\n", "x".repeat(70_000)).into_bytes(),
            &[414, 431],
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
            &[0, 400],
        ),
        ("noise", vec![0xfe; 10_000], &[0, 400]),
        (
            "two lengths",
            post("Content-Length: 5\r\nContent-Length: 6\r\n\r\n[]"),
            &[0, 400],
        ),
        (
            "a piece without end",
            post("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx"),
            &[400, 408, 413],
        ),
        (
            "a deep body",
            post(&format!("Content-Length: {}\r\n\r\n{deep}", deep.len())),
            &[400, 413, 422],
        ),
        (
            "another protocol",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &[0, 400, 505],
        ),
    ];
    for (what, bytes, expected) in cases {
        let got = status(&stand, &bytes).await;
        assert!(expected.contains(&got), "{what}: {got}");
        stand.hear().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_not_kept() {
    const POSTS: usize = 40;
    let mut stand = Stand::new(&[]).await;
    stand.hear().await;
    let before = stand.memory();
    let address = stand.gateway.address;
    // 8 MB in pieces: nobody says beforehand how much it will be.
    let head_of = post("Transfer-Encoding: chunked\r\n\r\n");
    let piece = [&b"F4240\r\n"[..], &vec![b' '; 1_000_000], b"\r\n"].concat();
    let one = async || {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(&head_of).await.expect("the head");
        for _ in 0..8 {
            if stream.write_all(&piece).await.is_err() {
                break;
            }
        }
        let answer = timeout(PATIENCE, async {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.map(|_| answer)
        });
        // A reset may overtake the answer.
        if let Ok(answer) = answer.await.expect("an answer in time") {
            assert_eq!(answer.as_slice(), b"HTTP/1.1 413");
        }
    };
    // As many at a time as a browser opens connections to one server.
    let attack = async {
        for _ in 0..POSTS / 8 {
            join_all((0..8).map(|_| one())).await;
        }
    };
    stand.hear_during(attack).await;
    let grown = stand.memory().peak - before.peak;
    println!("{} MiB", grown / MIB);
    // Of those that are under way, what a body may have, twice: it is put together from its pieces.
    assert!(grown < 8 * 2 * 5 * MIB + NOISE, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_on_and_on_without_reading_is_not_served_ahead() {
    const ASKING: usize = 8;
    let mut stand = Stand::new(&[]).await;
    stand.hear().await;
    let before = stand.memory();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let mut open = Vec::new();
    for _ in 0..ASKING {
        let stream = TcpStream::connect(stand.gateway.address).await;
        open.push(stream.expect("a connection"));
    }
    let attack = join_all(open.iter_mut().map(async |stream| {
        // Until neither kernel takes more.
        let full = std::time::Duration::from_secs(1);
        while let Ok(Ok(())) = timeout(full, stream.write_all(&request)).await {}
    }));
    stand.hear_during(attack).await;
    let grown = stand.memory().peak - before.peak;
    println!("{} KiB for each", grown / ASKING / 1024);
    assert!(grown < ASKING * MIB + NOISE, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_take_nothing_from_those_that_are_there() {
    const MOST: usize = 20;
    let mut stand = Stand::new(&[("TIDINGS_MAX_CONNECTIONS", "20")]).await;
    let address = stand.gateway.address;
    let request = super::raw::request(&authenticated(ADA));
    let attack = async {
        let mut taken = Vec::new();
        for _ in 0..10 {
            let wave = join_all((0..30).map(async |_| {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                stream.write_all(request.as_bytes()).await.expect("sent");
                let head = head(&mut stream).await;
                (stream, head)
            }));
            for (stream, head) in wave.await {
                if head.starts_with("HTTP/1.1 101") {
                    taken.push(stream);
                } else {
                    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
                }
            }
        }
        taken
    };
    let taken = stand.hear_during(attack).await;
    assert_eq!(taken.len(), MOST - 1, "and the reader");
    drop(taken);
    // Their places are free again.
    let free = async || match stand.open().await {
        1 => Ok(()),
        open => Err(open),
    };
    crate::support::wait::wait_for("free places", free).await;
    stand.raw(&authenticated(ADA)).await;
    stand.hear().await;
}
