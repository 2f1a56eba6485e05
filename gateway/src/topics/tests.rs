//! Topics by themselves: who hears whom, and what presence says.

use futures::FutureExt;
use serde_json::{Value, json};

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
    let outbox = Arc::new(Outbox::new(outbox::Limits {
        frames: 100,
        bytes: 1 << 20,
    }));
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
    topics.join(key, id, member, None).unwrap();
    Client { id, outbox }
}

impl Client {
    /// Event and payload of each text frame; binary frames as their bytes.
    fn received(&self) -> Vec<(String, Value)> {
        let mut frames = Vec::new();
        if self.outbox.take(&mut frames).now_or_never().is_none() {
            return Vec::new();
        }
        frames
            .into_iter()
            .map(|frame| match frame {
                Item::Frame(Frame::Text(text)) => match serde_json::from_str(&text).unwrap() {
                    Value::Array(mut items) => {
                        (items[3].as_str().unwrap().to_owned(), items.swap_remove(4))
                    }
                    mut message => (
                        message["event"].as_str().unwrap().to_owned(),
                        message["payload"].take(),
                    ),
                },
                Item::Signal(signal) => panic!("{signal:?}"),
                Item::Frame(Frame::Binary(bytes)) => ("binary".to_owned(), json!(bytes.to_vec())),
            })
            .collect()
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

#[test]
fn presence_is_told_as_state_then_as_diffs() {
    let topics = topics();
    let key = key(false);
    let ada = join(&topics, &key, Version::V2, "ada", false);
    assert_eq!(ada.received(), [("presence_state".to_owned(), json!({}))]);

    topics.track(&key, ada.id, &raw(json!({"n": 1})));
    let received = ada.received();
    let joined = &received[0].1["joins"]["ada"]["metas"][0];
    assert_eq!(
        (&received[0].0[..], &joined["n"], &received[0].1["leaves"]),
        ("presence_diff", &json!(1), &json!({}))
    );
    let first = joined["phx_ref"].clone();

    // The same again changes nothing.
    topics.track(&key, ada.id, &raw(json!({"n": 1})));
    assert_eq!(ada.received(), []);

    // An update joins anew and leaves as it was, in one message.
    topics.track(&key, ada.id, &raw(json!({"n": 2})));
    let received = ada.received();
    assert_eq!(received.len(), 1);
    assert_eq!(
        received[0].1["joins"]["ada"]["metas"][0]["phx_ref_prev"],
        first
    );
    assert_eq!(received[0].1["leaves"]["ada"]["metas"][0]["phx_ref"], first);

    let bob = join(&topics, &key, Version::V1, "bob", false);
    assert_eq!(bob.received()[0].1["ada"]["metas"][0]["n"], 2);

    topics.leave(&key, ada.id);
    let received = bob.received();
    assert_eq!(
        (
            &received[0].1["joins"],
            &received[0].1["leaves"]["ada"]["metas"][0]["n"]
        ),
        (&json!({}), &json!(2))
    );
    assert_eq!(topics.presences(false, "room"), "{}");
    topics.leave(&key, bob.id);
    assert!(topics.topics.is_empty());
}

#[test]
fn two_channels_of_one_key_are_two_metas() {
    let topics = topics();
    let key = key(false);
    let phone = join(&topics, &key, Version::V2, "ada", false);
    let desk = join(&topics, &key, Version::V2, "ada", false);
    topics.track(&key, phone.id, &raw(json!({"on": "phone"})));
    topics.track(&key, desk.id, &raw(json!({"on": "desk"})));
    let state: Value = serde_json::from_str(&topics.presences(false, "room")).unwrap();
    assert_eq!(state["ada"]["metas"].as_array().unwrap().len(), 2);
    topics.untrack(&key, phone.id);
    let state: Value = serde_json::from_str(&topics.presences(false, "room")).unwrap();
    assert_eq!(state["ada"]["metas"][0]["on"], "desk");
}
