//! The machine by itself: every case of a message, without a socket.

mod refs;

use serde_json::{Value, json};

use super::*;
use crate::{
    auth::sign,
    config::{Secret, Settings},
    limits::Limits,
};

const SECRET: &str = "a secret for tests that is long enough";
const NOW: i64 = 1_000_000;

fn verifier() -> Verifier {
    Verifier::new(
        &Settings::from_pairs([
            ("database_url", "postgres://localhost/x"),
            ("jwt_secret", SECRET),
        ])
        .unwrap(),
    )
}

fn token(role: &str, expires_at: i64) -> String {
    let Value::Object(claims) = json!({"role": role, "exp": expires_at}) else {
        unreachable!()
    };
    sign(&claims, &Secret::new(SECRET)).unwrap()
}

fn at(unix: i64) -> Now {
    Now {
        unix,
        instant: Instant::now(),
    }
}

fn limits() -> SocketLimits {
    let settings = Settings::from_pairs([
        ("database_url", "postgres://nobody@127.0.0.1:1/none"),
        ("jwt_secret", "0123456789abcdef0123456789abcdef"),
        ("max_payload_bytes", "1KiB"),
    ]);
    let now = Instant::now();
    Limits::new(&settings.expect("valid settings"), now).socket(now)
}

fn machine(verifier: &Verifier) -> Machine<'_> {
    machine_of(verifier, Version::V2)
}

fn machine_of(verifier: &Verifier, version: Version) -> Machine<'_> {
    let rules = Rules {
        max_channels: 2,
        unauthorized_join: UnauthorizedJoin::Refuse,
        presence_default: true,
        private_only: false,
        recheck: Duration::from_secs(30),
    };
    Machine::new(
        version,
        token("anon", NOW + 100).into(),
        "{}".into(),
        verifier,
        limits(),
        rules,
    )
}

/// Pushes a message, and returns the frames that are sent at once.
fn push(machine: &mut Machine<'_>, message: Value) -> Vec<Value> {
    machine.message(
        protocol::decode_text(Version::V2, &message.to_string()).unwrap(),
        at(NOW),
    );
    sent(machine)
}

/// The frames to be sent, those of a subscription's greeting included.
fn sent(machine: &mut Machine<'_>) -> Vec<Value> {
    machine
        .effects()
        .into_iter()
        .flat_map(|effect| match effect {
            Effect::Send(frame) => vec![frame],
            Effect::Subscribe(subscribe) => subscribe.greeting,
            Effect::Track { tracked, .. } => vec![tracked],
            _ => vec![],
        })
        .map(|frame| serde_json::from_str(&frame).unwrap())
        .collect()
}

fn with_binding() -> Value {
    json!({"config": {"postgres_changes": [{"event": "*", "schema": "public", "table": "t"}]}})
}

/// The question that a join asks.
fn asked(machine: &mut Machine<'_>) -> u64 {
    machine
        .effects()
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Authorize(question) => Some(question.asked),
            _ => None,
        })
        .expect("a question")
}

fn join(machine: &mut Machine<'_>, join_ref: &str, payload: Value) {
    let message = json!([join_ref, join_ref, "realtime:room", "phx_join", payload]);
    machine.message(
        protocol::decode_text(Version::V2, &message.to_string()).unwrap(),
        at(NOW),
    );
}

fn reason(frame: &Value) -> &str {
    frame[4]["response"]["reason"].as_str().unwrap()
}

#[test]
fn a_heartbeat_is_answered_also_while_a_join_is_pending() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", with_binding());
    machine.effects();
    let frames = push(&mut machine, json!([null, "9", "phoenix", "heartbeat", {}]));
    assert_eq!(
        frames,
        [json!([null, "9", "phoenix", "phx_reply", {"status": "ok", "response": {}}])]
    );
}

#[test]
fn joins_are_refused_with_the_protocols_reasons() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    for (topic, payload, expected) in [
        (
            "realtime:",
            json!({}),
            "TopicNameRequired: You must provide a topic name",
        ),
        ("room", json!({}), "unmatched topic"),
        (
            "realtime:a",
            json!({"access_token": "x"}),
            "MalformedJWT: The token provided is not a valid JWT",
        ),
        (
            "realtime:a",
            json!({"access_token": token("anon", NOW - 5)}),
            "InvalidJWTToken: Token has expired 5 seconds ago",
        ),
        (
            "realtime:a",
            json!({"config": {"broadcast": {"replay": {"since": 1}}}}),
            "UnableToReplayMessages: Replay is not allowed for public channels",
        ),
    ] {
        let frames = push(&mut machine, json!(["1", "2", topic, "phx_join", payload]));
        assert_eq!(frames.len(), 1, "{topic}");
        assert_eq!(reason(&frames[0]), expected);
        assert_eq!(
            frames[0][0],
            if expected == "unmatched topic" {
                Value::Null
            } else {
                json!("1")
            }
        );
    }
    for topic in ["realtime:a", "realtime:b"] {
        push(&mut machine, json!(["1", "1", topic, "phx_join", {}]));
    }
    let frames = push(
        &mut machine,
        json!(["1", "1", "realtime:c", "phx_join", {}]),
    );
    assert_eq!(
        reason(&frames[0]),
        "ChannelRateLimitReached: Too many channels"
    );
}

