//! Presence (protocol §7): channels that did not ask for it, clients of version 1, and those who are gone without a word.

use std::time::Duration;

use faultproxy::{Flow, Proxy, Way};
use protocol::Version;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    Channel, Client, Incoming, TestDatabase, TestGateway, token::anon, wait::PATIENCE,
};

async fn start(settings: &[(&str, &str)]) -> TestGateway {
    TestGateway::start_with(&TestDatabase::new(None).await, settings).await
}

async fn member(gateway: &TestGateway, version: Version, enabled: bool) -> (Client, Channel) {
    let mut client = Client::connect(gateway, version, &anon()).await;
    let presence = json!({"enabled": enabled, "key": if enabled { "on" } else { "off" }});
    let channel = client.joined("room", json!({"presence": presence})).await;
    if enabled {
        client.event(&channel, "presence_state").await;
    }
    (client, channel)
}

async fn push(client: &mut Client, channel: &Channel, payload: Value) {
    let reference = client.push(channel, "presence", payload.clone()).await;
    assert_eq!(
        client.reply(&reference).await.payload,
        json!({"status": "ok", "response": {}}),
        "{payload}"
    );
}

async fn diff(client: &mut Client, channel: &Channel) -> Value {
    client.event(channel, "presence_diff").await.payload
}

#[tokio::test]
async fn on_a_public_channel_who_did_not_enable_presence_hears_diffs_and_is_seen() {
    let gateway = start(&[]).await;
    let (mut on, o) = member(&gateway, Version::V2, true).await;
    let (mut off, f) = member(&gateway, Version::V1, false).await;
    push(
        &mut on,
        &o,
        json!({"type": "presence", "event": "track", "payload": {"n": 1}}),
    )
    .await;
    let joined = diff(&mut off, &f).await;
    assert_eq!(joined["joins"]["on"]["metas"][0]["n"], 1);
    assert_eq!(joined["leaves"], json!({}));
    diff(&mut on, &o).await;

    push(&mut off, &f, json!({"event": "track", "payload": {"n": 2}})).await;
    for (client, channel) in [(&mut on, &o), (&mut off, &f)] {
        assert_eq!(
            diff(client, channel).await["joins"]["off"]["metas"][0]["n"],
            2
        );
    }
    let mut late = Client::v2(&gateway, &anon()).await;
    let l = late
        .joined("room", json!({"presence": {"enabled": true}}))
        .await;
    let state = late.event(&l, "presence_state").await.payload;
    assert_eq!(state["off"]["metas"][0]["n"], 2);

    push(&mut on, &o, json!({"event": "untrack"})).await;
    assert!(diff(&mut off, &f).await["leaves"]["on"].is_object());
    // Never a state.
    assert_eq!(off.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_track_needs_neither_a_type_nor_a_payload_in_either_version() {
    let gateway = start(&[]).await;
    for version in [Version::V1, Version::V2] {
        let (mut client, channel) = member(&gateway, version, true).await;
        for track in [
            json!({"event": "track"}),
            json!({"type": "presence", "event": "Track", "payload": {"a": 1}}),
            json!({"type": "presence", "event": "TRACK", "payload": {"b": {}}}),
        ] {
            push(&mut client, &channel, track.clone()).await;
            let joined = diff(&mut client, &channel).await;
            let meta = &joined["joins"]["on"]["metas"][0];
            assert!(meta["phx_ref"].is_string(), "{joined}");
            // The whole payload is replaced.
            let mut tracked = meta.as_object().expect("a meta").clone();
            tracked.retain(|name, _| !name.starts_with("phx_ref"));
            let payload = track.get("payload").cloned().unwrap_or(json!({}));
            assert_eq!(Value::Object(tracked), payload);
        }
        push(
            &mut client,
            &channel,
            json!({"event": "UNTRACK", "payload": {}}),
        )
        .await;
        assert_eq!(diff(&mut client, &channel).await["joins"], json!({}));
        let reference = client.push(&channel, "phx_leave", json!({})).await;
        client.reply(&reference).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_without_a_word_is_noticed_by_the_idle_timeout() {
    let gateway = start(&[("idle_timeout", "2s")]).await;
    let (mut witness, w) = member(&gateway, Version::V2, true).await;
    let proxy = Proxy::start(gateway.address).await.expect("a port");
    let mut gone = Client::connect_to(proxy.address(), Version::V2, &anon()).await;
    let g = gone
        .joined(
            "room",
            json!({"presence": {"enabled": true, "key": "gone"}}),
        )
        .await;
    push(
        &mut gone,
        &g,
        json!({"event": "track", "payload": {"n": 1}}),
    )
    .await;
    assert!(diff(&mut witness, &w).await["joins"]["gone"].is_object());
    proxy.set(Way::Both, Flow::Hung);
    // The witness must not be idle itself.
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    let waiting = async {
        loop {
            beat.tick().await;
            let before = witness.until_heartbeat().await;
            let left = before.into_iter().find_map(|incoming| match incoming {
                Incoming::Message(message) if message.event == "presence_diff" => Some(message),
                _ => None,
            });
            if let Some(left) = left {
                return left.payload;
            }
        }
    };
    let left = timeout(PATIENCE, waiting).await.expect("it is noticed");
    assert_eq!(left["leaves"]["gone"]["metas"][0]["n"], 1);
}
