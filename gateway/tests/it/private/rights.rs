//! The four rights: how they are asked, what they decide, and how they are lost and gained.

use super::*;

#[tokio::test]
async fn members_hear_each_other_and_nobody_else_does() {
    let (_database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, true)).await;
    assert_eq!(ada.event(&a, "presence_state").await.payload, json!({}));
    let mut bob = Client::v1(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(true, true)).await;
    // A public channel of the same name is another channel.
    let mut public = Client::v2(&gateway, &authenticated(ADA)).await;
    let p = public.joined("room", json!({})).await;
    public.event(&p, "presence_state").await;
    // A stranger, and one without a name.
    for stranger in [
        authenticated("cccccccc-0000-4000-8000-000000000003"),
        token(json!({"role": "anon"})),
        token(json!({"role": "nobody_has_this_role", "sub": ADA})),
    ] {
        let mut stranger = Client::v2(&gateway, &stranger).await;
        let join = json!({"config": config(false, true)});
        assert_eq!(stranger.join("room", join).await.1, unauthorized("room"));
        assert_eq!(stranger.until_heartbeat().await, []);
    }

    assert_eq!(broadcast(&mut ada, &a, "one").await, ok());
    assert_eq!(heard(&mut bob, &b).await, "one");
    assert_eq!(broadcast(&mut bob, &b, "two").await, ok());
    assert_eq!(heard(&mut bob, &b).await, "two");
    assert_eq!(heard(&mut ada, &a).await, "two");
    assert_eq!(track(&mut ada, &a, "ada").await, ok());
    let joined = bob.event(&b, "presence_diff").await.payload;
    assert_eq!(joined["joins"].as_object().expect("joins").len(), 1);
    assert_eq!(public.until_heartbeat().await, []);
}

#[tokio::test]
async fn who_bypasses_row_level_security_may_do_everything() {
    let (_database, gateway) = rooms().await;
    let mut service = Client::v2(&gateway, &token(json!({"role": "service_role"}))).await;
    let channel = service.joined("anything", config(true, true)).await;
    assert_eq!(broadcast(&mut service, &channel, "x").await, ok());
    assert_eq!(heard(&mut service, &channel).await, "x");
    assert_eq!(track(&mut service, &channel, "x").await, ok());
}

#[tokio::test]
async fn each_right_is_one_by_itself() {
    let (database, gateway) = rooms().await;
    let ada = authenticated(ADA);
    let mut service = Client::v2(&gateway, &token(json!({"role": "service_role"}))).await;

    // Broadcasts are heard, presence is not.
    let mut hears = Client::v2(&gateway, &ada).await;
    let topic = "hear-broadcast:say-presence";
    let h = hears.joined(topic, config(false, true)).await;
    let s = service.joined(topic, config(false, true)).await;
    assert_eq!(broadcast(&mut service, &s, "x").await, ok());
    assert_eq!(heard(&mut hears, &h).await, "x");
    track(&mut service, &s, "service").await;
    let denied = broadcast(&mut hears, &h, "y").await;
    let reason = format!(
        "Unauthorized: You do not have permissions to write to this Channel topic: {topic}"
    );
    assert_eq!(
        denied,
        json!({"status": "error", "response": {"reason": reason}})
    );
    assert_eq!(track(&mut hears, &h, "ada").await, ok());
    assert_eq!(hears.until_heartbeat().await, [], "neither state nor diffs");
    service.event(&s, "presence_state").await;
    service.event(&s, "presence_diff").await;
    let diff = service.event(&s, "presence_diff").await;
    assert!(
        diff.payload["joins"].to_string().contains("ada"),
        "{diff:?}"
    );

    // Presence is heard, broadcasts are not.
    let topic = "hear-presence:say-broadcast";
    let h = hears.joined(topic, config(true, true)).await;
    let s = service.joined(topic, config(false, true)).await;
    hears.event(&h, "presence_state").await;
    service.event(&s, "presence_state").await;
    track(&mut service, &s, "service").await;
    hears.event(&h, "presence_diff").await;
    broadcast(&mut service, &s, "x").await;
    let message = json!({"topic": topic, "event": "e", "payload": {}});
    database
        .execute(&format!(
            "select realtime.send('{{}}', 'e', '{topic}', true)"
        ))
        .await;
    assert_eq!(
        service.event(&s, "presence_diff").await.payload["leaves"],
        json!({}),
        "{message}"
    );
    assert_eq!(broadcast(&mut hears, &h, "y").await, ok(), "it may send");
    assert_eq!(
        track(&mut hears, &h, "ada").await,
        json!({"status": "error", "response": {}})
    );
    assert_eq!(hears.until_heartbeat().await, [], "not even its own");

    // Only presence may be heard, and presence is off: there is nothing to join for.
    let join = json!({"config": config(false, false)});
    assert_eq!(hears.join(topic, join).await.1, unauthorized(topic));
    // And replay is a way to hear broadcasts.
    let replay = json!({"config": {"private": true, "presence": {"enabled": true}, "broadcast": {"replay": {"since": 0}}}});
    assert_eq!(hears.join(topic, replay).await.1, unauthorized(topic));
}

