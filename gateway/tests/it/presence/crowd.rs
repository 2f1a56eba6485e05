//! Many clients that come at once: what it costs, and that all of them know the same in the end.

use std::collections::BTreeSet;

use futures::future::join_all;
use protocol::Version;
use serde_json::json;

use super::{keyed, track};
use crate::support::{
    Channel, Client, TestDatabase,
    process::GatewayProcess,
    token::{SECRET, anon},
};

const CLIENTS: usize = 200;

/// Reads diffs until so many are known; each may come once.
async fn all_refs(client: &mut Client, channel: &Channel, count: usize) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    while known.len() < count {
        let payload = client.event(channel, "presence_diff").await.payload;
        assert_eq!(payload["leaves"], json!({}));
        for entry in payload["joins"].as_object().expect("joins").values() {
            for meta in entry["metas"].as_array().expect("metas") {
                let reference = meta["phx_ref"].as_str().expect("a phx_ref").to_owned();
                assert!(known.insert(reference), "{meta} came twice");
            }
        }
    }
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_at_once_is_told_in_few_messages_and_knows_the_same() {
    let database = TestDatabase::new(None).await;
    let environment = [
        ("DATABASE_URL", &*database.gateway_url),
        ("TIDINGS_JWT_SECRET", SECRET),
    ];
    let gateway = GatewayProcess::start(&environment).await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let version = [Version::V1, Version::V2][number % 2];
        let mut client = Client::connect_to(gateway.address, version, &anon()).await;
        let channel = client
            .joined("room", keyed(&format!("user-{number}")))
            .await;
        client.event(&channel, "presence_state").await;
        clients.push((client, channel));
    }
    let told = "tidings_presence_out_total ";
    let before = gateway.metric(told).await;
    let tasks = clients.into_iter().map(|(mut client, channel)| {
        tokio::spawn(async move {
            track(&mut client, &channel, json!({"user": "somebody"})).await;
            let known = all_refs(&mut client, &channel, CLIENTS).await;
            (client, channel, known)
        })
    });
    let mut clients: Vec<_> = join_all(tasks)
        .await
        .into_iter()
        .map(|joined| joined.expect("a client"))
        .collect();
    let known = clients[0].2.clone();
    assert!(clients.iter().all(|(_, _, other)| *other == known));
    // One by one it would be the square of their number.
    let told = gateway.metric(told).await - before;
    let square = (CLIENTS * CLIENTS) as f64;
    assert!(told < square / 2.0, "{told} of {square}");

    // All but one go.
    let (mut last, channel, _) = clients.pop().expect("a client");
    drop(clients);
    let mut gone = 0;
    while gone < CLIENTS - 1 {
        let payload = last.event(&channel, "presence_diff").await.payload;
        assert_eq!(payload["joins"], json!({}));
        gone += payload["leaves"].as_object().expect("leaves").len();
    }
    assert_eq!(last.until_heartbeat().await, [] as [_; 0]);
}
