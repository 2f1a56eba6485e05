//! Whatever comes in, decoding answers.

use protocol::{
    Binding, MAX_DEPTH, Version, assign_ids, decode_binary, decode_text, join_reply,
    parse_access_token, parse_filter, parse_join, presence,
};

/// A small generator with a fixed seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// Runs everything that reads what clients send.
fn digest(frame: &[u8]) {
    for version in [Version::V1, Version::V2] {
        let _ = decode_binary(version, frame.to_vec().into());
        let text = String::from_utf8_lossy(frame);
        let _ = parse_filter(&text);
        if let Ok(message) = decode_text(version, &text) {
            let join = parse_join(&message.payload);
            let bindings = &join.config.bindings;
            let pairs: Vec<(&Binding, u64)> = bindings.iter().zip(assign_ids(bindings)).collect();
            let reply = join_reply(&pairs);
            assert!(
                serde_json::from_str::<serde_json::Value>(&reply).is_ok(),
                "{reply}"
            );
            for binding in bindings {
                let _ = binding.target();
            }
            let meta = presence::meta(&message.payload, "r", None);
            assert!(
                serde_json::from_str::<serde_json::Value>(&meta).is_ok(),
                "{meta}"
            );
            let _ = presence::parse(&message.payload);
            let _ = parse_access_token(&message.payload);
        }
    }
}

#[test]
fn random_bytes() {
    let mut random = Random(0x2026_1120);
    for _ in 0..20_000 {
        let size = random.below(64);
        let mut frame: Vec<u8> = (0..size).map(|_| random.next().to_le_bytes()[0]).collect();
        digest(&frame);
        // Nearly all random frames fail at their first byte, so half of them begin well.
        if let Some(first) = frame.first_mut() {
            *first = 3;
            digest(&frame);
        }
    }
}

#[test]
fn damaged_frames() {
    let frames: [&[u8]; 5] = [
        include_bytes!("../frames/realtime-js-2.119-join-v2.json"),
        include_bytes!("../frames/realtime-js-2.119-join-v1.json"),
        include_bytes!("../frames/realtime-py-2.7-join.json"),
        br#"["6","9","realtime:room1","presence",{"type":"presence","event":"track","payload":{"user":"a"}}]"#,
        b"\x03\x01\x01\x0d\x01\x10\x0167realtime:roome{\"persist\":true}{\"a\":1}",
    ];
    let mut random = Random(0x5eed);
    let alphabet = b"\"\\{}[]:,.=()0a\x00\xff\xc3 ";
    for frame in frames {
        digest(frame);
        for _ in 0..5_000 {
            let mut damaged = frame.to_vec();
            for _ in 0..=random.below(3) {
                let position = random.below(damaged.len());
                match random.below(3) {
                    0 => damaged[position] = alphabet[random.below(alphabet.len())],
                    1 => damaged.insert(position, alphabet[random.below(alphabet.len())]),
                    _ => damaged.truncate(position.max(1)),
                }
            }
            digest(&damaged);
        }
    }
}

#[test]
fn filters_of_any_shape() {
    let mut random = Random(7);
    let pieces = [
        "a", "=", "eq", ".", "in.", "not.", "(", ")", ",", "\"", "\\", "é", " ", "is.null", "🦀",
    ];
    for _ in 0..50_000 {
        let filter: String = (0..random.below(12))
            .map(|_| pieces[random.below(pieces.len())])
            .collect();
        let _ = parse_filter(&filter).map_err(|error| error.to_string());
    }
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let frame = |depth: usize| {
            format!(
                r#"["1","1","t","e",{}0{}]"#,
                open.repeat(depth),
                close.repeat(depth)
            )
        };
        // One level is the frame's own.
        assert!(decode_text(Version::V2, &frame(MAX_DEPTH - 1)).is_ok());
        for depth in [MAX_DEPTH, 1_000_000] {
            let error = decode_text(Version::V2, &frame(depth)).unwrap_err();
            assert_eq!(error.label(), "too_deep");
        }
    }
}
