//! How much may be sent over HTTP, and what is said about it.

use super::*;

fn rates(response: &Response) -> [u64; 3] {
    ["x-rate-rolling", "x-rate-limit", "x-rate-limit-remaining"].map(|name| {
        let value = response.headers()[name].to_str().expect("text");
        value.parse().expect("a number")
    })
}

fn messages(count: usize) -> Value {
    let one = json!({"topic": "room", "event": "e", "payload": {}});
    Value::Array(vec![one; count])
}

#[tokio::test]
async fn payloads_have_a_limit() {
    let (_database, gateway) = start(&[("max_payload_bytes", "1KiB")]).await;
    let [(mut v1, c1), _] = members(&gateway, "room").await;
    let payload = |bytes: usize| format!(r#"{{"x":"{}"}}"#, "x".repeat(bytes - 8));
    let too_large = json!(["Payload size exceeds tenant limit"]);
    assert_eq!(
        answer(with_json(single(&gateway, "room/events/e"), &payload(1025))).await,
        (422, json!({"errors": {"payload": too_large}}))
    );
    assert_eq!(
        answer(with_bytes(single(&gateway, "room/events/e"), &[0; 1025])).await,
        (422, json!({"errors": {"payload": too_large}}))
    );
    let large: Value = serde_json::from_str(&payload(1025)).expect("JSON");
    let batched = json!([{"topic": "room", "event": "e", "payload": {}}, {"topic": "room", "event": "e", "payload": large}]);
    assert_eq!(
        answer(batch(&gateway, batched)).await,
        (
            422,
            json!({"errors": {"messages": [{}, {"payload": too_large}]}})
        )
    );
    assert_eq!(v1.until_heartbeat().await, []);
    let fits = with_json(single(&gateway, "room/events/e"), &payload(1024));
    assert_eq!(answer(fits).await, accepted());
    v1.event(&c1, "broadcast").await;
}

#[tokio::test]
async fn bodies_have_a_limit_of_their_own() {
    // Which is not that of a message over a socket.
    let (_database, gateway) = start(&[
        ("max_message_bytes", "20000"),
        ("max_payload_bytes", "8000000"),
    ])
    .await;
    let body = |bytes: usize| format!(r#"{{"messages":[],"x":"{}"}}"#, "x".repeat(bytes - 22));
    assert_eq!(body(100).len(), 100);
    assert_eq!(answer(batch_text(&gateway, body(8_000_000))).await.0, 422);
    let refused = (413, message("The body is larger than 8000000 bytes"));
    assert_eq!(answer(batch_text(&gateway, body(8_000_001))).await, refused);
    let large = vec![0; 8_000_001];
    let large = with_bytes(single(&gateway, "room/events/e"), &large);
    assert_eq!(answer(large).await, refused);
}

#[tokio::test]
async fn events_have_a_limit_and_every_answer_tells_how_far_it_is_used() {
    let (_database, gateway) = start(&[("max_events_per_second", "2")]).await;
    let [(mut v1, c1), (mut v2, c2)] = members(&gateway, "room").await;
    // Nothing was sent yet; whoever is refused is told, too.
    for request in [post(&gateway, APIS[0]), single(&gateway, "%FF/events/e")] {
        let response = request.send().await.expect("a response");
        assert_eq!(rates(&response), [0, 2, 2]);
        told(response).await;
    }
    let reduce = "Too many messages to broadcast, please reduce the batch size";
    let limited = |text: &str| (429, message(text));
    assert_eq!(answer(batch(&gateway, messages(3))).await, limited(reduce));
    // Two members: each message is three events, of which 120 may be in a minute.
    for sent in 0..20 {
        let response = batch(&gateway, messages(1))
            .send()
            .await
            .expect("a response");
        let so_far = (sent + 1) * 3 / 60;
        assert_eq!(rates(&response), [so_far, 2, 2 - so_far], "{sent}");
        assert_eq!(told(response).await, accepted(), "{sent}");
    }
    assert_eq!(answer(batch(&gateway, messages(2))).await, limited(reduce));
    for _ in 20..40 {
        let one = with_json(single(&gateway, "room/events/e"), "{}");
        assert_eq!(answer(one).await, accepted());
    }
    for request in [
        batch(&gateway, messages(1)),
        single(&gateway, "room/events/e"),
        // Before the token is looked at.
        post(&gateway, APIS[1]),
    ] {
        let response = request.send().await.expect("a response");
        assert_eq!(rates(&response), [2, 2, 0]);
        assert_eq!(told(response).await, limited("Too many requests"));
    }
    for (client, channel) in [(&mut v1, &c1), (&mut v2, &c2)] {
        for _ in 0..20 {
            client.event(channel, "broadcast").await;
        }
    }
    for _ in 0..20 {
        v1.event(&c1, "broadcast").await;
        kind_4(&mut v2).await;
    }
    assert_eq!(v1.until_heartbeat().await, []);
    assert_eq!(v2.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_request_carries_no_more_than_a_thousand_messages() {
    let (_database, gateway) = start(&[]).await;
    let [(mut v1, c1), _] = members(&gateway, "room").await;
    let (status, body) = answer(batch(&gateway, messages(1001))).await;
    assert_eq!(status, 429, "{body}");
    assert_eq!(answer(batch(&gateway, messages(1000))).await, accepted());
    for _ in 0..1000 {
        v1.event(&c1, "broadcast").await;
    }
    assert_eq!(v1.until_heartbeat().await, []);
}

/// Clients write all of a body before they read the answer.
#[tokio::test]
async fn who_is_refused_with_much_to_say_hears_why() {
    let (_database, gateway) = start(&[]).await;
    for bytes in [3_000_000, 30_000_000] {
        let large = with_bytes(
            post(&gateway, "/api/broadcast/room/events/e"),
            &vec![0; bytes],
        );
        assert_eq!(answer(large).await, (401, message("Unauthorized")));
        let large = with_bytes(single(&gateway, "room/events/e"), &vec![0; bytes]);
        let expected = if bytes < 8_000_000 { 202 } else { 413 };
        assert_eq!(answer(large).await.0, expected);
    }
}
