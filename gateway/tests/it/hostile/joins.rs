//! Channels: more than are allowed, under names that are too long, and with bindings that nobody means well.

use std::time::Instant;

use serde_json::{Value, json};

use super::{KIB, NOISE, Stand, UNLIMITED, raw::*};
use crate::support::{
    Client,
    chat::{B1, BOB},
    token::{anon, authenticated},
};
use protocol::Version;

fn join(topic: &str) -> Vec<u8> {
    let message =
        json!(["1", "1", topic, "phx_join", {"config": {"presence": {"enabled": false}}}]);
    frame(FINAL | TEXT, message.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_joins_leave_a_hundred_channels_on_each_socket() {
    const SOCKETS: usize = 4;
    const JOINS: usize = 5_000;
    let mut stand = Stand::new(&UNLIMITED).await;
    stand.hear().await;
    let before = stand.memory();
    let address = stand.gateway.address;
    let begun = Instant::now();
    let attack = async move {
        let mut open = Vec::new();
        for socket in 0..SOCKETS {
            let mut raw = Raw::connect(address, &anon()).await;
            let mut replies = Vec::new();
            for number in 0..JOINS {
                // As long as a topic may be; twice each.
                let topic = format!("realtime:{socket}-{:01000}", number / 2);
                raw.send(&join(&topic)).await;
                // A client that does not read its replies would be closed.
                if number % 100 == 99 {
                    raw.replies(100, &mut replies).await;
                }
            }
            let refused = replies
                .iter()
                .filter(|reply| reply["response"]["reason"].is_string());
            for refusal in refused.clone() {
                let reason = &refusal["response"]["reason"];
                assert_eq!(reason, "ChannelRateLimitReached: Too many channels");
            }
            assert_eq!(replies.len() - refused.count(), 2 * 100);
            open.push(raw);
        }
        open
    };
    let open = stand.hear_during(attack).await;
    let channels = stand.gateway.metric("tidings_channels ").await as usize;
    assert_eq!(channels, 1 + SOCKETS * 100);
    let memory = stand.memory();
    println!(
        "{} KiB for each channel that is left, after {:?}",
        (memory.now.saturating_sub(before.now)) / SOCKETS / 100 / KIB,
        begun.elapsed()
    );
    let grown = memory.peak - before.peak;
    assert!(grown < SOCKETS * 100 * 16 * KIB + NOISE, "{grown} bytes");
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_too_long_are_refused_and_not_kept() {
    let mut stand = Stand::new(&UNLIMITED).await;
    let mut client =
        Client::connect_to(stand.gateway.address, Version::V2, &authenticated(BOB)).await;
    let config = json!({"config": {}});
    let (_, reply) = client.join(&"x".repeat(1016), config.clone()).await;
    assert_eq!(
        reply["response"]["reason"],
        "UnknownErrorOnChannel: the topic is longer than 1024 bytes"
    );
    let (_, reply) = client.join(&"x".repeat(4_000_000), config).await;
    assert_eq!(reply["status"], "error");
    let many = json!({"config": {"postgres_changes": vec![json!({"event": "*"}); 100_000]}});
    let (_, reply) = client.join("many", many).await;
    assert_eq!(
        reply["response"]["reason"],
        "UnknownErrorOnChannel: the join's payload is longer than 65536 bytes"
    );
    // Nested as deeply as would fit: dropped before anything looks into it.
    let deep = format!(
        r#"["1","d","realtime:r","phx_join",{}{}]"#,
        r#"{"config":"#.repeat(400_000),
        "}".repeat(400_000)
    );
    client.send_text(deep).await;
    assert_eq!(client.until_heartbeat().await, []);
    assert_eq!(
        stand.gateway.metric("tidings_channels ").await as usize,
        1,
        "the reader's own"
    );
    stand.hear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_that_mean_harm_harm_nobody_else() {
    let mut stand = Stand::new(&UNLIMITED).await;
    let mut client =
        Client::connect_to(stand.gateway.address, Version::V2, &authenticated(BOB)).await;
    let of_table = |filter: &str| {
        let filter = format!("session_id=eq.{B1},{filter}");
        json!({"event": "*", "schema": "public", "table": "chat_messages", "filter": filter})
    };
    let chat = |more: Value| {
        let mut binding = json!({"event": "*", "schema": "public", "table": "chat_messages"});
        binding
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        binding
    };
    let long = format!("content=like.{}", "%_".repeat(20_000));
    let bindings: [(&str, Value); 12] = [
        ("error", of_table("content=eq.a\0b")),
        ("error", of_table("con\0tent=eq.a")),
        ("error", chat(json!({"table": "chat\0"}))),
        ("error", chat(json!({"schema": "pub\0lic", "table": "*"}))),
        ("error", chat(json!({"select": ["id\0"]}))),
        ("ok", of_table("content=eq.'; drop table chat_messages; --")),
        ("error", of_table("content=match.(((((")),
        (
            "error",
            of_table(r#"content=match."((x{1,200}){1,200}){1,200}""#),
        ),
        (
            "error",
            of_table(&format!("role=in.({})", "a,".repeat(5000))),
        ),
        ("error", of_table("role=in.({{{,\"})")),
        ("ok", of_table(&["role=eq.user"; 2000].join(","))),
        ("ok", of_table(&long)),
    ];
    for (status, binding) in bindings {
        let config = json!({"postgres_changes": [binding], "presence": {"enabled": false}});
        let channel = client.joined("bad", config).await;
        let told = client.event(&channel, "system").await.payload;
        assert_eq!(told["status"], status, "{:.1000}", told.to_string());
        stand.hear().await;
    }
}

/// Expressions with back references take as long as their writer wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_never_comes_to_an_end_keeps_nobody_else_waiting() {
    let mut stand = Stand::new(&UNLIMITED).await;
    let mut client =
        Client::connect_to(stand.gateway.address, Version::V2, &authenticated(BOB)).await;
    let endless = r"content=match.^(a+)(a+)(a+)(a+)(a+)(a+)(a+)x\7\6\5\4\3\2\1\1b$";
    let filter = format!("session_id=eq.{B1},{endless}");
    let binding =
        json!({"event": "*", "schema": "public", "table": "chat_messages", "filter": filter});
    client.subscribe("endless", json!([binding])).await;
    let many = "a".repeat(160);
    let endless = format!("{many}x{many}b");
    for _ in 0..3 {
        crate::support::chat::say(&stand.database, B1, &endless).await;
        stand.hear().await;
    }
    // It is told, or goes without: it is not waited for.
    assert_eq!(client.until_heartbeat().await, []);
}
