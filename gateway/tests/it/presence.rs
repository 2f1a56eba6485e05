//! Who is online: state, diffs, keys, and every way to go.

mod asked;
mod crowd;
mod ends;
mod keys;
mod room;

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{Channel, Client, Incoming, TestDatabase, TestGateway, token::anon};

async fn gateway() -> TestGateway {
    TestGateway::start(&TestDatabase::new(None).await).await
}

fn keyed(key: &str) -> Value {
    json!({"presence": {"enabled": true, "key": key}})
}

async fn track(client: &mut Client, channel: &Channel, payload: Value) {
    let reference = client
        .push(
            channel,
            "presence",
            json!({"type": "presence", "event": "track", "payload": payload}),
        )
        .await;
    assert_eq!(
        client.reply(&reference).await.payload,
        json!({"status": "ok", "response": {}})
    );
}

async fn diff(client: &mut Client, channel: &Channel) -> Value {
    let message = client.event(channel, "presence_diff").await;
    assert_eq!(
        (message.join_ref, message.reference),
        (Value::Null, Value::Null)
    );
    let both = message.payload.as_object().expect("an object");
    assert_eq!(both.keys().collect::<Vec<_>>(), ["joins", "leaves"]);
    message.payload
}

/// The only meta of a key, without its ref, which is returned beside it.
fn meta(side: &Value, key: &str) -> (Value, String) {
    let metas = side[key]["metas"]
        .as_array()
        .unwrap_or_else(|| panic!("{key} in {side}"));
    assert_eq!(metas.len(), 1, "{side}");
    let mut meta = metas[0].clone();
    let reference = meta
        .as_object_mut()
        .and_then(|meta| meta.remove("phx_ref"))
        .expect("a phx_ref");
    (meta, reference.as_str().expect("text").to_owned())
}

#[tokio::test]
async fn a_track_an_update_and_an_untrack_reach_everybody_as_diffs() {
    let gateway = gateway().await;
    let mut alice = Client::v2(&gateway, &anon()).await;
    let mut bob = Client::v1(&gateway, &anon()).await;
    let a = alice.joined("room", keyed("alice")).await;
    let b = bob.joined("room", keyed("bob")).await;
    for (client, channel, version) in [(&mut alice, &a, Version::V2), (&mut bob, &b, Version::V1)] {
        let state = client.event(channel, "presence_state").await;
        assert_eq!(state.payload, json!({}));
        assert_eq!(state.reference, Value::Null);
        if version == Version::V2 {
            assert_eq!(state.join_ref, *channel.join_ref);
        }
    }

    track(&mut alice, &a, json!({"name": "Alice", "n": 1})).await;
    let (first, at_bob) = (diff(&mut alice, &a).await, diff(&mut bob, &b).await);
    assert_eq!(first, at_bob);
    assert_eq!(first["leaves"], json!({}));
    let (payload, first_ref) = meta(&first["joins"], "alice");
    assert_eq!(payload, json!({"name": "Alice", "n": 1}));

    // The same again is told nobody; something else takes its place.
    track(&mut alice, &a, json!({"name": "Alice", "n": 1})).await;
    track(&mut alice, &a, json!({"n": 2})).await;
    let second = diff(&mut bob, &b).await;
    assert_eq!(second, diff(&mut alice, &a).await);
    let (payload, second_ref) = meta(&second["joins"], "alice");
    assert_eq!(payload, json!({"n": 2, "phx_ref_prev": first_ref}));
    assert_ne!(first_ref, second_ref);
    assert_eq!(
        meta(&second["leaves"], "alice"),
        (json!({"name": "Alice", "n": 1}), first_ref.clone())
    );

    // Who comes later gets the state with the meta as it is now.
    let mut carol = Client::v2(&gateway, &anon()).await;
    let c = carol.joined("room", keyed("carol")).await;
    let state = carol.event(&c, "presence_state").await.payload;
    assert_eq!(
        meta(&state, "alice"),
        (
            json!({"n": 2, "phx_ref_prev": first_ref}),
            second_ref.clone()
        )
    );

    let reference = alice
        .push(
            &a,
            "presence",
            json!({"type": "presence", "event": "untrack"}),
        )
        .await;
    assert_eq!(alice.reply(&reference).await.payload["status"], "ok");
    for (client, channel) in [(&mut alice, &a), (&mut bob, &b), (&mut carol, &c)] {
        let gone = diff(client, channel).await;
        assert_eq!(gone["joins"], json!({}));
        assert_eq!(meta(&gone["leaves"], "alice").1, second_ref);
        assert_eq!(client.until_heartbeat().await, []);
    }
}

