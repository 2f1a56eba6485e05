//! What a client that floods or leaves must not change for itself: its token's end, and the answer to its close.

use super::{Stand, raw::*};
use crate::support::{
    chat::BOB,
    token::{anon, token},
    wait::PATIENCE,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

fn much(frame: &[u8]) -> Vec<u8> {
    frame.repeat(65_536 / frame.len())
}

/// Bytes that say nothing must not keep the gateway from looking at the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_keep_a_channel_beyond_its_token() {
    let mut stand = Stand::new(&super::UNLIMITED).await;
    let soon = gateway::auth::now_unix() + 3;
    let ending = token(json!({"role": "authenticated", "sub": BOB, "exp": soon}));
    let mut raw = stand.raw(&ending).await;
    let join = json!(["1", "1", "realtime:r", "phx_join", {"config": {}}]);
    raw.send(&frame(FINAL | TEXT, join.to_string().as_bytes()))
        .await;
    let (mut read, mut write) = raw.split();
    let bytes = much(&frame(FINAL | TEXT, b"["));
    let flood = async {
        while write.write_all(&bytes).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let closed = async {
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&got).contains("phx_close") {
            let count = read.read(&mut buffer).await.expect("bytes");
            assert!(count > 0, "closed: {}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..count]);
        }
    };
    let attack = async {
        tokio::select! {
            () = flood => {}
            closed = timeout(PATIENCE, closed) => closed.expect("the channel's end in time"),
        }
    };
    Box::pin(stand.hear_during(attack)).await;
    assert!(gateway::auth::now_unix() >= soon);
}

/// Bytes that say nothing must not keep the gateway from looking at the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_without_end_do_not_keep_a_channel_beyond_its_token() {
    let mut stand = Stand::new(&[]).await;
    let soon = gateway::auth::now_unix() + 3;
    let ending = token(json!({"role": "authenticated", "sub": BOB, "exp": soon}));
    let mut raw = stand.raw(&ending).await;
    let join = json!(["1", "1", "realtime:r", "phx_join", {"config": {}}]);
    raw.send(&frame(FINAL | TEXT, join.to_string().as_bytes()))
        .await;
    raw.send(&frame(MORE | TEXT, b"[")).await;
    let (mut read, mut write) = raw.split();
    let bytes = much(&frame(MORE | CONTINUATION, b""));
    let flood = async {
        while write.write_all(&bytes).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let closed = async {
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&got).contains("phx_close") {
            let count = read.read(&mut buffer).await.expect("bytes");
            assert!(count > 0, "closed: {}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..count]);
        }
    };
    let attack = async {
        tokio::select! {
            () = flood => {}
            closed = timeout(PATIENCE, closed) => closed.expect("the channel's end in time"),
        }
    };
    Box::pin(stand.hear_during(attack)).await;
    assert!(gateway::auth::now_unix() >= soon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_is_answered_with_a_close() {
    let stand = Stand::new(&[]).await;
    let mut raw = stand.raw(&anon()).await;
    raw.send(&frame(FINAL | CLOSE, &1000_u16.to_be_bytes()))
        .await;
    assert_eq!(raw.closed().await, 1000);
}
