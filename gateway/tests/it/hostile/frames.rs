//! Frames that break the rules, or promise what never comes.

use super::{KIB, NOISE, Stand, UNLIMITED, raw::*};
use crate::support::token::anon;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_breaks_the_rules_closes_its_socket_with_the_code_for_it() {
    let mut stand = Stand::new(&[]).await;
    let hello = br#"[null,"1","phoenix","heartbeat",{}]"#;
    let too_long = [frame(MORE | TEXT, &vec![b'x'; 4_000_000]), {
        frame(FINAL | CONTINUATION, &vec![b'x'; 1_000_001])
    }]
    .concat();
    let cases: [(&str, Vec<u8>, u16); 16] = [
        // Compression was declined, so nothing may be compressed: neither a bomb nor anything else.
        ("RSV1", frame(FINAL | 0x40 | TEXT, hello), 1002),
        ("RSV2", frame(FINAL | 0x20 | BINARY, hello), 1002),
        ("RSV1 on a ping", frame(FINAL | 0x40 | PING, b""), 1002),
        ("no mask", [&[FINAL | BINARY, 2][..], b"hi"].concat(), 1002),
        ("a ping in pieces", frame(MORE | PING, b"x"), 1002),
        ("a long ping", frame(FINAL | PING, &[b'x'; 126]), 1002),
        (
            "a piece of nothing",
            frame(FINAL | CONTINUATION, b"x"),
            1002,
        ),
        (
            "a message within a message",
            [frame(MORE | TEXT, b"["), frame(FINAL | TEXT, hello)].concat(),
            1002,
        ),
        ("a reserved control frame", frame(FINAL | 0xb, b""), 1002),
        ("half a close code", frame(FINAL | CLOSE, b"\x03"), 1002),
        // What is announced is enough: not a byte of it has to come.
        ("a byte too many", announced(FINAL | TEXT, 5_000_001), 1009),
        ("4 GiB", announced(FINAL | BINARY, 1 << 32), 1009),
        ("no length", announced(FINAL | BINARY, u64::MAX), 1009),
        ("pieces that add up", too_long, 1009),
        ("no UTF-8", frame(FINAL | TEXT, b"[\xc3\x28]"), 1007),
        (
            "no UTF-8, in pieces",
            [
                frame(MORE | TEXT, b"[\xe2\x82"),
                frame(FINAL | CONTINUATION, b"]"),
            ]
            .concat(),
            1007,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut raw = stand.raw(&anon()).await;
        raw.send(&bytes).await;
        assert_eq!(raw.closed().await, code, "{what}");
    }
    // A character that is cut by the end of a frame, and whole in its message.
    let mut raw = stand.raw(&anon()).await;
    let cut = [
        frame(
            MORE | TEXT,
            b"[null,\"1\",\"phoenix\",\"heartbeat\",{\"a\":\"\xe2\x82",
        ),
        frame(FINAL | PING, b"between"),
        frame(MORE | CONTINUATION, b""),
        frame(FINAL | CONTINUATION, b"\xac\"}]"),
    ];
    raw.send(&cut.concat()).await;
    let mut replies = Vec::new();
    raw.replies(1, &mut replies).await;
    assert_eq!(replies[0]["status"], "ok");
    stand.hear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_and_never_comes_takes_no_memory() {
    const LIARS: usize = 300;
    let mut stand = Stand::new(&[]).await;
    stand.hear().await;
    let before = stand.memory();
    let mut liars = Vec::new();
    for number in 0..LIARS {
        let mut raw = stand.raw(&anon()).await;
        // As long as a message may be, in one frame or as the first of several; and one byte of it.
        let first = [FINAL | TEXT, MORE | BINARY][number % 2];
        raw.send(&[announced(first, 5_000_000), vec![b'x']].concat())
            .await;
        liars.push(raw);
    }
    for _ in 0..5 {
        stand.hear().await;
    }
    let grown = stand.memory().peak - before.peak;
    println!("{} KiB for each", grown / LIARS / KIB);
    assert!(grown < LIARS * 64 * KIB + NOISE, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_many_pieces_takes_no_more_than_it_is_long() {
    const SOCKETS: usize = 8;
    const PIECES: usize = 200_000;
    let mut stand = Stand::new(&UNLIMITED).await;
    stand.hear().await;
    let before = stand.memory();
    let address = stand.gateway.address;
    // Pieces of a byte, and pieces of nothing; the message never ends.
    let pieces = [
        frame(MORE | CONTINUATION, b"x"),
        frame(MORE | CONTINUATION, b""),
    ]
    .concat();
    let attack = async move {
        let mut open = Vec::new();
        for _ in 0..SOCKETS {
            let mut raw = Raw::connect(address, &anon()).await;
            raw.send(&frame(MORE | TEXT, b"[")).await;
            raw.send(&pieces.repeat(PIECES)).await;
            // It has all been read when this is answered.
            raw.send(&frame(FINAL | PING, b"")).await;
            raw.pong().await;
            open.push(raw);
        }
        open
    };
    let open = stand.hear_during(attack).await;
    let grown = stand.memory().peak - before.peak;
    println!("{} bytes for each piece", grown / SOCKETS / PIECES);
    assert!(grown < SOCKETS * PIECES * 4 + NOISE, "{grown} bytes");
    drop(open);
}
