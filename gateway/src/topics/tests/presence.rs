//! Who is online: whatever is sent when, everybody knows the same.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Map;
use tokio::time::Instant;

use super::*;
use crate::limits::Exceeded;

fn track(topics: &Topics, key: &TopicKey, client: &Client, payload: Value) {
    assert_eq!(topics.track(key, client.id, &raw(payload)), Ok(()));
}

/// The pause of every topic is over.
fn tell_due(topics: &Topics, now: Instant) {
    while topics.tell_next(now) {}
}

/// What a client knows, put together as the SDKs do.
#[derive(Default)]
struct Known(BTreeMap<String, Vec<Value>>);

impl Known {
    fn hear(&mut self, client: &Client) -> usize {
        let heard = client.received();
        for (event, payload) in &heard {
            match &**event {
                "presence_state" => {
                    self.0.clear();
                    self.join(payload.as_object().unwrap());
                }
                "presence_diff" => {
                    self.join(payload["joins"].as_object().unwrap());
                    self.leave(payload["leaves"].as_object().unwrap());
                }
                other => panic!("{other}"),
            }
        }
        heard.len()
    }

    fn join(&mut self, joins: &Map<String, Value>) {
        for (key, entry) in joins {
            let metas = self.0.entry(key.clone()).or_default();
            for meta in entry["metas"].as_array().unwrap() {
                let known = metas
                    .iter()
                    .any(|other| other["phx_ref"] == meta["phx_ref"]);
                assert!(!known, "{meta} came twice");
                metas.push(meta.clone());
            }
        }
    }

