//! Connections that are opened and then lead nowhere, or there very slowly.

use std::{net::SocketAddr, time::Duration};

use futures::future::join_all;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{interval, timeout},
};

use super::{KIB, NOISE, Stand, raw::*};
use crate::support::{
    chat::{A1, ADA},
    token::{anon, authenticated},
    wait::{PATIENCE, wait_for},
};

/// Sends the beginning at once and the rest a byte at a time, until all is sent or the other end closes.
async fn trickle(address: SocketAddr, beginning: &[u8], rest: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(beginning).await.expect("the beginning");
    let (read, mut write) = stream.into_split();
    let mut tick = interval(Duration::from_millis(250));
    let writing = async {
        for byte in rest {
            tick.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = drain(read) => {}
        () = writing => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_come_to_the_point_is_let_go() {
    const EACH: usize = 60;
    let mut stand = Stand::new(&[("TIDINGS_IDLE_TIMEOUT", "3s")]).await;
    stand.hear().await;
    let before = stand.memory();
    let address = stand.gateway.address;
    let upgrade = request(&anon());
    let head = upgrade.as_bytes();
    let beat = frame(FINAL | TEXT, br#"[null,"1","phoenix","heartbeat",{}]"#);
    let endless = [b"X-Endless: ".to_vec(), vec![b'x'; 1000]].concat();
    // Sockets end by the idle timeout: neither bytes of a frame nor pieces of a message are a sign of life.
    let piece = frame(MORE | TEXT, b"[");
    let upgraded = |more: &[u8]| [head, more].concat();
    let slow_piece = [piece.clone(), frame(MORE | CONTINUATION, b"x").repeat(100)].concat();
    let ways: [(Vec<u8>, &[u8]); 7] = [
        (Vec::new(), b""),
        (head[..head.len() / 2].to_vec(), b""),
        (head[..20].to_vec(), &head[20..]),
        (head[..head.len() - 2].to_vec(), &endless),
        (upgraded(b""), b""),
        (upgraded(b""), &beat),
        (upgraded(&piece), &slow_piece),
    ];
    let attack = ways.iter().flat_map(|(beginning, rest)| {
        (0..EACH).map(move |_| timeout(PATIENCE, trickle(address, beginning, rest)))
    });
    for ended in stand.hear_during(join_all(attack)).await {
        ended.expect("an end in time");
    }
    let open = async || match stand.open().await {
        1 => Ok(()),
        open => Err(open),
    };
    wait_for("the end of all but one", open).await;
    let grown = stand.memory().peak - before.peak;
    println!("{} KiB for each", grown / EACH / ways.len() / KIB);
    assert!(
        grown < EACH * ways.len() * 64 * KIB + NOISE,
        "{grown} bytes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_trickle_in_hold_no_connection_to_the_database() {
    const SLOW: usize = 50;
    let mut stand = Stand::new(&[("TIDINGS_DATABASE_CONNECTIONS", "2")]).await;
    let token = authenticated(ADA);
    let head = format!(
        "POST /rest/v1/chat_messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    );
    let address = stand.gateway.address;
    let body = [b'['; 1000];
    let attack = join_all((0..SLOW).map(|_| trickle(address, head.as_bytes(), &body)));
    let url = stand.gateway.url("/rest/v1/chat_messages");
    let posts = async {
        for number in 0..10 {
            let row = serde_json::json!({"session_id": A1, "role": "user", "content": "posted"});
            let post = reqwest::Client::new().post(&url).bearer_auth(&token);
            let answer = timeout(super::DELAY, post.json(&row).send()).await;
            let answer = answer.expect("an answer in time").expect("an answer");
            assert_eq!(answer.status(), 201, "post {number}");
        }
    };
    tokio::select! {
        _ = attack => panic!("they have been let go"),
        () = posts => {}
    }
    for _ in 0..10 {
        assert_eq!(
            stand.reader.change(&stand.channel).await["record"]["content"],
            "posted"
        );
    }
    stand.hear().await;
}
