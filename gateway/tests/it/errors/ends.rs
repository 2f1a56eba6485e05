//! How channels end: the `system` error and the `phx_close` after it, and `phx_error`.

use std::time::Duration;

use protocol::Version;

use super::*;
use crate::support::{
    chat::{A1, chat, messages_of},
    token::authenticated,
};

#[tokio::test]
async fn every_text_that_ends_a_channel_is_on_the_page() {
    let (_database, world) = private().await;
    walk(
        "`system` errors that end a channel",
        [0],
        async |[message]| [Box::pin(ended(&world, message)).await],
    )
    .await;
}

#[tokio::test]
async fn phx_error_and_phx_close_are_on_the_page() {
    walk(
        "`phx_error` and `phx_close`",
        [0, 1],
        async |[event, payload]| match event {
            "phx_error" => {
                let database = TestDatabase::new(Some("chattwelve")).await;
                let settings = [("statement_timeout", "1s")];
                let (gateway, proxy) = remote(&database, &settings).await;
                let owner = |n: u32| {
                    token(
                        json!({"role": "authenticated", "sub": crate::support::chat::ADA, "n": n}),
                    )
                };
                let mut client = Client::v2(&gateway, &owner(1)).await;
                let channel = client.subscribe("a1", messages_of("*", A1)).await;
                away(&proxy).await;
                let renewed = json!({"access_token": owner(2)});
                client.push(&channel, "access_token", renewed).await;
                let told = client.event(&channel, "phx_error").await;
                [told.event, told.payload.to_string()]
            }
            "phx_close" => {
                let (_database, gateway) = chat().await;
                let mut client = Client::v2(&gateway, &anon()).await;
                let channel = client.joined("room", json!({})).await;
                client.push(&channel, "phx_leave", json!({})).await;
                let told = client.event(&channel, "phx_close").await;
                [told.event, told.payload.to_string()]
            }
            other => panic!("no provoker for {other} {payload}"),
        },
    )
    .await;
}

/// The text with which a channel ends, which is all that it is told.
async fn end(client: &mut Client, channel: &Channel) -> String {
    let told = client.event(channel, "system").await.payload;
    let message = told["message"].as_str().expect("a message").to_owned();
    let sub_topic = channel.topic.strip_prefix("realtime:");
    assert_eq!(
        told,
        json!({"message": message, "status": "error", "extension": "system", "channel": sub_topic})
    );
    assert_eq!(
        client.event(channel, "phx_close").await,
        channel.closed(Version::V2)
    );
    assert_eq!(client.until_heartbeat().await, [], "the socket goes on");
    message
}

async fn pushed(gateway: &TestGateway, token: String) -> String {
    let mut client = Client::v2(gateway, &ada()).await;
    let channel = client.joined("room", quiet()).await;
    let payload = json!({ "access_token": token });
    client.push(&channel, "access_token", payload).await;
    end(&mut client, &channel).await
}

/// What becomes of a channel that may hear this, when it may hear only that.
async fn losing(gateway: &TestGateway, before: &str, after: &str) -> String {
    let who = |hears| token(json!({"role": "authenticated", "sub": ADA, "hears": hears}));
    let mut client = Client::v2(gateway, &who(before)).await;
    let config = json!({"private": true, "presence": {"enabled": true}});
    let channel = client.joined("tokens", config).await;
    client.event(&channel, "presence_state").await;
    let payload = json!({"access_token": who(after)});
    client.push(&channel, "access_token", payload).await;
    end(&mut client, &channel).await
}

/// Pushes the same again and again, until that is too much.
async fn pushing(settings: &[(&str, &str)], event: &str, payload: Value, times: usize) -> String {
    let gateway = gateway(settings).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let config = json!({"presence": {"enabled": event == "presence"}});
    let channel = client.joined("room", config).await;
    if event == "presence" {
        client.event(&channel, "presence_state").await;
    }
    for number in 0..times {
        let mut payload = payload.clone();
        payload["payload"]["n"] = number.into();
        client.push(&channel, event, payload).await;
    }
    let told = client.event(&channel, "system").await.payload;
    client.event(&channel, "phx_close").await;
    told["message"].as_str().expect("a message").to_owned()
}

async fn ended(world: &TestGateway, message: &str) -> String {
    let track = json!({"event": "track", "payload": {}});
    match message {
        "Token has expired … seconds ago" => {
            let mut client = Client::v2(world, &ada()).await;
            // It must be good for as long as the join takes, on a busy machine, too.
            let exp = gateway::auth::now_unix() + 4;
            let short = token(json!({"role": "authenticated", "sub": ADA, "exp": exp}));
            let join = json!({"config": quiet(), "access_token": short});
            let (channel, _) = client.join("room", join).await;
            let by_itself = end(&mut client, &channel).await;
            assert!(page::fits(message, &by_itself), "{by_itself}");
            pushed(world, wrong_token("expired")).await
        }
        "Fields `role` and `exp` are required in JWT" => {
            assert_eq!(pushed(world, wrong_token("other claim")).await, message);
            pushed(world, wrong_token("incomplete")).await
        }
        "The token provided is not a valid JWT" => pushed(world, wrong_token("malformed")).await,
        ":signature_error" => pushed(world, wrong_token("forged")).await,
        "Failed to generate JWT signer for key ID (kid) \"…\", check your JWT secret or JWKS configuration" => {
            pushed(world, wrong_token("unknown key")).await
        }
        "Failed to generate JWT signer, check your JWT secret or JWKS configuration" => {
            pushed(world, wrong_token("no key")).await
        }
        "You do not have permissions to read from this Channel topic: …" => {
            losing(world, "broadcast presence", "nothing").await
        }
        "You no longer have permission to read from this Channel topic: …" => {
            losing(world, "broadcast presence", "broadcast").await
        }
        "Too many messages per second" => {
            let settings = [("max_bytes_per_second", "1")];
            let by_bytes = pushing(&settings, "broadcast", saying("x"), 3).await;
            assert_eq!(by_bytes, message);
            let settings = [("max_events_per_second", "1")];
            pushing(&settings, "broadcast", saying("x"), 61).await
        }
        "Too many presence messages per second" => {
            let settings = [
                ("max_presence_events_per_second", "1"),
                ("max_presence_calls", "0"),
            ];
            pushing(&settings, "presence", track, 61).await
        }
        "Client presence rate limit exceeded" => {
            pushing(&[("max_presence_calls", "5")], "presence", track, 6).await
        }
        "Track message size exceeded" => {
            let long = json!({"event": "track", "payload": {"text": "x".repeat(1024)}});
            pushing(&[("max_payload_bytes", "1KiB")], "presence", long, 1).await
        }
        "Replication connection was not established in time" => Box::pin(no_replication()).await,
        other => panic!("no provoker for {other}"),
    }
}

/// The feed has lost its database, and a minute goes by in no time.
async fn no_replication() -> String {
    let database = TestDatabase::new(None).await;
    let (gateway, proxy) = remote(&database, &[("idle_timeout", "10m")]).await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    away(&proxy).await;
    crate::support::wait::wait_for("the loss of the feed", || async {
        match gateway.app.feed.ready() {
            Ok(()) => Err("it reads"),
            Err(_) => Ok(()),
        }
    })
    .await;
    let config = json!({"broadcast": {"replication_ready": true}, "presence": {"enabled": false}});
    let channel = client.joined("room", config).await;
    assert_eq!(client.until_heartbeat().await, []);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    end(&mut client, &channel).await
}
