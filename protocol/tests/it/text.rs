//! Text frames of both versions.

use protocol::{Malformed, Ref, Version, decode_text, encode, event, ok_reply, sub_topic};

/// Decodes a frame, writes it again, and expects the same bytes.
fn check(version: Version, frame: &str) {
    let message = decode_text(version, frame).unwrap_or_else(|error| panic!("{frame}: {error}"));
    let written = encode(
        version,
        &message.join_ref,
        &message.reference,
        &message.topic,
        &message.event,
        message.payload.get(),
    );
    assert_eq!(written, frame);
}

fn check_malformed(version: Version, frame: &str, label: &str) {
    let error = decode_text(version, frame).expect_err(frame);
    assert_eq!(error.label(), label, "{frame}");
}

#[test]
fn array_frames_are_read_and_written_unchanged() {
    for frame in [
        r#"["1","1","realtime:room1","phx_join",{"config":{}}]"#,
        r#"["1","1","realtime:room1","phx_reply",{"status":"ok","response":{"postgres_changes":[]}}]"#,
        r#"["1","1","realtime:room1","phx_reply",{"status":"error","response":{"reason":"Unauthorized: You do not have permissions to read from this Channel topic: room1"}}]"#,
        r#"["1",null,"realtime:room1","system",{"message":"Subscribed to PostgreSQL","status":"ok","extension":"postgres_changes","channel":"room1"}]"#,
        r#"["2","5","realtime:room1","phx_reply",{"status":"ok","response":{"postgres_changes":[]}}]"#,
        r#"["1","1","realtime:room1","phx_close",{}]"#,
        r#"[null,"12","phoenix","heartbeat",{}]"#,
        r#"[null,"12","phoenix","phx_reply",{"status":"ok","response":{}}]"#,
        r#"["6","13","realtime:room1","phx_leave",{}]"#,
        r#"["6","6","realtime:room1","phx_error",{"reason":"channel_crash"}]"#,
        r#"["6","11","realtime:room1","access_token",{"access_token":"eyJ…"}]"#,
        r#"[null,"9","realtime:room1","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        r#"["6","7","realtime:room1","broadcast",{"type":"broadcast","event":"cursor","payload":{"x":1}}]"#,
        r#"["6","10","realtime:room1","presence",{"type":"presence","event":"untrack"}]"#,
        r#"[null,null,"realtime:a \"b\" \\ é","x",{"deep":[1.50,1e400,9007199254740993]}]"#,
    ] {
        check(Version::V2, frame);
    }
}

#[test]
fn object_frames_are_read_and_written_unchanged() {
    for frame in [
        r#"{"topic":"realtime:room1","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}"#,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"11"}"#,
        r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"11"}"#,
        r#"{"topic":"realtime:room1","event":"phx_close","payload":{},"ref":"6"}"#,
        r#"{"topic":"realtime:room1","event":"phx_error","payload":{"reason":"channel_crash"},"ref":"6"}"#,
        r#"{"topic":"realtime:room1","event":"system","payload":{"message":"Subscribed to PostgreSQL","status":"ok","extension":"postgres_changes","channel":"room1"},"ref":null}"#,
        r#"{"topic":"realtime:room1","event":"broadcast","payload":{"type":"broadcast","event":"cursor","payload":{"x":1}},"ref":null}"#,
    ] {
        check(Version::V1, frame);
    }
}

