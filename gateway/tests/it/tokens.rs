//! Tokens of channels: at the join, pushed later, and when they expire.

use gateway::auth::now_unix;
use protocol::Version;
use serde_json::json;

use crate::support::{
    Client, Incoming,
    chat::{A1, ADA, BOB, chat, messages_of, say},
    token::{anon, authenticated, service_role, signed_with, token},
};

#[tokio::test]
async fn the_token_of_a_join_is_checked_and_counts_for_its_channel() {
    let (_database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let past = now_unix() - 100;
    for (token, reason) in [
        (
            "".to_owned(),
            "MalformedJWT: The token provided is not a valid JWT",
        ),
        (
            "a.b.c".to_owned(),
            "MalformedJWT: The token provided is not a valid JWT",
        ),
        (
            token(json!({"sub": "x"})),
            "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
        ),
        (
            signed_with(
                json!({"role": "anon"}),
                "not the secret of this gateway, at all",
            ),
            "JwtSignatureError: Failed to validate JWT signature",
        ),
        (
            token(json!({"role": "anon", "exp": "soon"})),
            "Unknown Error on Channel",
        ),
    ] {
        let (_, reply) = client
            .join("room", json!({"config": {}, "access_token": token}))
            .await;
        assert_eq!(reply["response"]["reason"], reason);
    }
    let (_, reply) = client
        .join(
            "room",
            json!({"config": {}, "access_token": token(json!({"role": "anon", "exp": past}))}),
        )
        .await;
    let reason = reply["response"]["reason"].as_str().expect("a reason");
    let seconds = reason
        .strip_prefix("InvalidJWTToken: Token has expired ")
        .and_then(|rest| rest.strip_suffix(" seconds ago"))
        .expect("how long ago");
    assert!(
        (100..110).contains(&seconds.parse::<i64>().expect("a number")),
        "{reason}"
    );

    // anon may see everything here; the channel's own token counts. `user_token` wins.
    let config = json!({"postgres_changes": messages_of("*", A1)});
    for (payload, status) in [
        (json!({"config": config}), "ok"),
        (
            json!({"config": config, "access_token": "sb_publishable_x"}),
            "ok",
        ),
        (
            json!({"config": config, "access_token": authenticated(BOB)}),
            "error",
        ),
        (
            json!({"config": config, "access_token": authenticated(BOB), "user_token": authenticated(ADA)}),
            "ok",
        ),
        (
            json!({"config": config, "access_token": service_role()}),
            "ok",
        ),
    ] {
        let (_, reply) = client.join("a1", payload.clone()).await;
        assert_eq!(reply["status"], status, "{reply}");
    }
}

#[tokio::test]
async fn a_new_token_takes_the_place_of_the_old_without_a_reply() {
    let (database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let config = json!({"postgres_changes": messages_of("*", A1), "presence": {"enabled": false}});
    let first = authenticated(ADA);
    let (channel, reply) = client
        .join("a1", json!({"config": config, "access_token": first}))
        .await;
    assert_eq!(reply["status"], "ok");
    client.live(&channel).await;
    for ignored in [
        json!({}),
        json!({"access_token": null}),
        json!({"access_token": 7}),
        json!({"access_token": "sb_x"}),
        json!({"access_token": first}),
    ] {
        client.push(&channel, "access_token", ignored).await;
        assert_eq!(client.until_heartbeat().await, []);
    }
    let renewed = token(json!({"role": "authenticated", "sub": ADA, "n": 2}));
    client
        .push(&channel, "access_token", json!({"access_token": renewed}))
        .await;
    client.live(&channel).await;
    say(&database, A1, "still").await;
    assert_eq!(client.change(&channel).await["record"]["content"], "still");
    assert_eq!(
        client.until_heartbeat().await,
        [],
        "no reply, and the change once"
    );

    // One that may not see the session ends the channel.
    client
        .push(
            &channel,
            "access_token",
            json!({"access_token": authenticated(BOB)}),
        )
        .await;
    let told = client.event(&channel, "system").await;
    assert_eq!(told.payload["status"], "error");
    assert_eq!(
        told.payload["message"],
        "You do not have permissions to read from this Channel topic: a1"
    );
    assert_eq!(
        client.event(&channel, "phx_close").await,
        channel.closed(Version::V2)
    );
    say(&database, A1, "too late").await;
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_bad_token_that_is_pushed_ends_its_channel_and_no_other() {
    let (_database, gateway) = chat().await;
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &anon()).await;
        client
            .joined("other", json!({"presence": {"enabled": false}}))
            .await;
        for (token, message) in [
            ("".to_owned(), "The token provided is not a valid JWT"),
            (
                token(json!({"sub": "x"})),
                "Fields `role` and `exp` are required in JWT",
            ),
            (
                signed_with(
                    json!({"role": "anon"}),
                    "not the secret of this gateway, at all",
                ),
                ":signature_error",
            ),
        ] {
            let channel = client
                .joined("room", json!({"presence": {"enabled": false}}))
                .await;
            client
                .push(&channel, "access_token", json!({"access_token": token}))
                .await;
            let told = client.event(&channel, "system").await;
            let expected = json!({"message": message, "status": "error", "extension": "system", "channel": "room"});
            assert_eq!(told.payload, expected);
            assert_eq!(
                client.event(&channel, "phx_close").await,
                channel.closed(version)
            );
        }
        client
            .send(
                json!(null),
                json!("still"),
                "realtime:other",
                "presence",
                json!({}),
            )
            .await;
        assert_eq!(client.reply("still").await.payload["status"], "ok");
    }
}

#[tokio::test]
async fn a_channel_ends_when_its_token_expires() {
    let (database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let kept = client.subscribe("kept", messages_of("*", A1)).await;
    let short = token(json!({"role": "authenticated", "sub": ADA, "exp": now_unix() + 4}));
    let config = json!({"postgres_changes": messages_of("*", A1), "presence": {"enabled": false}});
    let (channel, reply) = client
        .join("short", json!({"config": config, "access_token": short}))
        .await;
    assert_eq!(reply["status"], "ok");
    client.live(&channel).await;
    let told = client.event(&channel, "system").await;
    let message = told.payload["message"].as_str().expect("text").to_owned();
    let seconds = message
        .strip_prefix("Token has expired ")
        .and_then(|rest| rest.strip_suffix(" seconds ago"));
    assert!(
        seconds.is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds < 5)),
        "{message}"
    );
    assert_eq!(told.payload["extension"], "system");
    assert_eq!(
        client.event(&channel, "phx_close").await,
        channel.closed(Version::V2)
    );
    say(&database, A1, "later").await;
    assert_eq!(client.change(&kept).await["record"]["content"], "later");
    let rest = client.until_heartbeat().await;
    assert!(rest.iter().all(|incoming| !matches!(incoming, Incoming::Message(message) if message.topic == channel.topic)), "{rest:?}");
}