#[tokio::test]
async fn the_tracker_gets_the_diff_before_the_reply() {
    let gateway = gateway().await;
    let mut alice = Client::v2(&gateway, &anon()).await;
    let a = alice.joined("room", keyed("alice")).await;
    alice.event(&a, "presence_state").await;
    let reference = alice
        .push(&a, "presence", json!({"event": "TRACK", "payload": {}}))
        .await;
    let (first, second) = (alice.next().await, alice.next().await);
    assert!(
        matches!(&first, Incoming::Message(message) if message.event == "presence_diff"),
        "{first:?}"
    );
    assert!(
        matches!(&second, Incoming::Message(message) if message.reference == *reference),
        "{second:?}"
    );
}

#[tokio::test]
async fn whoever_leaves_ends_or_loses_the_socket_is_gone_for_the_others() {
    let gateway = gateway().await;
    let mut witness = Client::v2(&gateway, &anon()).await;
    let w = witness.joined("room", keyed("witness")).await;
    for way in [
        "leave",
        "rejoin",
        "bad token",
        "closed socket",
        "lost socket",
    ] {
        let mut client = Client::v2(&gateway, &anon()).await;
        let channel = client.joined("room", keyed(way)).await;
        track(&mut client, &channel, json!({"way": way})).await;
        let came = diff(&mut witness, &w).await;
        let (_, reference) = meta(&came["joins"], way);
        match way {
            "leave" => drop(client.push(&channel, "phx_leave", json!({})).await),
            "rejoin" => drop(client.joined("room", keyed("reborn")).await),
            "bad token" => drop(
                client
                    .push(&channel, "access_token", json!({"access_token": ""}))
                    .await,
            ),
            "closed socket" => client.socket.close(None).await.expect("a close"),
            _ => {
                drop(client);
                let went = diff(&mut witness, &w).await;
                assert_eq!(meta(&went["leaves"], way).1, reference);
                continue;
            }
        }
        let went = diff(&mut witness, &w).await;
        assert_eq!(went["joins"], json!({}), "{way}");
        assert_eq!(
            meta(&went["leaves"], way),
            (json!({"way": way}), reference),
            "{way}"
        );
    }
    assert!(witness.until_heartbeat().await.iter().all(|incoming| matches!(incoming, Incoming::Message(message) if message.event == "presence_state")));
}