#[test]
fn members_of_an_object_frame_come_in_any_order() {
    let message = decode_text(
        Version::V1,
        r#" {"join_ref":"6","event":"phx_join","ref":7,"extra":[1],"payload":{"a":1},"topic":"realtime:r"} "#,
    )
    .unwrap();
    assert_eq!(message.join_ref, Ref::from_text("6"));
    assert_eq!(message.reference.as_json(), "7");
    assert_eq!(message.topic, "realtime:r");
    assert_eq!(message.event, event::JOIN);
    assert_eq!(message.payload.get(), r#"{"a":1}"#);
}

#[test]
fn an_object_frame_to_a_client_has_a_ref_and_no_join_ref() {
    let frame = encode(
        Version::V1,
        &Ref::from_text("6"),
        &Ref::NULL,
        "phoenix",
        event::REPLY,
        ok_reply(),
    );
    assert_eq!(
        frame,
        r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":null}"#
    );
}

#[test]
fn more_than_five_items_are_tolerated() {
    let message = decode_text(Version::V2, r#"["1","2","t","e",{"a":1},6,{"x":[]}]"#).unwrap();
    assert_eq!(message.reference, Ref::from_text("2"));
    assert_eq!(message.payload.get(), r#"{"a":1}"#);
}

#[test]
fn malformed_frames_have_named_causes() {
    use Version::{V1, V2};
    for version in [V1, V2] {
        check_malformed(version, "", "empty");
        check_malformed(version, " \n", "empty");
        check_malformed(version, "\"text\"", "wrong_form");
        check_malformed(version, "nonsense", "wrong_form");
    }
    check_malformed(
        V1,
        r#"{"topic":"t","event":"e","payload":{},"ref":"1""#,
        "not_json",
    );
    check_malformed(
        V1,
        r#"{"topic":"t","event":"e","payload":{},"ref":"1"} x"#,
        "not_json",
    );
    check_malformed(
        V1,
        r#"{"event":"e","payload":{},"ref":"1"}"#,
        "missing_field",
    );
    check_malformed(
        V1,
        r#"{"topic":"t","payload":{},"ref":"1"}"#,
        "missing_field",
    );
    check_malformed(
        V1,
        r#"{"topic":"t","event":"e","ref":"1"}"#,
        "missing_field",
    );
    check_malformed(
        V1,
        r#"{"topic":"t","event":"e","payload":{}}"#,
        "missing_field",
    );
    check_malformed(
        V1,
        r#"{"topic":1,"event":"e","payload":{},"ref":"1"}"#,
        "not_text",
    );
    check_malformed(
        V1,
        r#"{"topic":"t","event":"e","payload":{},"ref":{}}"#,
        "bad_ref",
    );
    check_malformed(V1, r#"["1","1","t","e",{}]"#, "wrong_form");
    check_malformed(
        V2,
        r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#,
        "wrong_form",
    );
    check_malformed(V2, r#"["1","1","t","e"]"#, "too_few_items");
    check_malformed(V2, "[]", "too_few_items");
    check_malformed(V2, r#"["1","1","t","e",{}"#, "not_json");
    check_malformed(V2, r#"["1","1",null,"e",{}]"#, "not_text");
    check_malformed(V2, r#"["1","1","t",7,{}]"#, "not_text");
    check_malformed(V2, r#"[true,"1","t","e",{}]"#, "bad_ref");
    check_malformed(V2, r#"[["1"],"1","t","e",{}]"#, "bad_ref");
    check_malformed(
        V2,
        "[\"1\",\"1\",\"t\",\"e\",{\"a\":\"\u{1}\"}]",
        "not_json",
    );
}

#[test]
fn a_null_payload_is_there() {
    let message = decode_text(
        Version::V1,
        r#"{"topic":"t","event":"e","payload":null,"ref":null}"#,
    )
    .unwrap();
    assert_eq!(message.payload.get(), "null");
    assert!(message.reference.is_null());
}

#[test]
fn references_are_bounded() {
    let frame = |size: usize| format!(r#"["{}",null,"t","e",{{}}]"#, "x".repeat(size));
    assert!(decode_text(Version::V2, &frame(255)).is_ok());
    check_malformed(Version::V2, &frame(256), "bad_ref");
}

#[test]
fn an_error_does_not_quote_the_message() {
    let frame = r#"["1","1","t","access_token",{"access_token":"secret" "x"}]"#;
    let error = decode_text(Version::V2, frame).unwrap_err();
    assert!(matches!(error, Malformed::NotJson(_)));
    assert!(!format!("{error:?}").contains("secret"));
}

#[test]
fn topics_of_channels_have_a_name() {
    assert_eq!(sub_topic("realtime:room:1").unwrap(), "room:1");
    assert_eq!(
        sub_topic("realtime:").unwrap_err().to_string(),
        "TopicNameRequired: You must provide a topic name"
    );
    for topic in ["room1", "phoenix", "Realtime:x", ""] {
        assert_eq!(sub_topic(topic).unwrap_err().to_string(), "unmatched topic");
    }
}
