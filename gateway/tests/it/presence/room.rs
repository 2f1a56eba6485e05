//! How much may be tracked.

use serde_json::{Value, json};

use super::keyed;
use crate::support::{Channel, Client, TestDatabase, TestGateway, token::anon};

async fn answer(client: &mut Client, channel: &Channel, bytes: usize) -> Value {
    let payload = json!({"text": "x".repeat(bytes)});
    let push = json!({"type": "presence", "event": "track", "payload": payload});
    let reference = client.push(channel, "presence", push).await;
    client.reply(&reference).await.payload
}

#[tokio::test]
async fn a_track_without_room_is_answered_with_an_error_and_the_channel_lives_on() {
    let settings = [("max_presence_bytes", "8KiB")];
    let gateway = TestGateway::start_with(&TestDatabase::new(None).await, &settings).await;
    let ok = json!({"status": "ok", "response": {}});
    let full = json!({"status": "error", "response": {"reason": "Presence is full: too many bytes are tracked"}});
    let mut ada = Client::v2(&gateway, &anon()).await;
    let a = ada.joined("room", keyed("ada")).await;
    let mut bob = Client::v1(&gateway, &anon()).await;
    let b = bob.joined("room", keyed("bob")).await;
    // On one topic.
    assert_eq!(answer(&mut ada, &a, 5000).await, ok);
    assert_eq!(answer(&mut bob, &b, 5000).await, full);
    assert_eq!(answer(&mut bob, &b, 500).await, ok);
    assert_eq!(answer(&mut bob, &b, 5000).await, full);
    let mut late = Client::v2(&gateway, &anon()).await;
    let l = late.joined("room", keyed("late")).await;
    let state = late.event(&l, "presence_state").await.payload;
    for (key, bytes) in [("ada", 5000), ("bob", 500)] {
        let text = state[key]["metas"][0]["text"].as_str().expect("text");
        assert_eq!(text.len(), bytes, "what was tracked before stays");
    }
    // Over one socket.
    let other = ada.joined("other", keyed("ada")).await;
    assert_eq!(answer(&mut ada, &other, 5000).await, full);
    assert_eq!(answer(&mut ada, &other, 500).await, ok);
    let reference = ada.push(&a, "presence", json!({"event": "untrack"})).await;
    assert_eq!(ada.reply(&reference).await.payload, ok);
    assert_eq!(answer(&mut ada, &other, 5000).await, ok);
    assert_eq!(answer(&mut bob, &b, 5000).await, ok);
    let page = reqwest::get(gateway.url("/metrics")).await.expect("a page");
    let page = page.text().await.expect("a page");
    assert!(
        page.contains("tidings_limits_hit_total{limit=\"max_presence_bytes\"}"),
        "{page}"
    );
}