#[test]
fn what_comes_while_a_join_is_pending_is_done_after_it() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", with_binding());
    let question = asked(&mut machine);
    assert_eq!(
        push(
            &mut machine,
            json!(["1", "2", "realtime:room", "presence", {"event": "untrack"}])
        ),
        [] as [Value; 0]
    );
    machine.authorized(
        "realtime:room",
        question,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    let frames = sent(&mut machine);
    let events: Vec<_> = frames.iter().map(|frame| (&frame[1], &frame[3])).collect();
    assert_eq!(
        events,
        [
            (&json!("1"), &json!("phx_reply")),
            (&Value::Null, &json!("system")),
            (&json!("2"), &json!("phx_reply"))
        ]
    );
}

#[test]
fn a_join_that_is_denied_leaves_no_channel() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", with_binding());
    let question = asked(&mut machine);
    machine.authorized(
        "realtime:room",
        question,
        Outcome::Denied,
        Ok(Grant::ALL),
        at(NOW),
    );
    assert_eq!(
        reason(&sent(&mut machine)[0]),
        "Unauthorized: You do not have permissions to read from this Channel topic: room"
    );
    assert_eq!(machine.channels(), 0);
    let frames = push(
        &mut machine,
        json!(["1", "3", "realtime:room", "broadcast", {}]),
    );
    assert_eq!(
        frames,
        [
            json!([null, "3", "realtime:room", "phx_reply", {"status": "error", "response": {"reason": "unmatched topic"}}])
        ]
    );
}

#[test]
fn what_is_wrong_with_a_replay_is_said_to_those_who_may_read() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    let nobody = Grant::default();
    let deaf = Grant {
        broadcast: false,
        ..Grant::ALL
    };
    let unauthorized =
        "Unauthorized: You do not have permissions to read from this Channel topic: room";
    for (read, expected) in [
        (nobody, unauthorized),
        (deaf, unauthorized),
        (
            Grant::ALL,
            "UnableToReplayMessages: Replay params are not valid",
        ),
    ] {
        let replay = json!({"config": {"private": true, "broadcast": {"replay": {"since": "1"}}}});
        join(&mut machine, "1", replay);
        let question = asked(&mut machine);
        let bound = Outcome::Bound(Vec::new());
        machine.authorized("realtime:room", question, bound, Ok(read), at(NOW));
        assert_eq!(reason(&sent(&mut machine)[0]), expected);
        assert_eq!(machine.channels(), 0);
    }
}

#[test]
fn a_second_join_replaces_the_first_and_voids_its_answer() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", with_binding());
    let old = asked(&mut machine);
    join(&mut machine, "2", with_binding());
    let new = asked(&mut machine);
    machine.authorized(
        "realtime:room",
        old,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    assert_eq!(sent(&mut machine), [] as [Value; 0]);
    machine.authorized(
        "realtime:room",
        new,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    let frames = sent(&mut machine);
    assert_eq!(
        (&frames[0][0], &frames[0][3]),
        (&json!("2"), &json!("phx_reply"))
    );
    assert_eq!(
        frames[1],
        json!(["1", "1", "realtime:room", "phx_close", {}])
    );
}

#[test]
fn leaving_is_answered_and_an_older_selfs_leave_is_not() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "6", json!({}));
    machine.effects();
    assert_eq!(
        push(
            &mut machine,
            json!(["5", "7", "realtime:room", "phx_leave", {}])
        ),
        [] as [Value; 0]
    );
    assert_eq!(
        push(
            &mut machine,
            json!(["6", "8", "realtime:room", "phx_leave", {}])
        ),
        [
            json!(["6", "8", "realtime:room", "phx_reply", {"status": "ok", "response": {}}]),
            json!(["6", "6", "realtime:room", "phx_close", {}]),
        ]
    );
    // Not joined any more: only the reply.
    assert_eq!(
        push(
            &mut machine,
            json!(["6", "9", "realtime:room", "phx_leave", {}])
        )
        .len(),
        1
    );
}

#[test]
fn a_token_ends_its_channel_when_it_expires() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", json!({}));
    machine.effects();
    assert_eq!(machine.next_expiry(), Some(NOW + 100));
    machine.expire(at(NOW + 99));
    assert_eq!(sent(&mut machine), [] as [Value; 0]);
    machine.expire(at(NOW + 103));
    let frames = sent(&mut machine);
    assert_eq!(
        (&frames[0][3], &frames[0][4]["message"]),
        (&json!("system"), &json!("Token has expired 3 seconds ago"))
    );
    assert_eq!(
        frames[1],
        json!(["1", "1", "realtime:room", "phx_close", {}])
    );
    assert_eq!(machine.next_expiry(), None);
}

