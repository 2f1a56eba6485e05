//! Joins of clients from before 2022: no `config`, the topic names a table, and the type of a change is the event.

use protocol::{
    ChangeData, EventKind, Field, Join, Target, Version, decode_text, encode_bare_change, event,
    join_reply, parse_filter, parse_join_to, sub_topic,
};

use crate::raw;

fn join(sub_topic: &str) -> Join {
    parse_join_to(sub_topic, &raw("{}"))
}

fn target(schema: &str, table: &str, filter: &str) -> Target {
    Target {
        event: EventKind::All,
        schema: schema.to_owned(),
        table: table.to_owned(),
        filters: parse_filter(filter).expect("a filter"),
        select: None,
    }
}

#[test]
fn the_topic_names_the_one_binding_and_the_reply_repeats_it() {
    for (sub_topic, wanted, echo) in [
        ("*", target("*", "*", ""), r#"{"schema":"*","id":7}"#),
        (
            "public",
            target("public", "*", ""),
            r#"{"schema":"public","id":7}"#,
        ),
        (
            "public:*",
            target("public", "*", ""),
            r#"{"schema":"public","table":"*","id":7}"#,
        ),
        (
            "public:chat_messages",
            target("public", "chat_messages", ""),
            r#"{"schema":"public","table":"chat_messages","id":7}"#,
        ),
        (
            "shop:orders:id=eq.7",
            target("shop", "orders", "id=eq.7"),
            r#"{"schema":"shop","table":"orders","filter":"id=eq.7","id":7}"#,
        ),
        // Only the first two colons divide.
        (
            "public:t:at=gt.10:30:00",
            target("public", "t", "at=gt.10:30:00"),
            r#"{"schema":"public","table":"t","filter":"at=gt.10:30:00","id":7}"#,
        ),
        (
            "public:odd \"name\"\\",
            target("public", "odd \"name\"\\", ""),
            r#"{"schema":"public","table":"odd \"name\"\\","id":7}"#,
        ),
    ] {
        let join = join(sub_topic);
        assert!(join.config.bare, "{sub_topic}");
        assert!(join.invalid.is_empty(), "{sub_topic}: {:?}", join.invalid);
        let [binding] = join.config.bindings.as_slice() else {
            panic!("{sub_topic}: {:?}", join.config.bindings);
        };
        assert_eq!(binding.target().expect(sub_topic), wanted, "{sub_topic}");
        assert_eq!(
            join_reply(&[(binding, 7)]),
            format!(r#"{{"status":"ok","response":{{"postgres_changes":[{echo}]}}}}"#)
        );
    }
}

#[test]
fn real_clients_of_that_time_are_understood() {
    let filter = "session_id=eq.00000000-0000-4000-8000-0000000000a1";
    for (frame, filter, has_token) in [
        (
            include_str!("../frames/supabase-js-1.35-join.json"),
            Field::Text(filter.to_owned()),
            true,
        ),
        // It knows no token but that of the connection.
        (
            include_str!("../frames/realtime-py-1.0-join.json"),
            Field::Absent,
            false,
        ),
    ] {
        let message = decode_text(Version::V1, frame).expect("a message");
        assert_eq!(message.event, event::JOIN);
        let join = parse_join_to(sub_topic(&message.topic).expect(frame), &message.payload);
        assert_eq!(join.token("connect") != "connect", has_token);
        let config = &join.config;
        assert!(config.bare && !config.private && !config.broadcast.ack);
        assert_eq!(config.presence.enabled, None);
        assert_eq!(config.bindings.len(), 1);
        assert_eq!(config.bindings[0].event, EventKind::All);
        assert_eq!(config.bindings[0].table.as_text(), Some("chat_messages"));
        assert_eq!(config.bindings[0].filter, filter);
    }
}

#[test]
fn a_room_is_no_schema() {
    for sub_topic in [
        "room1",
        "PUBLIC",
        "public ",
        ":",
        ":t",
        "public:",
        "public::x",
        "::",
    ] {
        let config = join(sub_topic).config;
        assert!(!config.bare && config.bindings.is_empty(), "{sub_topic}");
    }
}

#[test]
fn whoever_sends_a_config_or_no_object_means_a_room() {
    for payload in [
        r#"{"config":{}}"#,
        r#"{"config":null}"#,
        r#"{"config":7}"#,
        "null",
        "[]",
        r#""public:todos""#,
    ] {
        let config = parse_join_to("public:todos", &raw(payload)).config;
        assert!(!config.bare && config.bindings.is_empty(), "{payload}");
    }
    let new = raw(r#"{"config":{"postgres_changes":[{"event":"INSERT","table":"t"}]}}"#);
    let config = parse_join_to("public:todos", &new).config;
    assert!(!config.bare);
    assert_eq!(config.bindings[0].event, EventKind::Insert);
}

#[test]
fn a_change_is_its_own_event() {
    let insert = ChangeData {
        schema: "public",
        table: "t",
        kind: "INSERT",
        commit_timestamp: Some("2026-01-01T00:00:00.000Z"),
        columns: "[]",
        record: Some("{}"),
        old_record: None,
        errors: None,
    };
    let data = insert.to_json();
    assert_eq!(
        encode_bare_change(Version::V2, "realtime:public:t", insert.kind, &data),
        r#"[null,null,"realtime:public:t","INSERT",{"schema":"public","table":"t","type":"INSERT","commit_timestamp":"2026-01-01T00:00:00.000Z","columns":[],"record":{},"errors":null}]"#
    );
    let delete = ChangeData {
        kind: "DELETE",
        record: None,
        old_record: Some(r#"{"id":1}"#),
        ..insert
    };
    assert_eq!(
        encode_bare_change(
            Version::V1,
            "realtime:public:t:id=eq.1",
            delete.kind,
            &delete.to_json()
        ),
        r#"{"topic":"realtime:public:t:id=eq.1","event":"DELETE","payload":{"schema":"public","table":"t","type":"DELETE","commit_timestamp":"2026-01-01T00:00:00.000Z","columns":[],"old_record":{"id":1},"errors":null},"ref":null}"#
    );
}