#[tokio::test]
async fn channels_with_one_key_are_metas_of_one_entry_and_no_key_makes_one() {
    let gateway = gateway().await;
    let mut tabs = Vec::new();
    for tab in 1..=2 {
        let mut client = Client::v2(&gateway, &anon()).await;
        // A number may be a key.
        let key = if tab == 1 { json!("7") } else { json!(7) };
        let channel = client
            .joined("room", json!({"presence": {"enabled": true, "key": key}}))
            .await;
        track(&mut client, &channel, json!({"tab": tab})).await;
        tabs.push((client, channel));
    }
    for key in [json!(null), json!("")] {
        let mut client = Client::v2(&gateway, &anon()).await;
        let channel = client
            .joined("room", json!({"presence": {"enabled": true, "key": key}}))
            .await;
        track(&mut client, &channel, json!({"own": true})).await;
        tabs.push((client, channel));
    }
    let mut late = Client::v2(&gateway, &anon()).await;
    let channel = late.joined("room", keyed("late")).await;
    let state = late.event(&channel, "presence_state").await.payload;
    let state = state.as_object().expect("an object");
    assert_eq!(state.len(), 3, "{state:?}");
    let mut tracked: Vec<_> = state["7"]["metas"]
        .as_array()
        .expect("metas")
        .iter()
        .map(|meta| meta["tab"].as_i64())
        .collect();
    tracked.sort();
    assert_eq!(tracked, [Some(1), Some(2)]);
    for key in state.keys().filter(|key| *key != "7") {
        assert!(uuid::Uuid::parse_str(key).is_ok(), "{key}");
    }
    // One tab of two goes: the other stays.
    drop(tabs.remove(0));
    let went = diff(&mut late, &channel).await;
    assert_eq!(meta(&went["leaves"], "7").0, json!({"tab": 1}));
    let mut later = Client::v2(&gateway, &anon()).await;
    let channel = later.joined("room", keyed("later")).await;
    let state = later.event(&channel, "presence_state").await.payload;
    assert_eq!(meta(&state, "7").0, json!({"tab": 2}));
}

#[tokio::test]
async fn every_push_is_answered_and_a_wrong_one_harms_nothing() {
    let gateway = gateway().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client
        .joined("room", json!({"presence": {"enabled": false}}))
        .await;
    let ok = json!({"status": "ok", "response": {}});
    let no_map =
        json!({"status": "error", "response": {"reason": "Presence track payload must be a map"}});
    let unknown = json!({"status": "error", "response": {}});
    for (push, answer) in [
        (json!({"event": "untrack"}), &ok),
        (json!({}), &ok),
        (json!({"type": "presence"}), &ok),
        (json!({"event": "track", "payload": "text"}), &no_map),
        (json!({"event": "track", "payload": []}), &no_map),
        (json!({"event": "dance", "payload": {}}), &unknown),
    ] {
        let reference = client.push(&channel, "presence", push.clone()).await;
        assert_eq!(client.reply(&reference).await.payload, *answer, "{push}");
    }
    assert_eq!(client.until_heartbeat().await, []);
    // Without presence enabled there is no state, but it may track, and gets diffs on a public channel.
    track(&mut client, &channel, json!({"phx_ref": "forged"})).await;
    let came = diff(&mut client, &channel).await;
    let metas = came["joins"]
        .as_object()
        .and_then(|joins| joins.values().next())
        .expect("an entry");
    assert_ne!(metas["metas"][0]["phx_ref"], "forged");
}

#[tokio::test]
async fn presence_is_on_where_a_client_does_not_say_unless_the_setting_says_otherwise() {
    let database = TestDatabase::new(None).await;
    for (setting, states) in [("true", 1), ("false", 0)] {
        let gateway = TestGateway::start_with(&database, &[("presence_default", setting)]).await;
        let mut client = Client::v1(&gateway, &anon()).await;
        // As clients of 2024 send it.
        client
            .joined("room", json!({"presence": {"key": ""}}))
            .await;
        assert_eq!(
            client.until_heartbeat().await.len(),
            states,
            "presence_default = {setting}"
        );
    }
}

#[tokio::test]
async fn topics_do_not_share_presence() {
    let gateway = gateway().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let one = client.joined("one", keyed("me")).await;
    let two = client.joined("two", keyed("me")).await;
    track(&mut client, &one, json!({})).await;
    diff(&mut client, &one).await;
    let rest = client.until_heartbeat().await;
    assert!(rest.iter().all(|incoming| matches!(incoming, Incoming::Message(message) if message.event == "presence_state")), "{rest:?}");
    let mut late = Client::v2(&gateway, &anon()).await;
    let channel = late.joined("two", keyed("late")).await;
    assert_eq!(channel.topic, two.topic);
    assert_eq!(
        late.event(&channel, "presence_state").await.payload,
        json!({})
    );
}
