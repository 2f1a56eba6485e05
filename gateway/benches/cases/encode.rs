//! A change as clients get it. The first cases are the protocol's part alone; the others are the delivery to one member, so that
//! they hold whatever the hub does to make a frame: less `fanout/nobody`, they are what encoding costs.

use std::{hint::black_box, sync::Arc};

use gateway::feed::change::Change;
use protocol::{ChangeData, Version, encode_change};

use super::{
    Amount, Prepared,
    fanout::Fanout,
    world::{self, Listener, World},
};

const TOPIC: &str = "realtime:messages:1";

/// What is the same for all subscribers with the same columns.
pub(super) fn data() -> Prepared {
    let (columns, record) = (columns(), world::row(1, world::CONTENT));
    let length = to_json(&columns, &record).len();
    Prepared::new(Amount::Bytes(length), move || {
        black_box(to_json(black_box(&columns), black_box(&record)));
    })
}

pub(super) fn frame_v1() -> Prepared {
    frame(Version::V1)
}

pub(super) fn frame_v2() -> Prepared {
    frame(Version::V2)
}

fn frame(version: Version) -> Prepared {
    let data = to_json(&columns(), &world::row(1, world::CONTENT));
    let ids = [1_260_347_661, 861_068_540];
    let length = encode_change(version, TOPIC, &ids, &data).len();
    Prepared::new(Amount::Bytes(length), move || {
        black_box(encode_change(
            version,
            black_box(TOPIC),
            &ids,
            black_box(&data),
        ));
    })
}

fn columns() -> String {
    let columns =
        world::COLUMNS.map(|(name, kind)| format!(r#"{{"name":"{name}","type":"{kind}"}}"#));
    format!("[{}]", columns.join(","))
}

fn to_json(columns: &str, record: &str) -> String {
    ChangeData {
        schema: "public",
        table: "chat_messages",
        kind: "INSERT",
        commit_timestamp: Some(world::COMMITTED_AT),
        columns,
        record: Some(record),
        old_record: None,
        errors: None,
    }
    .to_json()
}

pub(super) fn insert_v1() -> Prepared {
    let listener = Listener {
        version: Version::V1,
        ..Listener::to(1)
    };
    delivered(&listener, world::insert(1))
}

pub(super) fn insert_v2() -> Prepared {
    delivered(&Listener::to(1), world::insert(1))
}

pub(super) fn insert_v2_cursor() -> Prepared {
    let listener = Listener {
        cursor: true,
        ..Listener::to(1)
    };
    delivered(&listener, world::insert(1))
}

/// Not the whole row.
pub(super) fn insert_v2_columns() -> Prepared {
    let listener = Listener {
        columns: Some(vec![0, 2, 3, 7]),
        ..Listener::to(1)
    };
    delivered(&listener, world::insert(1))
}

pub(super) fn update_v2() -> Prepared {
    delivered(&Listener::to(1), world::update(1))
}

fn delivered(listener: &Listener, change: Arc<Change>) -> Prepared {
    let world = World::new();
    world.join(listener);
    let mut fanout = Fanout::new(world, vec![change]);
    let (frames, bytes) = fanout.once();
    assert_eq!(frames, 1);
    Prepared::new(Amount::Bytes(bytes), fanout)
}
