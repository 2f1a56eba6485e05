//! Joins: the frames of the SDKs, the lenient reading of their payloads, and the echo of bindings.

use protocol::{
    Binding, EventKind, Field, Join, Refusal, Replay, Select, Version, assign_ids, decode_text,
    encode, event, join_reply, parse_access_token, parse_filter, parse_join,
};

use crate::raw;

fn join(payload: &str) -> Join {
    parse_join(&raw(payload))
}

fn bindings(list: &str) -> Vec<Binding> {
    join(&format!(r#"{{"config":{{"postgres_changes":{list}}}}}"#))
        .config
        .bindings
}

fn binding(object: &str) -> Binding {
    let mut bindings = bindings(&format!("[{object}]"));
    assert_eq!(bindings.len(), 1, "{object}");
    bindings.remove(0)
}

fn sdk(version: Version, frame: &str) -> Join {
    let message = decode_text(version, frame).unwrap();
    assert_eq!(message.topic, "realtime:room");
    assert_eq!(message.event, event::JOIN);
    let join = parse_join(&message.payload);
    assert!(join.invalid.is_empty(), "{:?}", join.invalid);
    join
}

fn text(text: &str) -> Field {
    Field::Text(text.to_owned())
}

#[test]
fn realtime_js_joins() {
    let v2 = include_str!("../frames/realtime-js-2.119-join-v2.json");
    let v1 = include_str!("../frames/realtime-js-2.119-join-v1.json");
    for (version, frame, count) in [(Version::V2, v2, 2), (Version::V1, v1, 1)] {
        let message = decode_text(version, frame).unwrap();
        assert_eq!(message.join_ref.as_json(), "\"6\"");
        assert_eq!(message.reference.as_json(), "\"6\"");
        let join = sdk(version, frame);
        assert_eq!(join.access_token.as_deref(), Some("eyJ…"));
        let config = join.config;
        assert!(!config.private && config.broadcast.ack && config.broadcast.self_send);
        assert_eq!(config.broadcast.replay, None);
        assert_eq!(config.presence.enabled, Some(true));
        assert_eq!(config.presence.key.as_deref(), Some("k1"));
        assert_eq!(config.bindings.len(), count);
        let first = &config.bindings[0];
        assert_eq!(first.event, EventKind::Insert);
        assert_eq!((&first.schema, &first.table), (&text("public"), &text("t")));
        assert_eq!(first.filter, text("id=eq.7"));
    }
    let bindings = sdk(Version::V2, v2).config.bindings;
    assert_eq!(bindings[0].select, Select::Columns(vec!["id".to_owned()]));
    assert_eq!(bindings[1].event, EventKind::All);
    assert_eq!(bindings[1].table, Field::Absent);
    assert_eq!(bindings[1].select, Select::All);
}

#[test]
fn python_joins() {
    let newer = sdk(
        Version::V1,
        include_str!("../frames/realtime-py-2.34-join.json"),
    );
    assert_eq!(newer.config.presence.enabled, Some(false));
    assert_eq!(newer.config.presence.key, None);
    assert_eq!(newer.config.bindings.len(), 2);

    let frame = include_str!("../frames/realtime-py-2.7-join.json");
    assert!(decode_text(Version::V1, frame).unwrap().join_ref.is_null());
    let older = sdk(Version::V1, frame);
    assert_eq!(older.config.presence.enabled, None);
    assert_eq!(older.config.bindings[0].event, EventKind::Insert);
    assert_eq!(older.config.bindings[1].event, EventKind::All);
    assert_eq!(older.config.bindings[1].schema, Field::Absent);
    assert_eq!(
        older.config.bindings[1].echo(5),
        r#"{"events":"*","table":"t","id":5}"#
    );
}

#[test]
fn what_is_missing_gets_its_default() {
    for payload in [
        "{}",
        r#"{"config":{}}"#,
        r#"{"config":null,"access_token":null}"#,
        r#"{"config":{"broadcast":null,"presence":null,"postgres_changes":null,"private":null}}"#,
    ] {
        let join = join(payload);
        assert!(join.invalid.is_empty(), "{payload}: {:?}", join.invalid);
        assert!(join.access_token.is_none() && join.config.bindings.is_empty());
        assert!(!join.config.private && !join.config.broadcast.ack);
        assert_eq!(join.config.presence.enabled, None);
        assert_eq!(join.config.wait, None);
    }
}

#[test]
fn what_is_of_a_wrong_type_gets_its_default_and_is_named() {
    let check = |payload: &str, names: &[&str]| {
        let join = join(payload);
        assert_eq!(join.invalid, names, "{payload}");
        assert!(
            !join.config.private && !join.config.broadcast.ack && !join.config.broadcast.self_send
        );
    };
    check("7", &["payload"]);
    check("null", &[]);
    check(r#"{"config":[1]}"#, &["config"]);
    check(
        r#"{"access_token":7,"user_token":{}}"#,
        &["access_token", "user_token"],
    );
    check(r#"{"config":{"private":1}}"#, &["config.private"]);
    check(r#"{"config":{"private":"yes"}}"#, &["config.private"]);
    check(r#"{"config":{"private":""}}"#, &["config.private"]);
    check(
        r#"{"config":{"broadcast":"x","presence":true}}"#,
        &["config.broadcast", "config.presence"],
    );
    check(
        r#"{"config":{"broadcast":{"ack":[],"self":{},"replication_ready":1}}}"#,
        &[
            "config.broadcast.ack",
            "config.broadcast.self",
            "config.broadcast.replication_ready",
        ],
    );
    check(
        r#"{"config":{"presence":{"enabled":"on","key":{}}}}"#,
        &["config.presence.enabled", "config.presence.key"],
    );
    check(
        r#"{"config":{"postgres_changes":"x"}}"#,
        &["config.postgres_changes"],
    );
    check(
        r#"{"config":{"postgres_changes":{"0":{}}}}"#,
        &["config.postgres_changes"],
    );
    check(
        r#"{"config":{"postgres_changes":[1,"x",[]]}}"#,
        &["config.postgres_changes"],
    );
    let many = format!(
        r#"{{"config":{{"postgres_changes":[{}{{}}]}}}}"#,
        "{},".repeat(1000)
    );
    check(&many, &["config.postgres_changes"]);
    let wrong = join(
        r#"{"config":{"private":7,"postgres_changes":[null,{"event":1,"schema":2,"table":[],"filter":{},"select":"a","since":1,"history":"x","cursor":0}]}}"#,
    );
    assert_eq!(
        wrong.invalid,
        [
            "config.private",
            "config.postgres_changes[].event",
            "config.postgres_changes[].schema",
            "config.postgres_changes[].table",
            "config.postgres_changes[].filter",
            "config.postgres_changes[].since",
            "config.postgres_changes[].select",
            "config.postgres_changes[].history",
            "config.postgres_changes[].cursor",
        ]
    );
    let binding = &wrong.config.bindings[0];
    assert_eq!(binding.event, EventKind::All);
    assert_eq!(binding.schema, Field::Invalid);
    assert_eq!(binding.select, Select::Invalid);
}

#[test]
fn booleans_are_flexible() {
    for (value, expected) in [
        ("true", true),
        (r#""true""#, true),
        (r#""TRUE""#, true),
        ("false", false),
        (r#""False""#, false),
        ("null", false),
    ] {
        let join = join(&format!(
            r#"{{"config":{{"private":{value},"presence":{{"enabled":{value}}},"broadcast":{{"ack":{value},"self":{value},"replication_ready":{value}}}}}}}"#
        ));
        assert!(join.invalid.is_empty(), "{value}");
        let config = join.config;
        assert_eq!(config.private, expected, "{value}");
        assert_eq!(config.presence.enabled, Some(expected), "{value}");
        assert_eq!(config.broadcast.ack, expected, "{value}");
        assert_eq!(config.broadcast.self_send, expected, "{value}");
        assert_eq!(config.broadcast.replication_ready, expected, "{value}");
    }
}

#[test]
fn presence_keys_may_be_numbers() {
    let key = |value: &str| {
        join(&format!(r#"{{"config":{{"presence":{{"key":{value}}}}}}}"#))
            .config
            .presence
            .key
    };
    assert_eq!(key(r#""a\nb""#).as_deref(), Some("a\nb"));
    assert_eq!(key("42").as_deref(), Some("42"));
    assert_eq!(key("-1.5").as_deref(), Some("-1.5"));
    assert_eq!(key(r#""""#), None);
    assert_eq!(key("null"), None);
    assert_eq!(key("true"), None);
}

#[test]
fn replay_is_read_strictly() {
    let replay = |value: &str| {
        join(&format!(
            r#"{{"config":{{"broadcast":{{"replay":{value}}}}}}}"#
        ))
        .config
        .broadcast
        .replay
    };
    let valid = |since_ms, limit| Some(Replay::Valid { since_ms, limit });
    assert_eq!(
        replay(r#"{"since":1700000000000,"limit":10}"#),
        valid(1_700_000_000_000, 10)
    );
    assert_eq!(replay(r#"{"since":0}"#), valid(0, 25));
    assert_eq!(replay(r#"{"since":0,"limit":99}"#), valid(0, 25));
    assert_eq!(replay(r#"{"since":0,"limit":-4}"#), valid(0, 1));
    assert_eq!(
        replay(r#"{"since":253402300799999}"#),
        valid(253_402_300_799_999, 25)
    );
    for wrong in [
        "null",
        "true",
        "[]",
        "{}",
        r#"{"since":"0"}"#,
        r#"{"since":1.5}"#,
        r#"{"since":null}"#,
        r#"{"since":0,"limit":"5"}"#,
        r#"{"since":0,"limit":2.5}"#,
        r#"{"since":253402300800000}"#,
        r#"{"since":99999999999999999999}"#,
    ] {
        assert_eq!(replay(wrong), Some(Replay::Invalid), "{wrong}");
    }
}

#[test]
fn clients_may_ask_to_wait() {
    let wait = |options: &str| {
        join(&format!(
            r#"{{"config":{{"postgres_changes_options":{options}}}}}"#
        ))
        .config
        .wait
    };
    assert_eq!(wait(r#"{"wait":true,"timeout":9000}"#), Some(9000));
    assert_eq!(wait(r#"{"wait":true}"#), Some(15_000));
    assert_eq!(wait(r#"{"wait":true,"timeout":-1}"#), Some(15_000));
    assert_eq!(wait(r#"{"wait":false,"timeout":9000}"#), None);
    assert_eq!(wait("{}"), None);
}

#[test]
fn the_token_of_a_channel() {
    let check = |payload: &str, expected: &str| {
        assert_eq!(join(payload).token("connect"), expected, "{payload}");
    };
    check("{}", "connect");
    check(r#"{"access_token":"a"}"#, "a");
    check(r#"{"user_token":"u"}"#, "u");
    check(r#"{"access_token":"a","user_token":"u"}"#, "u");
    check(r#"{"access_token":"sb_publishable_x"}"#, "connect");
    check(r#"{"access_token":"sb_x","user_token":"u"}"#, "connect");
    check(r#"{"user_token":"sb_x"}"#, "connect");
    check(r#"{"access_token":7,"user_token":"u"}"#, "u");
    check(r#"{"access_token":""}"#, "");
}

#[test]
fn pushed_tokens() {
    let check = |payload: &str, expected: Option<&str>| {
        assert_eq!(
            parse_access_token(&raw(payload)).as_deref(),
            expected,
            "{payload}"
        );
    };
    check(r#"{"access_token":"eyJ"}"#, Some("eyJ"));
    check(r#"{"access_token":""}"#, Some(""));
    for ignored in [
        "{}",
        "null",
        "[]",
        r#"{"access_token":null}"#,
        r#"{"access_token":7}"#,
        r#"{"access_token":"sb_x"}"#,
    ] {
        check(ignored, None);
    }
}

#[test]
fn debug_output_holds_no_token() {
    let shown = format!(
        "{:?}",
        join(r#"{"access_token":"secret-1","user_token":"secret-2"}"#)
    );
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn the_reply_echoes_bindings_in_order_with_ids() {
    let frame = include_str!("../frames/realtime-js-2.119-join-v2.json");
    let config = sdk(Version::V2, frame).config;
    let pairs: Vec<_> = config
        .bindings
        .iter()
        .zip([49_152_733, 81_234_567])
        .collect();
    let reply = decode_text(Version::V2, frame)
        .map(|message| {
            encode(
                Version::V2,
                &message.join_ref,
                &message.reference,
                &message.topic,
                event::REPLY,
                &join_reply(&pairs),
            )
        })
        .unwrap();
    assert_eq!(
        reply,
        r#"["6","6","realtime:room","phx_reply",{"status":"ok","response":{"postgres_changes":[{"event":"INSERT","schema":"public","table":"t","filter":"id=eq.7","select":["id"],"id":49152733},{"event":"*","schema":"public","id":81234567}]}}]"#
    );
    assert_eq!(
        join_reply(&[]),
        r#"{"status":"ok","response":{"postgres_changes":[]}}"#
    );
}

#[test]
fn an_echo_changes_nothing_but_the_id() {
    for (sent, echoed) in [
        ("{}", r#"{"id":7}"#),
        ("{ }", r#"{"id":7}"#),
        (r#"{"event":"insert"}"#, r#"{"event":"insert","id":7}"#),
        (
            r#"{"filter": "","x":{"b":1.50,"a":null} }"#,
            r#"{"filter": "","x":{"b":1.50,"a":null},"id":7}"#,
        ),
        (
            r#"{"schema":null,"table":"\u00e9"}"#,
            r#"{"schema":null,"table":"\u00e9","id":7}"#,
        ),
        (r#"{"id":1,"event":"*"}"#, r#"{"event":"*","id":7}"#),
        (
            r#"{"event":"*","id":"x","k\"ey":[1, 2]}"#,
            r#"{"event":"*","k\"ey":[1, 2],"id":7}"#,
        ),
        (r#"{"\u0069d":1}"#, r#"{"id":7}"#),
    ] {
        assert_eq!(binding(sent).echo(7), echoed);
    }
}

#[test]
fn null_items_are_dropped_from_the_list() {
    let bindings = bindings(r#"[null,{"event":"INSERT"},null,{"event":"UPDATE"}]"#);
    let events: Vec<_> = bindings.iter().map(|binding| binding.event).collect();
    assert_eq!(events, [EventKind::Insert, EventKind::Update]);
}

#[test]
fn events_are_read_in_any_case_and_default_to_all() {
    for (value, expected) in [
        (r#"{"event":"insert"}"#, EventKind::Insert),
        (r#"{"event":"Update"}"#, EventKind::Update),
        (r#"{"events":"DELETE"}"#, EventKind::Delete),
        (r#"{"event":"INSERT","events":"DELETE"}"#, EventKind::Insert),
        (r#"{"event":"*"}"#, EventKind::All),
        (r#"{"event":null}"#, EventKind::All),
        (r#"{"event":"TRUNCATE"}"#, EventKind::All),
        ("{}", EventKind::All),
    ] {
        assert_eq!(binding(value).event, expected, "{value}");
    }
}

#[test]
fn select_is_a_list_of_text() {
    let select = |value: &str| binding(&format!(r#"{{"select":{value}}}"#)).select;
    assert_eq!(
        select(r#"["a",7,null,"b"]"#),
        Select::Columns(vec!["a".to_owned(), "b".to_owned()])
    );
    for all in ["[]", "null", "[1]"] {
        assert_eq!(select(all), Select::All, "{all}");
    }
    for wrong in [r#""a""#, "{}", "7"] {
        assert_eq!(select(wrong), Select::Invalid, "{wrong}");
    }
}

#[test]
fn ids_are_stable_positive_and_distinct_within_a_channel() {
    let id = |object: &str| binding(object).id();
    let first = id(r#"{"event":"INSERT","schema":"public","table":"t"}"#);
    assert_eq!(
        first,
        id(r#"{"table":"t", "event":"INSERT","schema":"public"}"#)
    );
    assert_eq!(
        first,
        id(r#"{"event":"INSERT","schema":"public","table":"t","since":"c1","history":5,"id":3}"#)
    );
    assert_ne!(
        first,
        id(r#"{"event":"INSERT","schema":"public","table":"u"}"#)
    );
    assert_ne!(id(r#"{"ab":"c"}"#), id(r#"{"a":"bc"}"#));
    // Pinned, because gateways of different builds that serve one client must agree.
    assert_eq!(id(r#"{"config":1}"#), id(r#"{ "config" : 1 }"#));
    assert_eq!(first, 532_078_860);

    let same = bindings(r#"[{"table":"t"},{"table":"u"},{"table":"t"},{"table":"t"}]"#);
    let ids = assign_ids(&same);
    assert_eq!(ids, assign_ids(&same));
    assert_eq!(ids[0], same[0].id());
    assert_eq!(ids[1], same[1].id());
    for (position, id) in ids.iter().enumerate() {
        assert!((1..1 << 31).contains(id));
        assert!(!ids[..position].contains(id));
    }
}

#[test]
fn cursors_are_asked_for_or_implied() {
    for (object, cursor) in [
        ("{}", false),
        (r#"{"cursor":true}"#, true),
        (r#"{"since":"c"}"#, true),
        (r#"{"history":10}"#, true),
        (r#"{"history":10,"cursor":false}"#, false),
    ] {
        assert_eq!(binding(object).cursor, cursor, "{object}");
    }
    assert_eq!(binding(r#"{"history":10}"#).history, Some(10));
    assert_eq!(binding(r#"{"since":"c"}"#).since, text("c"));
}

#[test]
fn targets_of_bindings() {
    let check = |object: &str, schema: &str, table: &str| {
        let target = binding(object)
            .target()
            .unwrap_or_else(|error| panic!("{object}: {error}"));
        assert_eq!(
            (target.schema.as_str(), target.table.as_str()),
            (schema, table),
            "{object}"
        );
    };
    check(r#"{"schema":"s","table":"t"}"#, "s", "t");
    check(r#"{"schema":"*","table":"t","filter":"a=eq.1"}"#, "*", "t");
    check(r#"{"schema":"s"}"#, "s", "*");
    check(r#"{"schema":"s","filter":" "}"#, "s", "*");
    check(r#"{"table":"t"}"#, "public", "t");
    let target = binding(r#"{"schema":"s","table":"t","filter":"a=eq.1","select":["b"]}"#)
        .target()
        .unwrap();
    assert_eq!(target.filters, parse_filter("a=eq.1").unwrap());
    assert_eq!(target.select, Some(vec!["b".to_owned()]));
}

#[test]
fn wrong_bindings_are_told_what_is_wrong() {
    let check = |object: &str, message: &str| {
        assert_eq!(binding(object).target().unwrap_err().to_string(), message);
    };
    for object in [
        "{}",
        r#"{"filter":"a=eq.1"}"#,
        r#"{"schema":"s","filter":"a=eq.1"}"#,
        r#"{"table":"t","filter":"a=eq.1"}"#,
        r#"{"schema":7,"table":"t"}"#,
        r#"{"schema":"s","table":[]}"#,
        r#"{"schema":"s","table":"t","filter":7}"#,
    ] {
        check(
            object,
            &format!(
                "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {object}"
            ),
        );
    }
    check(
        r#"{"schema":"s","table":"t","filter":"wrong"}"#,
        r#"Error parsing `filter` params: ["wrong"]"#,
    );
    check(
        r#"{"schema":"s","table":"t","select":"a"}"#,
        r#"Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]"#,
    );
    for object in [
        r#"{"schema":"s","select":["a"]}"#,
        r#"{"table":"t","select":["a"]}"#,
        r#"{"schema":"s","table":"*","select":["a"]}"#,
    ] {
        check(
            object,
            "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.",
        );
    }
}

#[test]
fn a_refused_join_says_why() {
    assert_eq!(
        Refusal::Unauthorized {
            topic: "room1".to_owned()
        }
        .reply(),
        r#"{"status":"error","response":{"reason":"Unauthorized: You do not have permissions to read from this Channel topic: room1"}}"#
    );
}
