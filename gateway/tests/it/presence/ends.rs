//! Nobody is online who is gone, and who comes back is somebody new.

use protocol::Version;
use serde_json::json;

use super::{diff, gateway, keyed, meta, track};
use crate::support::{
    Client, TestDatabase,
    process::GatewayProcess,
    token::{SECRET, anon},
};

#[tokio::test]
async fn who_comes_back_with_the_same_key_has_a_new_ref() {
    let gateway = gateway().await;
    let mut witness = Client::v2(&gateway, &anon()).await;
    let w = witness.joined("room", keyed("witness")).await;
    let mut refs = Vec::new();
    for _ in 0..2 {
        let mut client = Client::v2(&gateway, &anon()).await;
        let channel = client.joined("room", keyed("ada")).await;
        track(&mut client, &channel, json!({"n": 1})).await;
        let came = diff(&mut witness, &w).await;
        let (payload, reference) = meta(&came["joins"], "ada");
        assert_eq!(payload, json!({"n": 1}), "no phx_ref_prev");
        refs.push(reference.clone());
        drop(client);
        let went = diff(&mut witness, &w).await;
        assert_eq!(meta(&went["leaves"], "ada").1, reference);
    }
    // The same on one socket, after an untrack.
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client.joined("room", keyed("ada")).await;
    for _ in 0..2 {
        track(&mut client, &channel, json!({"n": 1})).await;
        let came = diff(&mut witness, &w).await;
        let (payload, reference) = meta(&came["joins"], "ada");
        assert_eq!(payload, json!({"n": 1}), "no phx_ref_prev");
        refs.push(reference);
        let untrack = json!({"type": "presence", "event": "untrack"});
        client.push(&channel, "presence", untrack).await;
        diff(&mut witness, &w).await;
    }
    refs.sort();
    refs.dedup();
    assert_eq!(refs.len(), 4);
}

#[tokio::test]
async fn nobody_is_left_over_after_a_gateway_was_killed() {
    let database = TestDatabase::new(None).await;
    let environment = [
        ("DATABASE_URL", &*database.gateway_url),
        ("TIDINGS_JWT_SECRET", SECRET),
    ];
    let mut refs = Vec::new();
    for _ in 0..2 {
        let mut gateway = GatewayProcess::start(&environment).await;
        let mut client = Client::connect_to(gateway.address, Version::V2, &anon()).await;
        let channel = client.joined("room", keyed("ada")).await;
        let state = client.event(&channel, "presence_state").await;
        assert_eq!(state.payload, json!({}));
        track(&mut client, &channel, json!({})).await;
        refs.push(meta(&diff(&mut client, &channel).await["joins"], "ada").1);
        gateway.signal("KILL").await;
        gateway.ended().await;
    }
    // Or a client would take who has come back for who was there before.
    assert_ne!(refs[0], refs[1]);
}
