//! What is pushed on a channel: presence, and new tokens.
#![no_main]

use fuzz::json;
use libfuzzer_sys::fuzz_target;
use protocol::{PresencePush, Version, decode_text, parse_access_token, presence};
use serde_json::value::RawValue;

fuzz_target!(|payload: &str| {
    let frame = format!(r#"["1","1","realtime:room","presence",{payload}]"#);
    let Ok(message) = decode_text(Version::V2, &frame) else {
        return;
    };
    if let Some(token) = parse_access_token(&message.payload) {
        assert!(token.len() <= payload.len());
        assert!(!token.starts_with("sb_"), "an API key is no token");
    }
    if let PresencePush::Track(tracked) = presence::parse(&message.payload) {
        track(&tracked);
    }
});

fn track(tracked: &RawValue) {
    let text = tracked.get();
    let members = json::members(text).unwrap_or_else(|| panic!("no object: {text:?}"));
    let mut expected: Vec<(String, &str)> = vec![
        ("phx_ref".to_owned(), r#""a1""#),
        ("phx_ref_prev".to_owned(), r#""a0""#),
    ];
    for (name, value) in members {
        let name: String = serde_json::from_str(name).expect("names that are no text are refused");
        if name != "phx_ref" && name != "phx_ref_prev" {
            expected.push((name, value));
        }
    }
    let meta = presence::meta(tracked, "a1", Some("a0"));
    assert!(
        meta.len() <= text.len() + 64,
        "{} of {}",
        meta.len(),
        text.len()
    );
    let written = json::members(&meta).unwrap_or_else(|| panic!("no object: {meta:?}"));
    let written: Vec<(String, &str)> = written
        .into_iter()
        .map(|(name, value)| (serde_json::from_str(name).expect("a name"), value))
        .collect();
    assert_eq!(written, expected);

    // The key comes from a client as well.
    let state = presence::state([(text, [&meta, &meta])]);
    let keys = json::members(&state).unwrap_or_else(|| panic!("no object: {state:?}"));
    assert_eq!(keys.len(), 1, "{state:?}");
    assert_eq!(
        serde_json::from_str::<String>(keys[0].0).expect("a key"),
        text
    );
    let diff = presence::diff([(text, [&meta])], [(text, [&meta])]);
    assert_eq!(
        json::members(&diff).map(|sides| sides.len()),
        Some(2),
        "{diff:?}"
    );
}
