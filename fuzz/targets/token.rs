//! Tokens, before they are believed: what is taken apart is all of it, and nothing is read twice.
#![no_main]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use fuzz::{json, token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    look(text);
    // The parts as they are before they are encoded: a fuzzer does not find that by itself.
    let encoded: Vec<String> = text
        .splitn(3, '.')
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
        .collect();
    if let Some(read) = look(&encoded.join(".")) {
        let mut parts = text.splitn(3, '.');
        let (header, claims) = (
            parts.next().expect("a header"),
            parts.next().expect("claims"),
        );
        for part in [header, claims] {
            let members = json::members(part).unwrap_or_else(|| panic!("no object: {part:?}"));
            let mut names: Vec<String> = members
                .iter()
                .map(|(name, _)| serde_json::from_str(name).expect("a name"))
                .collect();
            names.sort_unstable();
            assert!(
                names.is_sorted_by(|a, b| a < b),
                "a name stands there twice: {part:?}"
            );
        }
        assert!(read.algorithm.is_none_or(|name| name.len() <= header.len()));
        assert!(read.key.is_none_or(|name| name.len() <= header.len()));
        // A character in an escape is no shorter; a number may be written longer than it came.
        assert!(read.claims.len() <= 32 * claims.len() + 32);
    }
});

fn look(text: &str) -> Option<token::Read> {
    if let Some(cleaned) = token::cleaned(text) {
        assert!(text.len() <= token::MAX_BYTES && cleaned.len() <= text.len());
        assert!(!cleaned.contains(char::is_whitespace));
        if !text.contains(['%']) {
            let kept: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            assert_eq!(cleaned, kept);
        }
    }
    let read = token::read(text)?;
    assert_eq!(format!("{}.{}", read.signed, read.signature), read.cleaned);
    assert_eq!(read.signed.matches('.').count(), 1);
    assert!(!read.signature.contains('.'));
    Some(read)
}
