//! Cursors: those that nobody signed are refused, those that were signed are read without a panic, whatever is in them, and
//! mean the same when they are written again.
#![no_main]

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use fuzz::feed::source::Source;
use libfuzzer_sys::fuzz_target;

const KEY: &[u8] = b"a key that clients do not have";
const TAG_BYTES: usize = 10;
const DATABASE_BYTES: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("a database", KEY, 3, Vec::new(), Vec::new());
    if let Ok(text) = str::from_utf8(bytes) {
        assert!(source.parse(text).is_err(), "it is not signed");
    }
    let unsigned = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    assert!(source.parse(&unsigned).is_err(), "it is not signed");

    // As if we had signed it ourselves, behind the right beginning.
    let head = head(&source);
    let body = [&head[..], bytes].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &body);
    let signed = [&body[..], &tag.as_ref()[..TAG_BYTES]].concat();
    if let Ok((mark, written)) = source.parse(&BASE64_URL_SAFE_NO_PAD.encode(&signed)) {
        let cursor = source.cursor(&mark, written);
        assert_eq!(source.parse(&cursor), Ok((mark, written)));
        assert!(
            cursor.len() <= 2 * signed.len() + 32,
            "{} of {}",
            cursor.len(),
            signed.len()
        );
        let mut other = signed.clone();
        other[body.len() - 1] ^= 1;
        assert!(
            source.parse(&BASE64_URL_SAFE_NO_PAD.encode(other)).is_err(),
            "a bit was changed"
        );
    }
});

/// The format, and the database.
fn head(source: &Source) -> Vec<u8> {
    let cursor = source.cursor(&fuzz::feed::mark::Mark::nothing(), 0);
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(cursor)
        .expect("what we write");
    bytes[..1 + DATABASE_BYTES].to_vec()
}
