//! Messages on private channels: who may send them, and those that are stored.

use super::*;
use crate::support::token::{service_role, token};

/// Who may send what: by the topic, by a header, never, or with an error.
const POLICIES: &str = "
    create policy hear on realtime.messages for select to authenticated using (true);
    create policy say on realtime.messages for insert to authenticated with check (
      extension = 'broadcast' and case realtime.topic()
        when 'open' then true
        when 'ada' then auth.uid() = 'aaaaaaaa-0000-4000-8000-000000000001'
        when 'by-header' then current_setting('request.headers')::json ->> 'x-room-key' = 'open'
        when 'secrets' then current_setting('request.headers')::jsonb ?| array['authorization', 'apikey', 'cookie', 'x-api-key']
        when 'fails' then 1 / (length(extension) - 9) = 1
        when 'slow' then pg_sleep(30) is null
        else false end)";

async fn rooms(settings: &[(&str, &str)]) -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(None).await;
    database.execute(POLICIES).await;
    let gateway = TestGateway::start_with(&database, settings).await;
    (database, gateway)
}

fn config() -> Value {
    json!({"private": true, "presence": {"enabled": false}})
}

fn replay() -> Value {
    json!({"private": true, "presence": {"enabled": false}, "broadcast": {"replay": {"since": 0, "limit": 25}}})
}

/// Sends `{}` as one message, and returns the answer.
async fn say(gateway: &TestGateway, token: &str, topic: &str) -> (u16, Value) {
    let path = format!("{}/{topic}/events/e?private=true", APIS[0]);
    answer(with_json(post(gateway, &path).bearer_auth(token), "{}")).await
}

#[tokio::test]
async fn the_policies_say_who_may_send() {
    let (_database, gateway) = rooms(&[]).await;
    let (ada, bob) = (
        authenticated(ADA),
        authenticated("bbbbbbbb-0000-4000-8000-000000000002"),
    );
    let denied = (403, message("Unauthorized"));
    let wrong = (422, message("RLS policy error"));
    let nobody = token(json!({"role": "nobody_has_this_role"}));
    for (topic, token, expected) in [
        ("open", &ada, accepted()),
        ("ada", &ada, accepted()),
        ("ada", &bob, denied.clone()),
        ("closed", &ada, denied.clone()),
        ("open", &anon(), denied.clone()),
        ("closed", &service_role(), accepted()),
        ("by-header", &ada, denied.clone()),
        ("secrets", &ada, denied),
        ("fails", &ada, wrong.clone()),
        ("open", &nobody, wrong),
    ] {
        assert_eq!(say(&gateway, token, topic).await, expected, "{topic}");
    }
    let path = format!("{}/by-header/events/e?private=true", APIS[1]);
    let opened = post(&gateway, &path).bearer_auth(&ada);
    assert_eq!(
        answer(opened.header("x-room-key", "open")).await,
        accepted()
    );
    let path = format!("{}/secrets/events/e?private=true", APIS[1]);
    let secrets = post(&gateway, &path)
        .bearer_auth(&ada)
        .header("apikey", &ada);
    let secrets = secrets.header("cookie", "a=b").header("x-api-key", &ada);
    assert_eq!(answer(secrets).await.0, 403);
}