#[tokio::test]
async fn an_error_in_a_policy_means_no() {
    let (_database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let join = json!({"config": config(false, true)});
    assert_eq!(ada.join("fails", join).await.1, unauthorized("fails"));
    let channel = ada
        .joined("hear-broadcast:fails-to-write", config(true, true))
        .await;
    assert_eq!(broadcast(&mut ada, &channel, "x").await["status"], "error");
    assert_eq!(track(&mut ada, &channel, "x").await["status"], "error");
    assert_eq!(ada.until_heartbeat().await, []);
}

#[tokio::test]
async fn policies_see_the_headers_of_the_socket() {
    let (_database, gateway) = rooms().await;
    let join = json!({"config": config(false, false)});
    for (key, opens) in [(None, false), (Some("shut"), false), (Some("open"), true)] {
        let mut client =
            Client::with_headers(&gateway, &authenticated(ADA), &[("x-room-key", key)]).await;
        let (_, reply) = client.join("by-header", join.clone()).await;
        assert_eq!(reply["status"] == "ok", opens, "{key:?}: {reply}");
    }
}

#[tokio::test]
async fn who_has_not_enabled_presence_hears_of_it_from_its_first_track_on() {
    let (_database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, false)).await;
    let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(false, true)).await;
    track(&mut bob, &b, "bob").await;
    assert_eq!(ada.until_heartbeat().await, []);
    track(&mut ada, &a, "ada").await;
    assert_eq!(
        ada.event(&a, "presence_diff").await.payload["leaves"],
        json!({})
    );
    assert_eq!(ada.until_heartbeat().await, [], "never a presence_state");
    bob.push(&b, "presence", json!({"event": "untrack"})).await;
    ada.event(&a, "presence_diff").await;
}

/// What was sent meanwhile waits for the answer, in its order.
#[tokio::test]
async fn a_burst_before_the_first_answer_keeps_its_order() {
    let (_database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, false)).await;
    let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(false, false)).await;
    for number in 0..50 {
        let payload = json!({"event": "e", "payload": {"text": number.to_string()}});
        ada.push(&a, "broadcast", payload).await;
    }
    for number in 0..50 {
        assert_eq!(heard(&mut bob, &b).await, number.to_string());
    }
}

#[tokio::test]
async fn a_new_token_is_asked_about_at_once() {
    let (database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, true)).await;
    let b = ada
        .joined("hear-broadcast:say-broadcast", config(false, true))
        .await;
    assert_eq!(broadcast(&mut ada, &b, "x").await, ok());

    // Somebody else, who is no member.
    let stranger = authenticated("cccccccc-0000-4000-8000-000000000003");
    ada.push(&a, "access_token", json!({"access_token": stranger}))
        .await;
    let told = ada.event(&a, "system").await.payload;
    assert_eq!(
        told,
        json!({"message": "You do not have permissions to read from this Channel topic: room",
               "status": "error", "extension": "system", "channel": "room"})
    );
    assert_eq!(ada.event(&a, "phx_close").await, a.closed(Version::V2));

    // Rights that a token brings are there at once: the new one may hear presence, too.
    database
        .execute("create policy wide on realtime.messages for select to authenticated using (auth.jwt() ->> 'wide' = 'yes')")
        .await;
    let wide = token(json!({"role": "authenticated", "sub": ADA, "wide": "yes"}));
    ada.push(&b, "access_token", json!({"access_token": wide}))
        .await;
    ada.event(&b, "presence_state").await;
    // And rights that it lacks are gone: one of two is enough to end the channel.
    let narrow = authenticated(ADA);
    ada.push(&b, "access_token", json!({"access_token": narrow}))
        .await;
    let told = ada.event(&b, "system").await.payload;
    assert_eq!(
        told["message"],
        "You no longer have permission to read from this Channel topic: hear-broadcast:say-broadcast"
    );
    ada.event(&b, "phx_close").await;
}

#[tokio::test]
async fn who_loses_a_right_in_the_database_loses_it_here() {
    // Not by the periodic re-check.
    let (database, gateway) = rooms_with(&[("recheck_interval", "1h")]).await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, false)).await;
    let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(false, false)).await;
    assert_eq!(broadcast(&mut bob, &b, "may").await, ok());
    // The right to send goes, and with it nothing else.
    database
        .execute(&format!(
            "update members set muted = true where person = '{BOB}'"
        ))
        .await;
    crate::support::wait::wait_for("a refusal", || async {
        let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
        let b = bob.joined("room", config(false, false)).await;
        match broadcast(&mut bob, &b, "x").await["status"] == "error" {
            true => Ok(()),
            false => Err("it still may send"),
        }
    })
    .await;
    // The row that is gone names him.
    database
        .execute(&format!("delete from members where person = '{BOB}'"))
        .await;
    let told = bob.event(&b, "system").await.payload;
    assert_eq!(
        told["message"],
        "You do not have permissions to read from this Channel topic: room"
    );
    assert_eq!(bob.event(&b, "phx_close").await, b.closed(Version::V2));
    assert_eq!(broadcast(&mut ada, &a, "alone").await, ok());
    assert_eq!(bob.until_heartbeat().await, []);
    // A policy that is dropped concerns everybody.
    database
        .execute("drop policy members_read on realtime.messages")
        .await;
    ada.event(&a, "phx_close").await;
}

#[tokio::test]
async fn a_server_may_have_private_channels_only() {
    let (_database, gateway) = rooms_with(&[("private_only", "true")]).await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let (_, reply) = ada.join("room", json!({"config": {}})).await;
    assert_eq!(
        reply,
        json!({"status": "error", "response": {"reason": "PrivateOnly: This project only allows private channels"}})
    );
    ada.joined("room", config(false, true)).await;
}
