//! Text frames of both versions: what is understood is written again and means the same, and what is relayed cannot end its
//! frame early.
#![no_main]

use fuzz::{frame, json};
use libfuzzer_sys::fuzz_target;
use protocol::{ClientMessage, MAX_DEPTH, Ref, Version, broadcast, decode_text, encode};

fuzz_target!(|text: &str| {
    for version in [Version::V1, Version::V2] {
        let Ok(message) = decode_text(version, text) else {
            continue;
        };
        let payload = message.payload.get();
        assert!(json::is_value(payload), "{payload:?}");
        assert!(depth(payload) < MAX_DEPTH, "its frame is one level more");
        for reference in [&message.join_ref, &message.reference] {
            assert!(reference.as_json().len() <= Ref::MAX_BYTES + 2);
        }

        let written = write(version, &message);
        assert!(
            written.len() <= text.len() + 64,
            "{} of {}",
            written.len(),
            text.len()
        );
        assert_eq!(frame::payload(version, &written), payload);
        let again = decode_text(version, &written).expect("what we write");
        assert_eq!(again.reference, message.reference);
        assert_eq!(
            (again.topic, again.event),
            (message.topic.clone(), message.event.clone())
        );
        assert_eq!(again.payload.get(), payload);
        if version == Version::V2 {
            assert_eq!(again.join_ref, message.join_ref);
        }

        if broadcast::is_relayable(&message.payload) {
            for version in [Version::V1, Version::V2] {
                let relayed = encode(
                    version,
                    &Ref::NULL,
                    &Ref::NULL,
                    &message.topic,
                    "broadcast",
                    payload,
                );
                assert_eq!(frame::payload(version, &relayed), payload);
            }
        }
    }
});

fn write(version: Version, message: &ClientMessage) -> String {
    encode(
        version,
        &message.join_ref,
        &message.reference,
        &message.topic,
        &message.event,
        message.payload.get(),
    )
}

/// How deeply a valid value is nested.
fn depth(value: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in value.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
