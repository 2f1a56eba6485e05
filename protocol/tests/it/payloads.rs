//! Payloads that the server writes: changes, broadcasts, presence, system messages, replies.

use protocol::{
    BindingRefusal, CHANNEL_CRASH, ChangeData, EventKind, PresencePush, REPLICATION_READY, Ref,
    Refusal, SERVER_DISCONNECT, SUBSCRIBED, Version, broadcast, describe_params, empty_error_reply,
    encode, encode_change, ends, error_reply, event, extension, ok_reply, presence, system,
};

use crate::raw;

const TOPIC: &str = "realtime:room1";
const COLUMNS: &str = r#"[{"name":"id","type":"int8"},{"name":"details","type":"text"}]"#;

fn change(kind: &'static str) -> ChangeData<'static> {
    ChangeData {
        schema: "public",
        table: "todos",
        kind,
        commit_timestamp: Some("2026-11-20T11:57:21.240Z"),
        columns: COLUMNS,
        record: None,
        old_record: None,
        errors: None,
    }
}

#[test]
fn changes() {
    let insert = ChangeData {
        record: Some(r#"{"id":1,"details":"mow the lawn"}"#),
        ..change("INSERT")
    };
    assert_eq!(
        encode_change(Version::V2, TOPIC, &[49_152_733], &insert.to_json()),
        r#"[null,null,"realtime:room1","postgres_changes",{"ids":[49152733],"data":{"schema":"public","table":"todos","type":"INSERT","commit_timestamp":"2026-11-20T11:57:21.240Z","columns":[{"name":"id","type":"int8"},{"name":"details","type":"text"}],"record":{"id":1,"details":"mow the lawn"},"errors":null}}]"#
    );
    let update = ChangeData {
        record: Some(r#"{"id":1,"details":"done"}"#),
        old_record: Some(r#"{"id":1}"#),
        ..change("UPDATE")
    };
    assert_eq!(
        encode_change(Version::V1, TOPIC, &[49_152_733], &update.to_json()),
        r#"{"topic":"realtime:room1","event":"postgres_changes","payload":{"ids":[49152733],"data":{"schema":"public","table":"todos","type":"UPDATE","commit_timestamp":"2026-11-20T11:57:21.240Z","columns":[{"name":"id","type":"int8"},{"name":"details","type":"text"}],"record":{"id":1,"details":"done"},"old_record":{"id":1},"errors":null}},"ref":null}"#
    );
    let delete = ChangeData {
        old_record: Some(r#"{"id":1}"#),
        ..change("DELETE")
    };
    assert_eq!(
        encode_change(Version::V1, TOPIC, &[49_152_733], &delete.to_json()),
        r#"{"topic":"realtime:room1","event":"postgres_changes","payload":{"ids":[49152733],"data":{"schema":"public","table":"todos","type":"DELETE","commit_timestamp":"2026-11-20T11:57:21.240Z","columns":[{"name":"id","type":"int8"},{"name":"details","type":"text"}],"old_record":{"id":1},"errors":null}},"ref":null}"#
    );
    let unauthorized = ChangeData {
        commit_timestamp: None,
        columns: "[]",
        record: Some("{}"),
        errors: Some(r#"["Error 401: Unauthorized"]"#),
        ..change("INSERT")
    };
    assert_eq!(
        encode_change(
            Version::V2,
            "realtime:\"x\"",
            &[1, 2, 3],
            &unauthorized.to_json()
        ),
        r#"[null,null,"realtime:\"x\"","postgres_changes",{"ids":[1,2,3],"data":{"schema":"public","table":"todos","type":"INSERT","commit_timestamp":null,"columns":[],"record":{},"errors":["Error 401: Unauthorized"]}}]"#
    );
}

#[test]
fn broadcasts() {
    assert_eq!(
        broadcast::payload("cursor", r#"{"x":1}"#, None),
        r#"{"event":"cursor","payload":{"x":1},"type":"broadcast"}"#
    );
    assert_eq!(
        broadcast::payload("a\"b", "{}", Some(&broadcast::meta("u1", false))),
        r#"{"event":"a\"b","payload":{},"type":"broadcast","meta":{"id":"u1"}}"#
    );
    assert_eq!(
        broadcast::payload_first("cursor", r#"{"x":1}"#, None),
        r#"{"payload":{"x":1},"event":"cursor","type":"broadcast"}"#
    );
    let meta = broadcast::meta("82c15b17-b38d-4ecd-a0b1-6dc250b90438", true);
    let replayed = broadcast::payload_first("cursor", r#"{"x":1,"id":"82c1…"}"#, Some(&meta));
    assert_eq!(
        encode(
            Version::V2,
            &Ref::from_text("1"),
            &Ref::NULL,
            TOPIC,
            event::BROADCAST,
            &replayed
        ),
        r#"["1",null,"realtime:room1","broadcast",{"payload":{"x":1,"id":"82c1…"},"event":"cursor","type":"broadcast","meta":{"replayed":true,"id":"82c15b17-b38d-4ecd-a0b1-6dc250b90438"}}]"#
    );
    assert_eq!(
        encode(
            Version::V1,
            &Ref::from_text("1"),
            &Ref::NULL,
            TOPIC,
            event::BROADCAST,
            &replayed
        ),
        r#"{"topic":"realtime:room1","event":"broadcast","payload":{"payload":{"x":1,"id":"82c1…"},"event":"cursor","type":"broadcast","meta":{"replayed":true,"id":"82c15b17-b38d-4ecd-a0b1-6dc250b90438"}},"ref":null}"#
    );
    assert!(broadcast::is_relayable(&raw(" {} ")));
    for payload in ["null", "[]", "\"{}\"", "7"] {
        assert!(!broadcast::is_relayable(&raw(payload)), "{payload}");
    }
}

#[test]
fn presence_pushes() {
    let check = |payload: &str, expected: &str| {
        let shown = match presence::parse(&raw(payload)) {
            PresencePush::Track(tracked) => format!("track {}", tracked.get()),
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected, "{payload}");
    };
    check(
        r#"{"type":"presence","event":"track","payload":{"user":"a"}}"#,
        r#"track {"user":"a"}"#,
    );
    check(r#"{"event":"TRACK","payload":{}}"#, "track {}");
    check(r#"{"event":"track"}"#, "track {}");
    check(r#"{"type":"presence","event":"untrack"}"#, "Untrack");
    check(r#"{"event":"Untrack","payload":{}}"#, "Untrack");
    // A name that is half of a surrogate pair is no text: answered, and not lost with all the others.
    for payload in ["null", "7", "[]", "\"x\"", r#"{"a":1,"\ud800":2}"#] {
        check(
            &format!(r#"{{"event":"track","payload":{payload}}}"#),
            "NotAMap",
        );
    }
    for payload in ["{}", r#"{"event":null}"#, "null", "[]", r#"{"payload":{}}"#] {
        check(payload, "NoEvent");
    }
    check(r#"{"event":"state"}"#, "Unknown");
    check(r#"{"event":7}"#, "Unknown");
}

#[test]
fn presence_states_and_diffs() {
    let first = presence::meta(&raw(r#"{"user":"a"}"#), "GAn3…", None);
    assert_eq!(first, r#"{"phx_ref":"GAn3…","user":"a"}"#);
    let second = presence::meta(&raw(r#"{"user":"a","tab":2}"#), "GAn7…", Some("GAn5…"));
    let none: [(&str, [&str; 0]); 0] = [];
    let frame = |event, payload: &str| {
        let join_ref = match event {
            event::PRESENCE_STATE => Ref::from_text("1"),
            _ => Ref::NULL,
        };
        encode(Version::V2, &join_ref, &Ref::NULL, TOPIC, event, payload)
    };
    assert_eq!(
        frame(event::PRESENCE_STATE, &presence::state(none)),
        r#"["1",null,"realtime:room1","presence_state",{}]"#
    );
    assert_eq!(
        frame(
            event::PRESENCE_STATE,
            &presence::state([("alice", [&first, &second])])
        ),
        r#"["1",null,"realtime:room1","presence_state",{"alice":{"metas":[{"phx_ref":"GAn3…","user":"a"},{"phx_ref":"GAn7…","phx_ref_prev":"GAn5…","user":"a","tab":2}]}}]"#
    );
    assert_eq!(
        frame(
            event::PRESENCE_DIFF,
            &presence::diff([("alice", [&first])], none)
        ),
        r#"[null,null,"realtime:room1","presence_diff",{"joins":{"alice":{"metas":[{"phx_ref":"GAn3…","user":"a"}]}},"leaves":{}}]"#
    );
    assert_eq!(
        presence::diff(none, [("alice", [&first]), ("b\"", [&first])]),
        r#"{"joins":{},"leaves":{"alice":{"metas":[{"phx_ref":"GAn3…","user":"a"}]},"b\"":{"metas":[{"phx_ref":"GAn3…","user":"a"}]}}}"#
    );
}

#[test]
fn a_meta_keeps_its_own_refs() {
    assert_eq!(
        presence::meta(
            &raw(r#"{"phx_ref":"forged","a":1.50,"phx_ref_prev":"x","k\n":[1, 2]}"#),
            "r",
            None
        ),
        r#"{"phx_ref":"r","a":1.50,"k\n":[1, 2]}"#
    );
    assert_eq!(
        presence::meta(&raw("{}"), "r", Some("p")),
        r#"{"phx_ref":"r","phx_ref_prev":"p"}"#
    );
}

#[test]
fn system_messages() {
    assert_eq!(
        system(true, extension::POSTGRES_CHANGES, SUBSCRIBED, "room1"),
        r#"{"message":"Subscribed to PostgreSQL","status":"ok","extension":"postgres_changes","channel":"room1"}"#
    );
    assert_eq!(
        system(true, extension::SYSTEM, REPLICATION_READY, "a\"b"),
        r#"{"message":"Replication connection established","status":"ok","extension":"system","channel":"a\"b"}"#
    );
    assert_eq!(
        system(false, extension::SYSTEM, &ends::token_expired(3), "room1"),
        r#"{"message":"Token has expired 3 seconds ago","status":"error","extension":"system","channel":"room1"}"#
    );
    assert_eq!(
        SERVER_DISCONNECT,
        r#"{"message":"Server requested disconnect","status":"ok","extension":"system"}"#
    );
    assert_eq!(
        ends::no_read_right("r"),
        "You do not have permissions to read from this Channel topic: r"
    );
    assert_eq!(
        ends::lost_read_right("r"),
        "You no longer have permission to read from this Channel topic: r"
    );
}

#[test]
fn replies() {
    assert_eq!(ok_reply(), r#"{"status":"ok","response":{}}"#);
    assert_eq!(empty_error_reply(), r#"{"status":"error","response":{}}"#);
    assert_eq!(CHANNEL_CRASH, r#"{"reason":"channel_crash"}"#);
    assert_eq!(
        error_reply(presence::NOT_A_MAP),
        r#"{"status":"error","response":{"reason":"Presence track payload must be a map"}}"#
    );
}

#[test]
fn reasons_of_refused_joins() {
    let kid = |kid: Option<&str>| Refusal::JwtSigner {
        kid: kid.map(str::to_owned),
    };
    for (refusal, reason) in [
        (
            Refusal::TopicNameRequired,
            "TopicNameRequired: You must provide a topic name",
        ),
        (Refusal::UnmatchedTopic, "unmatched topic"),
        (
            Refusal::PrivateOnly,
            "PrivateOnly: This project only allows private channels",
        ),
        (
            Refusal::TooManyConnections,
            "ConnectionRateLimitReached: Too many connected users",
        ),
        (
            Refusal::TooManyJoins,
            "ClientJoinRateLimitReached: Too many joins per second",
        ),
        (
            Refusal::TooManyChannels,
            "ChannelRateLimitReached: Too many channels",
        ),
        (
            Refusal::TokenExpired { seconds_ago: 0 },
            "InvalidJWTToken: Token has expired 0 seconds ago",
        ),
        (
            Refusal::MissingClaims,
            "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
        ),
        (
            Refusal::MalformedJwt,
            "MalformedJWT: The token provided is not a valid JWT",
        ),
        (
            Refusal::JwtSignature,
            "JwtSignatureError: Failed to validate JWT signature",
        ),
        (
            kid(Some("K")),
            "JwtSignerError: Failed to generate JWT signer for key ID (kid) \"K\", check your JWT secret or JWKS configuration",
        ),
        (
            kid(None),
            "JwtSignerError: Failed to generate JWT signer, check your JWT secret or JWKS configuration",
        ),
        (
            Refusal::Unauthorized {
                topic: "r".to_owned(),
            },
            "Unauthorized: You do not have permissions to read from this Channel topic: r",
        ),
        (
            Refusal::ReplayOnPublicChannel,
            "UnableToReplayMessages: Replay is not allowed for public channels",
        ),
        (
            Refusal::ReplayParams,
            "UnableToReplayMessages: Replay params are not valid",
        ),
        (
            Refusal::ReplayFailed,
            "UnableToReplayMessages: Realtime was unable to replay messages",
        ),
        (
            Refusal::DatabaseUnavailable,
            "UnableToConnectToProject: Realtime was unable to connect to the project database",
        ),
        (
            Refusal::PoliciesUnavailable,
            "Realtime was unable to connect to the project database",
        ),
        (
            Refusal::IncreaseConnectionPool,
            "IncreaseConnectionPool: Please increase your connection pool size",
        ),
        (
            Refusal::DatabaseLackOfConnections,
            "DatabaseLackOfConnections: Database can't accept more connections, Realtime won't connect",
        ),
        (
            Refusal::DatabaseConnectionRate,
            "DatabaseConnectionRateLimitReached: Too many database connections attempts per second",
        ),
        (
            Refusal::MissingPartition,
            "MissingPartition: Realtime was unable to find the expected messages partition",
        ),
        (
            Refusal::Restarting,
            "RealtimeRestarting: Realtime is restarting, please standby",
        ),
        (
            Refusal::TenantNotFound,
            "TenantNotFound: Tenant with the given ID does not exist",
        ),
        (Refusal::Unknown, "Unknown Error on Channel"),
        (Refusal::JoinCrashed, "join crashed"),
    ] {
        assert_eq!(refusal.to_string(), reason);
        assert!(!refusal.label().is_empty());
    }
}

#[test]
fn messages_about_wrong_bindings() {
    let params = describe_params(EventKind::All, Some("public"), Some("t"), &[], None);
    assert_eq!(
        BindingRefusal::NoTable {
            params: params.clone()
        }
        .to_string(),
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [event: *, schema: public, table: t, filters: [], select: nil]"
    );
    let error = "ERROR P0001 (raise_exception) invalid column for filter notacolumn".to_owned();
    assert_eq!(
        BindingRefusal::Exception { params, error }.to_string(),
        "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: [event: *, schema: public, table: t, filters: [], select: nil]. Exception: ERROR P0001 (raise_exception) invalid column for filter notacolumn"
    );
    assert_eq!(
        BindingRefusal::DatabaseTimeouts.to_string(),
        r#"{:error, "Too many database timeouts"}"#
    );
}
