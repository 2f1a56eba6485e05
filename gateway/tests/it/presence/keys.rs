//! Under which key a channel is online, and that no key keeps others from knowing who is.

use serde_json::{Value, json};

use super::{diff, gateway, keyed, meta, track};
use crate::support::{Client, TestGateway, token::anon};

/// The key under which somebody is online who joins with this `presence`.
async fn key_of(gateway: &TestGateway, topic: &str, presence: Value) -> String {
    let mut client = Client::v2(gateway, &anon()).await;
    let channel = client.joined(topic, json!({"presence": presence})).await;
    track(&mut client, &channel, json!({})).await;
    let came = diff(&mut client, &channel).await;
    let keys: Vec<_> = came["joins"].as_object().expect("joins").keys().collect();
    assert_eq!(keys.len(), 1, "{came}");
    keys[0].clone()
}

#[tokio::test]
async fn a_text_or_a_number_is_a_key_and_without_one_there_is_a_new_one_for_each_join() {
    let gateway = gateway().await;
    for (given, key) in [
        (json!("Ada \"L\" é\n"), "Ada \"L\" é\n"),
        (json!(7), "7"),
        (json!(-1.5), "-1.5"),
        (json!("7"), "7"),
    ] {
        let presence = json!({"enabled": true, "key": given});
        assert_eq!(key_of(&gateway, key, presence).await, key);
    }
    let mut made = Vec::new();
    for presence in [
        json!({"enabled": true}),
        json!({"enabled": true}),
        json!({"enabled": true, "key": null}),
        json!({"enabled": true, "key": ""}),
        json!({"enabled": true, "key": ["list"]}),
        json!(null),
    ] {
        made.push(key_of(&gateway, "made", presence).await);
    }
    for (place, key) in made.iter().enumerate() {
        assert!(uuid::Uuid::parse_str(key).is_ok(), "{key}");
        assert!(!made[..place].contains(key), "{made:?}");
    }
}

#[tokio::test]
async fn keys_that_break_javascript_clients_reach_them_in_another_way_or_not_at_all() {
    let gateway = gateway().await;
    for key in ["constructor", "__proto__", "toString"] {
        let made = key_of(&gateway, key, json!({"enabled": true, "key": key})).await;
        assert!(uuid::Uuid::parse_str(&made).is_ok(), "{made}");
    }
    // In a state this key would be taken for the mark of a change: it follows in a diff.
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client.joined("room", keyed("ids")).await;
    track(&mut client, &channel, json!({"n": 1})).await;
    let mut late = Client::v2(&gateway, &anon()).await;
    let channel = late.joined("room", keyed("late")).await;
    let state = late.event(&channel, "presence_state").await;
    assert_eq!(state.payload, json!({}));
    let came = diff(&mut late, &channel).await;
    assert_eq!(meta(&came["joins"], "ids").0, json!({"n": 1}));
}

#[tokio::test]
async fn metas_of_one_key_are_in_the_order_in_which_they_were_tracked() {
    let gateway = gateway().await;
    let mut tabs = Vec::new();
    for tab in 0..5 {
        let mut client = Client::v2(&gateway, &anon()).await;
        let channel = client.joined("room", keyed("ada")).await;
        track(&mut client, &channel, json!({"tab": tab})).await;
        tabs.push((client, channel));
    }
    let order = |state: &Value| -> Vec<i64> {
        let metas = state["ada"]["metas"].as_array().expect("metas");
        let tabs = metas.iter().filter_map(|meta| meta["tab"].as_i64());
        tabs.collect()
    };
    // What changes comes last, as it does for those who are told of the change.
    let (client, channel) = &mut tabs[1];
    track(client, channel, json!({"tab": 10})).await;
    for version in 0..2 {
        let mut late = match version {
            0 => Client::v1(&gateway, &anon()).await,
            _ => Client::v2(&gateway, &anon()).await,
        };
        let channel = late.joined("room", keyed("late")).await;
        let state = late.event(&channel, "presence_state").await.payload;
        assert_eq!(order(&state), [0, 2, 3, 4, 10]);
    }
}
