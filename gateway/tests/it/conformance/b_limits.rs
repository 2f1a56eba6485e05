//! Limits (protocol §9): those that are the peer's own without any setting, and what counts.

use serde_json::json;

use crate::support::{Client, TestDatabase, TestGateway, token::anon};

async fn gateway(settings: &[(&str, &str)]) -> TestGateway {
    TestGateway::start_with(&TestDatabase::new(None).await, settings).await
}

#[tokio::test]
async fn without_settings_a_socket_has_a_hundred_channels() {
    let gateway = gateway(&[]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let config = json!({"presence": {"enabled": false}});
    for number in 0..100 {
        client
            .joined(&format!("room {number}"), config.clone())
            .await;
    }
    let (_, reply) = client.join("one more", json!({ "config": config })).await;
    assert_eq!(
        reply["response"]["reason"],
        "ChannelRateLimitReached: Too many channels"
    );
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn without_settings_a_message_has_five_million_bytes_and_a_payload_three() {
    let gateway = gateway(&[]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let config = json!({"broadcast": {"ack": true}, "presence": {"enabled": false}});
    let channel = client.joined("room", config).await;
    let refused = json!({"status": "error", "response": {"reason": "payload_size_exceeded"}});
    for (bytes, answer) in [
        (3_000_500, json!({"status": "ok", "response": {}})),
        (3_000_501, refused),
    ] {
        let around = json!({"event": "e", "payload": ""}).to_string().len();
        let payload = json!({"event": "e", "payload": "x".repeat(bytes - around)});
        let reference = client.push(&channel, "broadcast", payload).await;
        assert_eq!(client.reply(&reference).await.payload, answer, "{bytes}");
    }

    let mut client = Client::v2(&gateway, &anon()).await;
    let frame = r#"[null,"p","phoenix","heartbeat",{"pad":""}]"#;
    let padded = |bytes: usize| {
        let pad = "x".repeat(bytes - frame.len());
        frame.replace("\"\"", &format!("\"{pad}\""))
    };
    client.send_text(padded(5_000_000)).await;
    assert_eq!(client.reply("p").await.payload["status"], "ok");
    // The end may come before all of it is sent.
    let _ = client.try_send_text(&padded(5_000_001)).await;
    assert_eq!(client.closed().await, Some(1009));
}

/// A track is one event, and what each member is told of it another one.
#[tokio::test]
async fn what_is_told_of_presence_counts_as_well() {
    let settings = [
        ("max_presence_events_per_second", "1"),
        ("max_presence_calls", "0"),
    ];
    let gateway = gateway(&settings).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client.joined("room", json!({})).await;
    client.event(&channel, "presence_state").await;
    for number in 0..40 {
        let track = json!({"event": "track", "payload": {"n": number}});
        client.push(&channel, "presence", track).await;
    }
    let told = client.event(&channel, "system").await.payload;
    assert_eq!(told["message"], "Too many presence messages per second");
    client.event(&channel, "phx_close").await;
}

#[tokio::test]
async fn a_presence_message_with_any_event_is_a_call() {
    let gateway = gateway(&[("max_presence_calls", "5")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client.joined("room", json!({})).await;
    client.event(&channel, "presence_state").await;
    for call in [
        json!({"event": "dance"}),
        json!({"event": "untrack"}),
        json!({"event": "track", "payload": 7}),
        json!({"event": "track", "payload": {}}),
        json!({"event": "track", "payload": {}}),
    ] {
        let reference = client.push(&channel, "presence", call).await;
        client.reply(&reference).await;
    }
    client
        .push(&channel, "presence", json!({"event": "dance"}))
        .await;
    let told = client.event(&channel, "system").await.payload;
    assert_eq!(told["message"], "Client presence rate limit exceeded");
    client.event(&channel, "phx_close").await;
}
