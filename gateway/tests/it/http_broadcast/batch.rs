//! Several messages in one request.

use super::*;

#[tokio::test]
async fn members_of_both_versions_get_text_in_the_order_of_the_batch() {
    let (_database, gateway) = start(&[]).await;
    let [(mut v1, c1), (mut v2, c2)] = members(&gateway, "room").await;
    let [(mut other, _), _] = members(&gateway, "other").await;
    let body = r#"{"messages":[
        {"topic":"room","event":"one","payload":{"x": 1.50,"big": 12345678901234567890123}, "private": false},
        {"topic":"room","event":"two","payload":{"text":"é \"x\""},"id":"7"},
        {"topic":"nobody","event":"e","payload":{}},
        {"topic":"room","event":"three","payload":{},"private":null}]}"#;
    assert_eq!(answer(batch_text(&gateway, body)).await, accepted());
    for (client, channel) in [(&mut v1, &c1), (&mut v2, &c2)] {
        let one = client.event(channel, "broadcast").await;
        assert_eq!((one.join_ref, one.reference), (Value::Null, Value::Null));
        assert_eq!(
            one.payload,
            serde_json::from_str::<Value>(
                r#"{"type":"broadcast","event":"one","payload":{"x":1.50,"big":12345678901234567890123}}"#
            )
            .expect("JSON")
        );
        assert_eq!(
            client.event(channel, "broadcast").await.payload,
            json!({"type": "broadcast", "event": "two", "payload": {"text": "é \"x\""}, "meta": {"id": "7"}})
        );
        assert_eq!(
            client.event(channel, "broadcast").await.payload,
            json!({"type": "broadcast", "event": "three", "payload": {}})
        );
        assert_eq!(client.until_heartbeat().await, []);
    }
    assert_eq!(other.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_payload_is_sent_on_byte_for_byte() {
    use futures::StreamExt;
    let (_database, gateway) = start(&[]).await;
    let [_, (mut v2, _)] = members(&gateway, "room").await;
    let payload = r#"{ "n": 1.50, "big": 12345678901234567890123, "n": 2 }"#;
    let body = format!(r#"{{"messages":[{{"topic":"room","event":"e","payload":{payload}}}]}}"#);
    assert_eq!(answer(batch_text(&gateway, body)).await, accepted());
    let frame = v2.socket.next().await.expect("a frame").expect("a frame");
    assert_eq!(
        frame.into_text().expect("text").as_str(),
        format!(
            r#"[null,null,"realtime:room","broadcast",{{"payload":{payload},"event":"e","type":"broadcast"}}]"#
        )
    );
}

#[tokio::test]
async fn nothing_is_sent_if_one_message_is_wrong() {
    let (_database, gateway) = start(&[]).await;
    let [(mut v1, _), (mut v2, _)] = members(&gateway, "room").await;
    let wrong =
        json!([{"topic": "room"}, {"payload": {}}, {"topic": "room", "event": "e", "payload": {}}]);
    assert_eq!(
        answer(batch(&gateway, wrong)).await,
        (
            422,
            json!({"errors": {"messages": [
                {"payload": ["can't be blank"], "event": ["can't be blank"]},
                {"topic": ["can't be blank"], "event": ["can't be blank"]},
                {},
            ]}})
        )
    );
    let types = json!([{"topic": 1, "event": [], "payload": "x", "private": "maybe", "id": {}}]);
    let invalid = json!(["is invalid"]);
    assert_eq!(
        answer(batch(&gateway, types)).await,
        (
            422,
            json!({"errors": {"messages": [
                {"topic": invalid, "event": invalid, "payload": invalid, "private": invalid, "id": invalid}
            ]}})
        )
    );
    for client in [&mut v1, &mut v2] {
        assert_eq!(client.until_heartbeat().await, []);
    }
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_refused() {
    let (_database, gateway) = start(&[]).await;
    let whole = |what: &str| (422, json!({"errors": {"messages": [what]}}));
    for (body, expected) in [
        ("{}", whole("can't be blank")),
        ("[]", whole("can't be blank")),
        (r#"{"messages":[]}"#, whole("can't be blank")),
        (r#"{"messages":{"topic":"room"}}"#, whole("is invalid")),
        (r#"{"messages":[1]}"#, whole("is invalid")),
        ("{", (400, message("The body is not JSON"))),
    ] {
        assert_eq!(answer(batch_text(&gateway, body)).await, expected, "{body}");
    }
    assert_eq!(
        answer(batch_text(&gateway, b"\"\xff\"".to_vec())).await.0,
        400
    );
}
