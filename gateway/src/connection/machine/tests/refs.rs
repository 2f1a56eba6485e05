//! The refs of what ends a channel (protocol §2.3).

use super::*;

/// The frames that a socket of this version is sent for these pushes, all without a `join_ref`.
fn said(version: Version, pushes: &[(&str, &str)]) -> Vec<Value> {
    let verifier = verifier();
    let mut machine = machine_of(&verifier, version);
    let mut frames = Vec::new();
    for (reference, event) in pushes {
        let frame = match version {
            Version::V1 => {
                json!({"topic": "realtime:room", "event": event, "payload": {}, "ref": reference, "join_ref": null})
            }
            Version::V2 => json!([null, reference, "realtime:room", event, {}]),
        };
        let message = protocol::decode_text(version, &frame.to_string()).unwrap();
        machine.message(message, at(NOW));
        frames.extend(sent(&mut machine));
    }
    frames
}

/// As Python 2.7 joins: what ends the channel has no ref, and what replaces it is not ended with it.
#[test]
fn a_channel_that_was_joined_without_a_join_ref_ends_without_one() {
    let pushes = [("1", "phx_join"), ("2", "phx_join"), ("3", "phx_leave")];
    let ok = |response: Value| json!({"status": "ok", "response": response});
    let joined = ok(json!({"postgres_changes": []}));
    let frame = |reference: Value, event: &str, payload: Value| json!({"topic": "realtime:room", "event": event, "payload": payload, "ref": reference});
    assert_eq!(
        said(Version::V1, &pushes),
        [
            frame(json!("1"), "phx_reply", joined.clone()),
            frame(json!("2"), "phx_reply", joined.clone()),
            frame(json!("3"), "phx_reply", ok(json!({}))),
            frame(json!(null), "phx_close", json!({})),
        ]
    );
    assert_eq!(
        said(Version::V2, &pushes),
        [
            json!([null, "1", "realtime:room", "phx_reply", joined]),
            json!([null, "2", "realtime:room", "phx_reply", joined]),
            // A push is answered with the ref of the join.
            json!(["2", "3", "realtime:room", "phx_reply", ok(json!({}))]),
            json!([null, null, "realtime:room", "phx_close", {}]),
        ]
    );
}

#[test]
fn a_channel_that_fails_is_told_with_its_join_ref_in_both_places() {
    let crash = json!({"reason": "channel_crash"});
    for (version, expected) in [
        (
            Version::V1,
            json!({"topic": "realtime:room", "event": "phx_error", "payload": crash, "ref": "6"}),
        ),
        (
            Version::V2,
            json!(["6", "6", "realtime:room", "phx_error", crash]),
        ),
    ] {
        let verifier = verifier();
        let mut machine = machine_of(&verifier, version);
        let join = match version {
            Version::V1 => {
                json!({"topic": "realtime:room", "event": "phx_join", "payload": {}, "ref": "7", "join_ref": "6"})
            }
            Version::V2 => json!(["6", "7", "realtime:room", "phx_join", {}]),
        };
        let message = protocol::decode_text(version, &join.to_string()).unwrap();
        machine.message(message, at(NOW));
        machine.effects();
        machine.broken("realtime:room");
        assert_eq!(sent(&mut machine), [expected]);
        assert_eq!(machine.channels(), 0);
    }
}