    fn leave(&mut self, leaves: &Map<String, Value>) {
        for (key, entry) in leaves {
            let metas = self.0.get_mut(key).unwrap();
            for meta in entry["metas"].as_array().unwrap() {
                let place = metas.iter().position(|other| other == meta);
                metas.remove(place.unwrap_or_else(|| panic!("{meta} was not there")));
            }
            if metas.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn json(&self) -> Value {
        let entries = self.0.iter();
        entries
            .map(|(key, metas)| (key.clone(), json!({"metas": metas})))
            .collect::<Map<_, _>>()
            .into()
    }
}

fn online(topics: &Topics) -> Value {
    serde_json::from_str(&topics.presences(false, "room")).unwrap()
}

#[test]
fn presence_is_told_as_state_then_as_diffs() {
    let topics = topics();
    let key = key(false);
    let ada = join(&topics, &key, Version::V2, "ada", false);
    assert_eq!(ada.received(), [("presence_state".to_owned(), json!({}))]);

    track(&topics, &key, &ada, json!({"n": 1}));
    let received = ada.received();
    let joined = &received[0].1["joins"]["ada"]["metas"][0];
    assert_eq!(
        (&received[0].0[..], &joined["n"], &received[0].1["leaves"]),
        ("presence_diff", &json!(1), &json!({}))
    );
    let first = joined["phx_ref"].clone();

    // The same again changes nothing.
    track(&topics, &key, &ada, json!({"n": 1}));
    assert_eq!(ada.received(), []);

    // An update joins anew and leaves as it was, in one message.
    track(&topics, &key, &ada, json!({"n": 2}));
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
    assert_eq!(online(&topics), json!({}));
    topics.leave(&key, bob.id);
    assert!(topics.topics.is_empty());
}

#[test]
fn two_channels_of_one_key_are_two_metas() {
    let topics = topics();
    let key = key(false);
    let phone = join(&topics, &key, Version::V2, "ada", false);
    let desk = join(&topics, &key, Version::V2, "ada", false);
    track(&topics, &key, &phone, json!({"on": "phone"}));
    track(&topics, &key, &desk, json!({"on": "desk"}));
    let state = online(&topics);
    assert_eq!(state["ada"]["metas"].as_array().unwrap().len(), 2);
    topics.untrack(&key, phone.id);
    let state = online(&topics);
    assert_eq!(state["ada"]["metas"][0]["on"], "desk");
}

/// A stream of numbers that is the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn whatever_happens_when_everybody_knows_the_same_in_the_end() {
    for seed in 0..10 {
        let mut dice = Dice(seed);
        let (topics, key) = (topics(), key(false));
        let mut clients = Vec::new();
        let come = |dice: &mut Dice| {
            let version = [Version::V1, Version::V2][dice.roll(2)];
            let presence_key = ["ada", "bob", "ids", "eve"][dice.roll(4)];
            (
                join(&topics, &key, version, presence_key, false),
                Known::default(),
            )
        };
        // Each pause ends later than what was told before.
        let mut time = Instant::now();
        // Enough that changes wait for each other.
        for _ in 0..40 {
            clients.push(come(&mut dice));
        }
        for step in 0..300 {
            let who = dice.roll(clients.len());
            match dice.roll(10) {
                0 => clients.push(come(&mut dice)),
                1 if clients.len() > 30 => {
                    let (gone, _) = clients.swap_remove(who);
                    topics.leave(&key, gone.id);
                }
                2 => topics.untrack(&key, clients[who].0.id),
                3 => {
                    time += Duration::from_secs(10);
                    tell_due(&topics, time);
                }
                _ => {
                    let (client, known) = &mut clients[who];
                    track(&topics, &key, client, json!({"step": step}));
                    // Who tracks knows of it, and of all before it, at once.
                    known.hear(client);
                    assert_eq!(known.json(), online(&topics), "seed {seed}, step {step}");
                }
            }
            let who = dice.roll(clients.len());
            let (client, known) = &mut clients[who];
            known.hear(client);
        }
        tell_due(&topics, time + Duration::from_secs(10));
        for (client, known) in &mut clients {
            known.hear(client);
            assert_eq!(known.json(), online(&topics), "seed {seed}");
        }
    }
}

#[test]
fn changes_in_a_large_topic_are_told_together() {
    let (topics, key) = (topics(), key(false));
    let clients: Vec<_> = (0..300)
        .map(|number| join(&topics, &key, Version::V2, &format!("user-{number}"), false))
        .collect();
    for client in &clients {
        assert_eq!(client.received().len(), 1);
    }
    let begun = Instant::now();
    for client in &clients {
        track(&topics, &key, client, json!({}));
    }
    tell_due(&topics, begun + Duration::from_secs(60));
    for client in &clients {
        let mut known = Known::default();
        // The first at once, then in rounds; each its own before that.
        let frames = known.hear(client);
        assert!(frames < 50, "{frames}");
        assert_eq!(known.json(), online(&topics));
    }
    // Nobody has to wait when nothing else goes on.
    topics.untrack(&key, clients[0].id);
    tell_due(&topics, Instant::now() + Duration::from_secs(60));
    let heard = clients[1].received();
    assert!(heard[0].1["leaves"]["user-0"].is_object(), "{heard:?}");
}

#[test]
fn who_comes_and_goes_while_others_wait_was_never_there_for_them() {
    let (topics, key) = (topics(), key(false));
    let clients: Vec<_> = (0..300)
        .map(|number| join(&topics, &key, Version::V2, &format!("user-{number}"), false))
        .collect();
    track(&topics, &key, &clients[0], json!({}));
    for client in &clients {
        client.received();
    }
    track(&topics, &key, &clients[1], json!({}));
    topics.untrack(&key, clients[1].id);
    assert_eq!(clients[1].received().len(), 2);
    tell_due(&topics, Instant::now() + Duration::from_secs(60));
    assert_eq!(clients[2].received(), []);
    assert_eq!(clients[1].received(), []);
}

#[test]
fn a_state_is_made_once_for_many_who_join_and_what_it_lacks_follows() {
    let (topics, key) = (topics(), key(false));
    let mut clients: Vec<_> = (0..60)
        .map(|number| join(&topics, &key, Version::V2, &format!("user-{number}"), false))
        .collect();
    for client in &clients {
        track(&topics, &key, client, json!({"text": "x".repeat(100)}));
        clients_hear(&clients);
    }
    let state = |topics: &Topics| {
        let topic = topics.topics.get(&key).unwrap();
        topic.presence.state_of(Version::V2)
    };
    clients.push(join(&topics, &key, Version::V2, "late", false));
    let first = state(&topics).unwrap();
    // Within the pause nothing is encoded anew, though somebody has gone.
    topics.untrack(&key, clients[0].id);
    clients.push(join(&topics, &key, Version::V2, "later", false));
    let last = state(&topics).unwrap();
    let waits = topics.topics.get(&key).unwrap().presence.waits();
    assert_eq!(Arc::ptr_eq(&first, &last), waits);
    tell_due(&topics, Instant::now() + Duration::from_secs(60));
    for client in clients.iter().rev().take(2) {
        let mut known = Known::default();
        known.hear(client);
        assert_eq!(known.json(), online(&topics));
    }
}

fn clients_hear(clients: &[Client]) {
    for client in clients {
        client.received();
    }
}

#[test]
fn a_payload_is_the_same_whatever_refs_it_brings_and_in_whatever_order() {
    let (topics, key) = (topics(), key(false));
    let ada = join(&topics, &key, Version::V2, "ada", false);
    ada.received();
    let tracks = |text: &str| {
        let payload = RawValue::from_string(text.to_owned()).unwrap();
        topics.track(&key, ada.id, &payload).unwrap();
        ada.received().len()
    };
    assert_eq!(tracks(r#"{"a":1,"b":12345678901234567890123}"#), 1);
    assert_eq!(tracks(r#"{"b":12345678901234567890123,"a":1}"#), 0);
    assert_eq!(
        tracks(r#"{"a":1,"b":12345678901234567890123,"phx_ref":"x"}"#),
        0
    );
    assert_eq!(tracks(r#"{"a":1,"b":12345678901234567890124}"#), 1);
    assert_eq!(tracks(r#"{"a":1}"#), 1);
}

#[test]
fn clients_of_version_1_get_a_large_state_in_pieces_that_they_can_read() {
    let (topics, key) = (topics(), key(false));
    let text = "x".repeat(90_000);
    let mut tracking = Vec::new();
    for number in 0..30 {
        let client = join(&topics, &key, Version::V2, &format!("user-{number}"), false);
        track(&topics, &key, &client, json!({"text": text}));
        tracking.push(client);
        clients_hear(&tracking);
    }
    let new = join(&topics, &key, Version::V2, "new", false);
    assert_eq!(
        new.received(),
        [("presence_state".to_owned(), online(&topics))]
    );

    let old = join(&topics, &key, Version::V1, "old", false);
    let items = old.outbox.take();
    let lengths: Vec<_> = items
        .iter()
        .map(|item| match item {
            Item::Frame(frame) => frame.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        lengths.len() == 3 && lengths.iter().all(|length| *length < 1 << 20),
        "{lengths:?}"
    );

    // Put together they are the same. What no frame can hold is left out.
    let large = join(&topics, &key, Version::V2, "large", false);
    track(&topics, &key, &large, json!({"text": "x".repeat(1 << 20)}));
    assert_eq!(old.received(), []);
    let again = join(&topics, &key, Version::V1, "again", false);
    let mut known = Known::default();
    known.hear(&again);
    let mut expected = online(&topics);
    expected.as_object_mut().unwrap().remove("large");
    assert_eq!(known.json(), expected);
    topics.leave(&key, large.id);
    assert_eq!(old.received(), []);
    known.hear(&again);
    assert_eq!(known.json(), online(&topics));
}

#[test]
fn a_key_that_javascript_mistakes_comes_after_the_state() {
    let (topics, key) = (topics(), key(false));
    for presence_key in ["ids", "ada"] {
        let client = join(&topics, &key, Version::V2, presence_key, false);
        track(&topics, &key, &client, json!({}));
    }
    let late = join(&topics, &key, Version::V2, "late", false);
    let heard = late.received();
    assert_eq!(
        (heard.len(), &*heard[0].0, &*heard[1].0),
        (2, "presence_state", "presence_diff")
    );
    assert!(heard[0].1["ada"].is_object() && heard[0].1.get("ids").is_none());
    assert!(heard[1].1["joins"]["ids"].is_object());
}

#[test]
fn a_topic_holds_so_much_and_what_goes_makes_room() {
    let (topics, key) = (topics(), key(false));
    let large = |bytes| raw(json!({"text": "x".repeat(bytes)}));
    let ada = join(&topics, &key, Version::V2, "ada", false);
    let bob = join(&topics, &key, Version::V2, "bob", false);
    assert_eq!(topics.track(&key, ada.id, &large(2 << 20)), Ok(()));
    let before = online(&topics);
    assert_eq!(
        topics.track(&key, bob.id, &large(2 << 20)),
        Err(Exceeded::PresenceBytes)
    );
    assert_eq!(online(&topics), before);
    // What takes the place of something else needs no more room than it.
    assert_eq!(topics.track(&key, ada.id, &large(3 << 20)), Ok(()));
    assert_eq!(topics.track(&key, bob.id, &large(100)), Ok(()));
    topics.leave(&key, ada.id);
    assert_eq!(topics.track(&key, bob.id, &large(3 << 20)), Ok(()));
}

#[test]
fn refs_of_two_processes_differ() {
    let refs: Vec<_> = (0..2)
        .map(|_| {
            let (topics, key) = (topics(), key(false));
            let ada = join(&topics, &key, Version::V2, "ada", false);
            track(&topics, &key, &ada, json!({}));
            online(&topics)["ada"]["metas"][0]["phx_ref"].clone()
        })
        .collect();
    assert_ne!(refs[0], refs[1]);
}

#[test]
fn who_may_hear_of_presence_later_begins_with_what_is_then() {
    let (topics, key) = (topics(), key(true));
    let ada = join(&topics, &key, Version::V2, "ada", false);
    let (deaf, mut member) = newcomer(Version::V2, "deaf", false);
    member.reads.presence = false;
    topics.join(&key, deaf.id, member, None).unwrap();
    track(&topics, &key, &ada, json!({"n": 1}));
    assert_eq!(deaf.received(), []);
    topics.allow(&key, deaf.id, Grant::ALL);
    let heard = deaf.received();
    assert_eq!(heard[0].0, "presence_state");
    assert_eq!(heard[0].1["ada"]["metas"][0]["n"], 1);
    track(&topics, &key, &ada, json!({"n": 2}));
    assert_eq!(deaf.received()[0].0, "presence_diff");
}
