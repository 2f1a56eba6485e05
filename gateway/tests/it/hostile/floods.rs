//! More frames than anybody needs, as fast as they are taken.

use serde_json::json;
use tokio::{io::AsyncWriteExt, net::tcp::OwnedWriteHalf};

use super::{MIB, NOISE, Stand, raw::*};
use crate::support::token::anon;

fn pushed(topic: &str, event: &str) -> Vec<u8> {
    let message = json!(["1", "2", topic, event, {"access_token": "a.b.c"}]);
    frame(FINAL | TEXT, message.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_drown_only_themselves() {
    const OUTBOX: usize = 256 * 1024;
    let mut stand = Stand::new(&[("TIDINGS_OUTBOX_BYTES", "256KiB")]).await;
    stand.hear().await;
    let before = stand.memory();
    let floods = [
        frame(FINAL | TEXT, b""),
        frame(FINAL | TEXT, b"["),
        frame(FINAL | BINARY, b"\x09"),
        frame(FINAL | PING, &[b'p'; 125]),
        frame(FINAL | PONG, b""),
        pushed("phoenix", "heartbeat"),
        pushed("realtime:elsewhere", "broadcast"),
        pushed("realtime:elsewhere", "phx_join"),
        pushed("elsewhere", "phx_join"),
        frame(
            FINAL | BINARY,
            b"\x03\x00\x01\x0d\x01\x00\x017realtime:nonee{}",
        ),
    ];
    for flood in &floods {
        // One that reads what it is answered, which must come to an end; and one that does not, and is closed or kept waiting.
        let raws = [stand.raw(&anon()).await, stand.raw(&anon()).await];
        let [mut reads, blind] = raws.map(Raw::split);
        let bytes = flood.repeat(65_536 / flood.len());
        let attack = async {
            tokio::select! {
                code = closed(&mut reads.0) => code,
                () = fill(reads.1, &bytes) => 0,
                () = fill(blind.1, &bytes) => 0,
            }
        };
        let code = stand.hear_during(attack).await;
        // Joins of channels have a limit of their own, and a code.
        let joins = *flood == pushed("realtime:elsewhere", "phx_join");
        assert_eq!(code, if joins { 1001 } else { 1008 }, "{flood:?}");
    }
    let grown = stand.memory().peak - before.peak;
    println!("{} MiB", grown / MIB);
    assert!(grown < 2 * 4 * OUTBOX + NOISE, "{grown} bytes");
}

/// Writes until the other end has closed, and goes on waiting.
async fn fill(mut write: OwnedWriteHalf, bytes: &[u8]) {
    while write.write_all(bytes).await.is_ok() {}
    std::future::pending().await
}
