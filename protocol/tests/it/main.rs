//! The wire, byte for byte: frames as the SDKs send them and as they must be answered.

mod binary;
mod captured;
mod hostile;
mod join;
mod old_style;
mod payloads;
mod text;

use serde_json::value::RawValue;

/// A value as clients send it.
fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("valid JSON")
}