#[tokio::test]
async fn private_and_public_are_two_channels() {
    let (_database, gateway) = rooms(&[]).await;
    let ada = authenticated(ADA);
    let mut private = Client::v1(&gateway, &ada).await;
    let p = private.joined("open", config()).await;
    let mut private_v2 = Client::v2(&gateway, &ada).await;
    private_v2.joined("open", config()).await;
    let [(mut public, c), (mut public_v2, _)] = members(&gateway, "open").await;

    assert_eq!(say(&gateway, &ada, "open").await, accepted());
    assert_eq!(
        private.event(&p, "broadcast").await.payload,
        json!({"event": "e", "payload": {}, "type": "broadcast"})
    );
    assert_eq!(kind_4(&mut private_v2).await.metadata, Value::Null);
    assert_eq!(public.until_heartbeat().await, []);
    // Only `true` is true.
    for query in [
        "",
        "?private=false",
        "?private=1",
        "?private=TRUE",
        "?private=",
    ] {
        let path = format!("{}/open/events/e{query}", APIS[0]);
        let request = post(&gateway, &path).bearer_auth(&ada);
        assert_eq!(
            answer(with_json(request, r#"{"private":true}"#)).await,
            accepted()
        );
        public.event(&c, "broadcast").await;
        kind_4(&mut public_v2).await;
    }
    assert_eq!(private.until_heartbeat().await, []);
    assert_eq!(private_v2.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_batch_is_accepted_though_private_messages_are_dropped() {
    let (_database, gateway) = rooms(&[]).await;
    let ada = authenticated(ADA);
    let mut private = Client::v2(&gateway, &ada).await;
    let mut channels = Vec::new();
    for topic in ["open", "ada", "closed", "fails"] {
        channels.push(private.joined(topic, config()).await);
    }
    let [(mut public, c), _] = members(&gateway, "closed").await;
    let one = |topic: &str, n: u32, private: Value| json!({"topic": topic, "event": "e", "payload": {"n": n}, "private": private});
    let messages = json!([
        one("open", 1, json!(true)),
        one("closed", 2, json!(true)),
        one("fails", 3, json!("1")),
        one("open", 4, json!("true")),
        one("ada", 5, json!("1")),
        one("closed", 6, json!(null)),
    ]);
    let batch = || batch(&gateway, messages.clone());
    let as_ada = post(&gateway, APIS[0])
        .bearer_auth(&ada)
        .body(json!({ "messages": messages }).to_string());
    assert_eq!(answer(as_ada).await, accepted());
    for (channel, n) in [(0, 1), (0, 4), (1, 5)] {
        let got = private.event(&channels[channel], "broadcast").await;
        assert_eq!(got.payload["payload"]["n"], n);
    }
    assert_eq!(private.until_heartbeat().await, []);
    assert_eq!(
        public.event(&c, "broadcast").await.payload["payload"]["n"],
        6
    );
    // Who may write nowhere is told the same.
    assert_eq!(answer(batch()).await, accepted());
    assert_eq!(private.until_heartbeat().await, []);
    assert_eq!(
        public.event(&c, "broadcast").await.payload["payload"]["n"],
        6
    );
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_given_up_and_nothing_is_sent() {
    let (_database, gateway) = rooms(&[("statement_timeout", "300ms")]).await;
    let ada = authenticated(ADA);
    let canceled = (422, message("Query canceled"));
    assert_eq!(say(&gateway, &ada, "slow").await, canceled);
    let [(mut public, _), _] = members(&gateway, "room").await;
    let messages = json!({"messages": [
        {"topic": "room", "event": "e", "payload": {}},
        {"topic": "slow", "event": "e", "payload": {}, "private": true},
    ]});
    let request = post(&gateway, APIS[0]).bearer_auth(&ada);
    assert_eq!(answer(request.body(messages.to_string())).await, canceled);
    assert_eq!(public.until_heartbeat().await, []);
}

#[tokio::test]
async fn what_is_to_persist_is_heard_with_an_id_and_replayed() {
    let (database, gateway) = rooms(&[]).await;
    let ada = authenticated(ADA);
    let mut v1 = Client::v1(&gateway, &ada).await;
    let c1 = v1.joined("open", config()).await;
    let mut v2 = Client::v2(&gateway, &ada).await;
    v2.joined("open", config()).await;
    let store = |event: &str, query: &str| {
        let path = format!("{}/open/events/{event}?private=true&{query}", APIS[0]);
        post(&gateway, &path).bearer_auth(&ada)
    };
    let mut ids = Vec::new();
    for (event, query) in [
        ("forever", "persist=true"),
        ("hour", "persist[ttl]=3600"),
        ("minute", "persist%5Bttl%5D=60"),
    ] {
        let request = with_json(store(event, query), r#"{"n": 1}"#);
        assert_eq!(answer(request).await, accepted());
        let live = v1.event(&c1, "broadcast").await.payload;
        let id = live["meta"]["id"].as_str().expect("an id").to_owned();
        assert_eq!(
            live,
            json!({"event": event, "payload": {"n": 1}, "type": "broadcast", "meta": {"id": id}})
        );
        let live = kind_4(&mut v2).await;
        assert_eq!((&*live.event, live.metadata), (event, json!({"id": id})));
        ids.push(id);
    }
    assert_eq!(
        answer(with_bytes(store("bytes", "persist=true"), b"\xde\xad")).await,
        accepted()
    );
    let live = kind_4(&mut v2).await;
    assert_eq!((live.is_json, &*live.payload), (false, &b"\xde\xad"[..]));
    // It is gone when its time is over, and what was not to be stored was never there.
    assert_eq!(
        answer(with_json(store("not", "persist=no"), "{}")).await,
        accepted()
    );
    assert_eq!(v1.event(&c1, "broadcast").await.payload.get("meta"), None);
    assert_eq!(kind_4(&mut v2).await.metadata, Value::Null);
    database
        .execute("update tidings.expiring_messages set expires_at = now() - interval '1 second' where expires_at < now() + interval '2 minutes'")
        .await;
    // Nothing came twice.
    assert_eq!(v1.until_heartbeat().await, []);
    assert_eq!(v2.until_heartbeat().await, []);

    let mut late = Client::v1(&gateway, &ada).await;
    let channel = late.joined("open", replay()).await;
    for (event, id) in ["forever", "hour"].into_iter().zip(&ids) {
        assert_eq!(
            late.event(&channel, "broadcast").await.payload,
            json!({"event": event, "payload": {"n": 1}, "type": "broadcast", "meta": {"replayed": true, "id": id}})
        );
    }
    assert_eq!(late.until_heartbeat().await, []);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused() {
    let (database, gateway) = rooms(&[]).await;
    let ada = authenticated(ADA);
    let store = |token: &str, topic: &str, body: &str| {
        let path = format!("{}/{topic}/events/e?private=true&persist=true", APIS[0]);
        with_json(post(&gateway, &path).bearer_auth(token), body)
    };
    assert_eq!(
        answer(store(&ada, "closed", "{}")).await,
        (403, message("Unauthorized"))
    );
    // PostgreSQL cannot keep this text.
    let (status, body) = answer(store(&ada, "open", r#"{"x":"\u0000"}"#)).await;
    assert_eq!((status, body["message"].is_string()), (422, true), "{body}");
    // On a public channel nothing is stored: nobody could have it replayed.
    let path = format!("{}/open/events/e?persist=true", APIS[0]);
    assert_eq!(
        answer(with_json(post(&gateway, &path).bearer_auth(&ada), "{}")).await,
        accepted()
    );
    let stored = database
        .text("select count(*) from realtime.messages")
        .await;
    assert_eq!(stored, "0");
}
