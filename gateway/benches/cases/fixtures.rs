//! What real clients have said, from the recordings of the protocol's tests.

use serde_json::Value;

const V1: &str =
    include_str!("../../../protocol/tests/fixtures/supabase-js-2.119/serializer-1.jsonl");
const V2: &str =
    include_str!("../../../protocol/tests/fixtures/supabase-js-2.119/serializer-2.jsonl");

/// The first frame with this text that the client sent on a version 1.0.0 socket.
pub(super) fn text_v1(with: &str) -> String {
    text(V1, with)
}

/// The same on a version 2.0.0 socket.
pub(super) fn text_v2(with: &str) -> String {
    text(V2, with)
}

/// The first binary frame of the client: a broadcast whose payload is JSON.
pub(super) fn binary() -> Vec<u8> {
    let hex = sent(V2)
        .find_map(|line| line["hex"].as_str().map(str::to_owned))
        .expect("a binary frame in the recording");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

fn text(recording: &str, with: &str) -> String {
    sent(recording)
        .filter_map(|line| line["text"].as_str().map(str::to_owned))
        .find(|text| text.contains(with))
        .unwrap_or_else(|| panic!("no frame with {with} in the recording"))
}

fn sent(recording: &str) -> impl Iterator<Item = Value> {
    recording
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|line| line["from"] == "client")
}
