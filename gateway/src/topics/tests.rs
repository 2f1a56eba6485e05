//! Topics by themselves: who hears whom, and what presence says.

mod presence;

use serde_json::{Value, json, value::RawValue};

use super::*;
use crate::{
    config::Settings,
    hub::outbox::{self, Item},
};

fn key(private: bool) -> TopicKey {
    TopicKey {
        private,
        sub_topic: "room".into(),
    }
}

fn topics() -> Topics {
    let settings = Settings::from_pairs([
        ("database_url", "postgres://nobody@127.0.0.1:1/none"),
        ("jwt_secret", "0123456789abcdef0123456789abcdef"),
    ]);
    let now = tokio::time::Instant::now();
    Topics::new(Limits::new(&settings.expect("valid settings"), now))
}

struct Client {
    id: MemberId,
    outbox: Arc<Outbox>,
}

fn join(
    topics: &Topics,
    key: &TopicKey,
    version: Version,
    presence_key: &str,
    self_send: bool,
) -> Client {
    let (client, member) = newcomer(version, presence_key, self_send);
    topics.join(key, client.id, member, None).unwrap();
    client
}

fn newcomer(version: Version, presence_key: &str, self_send: bool) -> (Client, Member) {
    let limits = outbox::Limits {
        frames: 100,
        bytes: 8 << 20,
    };
    let outbox = Outbox::new(limits, None);
    let id = MemberId::next();
    let member = Member {
        topic: "realtime:room".into(),
        version,
        join_ref: Ref::from_text("1"),
        outbox: outbox.clone(),
        self_send,
        presence_enabled: true,
        presence_key: presence_key.into(),
        reads: Grant::ALL,
    };
    (Client { id, outbox }, member)
}

impl Client {
    /// Event and payload of each text frame; binary frames as their bytes.
    fn received(&self) -> Vec<(String, Value)> {
        let read = |item| match item {
            Item::Frame(frame) => match frame.as_text() {
                Some(text) => match serde_json::from_str(text).unwrap() {
                    Value::Array(mut items) => {
                        (items[3].as_str().unwrap().to_owned(), items.swap_remove(4))
                    }
                    mut message => (
                        message["event"].as_str().unwrap().to_owned(),
                        message["payload"].take(),
                    ),
                },
                None => ("binary".to_owned(), json!(frame.payload().to_vec())),
            },
            Item::Signal(signal) => panic!("{signal:?}"),
        };
        self.outbox.take().into_iter().map(read).collect()
    }
}

fn raw(value: Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(&value).unwrap()
}

#[test]
fn a_broadcast_reaches_all_but_its_sender() {
    let topics = topics();
    let key = key(false);
    let sender = join(&topics, &key, Version::V2, "a", false);
    let other = join(&topics, &key, Version::V2, "b", false);
    let echo = join(&topics, &key, Version::V1, "c", true);
    for client in [&sender, &other, &echo] {
        client.received();
    }
    let payload = raw(json!({"type": "broadcast", "event": "e", "payload": {"x": 1}}));
    assert_eq!(
        topics.broadcast(&key, Some(sender.id), Broadcast::Message(&payload)),
        2
    );
    assert_eq!(sender.received(), []);
    assert_eq!(
        other.received(),
        [(
            "broadcast".to_owned(),
            json!({"type": "broadcast", "event": "e", "payload": {"x": 1}})
        )]
    );
    topics.broadcast(&key, Some(echo.id), Broadcast::Message(&payload));
    assert_eq!(echo.received().len(), 2);
}

#[test]
fn bytes_reach_only_those_who_can_be_sent_bytes() {
    let topics = topics();
    let key = key(false);
    let old = join(&topics, &key, Version::V1, "a", false);
    let new = join(&topics, &key, Version::V2, "b", false);
    old.received();
    new.received();
    let bytes = Broadcast::User {
        event: "e",
        encoding: Encoding::Binary,
        payload: &[1, 255],
        id: None,
    };
    assert_eq!(topics.broadcast(&key, None, bytes), 1);
    assert_eq!(old.received(), []);
    let frame = &new.received()[0];
    assert_eq!(frame.0, "binary");
    assert!(
        frame
            .1
            .as_array()
            .unwrap()
            .ends_with(&[json!(1), json!(255)])
    );
    assert_eq!(topics.send(false, "room", "e", r#"{"x":1}"#), 2);
    assert_eq!(
        old.received(),
        [(
            "broadcast".to_owned(),
            json!({"event": "e", "payload": {"x": 1}, "type": "broadcast"})
        )]
    );
}

#[test]
fn public_and_private_topics_of_one_name_do_not_meet() {
    let topics = topics();
    let public = join(&topics, &key(false), Version::V2, "a", false);
    join(&topics, &key(true), Version::V2, "b", false);
    public.received();
    let payload = raw(json!({}));
    assert_eq!(
        topics.broadcast(&key(true), None, Broadcast::Message(&payload)),
        1
    );
    assert_eq!(public.received(), []);
}