#[test]
fn a_new_token_is_asked_about_and_a_bad_one_ends_the_channel() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", with_binding());
    let question = asked(&mut machine);
    machine.authorized(
        "realtime:room",
        question,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    machine.effects();
    let renew = |machine: &mut Machine<'_>, token: Value| {
        push(
            machine,
            json!(["1", "5", "realtime:room", "access_token", {"access_token": token}]),
        )
    };
    for ignored in [
        Value::Null,
        json!(7),
        json!("sb_key"),
        json!(token("anon", NOW + 100)),
    ] {
        assert_eq!(renew(&mut machine, ignored), [] as [Value; 0]);
        assert_eq!(machine.next_expiry(), Some(NOW + 100));
    }
    let message = json!(["1", "5", "realtime:room", "access_token", {"access_token": token("authenticated", NOW + 500)}]);
    machine.message(
        protocol::decode_text(Version::V2, &message.to_string()).unwrap(),
        at(NOW),
    );
    let question = asked(&mut machine);
    machine.authorized(
        "realtime:room",
        question,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    let effects = machine.effects();
    assert!(matches!(&effects[..], [Effect::Subscribe(_)]));
    assert_eq!(machine.next_expiry(), Some(NOW + 500));

    let frames = renew(&mut machine, json!("nonsense"));
    assert_eq!(
        frames[0][4]["message"],
        "The token provided is not a valid JWT"
    );
    assert_eq!(frames[1][3], "phx_close");
}

#[test]
fn every_presence_push_is_answered() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", json!({}));
    machine.effects();
    let ok = json!({"status": "ok", "response": {}});
    for (payload, expected) in [
        (json!({"event": "TRACK", "payload": {"a": 1}}), ok.clone()),
        (json!({"event": "untrack"}), ok.clone()),
        (json!({}), ok),
        (
            json!({"event": "track", "payload": 1}),
            json!({"status": "error", "response": {"reason": "Presence track payload must be a map"}}),
        ),
        (
            json!({"event": "dance"}),
            json!({"status": "error", "response": {}}),
        ),
    ] {
        let frames = push(
            &mut machine,
            json!(["1", "2", "realtime:room", "presence", payload]),
        );
        assert_eq!(
            frames,
            [json!(["1", "2", "realtime:room", "phx_reply", expected])]
        );
    }
    let large = json!({"event": "track", "payload": {"a": "x".repeat(2000)}});
    let frames = push(
        &mut machine,
        json!(["1", "2", "realtime:room", "presence", large]),
    );
    assert_eq!(frames[0][4]["message"], "Track message size exceeded");
}

#[test]
fn broadcasts_are_acknowledged_only_on_request() {
    for (ack, replies) in [(true, 1), (false, 0)] {
        let verifier = verifier();
        let mut machine = machine(&verifier);
        join(
            &mut machine,
            "1",
            json!({"config": {"broadcast": {"ack": ack}}}),
        );
        machine.effects();
        let message =
            json!(["1", "2", "realtime:room", "broadcast", {"event": "e", "payload": {}}]);
        assert_eq!(push(&mut machine, message).len(), replies);
        // Not an object: it cannot be passed on, and the channel lives.
        assert_eq!(
            push(
                &mut machine,
                json!(["1", "2", "realtime:room", "broadcast", 1])
            )
            .len(),
            0
        );
        let large = json!(["1", "3", "realtime:room", "broadcast", {"payload": "x".repeat(2000)}]);
        let frames = push(&mut machine, large);
        assert_eq!(frames.len(), replies);
        if ack {
            assert_eq!(reason(&frames[0]), "payload_size_exceeded");
        }
    }
}

#[test]
fn the_old_token_counts_while_a_renewal_is_pending() {
    let verifier = verifier();
    let mut machine = machine(&verifier);
    join(&mut machine, "1", with_binding());
    let question = asked(&mut machine);
    machine.authorized(
        "realtime:room",
        question,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    machine.effects();
    let renew = |machine: &mut Machine<'_>, expires_at| {
        let token = token("authenticated", expires_at);
        let message = json!(["1", "5", "realtime:room", "access_token", {"access_token": token}]);
        machine.message(
            protocol::decode_text(Version::V2, &message.to_string()).unwrap(),
            at(NOW),
        );
    };
    renew(&mut machine, NOW + 500);
    let question = asked(&mut machine);
    // Another one neither voids the question nor puts off the end of the first.
    renew(&mut machine, NOW + 600);
    assert!(machine.effects().is_empty());
    assert_eq!(machine.next_expiry(), Some(NOW + 100));
    machine.authorized(
        "realtime:room",
        question,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    let question = asked(&mut machine);
    machine.authorized(
        "realtime:room",
        question,
        Outcome::Bound(Vec::new()),
        Ok(Grant::ALL),
        at(NOW),
    );
    assert_eq!(machine.next_expiry(), Some(NOW + 600));
}
