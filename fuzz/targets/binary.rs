//! Binary frames: what is understood is written again and means the same, and what it is relayed as can be read by clients of
//! both versions.
#![no_main]

use bytes::Bytes;
use fuzz::{frame, json};
use libfuzzer_sys::fuzz_target;
use protocol::{
    ClientFrame, Encoding, Ref, UserBroadcast, Version, broadcast, decode_binary, decode_text,
    encode, encode_user_broadcast,
};

fuzz_target!(|bytes: &[u8]| {
    match decode_binary(Version::V1, Bytes::copy_from_slice(bytes)) {
        Ok(ClientFrame::Message(message)) => {
            let text = str::from_utf8(bytes).expect("it was understood");
            let same = decode_text(Version::V1, text).expect("it was understood");
            assert_eq!((same.topic, same.event), (message.topic, message.event));
        }
        Ok(ClientFrame::Broadcast(_)) => panic!("version 1 has no binary frames"),
        Err(_) => {}
    }
    match decode_binary(Version::V2, Bytes::copy_from_slice(bytes)) {
        Ok(ClientFrame::Broadcast(broadcast)) => relay(bytes, &broadcast),
        Ok(ClientFrame::Message(_)) => panic!("version 2 has no text in binary frames"),
        Err(_) => {}
    }
});

fn relay(bytes: &[u8], broadcast: &UserBroadcast) {
    // Names that are no UTF-8 are taken as Latin-1, and are longer in UTF-8: some fit into no frame any more.
    let latin = !names_are_text(bytes);
    // Two other things have more than one form: the byte that says JSON, and space around the metadata.
    let written = (!latin).then(|| frame::write_kind_3(broadcast));
    if let Some(written) = written.filter(|written| written.len() == bytes.len()) {
        let mut same = bytes.to_vec();
        same[6] = same[6].min(1);
        assert_eq!(written, same);
    }
    if let Some(metadata) = &broadcast.metadata {
        assert!(json::is_value(metadata.get()));
        let persist = broadcast::persist(metadata);
        assert!(
            persist.is_none()
                || metadata.get().contains("persist")
                || metadata.get().contains('\\')
        );
    }

    let meta = broadcast::meta("5b85e9b1-985a-4827-8339-5cb0ee433ebf", true);
    for meta in [None, Some(&*meta)] {
        let (topic, event) = (&*broadcast.topic, &*broadcast.event);
        let sent =
            encode_user_broadcast(topic, event, meta, broadcast.encoding, &broadcast.payload);
        let fits = topic.len() <= 255 && event.len() <= 255;
        assert_eq!(sent.is_some(), fits, "{} {}", topic.len(), event.len());
        let read = frame::Kind4 {
            topic,
            event,
            metadata: meta.unwrap_or_default(),
            json: broadcast.encoding == Encoding::Json,
            payload: &broadcast.payload,
        };
        if let Some(sent) = sent {
            assert_eq!(frame::read_kind_4(&sent), Some(read));
        }
        if broadcast.encoding == Encoding::Json {
            as_text(bytes.len(), broadcast, meta);
        }
    }
}

/// Whether each name by itself is UTF-8.
fn names_are_text(bytes: &[u8]) -> bool {
    let mut rest = &bytes[7..];
    bytes[1..6].iter().all(|size| {
        let (name, after) = rest.split_at(usize::from(*size));
        rest = after;
        str::from_utf8(name).is_ok()
    })
}

/// As those get it that have no binary frames.
fn as_text(size: usize, broadcast: &UserBroadcast, meta: Option<&str>) {
    let user = str::from_utf8(&broadcast.payload).expect("JSON is text");
    assert!(json::is_value(user), "{user:?}");
    let payloads = [
        (
            broadcast::payload(&broadcast.event, user, meta),
            r#""payload""#,
        ),
        (
            broadcast::payload_first(&broadcast.event, user, meta),
            r#""payload""#,
        ),
    ];
    for (payload, name) in payloads {
        let members = json::members(&payload).unwrap_or_else(|| panic!("no object: {payload:?}"));
        assert_eq!(
            members.len(),
            3 + usize::from(meta.is_some()),
            "{payload:?}"
        );
        let (_, value) = members
            .iter()
            .find(|(member, _)| *member == name)
            .expect("its payload");
        assert_eq!(*value, user.trim_matches([' ', '\t', '\n', '\r']));
        for version in [Version::V1, Version::V2] {
            let sent = encode(
                version,
                &Ref::NULL,
                &Ref::NULL,
                &broadcast.topic,
                "broadcast",
                &payload,
            );
            assert_eq!(frame::payload(version, &sent), payload);
            // A control character takes six bytes as JSON; there are two names.
            assert!(
                sent.len() <= size + 6 * 2 * 255 + 256,
                "{} of {size}",
                sent.len()
            );
        }
    }
}
