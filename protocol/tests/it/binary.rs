//! Binary frames, with the examples of the wire contract in hexadecimal.

use bytes::Bytes;
use protocol::{
    ClientFrame, Encoding, Ref, UserBroadcast, Version, broadcast, decode_binary,
    encode_user_broadcast,
};

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn push(hex: &str) -> UserBroadcast {
    match decode_binary(Version::V2, bytes(hex)) {
        Ok(ClientFrame::Broadcast(broadcast)) => broadcast,
        other => panic!("{hex}: {other:?}"),
    }
}

fn check_malformed(version: Version, frame: impl Into<Bytes>, label: &str) {
    let frame = frame.into();
    let error = decode_binary(version, frame.clone()).expect_err(label);
    assert_eq!(error.label(), label, "{frame:?}");
}

const TOPIC: &str = "72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d";

#[test]
fn pushes_of_clients() {
    let json = push(&format!(
        "03 01 01 0d 01 00 01  36 37  {TOPIC}  65  7b 22 61 22 3a 31 7d"
    ));
    assert_eq!(json.join_ref, Ref::from_text("6"));
    assert_eq!(json.reference, Ref::from_text("7"));
    assert_eq!(json.topic, "realtime:room");
    assert_eq!(json.event, "e");
    assert!(json.metadata.is_none());
    assert_eq!(json.encoding, Encoding::Json);
    assert_eq!(json.payload.as_ref(), br#"{"a":1}"#);

    let binary = push(&format!("03 01 01 0d 01 00 00  36 38  {TOPIC}  65  01 ff"));
    assert_eq!(binary.reference.as_json(), "\"8\"");
    assert_eq!(binary.encoding, Encoding::Binary);
    assert_eq!(binary.payload.as_ref(), [0x01, 0xff]);

    let accented = push(&format!(
        "03 01 01 0d 02 00 01  36 39  {TOPIC}  c3 a9  7b 7d"
    ));
    assert_eq!(accented.event, "é");
    assert_eq!(accented.payload.as_ref(), b"{}");

    let metadata = push(&format!(
        "03 01 01 0d 01 10 01  36 39  {TOPIC}  65
         7b 22 70 65 72 73 69 73 74 22 3a 74 72 75 65 7d  7b 22 61 22 3a 31 7d"
    ));
    assert_eq!(
        metadata.metadata.as_ref().map(|json| json.get()),
        Some(r#"{"persist":true}"#)
    );
    assert_eq!(metadata.payload.as_ref(), br#"{"a":1}"#);

    let no_refs = push(&format!("03 00 00 0d 01 00 02 {TOPIC} 65 37"));
    assert!(no_refs.join_ref.is_null() && no_refs.reference.is_null());
    assert_eq!(no_refs.encoding, Encoding::Json);
    assert_eq!(no_refs.payload.as_ref(), b"7");
}

#[test]
fn broadcasts_to_clients() {
    let json = encode_user_broadcast("realtime:room", "e", None, Encoding::Json, br#"{"a":1}"#);
    assert_eq!(
        json.map(Bytes::from),
        Some(bytes(&format!(
            "04 0d 01 00 01 {TOPIC} 65 7b 22 61 22 3a 31 7d"
        )))
    );

    let meta = broadcast::meta("5b85e9b1-985a-4827-8339-5cb0ee433ebf", false);
    let binary = encode_user_broadcast(
        "realtime:room",
        "e",
        Some(&meta),
        Encoding::Binary,
        &[0xde, 0xad],
    );
    assert_eq!(
        binary.map(Bytes::from),
        Some(bytes(&format!(
            "04 0d 01 2d 00 {TOPIC} 65
             7b 22 69 64 22 3a 22 35 62 38 35 65 39 62 31 2d 39 38 35 61 2d 34 38 32 37 2d 38 33 33 39 2d
             35 63 62 30 65 65 34 33 33 65 62 66 22 7d  de ad"
        )))
    );
}

#[test]
fn names_that_do_not_fit_a_byte_cannot_be_sent_as_kind_4() {
    let encode = |topic: usize, event: usize, metadata: usize| {
        let [topic, event, metadata] = [topic, event, metadata].map(|size| "x".repeat(size));
        encode_user_broadcast(&topic, &event, Some(&metadata), Encoding::Binary, b"p")
    };
    assert_eq!(
        encode(255, 255, 255).map(|frame| frame.len()),
        Some(5 + 3 * 255 + 1)
    );
    assert_eq!(encode(256, 1, 1), None);
    assert_eq!(encode(1, 256, 1), None);
    assert_eq!(encode(1, 1, 256), None);
}

#[test]
fn other_kinds_are_refused() {
    check_malformed(Version::V2, Bytes::new(), "empty");
    let phoenix = bytes(&format!(
        "00 01 01 0d 05 36 37 {TOPIC} 65 76 65 6e 74 01 02"
    ));
    check_malformed(Version::V2, phoenix, "phoenix_push");
    for kind in [1, 2, 4, 5, 255] {
        check_malformed(Version::V2, vec![kind, 0, 0, 0, 0, 0, 0], "unknown_kind");
    }
}

#[test]
fn frames_shorter_than_their_header_says_are_refused() {
    let whole = bytes(&format!("03 01 01 0d 01 02 00 36 37 {TOPIC} 65 7b 7d"));
    for size in 1..whole.len() {
        check_malformed(Version::V2, whole.slice(..size), "truncated");
    }
    assert!(decode_binary(Version::V2, whole).is_ok());
}

#[test]
fn bad_contents_are_refused() {
    let frame = |metadata: &str, encoding: u8, payload: &[u8]| {
        let size = u8::try_from(metadata.len()).unwrap();
        let header = [3, 0, 0, 1, 1, size, encoding, b't', b'e'];
        [&header[..], metadata.as_bytes(), payload].concat()
    };
    check_malformed(Version::V2, frame("{", 0, b""), "bad_metadata");
    check_malformed(Version::V2, frame(&"[".repeat(200), 0, b""), "too_deep");
    check_malformed(Version::V2, frame("", 1, b""), "bad_payload");
    check_malformed(Version::V2, frame("", 1, b"{} {}"), "bad_payload");
    check_malformed(Version::V2, frame("", 1, b"{\"a\":1"), "bad_payload");
    check_malformed(Version::V2, frame("", 1, b"\"\xff\""), "not_utf8");
    check_malformed(
        Version::V2,
        frame("", 1, "[".repeat(100_000).as_bytes()),
        "too_deep",
    );
    assert!(decode_binary(Version::V2, frame("", 0, b"\xff").into()).is_ok());
}

/// realtime-js 2.95 writes the names in a header so.
#[test]
fn names_that_are_not_utf_8_are_latin_1() {
    let frame = vec![3, 0, 0, 2, 1, 0, 0, b'R', 0xfc, b'e'];
    match decode_binary(Version::V2, frame.into()) {
        Ok(ClientFrame::Broadcast(broadcast)) => assert_eq!(broadcast.topic, "Rü"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_object_frame_may_come_as_binary_on_a_version_1_socket() {
    let frame = r#"{"topic":"realtime:r","event":"e","payload":{"é":1},"ref":"2"}"#;
    match decode_binary(Version::V1, Bytes::from_static(frame.as_bytes())) {
        Ok(ClientFrame::Message(message)) => assert_eq!(message.payload.get(), r#"{"é":1}"#),
        other => panic!("{other:?}"),
    }
    check_malformed(Version::V1, vec![3, 0, 0, 0, 0, 0, 0], "wrong_form");
    check_malformed(Version::V1, vec![b'{', 0xff], "not_utf8");
    check_malformed(Version::V1, &b"{nonsense"[..], "not_json");
}
