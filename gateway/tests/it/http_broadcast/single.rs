//! One message in a request, whose body is its payload.

use super::*;

#[tokio::test]
async fn json_is_text_for_version_1_and_kind_4_for_version_2() {
    let (_database, gateway) = start(&[]).await;
    let [(mut v1, c1), (mut v2, _)] = members(&gateway, "room").await;
    let query = "room/events/cursor?apikey=x&vsn=2.0.0";
    // A key `private` in the body belongs to the payload.
    let payload = r#"{"x": 1.50, "private": true}"#;
    for kind in ["application/json", "application/json; charset=utf-8"] {
        let request = single(&gateway, query).header("content-type", kind);
        assert_eq!(answer(request.body(payload)).await, accepted());
        assert_eq!(
            v1.event(&c1, "broadcast").await.payload,
            json!({"event": "cursor", "type": "broadcast", "payload": {"x": 1.50, "private": true}})
        );
        assert_eq!(
            kind_4(&mut v2).await,
            Kind4 {
                topic: "realtime:room".to_owned(),
                event: "cursor".to_owned(),
                metadata: Value::Null,
                is_json: true,
                payload: payload.into(),
            }
        );
    }
    for (body, expected) in [
        ("", "{}"),
        ("[1, 2]", r#"{"_json":[1, 2]}"#),
        ("\"text\"", r#"{"_json":"text"}"#),
        ("null", r#"{"_json":null}"#),
    ] {
        assert_eq!(
            answer(with_json(single(&gateway, query), body)).await,
            accepted()
        );
        assert_eq!(
            v1.event(&c1, "broadcast").await.payload["payload"],
            serde_json::from_str::<Value>(expected).expect("JSON")
        );
        assert_eq!(kind_4(&mut v2).await.payload, expected.as_bytes());
    }
    // Neither a content type nor a body.
    assert_eq!(answer(single(&gateway, query)).await, accepted());
    assert_eq!(
        v1.event(&c1, "broadcast").await.payload["payload"],
        json!({})
    );
    assert_eq!(kind_4(&mut v2).await.payload, b"{}");
}

#[tokio::test]
async fn bytes_are_for_version_2_only() {
    let (_database, gateway) = start(&[]).await;
    let [(mut v1, c1), (mut v2, _)] = members(&gateway, "room").await;
    for body in [&b"\x00\xff{"[..], b""] {
        let request = with_bytes(single(&gateway, "room/events/e"), body);
        assert_eq!(answer(request).await, accepted());
        let got = kind_4(&mut v2).await;
        assert_eq!((got.is_json, &*got.payload), (false, body));
        assert_eq!(got.metadata, Value::Null);
    }
    let after = with_json(single(&gateway, "room/events/after"), "{}");
    assert_eq!(answer(after).await, accepted());
    assert_eq!(v1.event(&c1, "broadcast").await.payload["event"], "after");
    assert_eq!(v1.until_heartbeat().await, []);
}

#[tokio::test]
async fn topic_and_event_are_percent_encoded() {
    let (_database, gateway) = start(&[]).await;
    let topic = "a/b é+%2F?#: x";
    let [(mut v1, c1), (mut v2, _)] = members(&gateway, topic).await;
    let names = "a%2Fb%20%C3%A9+%252F%3F%23%3A%20x/events/e%2Ff%20g";
    for api in APIS {
        let request = post(&gateway, &format!("{api}/{names}")).bearer_auth(anon());
        assert_eq!(answer(with_json(request, "{}")).await, accepted());
        assert_eq!(v1.event(&c1, "broadcast").await.payload["event"], "e/f g");
        let got = kind_4(&mut v2).await;
        assert_eq!(
            (&*got.topic, &*got.event),
            (&*format!("realtime:{topic}"), "e/f g")
        );
    }
    let (status, body) = answer(single(&gateway, "%FF/events/e")).await;
    assert_eq!((status, body["message"].is_string()), (400, true));
}

/// A frame of kind 4 has one byte for the length of each name.
#[tokio::test]
async fn long_names_travel_as_text_or_are_refused() {
    let (_database, gateway) = start(&[]).await;
    let [(mut v1, c1), (mut v2, c2)] = members(&gateway, "room").await;
    let long = "e".repeat(256);
    let names = format!("room/events/{long}");
    assert_eq!(
        answer(with_json(single(&gateway, &names), "{}")).await,
        accepted()
    );
    for (client, channel) in [(&mut v1, &c1), (&mut v2, &c2)] {
        assert_eq!(
            client.event(channel, "broadcast").await.payload["event"],
            *long
        );
    }
    assert_eq!(
        answer(with_bytes(single(&gateway, &names), b"x")).await,
        (
            422,
            json!({"errors": {"event": ["should be at most 255 byte(s)"]}})
        )
    );
    let fits = format!("room/events/{}", "e".repeat(255));
    assert_eq!(
        answer(with_bytes(single(&gateway, &fits), b"x")).await,
        accepted()
    );
    assert_eq!(kind_4(&mut v2).await.payload, b"x");
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let (_database, gateway) = start(&[]).await;
    let [(mut v1, _), (mut v2, _)] = members(&gateway, "room").await;
    let unsupported = json!({"error": "Unsupported Media Type. Use application/json or application/octet-stream"});
    let room = "room/events/e";
    let text = single(&gateway, room)
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(answer(text).await, (415, unsupported.clone()));
    // Before the token is looked at.
    let form = post(&gateway, &format!("{}/{room}", APIS[1]))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("a=b");
    assert_eq!(answer(form).await, (415, unsupported));
    let blank = json!({"errors": {"topic": ["can't be blank"]}});
    assert_eq!(
        answer(with_json(single(&gateway, "%20/events/e"), "{}")).await,
        (422, blank)
    );
    for body in ["{", "{} {}", " "] {
        let refused = answer(with_json(single(&gateway, room), body)).await;
        assert_eq!(refused, (400, message("The body is not JSON")), "{body}");
    }
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert_eq!(
        answer(with_json(single(&gateway, room), &deep)).await,
        (
            422,
            json!({"errors": {"payload": ["is nested too deeply"]}})
        )
    );
    for client in [&mut v1, &mut v2] {
        assert_eq!(client.until_heartbeat().await, []);
    }
}
