//! Topics with many members: what is broadcast, and who is online. The clock stands still, and is set forward between runs.

use std::{collections::BTreeMap, hint::black_box, time::Duration};

use gateway::{
    authorizer::Grant,
    config::Settings,
    limits::Limits,
    topics::{Broadcast, Member, MemberId, TopicKey, Topics},
};
use protocol::{Encoding, Ref, Version};
use serde_json::value::RawValue;
use tokio::{runtime::Runtime, time::Instant};

use super::{
    Amount, Prepared, Work,
    network::{AT_ONCE, Network},
    world,
};

/// Longer than anybody waits to be told.
const PAUSE: Duration = Duration::from_secs(5);

struct Room {
    runtime: Runtime,
    topics: Topics,
    network: Network,
    key: TopicKey,
    members: Vec<MemberId>,
}

impl Room {
    fn new(members: usize) -> Room {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let entered = runtime.enter();
        let settings = Settings::from_pairs([
            world::DATABASE,
            ("jwt_secret", "0123456789abcdef0123456789abcdef"),
        ]);
        let limits = Limits::new(&settings.expect("valid settings"), Instant::now());
        let topics = Topics::new(limits);
        drop(entered);
        let mut room = Room {
            runtime,
            topics,
            network: Network::new(),
            key: TopicKey {
                private: false,
                sub_topic: "room".into(),
            },
            members: Vec::new(),
        };
        for place in 0..members {
            let id = room.enter(place);
            room.members.push(id);
        }
        room.pass_time();
        room.network.flush();
        room
    }

    fn member(&self, place: usize) -> Member {
        Member {
            topic: "realtime:room".into(),
            version: Version::V2,
            join_ref: Ref::from_text("1"),
            outbox: self.network.outbox(),
            self_send: true,
            presence_enabled: true,
            presence_key: format!("user-{place}").into(),
            reads: Grant::ALL,
        }
    }

    fn enter(&self, place: usize) -> MemberId {
        let (id, member) = (MemberId::next(), self.member(place));
        let _entered = self.runtime.enter();
        let joined = self.topics.join(&self.key, id, member, None);
        assert_eq!(joined, Ok(()));
        id
    }

    fn track(&self, place: usize, payload: &RawValue) {
        let _entered = self.runtime.enter();
        let tracked = self.topics.track(&self.key, self.members[place], payload);
        assert!(tracked.is_ok());
    }

    /// Everybody tracks something.
    fn track_all(&self) {
        for place in 0..self.members.len() {
            self.track(place, &payload(place));
        }
        self.pass_time();
        self.network.flush();
    }

    fn pass_time(&self) {
        self.runtime.block_on(tokio::time::advance(PAUSE));
    }
}

fn payload(number: usize) -> Box<RawValue> {
    let text = format!(r#"{{"name":"Somebody {number}","status":"typing","since":{number}}}"#);
    RawValue::from_string(text).expect("JSON")
}

/// A broadcast that came as text: the payload goes on as it is.
pub(super) fn broadcast_text(members: usize) -> Prepared {
    let text =
        r#"{"type":"broadcast","event":"cursor","payload":{"x":812,"y":377,"user":"user-1"}}"#;
    let payload = RawValue::from_string(text.to_owned()).expect("JSON");
    Spread::prepare(members, move |room| {
        room.topics
            .broadcast(&room.key, None, Broadcast::Message(black_box(&payload)))
    })
}

/// A piece of an answer, as clients send it on a version 2.0.0 socket.
pub(super) fn broadcast_binary(members: usize) -> Prepared {
    let payload =
        br#"{"message_id":"82773061-fa8e-4bdb-a238-8e62956a6d61","delta":" Beaufort from"}"#;
    Spread::prepare(members, move |room| {
        let broadcast = Broadcast::User {
            event: "token",
            encoding: Encoding::Json,
            payload: black_box(payload),
            id: None,
        };
        room.topics.broadcast(&room.key, None, broadcast)
    })
}

struct Spread<F> {
    room: Room,
    send: F,
}

impl<F: Fn(&Room) -> usize + 'static> Spread<F> {
    fn prepare(members: usize, send: F) -> Prepared {
        let room = Room::new(members);
        assert_eq!(send(&room), members);
        assert_eq!(room.network.flush().0, members);
        Prepared::new(Amount::Elements(members), Spread { room, send })
    }
}

impl<F: Fn(&Room) -> usize> Work for Spread<F> {
    fn run(&mut self) {
        let _entered = self.room.runtime.enter();
        black_box((self.send)(&self.room));
    }

    fn reset(&mut self) {
        self.room.network.flush();
    }

    fn at_once(&self) -> u64 {
        AT_ONCE
    }
}

/// The payload of a `presence_state`, made anew.
pub(super) fn state(members: usize) -> Prepared {
    let entries = entries(members);
    let length = protocol::presence::state(by_key(&entries)).len();
    Prepared::new(Amount::Bytes(length), move || {
        black_box(protocol::presence::state(by_key(black_box(&entries))));
    })
}

/// The payload of a `presence_diff` by which half of all come, and half go.
pub(super) fn diff(members: usize) -> Prepared {
    let entries = entries(members);
    let of = |entries: &[(String, String)]| {
        let (joins, leaves) = entries.split_at(entries.len() / 2);
        protocol::presence::diff(by_key(joins), by_key(leaves))
    };
    let length = of(&entries).len();
    Prepared::new(Amount::Bytes(length), move || {
        black_box(of(black_box(&entries)));
    })
}

fn entries(members: usize) -> Vec<(String, String)> {
    (0..members)
        .map(|place| {
            let phx_ref = format!("{place:016x}");
            let meta = protocol::presence::meta(&payload(place), &phx_ref, None);
            (format!("user-{place}"), meta)
        })
        .collect()
}

fn by_key(entries: &[(String, String)]) -> BTreeMap<&str, Vec<&str>> {
    entries
        .iter()
        .map(|(key, meta)| (&**key, vec![&**meta]))
        .collect()
}

/// One more comes to a room, and is told who is there.
pub(super) fn join(members: usize) -> Prepared {
    let room = Room::new(members);
    room.track_all();
    let mut join = Join {
        entered: Vec::new(),
        next: members,
        room,
    };
    join.run();
    let (frames, bytes) = join.room.network.flush();
    assert!(frames == 1 && bytes > 50 * members);
    join.reset();
    Prepared::new(Amount::Bytes(bytes), join)
}

struct Join {
    room: Room,
    entered: Vec<MemberId>,
    next: usize,
}

impl Work for Join {
    fn run(&mut self) {
        self.entered.push(self.room.enter(black_box(self.next)));
    }

    fn reset(&mut self) {
        let _entered = self.room.runtime.enter();
        for id in self.entered.drain(..) {
            self.room.topics.leave(&self.room.key, id);
        }
        self.room.network.flush();
    }
}

/// One member tracks something else, and everybody is told.
pub(super) fn track(members: usize) -> Prepared {
    let room = Room::new(members);
    room.track_all();
    let mut track = Track {
        payload: payload(members),
        next: members,
        room,
    };
    track.run();
    assert_eq!(track.room.network.flush().0, members);
    track.reset();
    Prepared::new(Amount::Elements(members), track)
}

struct Track {
    room: Room,
    payload: Box<RawValue>,
    next: usize,
}

impl Work for Track {
    fn run(&mut self) {
        self.room.track(0, black_box(&self.payload));
    }

    fn reset(&mut self) {
        self.next += 1;
        self.payload = payload(self.next);
        self.room.pass_time();
        self.room.network.flush();
    }
}
