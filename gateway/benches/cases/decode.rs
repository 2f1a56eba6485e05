//! What clients say, from the frame to what the gateway works with.

use std::hint::black_box;

use bytes::Bytes;
use protocol::{
    ClientFrame, Version, assign_ids, decode_binary, decode_text, parse_filter, parse_join_to,
    sub_topic,
};

use super::{Amount, Prepared, fixtures};

pub(super) fn heartbeat_v1() -> Prepared {
    text(Version::V1, fixtures::text_v1("heartbeat"))
}

pub(super) fn heartbeat_v2() -> Prepared {
    text(Version::V2, fixtures::text_v2("heartbeat"))
}

pub(super) fn broadcast_v1() -> Prepared {
    text(Version::V1, fixtures::text_v1("\"broadcast\",\"payload\""))
}

fn text(version: Version, frame: String) -> Prepared {
    decode_text(version, &frame).expect("a message");
    Prepared::new(Amount::Bytes(frame.len()), move || {
        drop(black_box(decode_text(version, black_box(&frame))));
    })
}

pub(super) fn broadcast_binary() -> Prepared {
    let frame = Bytes::from(fixtures::binary());
    let decoded = decode_binary(Version::V2, frame.clone()).expect("a message");
    assert!(matches!(decoded, ClientFrame::Broadcast(_)));
    Prepared::new(Amount::Bytes(frame.len()), move || {
        let frame = black_box(&frame).clone();
        drop(black_box(decode_binary(Version::V2, frame)));
    })
}

pub(super) fn join_v1() -> Prepared {
    join(Version::V1, fixtures::text_v1("phx_join"))
}

pub(super) fn join_v2() -> Prepared {
    join(Version::V2, fixtures::text_v2("phx_join"))
}

/// All that the protocol has to say of a join, before anybody is asked.
fn join(version: Version, frame: String) -> Prepared {
    let read = move |frame: &str| {
        let message = decode_text(version, frame).expect("a message");
        let topic = sub_topic(&message.topic).expect("a channel");
        let join = parse_join_to(topic, &message.payload);
        let ids = assign_ids(&join.config.bindings);
        let targets: Vec<_> = join
            .config
            .bindings
            .iter()
            .map(|binding| binding.target().expect("a target"))
            .collect();
        (join, ids, targets)
    };
    let (_, ids, targets) = read(&frame);
    assert!(ids.len() == 2 && targets.iter().any(|target| !target.filters.is_empty()));
    Prepared::new(Amount::Bytes(frame.len()), move || {
        drop(black_box(read(black_box(&frame))));
    })
}

pub(super) fn filter() -> Prepared {
    let filter = "session_id=eq.00000000-0000-4000-8000-0000000000a1,position=gte.10,role=in.(user,assistant)";
    assert_eq!(parse_filter(filter).map(|found| found.len()), Ok(3));
    Prepared::new(Amount::Bytes(filter.len()), move || {
        drop(black_box(parse_filter(black_box(filter))));
    })
}
