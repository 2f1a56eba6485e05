//! Private channels (protocol §8): what policies are asked, by which settings, and what their answers decide.

use serde_json::{Value, json};

use crate::support::{
    Channel, Client, TestDatabase, TestGateway,
    token::{authenticated, service_role, token},
};

const ADA: &str = "aaaaaaaa-0000-4000-8000-000000000001";

async fn with(policies: &str) -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(None).await;
    database.execute(policies).await;
    // Nobody is asked again meanwhile, however slow the machine is.
    let settings = [("recheck_interval", "1h")];
    let gateway = TestGateway::start_with(&database, &settings).await;
    (database, gateway)
}

fn config(presence: bool) -> Value {
    json!({"private": true, "broadcast": {"ack": true}, "presence": {"enabled": presence}})
}

async fn joins(client: &mut Client, topic: &str) -> bool {
    let join = json!({"config": config(false)});
    client.join(topic, join).await.1["status"] == "ok"
}

/// Sends a broadcast, and says whether it was taken.
async fn sends(client: &mut Client, channel: &Channel) -> bool {
    let payload = json!({"type": "broadcast", "event": "e", "payload": {}});
    let reference = client.push(channel, "broadcast", payload).await;
    client.reply(&reference).await.payload["status"] == "ok"
}

async fn post(gateway: &TestGateway, topic: &str, token: &str) -> u16 {
    let path = format!("/api/broadcast/{topic}/events/e?private=true");
    let request = reqwest::Client::new()
        .post(gateway.url(&path))
        .bearer_auth(token)
        .header("content-type", "application/json")
        .body("{}");
    request.send().await.expect("an answer").status().as_u16()
}

/// The same condition for reading and for writing; a topic for each setting.
const SETTINGS: &str = "
    create function public.as_expected() returns boolean language sql stable as $$
      select case realtime.topic()
        when 'role' then current_user = 'authenticated' and current_setting('role') = 'authenticated'
        when 'claims' then current_setting('request.jwt.claims')::jsonb @> '{\"team\": \"red\", \"role\": \"authenticated\"}'
        when 'sub' then current_setting('request.jwt.claim.sub') = 'aaaaaaaa-0000-4000-8000-000000000001'
        when 'no sub' then current_setting('request.jwt.claim.sub') = ''
        when 'claim role' then current_setting('request.jwt.claim.role') = 'authenticated'
        when 'headers' then current_setting('request.headers')::jsonb ->> 'x-room-key' = 'open'
        when 'other headers' then exists (select from jsonb_object_keys(current_setting('request.headers')::jsonb) key where key not like 'x-%')
        when 'auth' then auth.uid() = 'aaaaaaaa-0000-4000-8000-000000000001' and auth.role() = 'authenticated' and auth.jwt() ->> 'team' = 'red'
        else false end $$;
    create policy r on realtime.messages for select to authenticated using (
      public.as_expected() or realtime.topic() = 'the row' and topic = realtime.topic() and extension in ('broadcast', 'presence')
        and not private and payload is null and event is null and binary_payload is null
        and abs(extract(epoch from inserted_at - (now() at time zone 'utc'))) < 60);
    create policy w on realtime.messages for insert to authenticated with check (
      public.as_expected() or realtime.topic() = 'the row' and topic = realtime.topic() and extension in ('broadcast', 'presence')
        and not private and payload is null and event is null and binary_payload is null
        and abs(extract(epoch from inserted_at - (now() at time zone 'utc'))) < 60)";

#[tokio::test]
async fn policies_find_the_role_the_topic_the_claims_and_the_headers_in_the_settings_of_the_protocol()
 {
    let (database, gateway) = with(SETTINGS).await;
    let red = token(json!({"role": "authenticated", "sub": ADA, "team": "red"}));
    let headers = [("x-room-key", Some("open"))];
    let mut ada = Client::with_headers(&gateway, &red, &headers).await;
    for topic in [
        "role",
        "claims",
        "sub",
        "claim role",
        "headers",
        "auth",
        "the row",
    ] {
        let channel = ada.joined(topic, config(false)).await;
        assert!(sends(&mut ada, &channel).await, "{topic}");
    }
    for topic in ["no sub", "other headers", "another"] {
        assert!(!joins(&mut ada, topic).await, "{topic}");
    }
    let mut nameless = Client::v2(&gateway, &token(json!({"role": "authenticated"}))).await;
    let channel = nameless.joined("no sub", config(false)).await;
    assert!(sends(&mut nameless, &channel).await);
    for topic in ["claims", "sub", "headers", "auth"] {
        assert!(!joins(&mut nameless, topic).await, "{topic}");
    }
    // Whoever is asked, nothing is stored for it.
    let stored = "select count(*) from realtime.messages";
    assert_eq!(database.text(stored).await, "0");
}

#[tokio::test]
async fn policies_as_applications_write_them_mean_what_they_say() {
    let (_database, gateway) = with(&format!(
        "create table public.messages (room text, who text); grant select on public.messages to authenticated;
         insert into public.messages values ('by table', '{ADA}');
         create policy r on realtime.messages for select to authenticated using (realtime.topic() like 'topic:%');
         create policy w on realtime.messages for insert to authenticated with check (realtime.topic() = 'topic:1' and realtime.messages.extension in ('broadcast','presence'));
         -- A table of the application's own, of the same name.
         create policy by_table on realtime.messages for all to authenticated using (
           exists (select 1 from public.messages where public.messages.room = realtime.messages.topic
                     and public.messages.who = (select auth.uid())::text and realtime.messages.extension = 'broadcast'))"
    ))
    .await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    for (topic, may_send) in [("topic:1", true), ("topic:2", false), ("by table", true)] {
        let channel = ada.joined(topic, config(false)).await;
        assert_eq!(sends(&mut ada, &channel).await, may_send, "{topic}");
    }
    assert!(!joins(&mut ada, "topic").await);
    let bob = authenticated("bbbbbbbb-0000-4000-8000-000000000002");
    let mut bob = Client::v2(&gateway, &bob).await;
    assert!(joins(&mut bob, "topic:1").await);
    assert!(!joins(&mut bob, "by table").await);
}

#[tokio::test]
async fn who_may_send_needs_no_right_to_read_for_it() {
    let (_database, gateway) = with(
        "create policy w on realtime.messages for insert to authenticated with check (realtime.topic() = 'drop-box' and extension = 'broadcast');
         revoke select on realtime.messages from authenticated",
    )
    .await;
    let ada = authenticated(ADA);
    let mut service = Client::v2(&gateway, &service_role()).await;
    let channel = service.joined("drop-box", config(false)).await;
    let mut reader = Client::v2(&gateway, &ada).await;
    assert!(!joins(&mut reader, "drop-box").await);
    assert_eq!(post(&gateway, "drop-box", &ada).await, 202);
    assert_eq!(post(&gateway, "another", &ada).await, 403);
    // A frame of kind 4.
    let got = service.next().await;
    assert!(
        matches!(&got, crate::support::Incoming::Binary(bytes) if bytes.starts_with(&[4])),
        "{got:?}"
    );
    drop(channel);
}

#[tokio::test]
async fn each_request_over_http_is_asked_about_by_itself() {
    let (database, gateway) = with(
        "create table public.writers (who text); grant select on public.writers to authenticated;
         create policy w on realtime.messages for insert to authenticated with check (
           exists (select from public.writers where who = auth.uid()::text))",
    )
    .await;
    let ada = authenticated(ADA);
    for _ in 0..3 {
        assert_eq!(post(&gateway, "room", &ada).await, 403);
        database
            .execute(&format!("insert into writers values ('{ADA}')"))
            .await;
        assert_eq!(post(&gateway, "room", &ada).await, 202);
        database.execute("delete from writers").await;
    }
}

#[tokio::test]
async fn rights_to_write_are_asked_at_the_first_message_and_kept_until_the_next_token() {
    let (database, gateway) = with(
        "create sequence public.asked;
         create function public.ask() returns boolean language sql security definer as $$ select nextval('public.asked') > 0 $$;
         create policy r on realtime.messages for select to authenticated using (true);
         create policy w on realtime.messages for insert to authenticated with check (public.ask())",
    )
    .await;
    let asked = "select case when is_called then last_value else 0 end from public.asked";
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = ada.joined("room", config(true)).await;
    assert_eq!(database.text(asked).await, "0");
    assert!(sends(&mut ada, &channel).await);
    let once: u32 = database.text(asked).await.parse().expect("a number");
    assert!(once > 0);
    // It was asked for both extensions.
    assert!(sends(&mut ada, &channel).await);
    let track = json!({"event": "track", "payload": {}});
    let reference = ada.push(&channel, "presence", track).await;
    assert_eq!(ada.reply(&reference).await.payload["status"], "ok");
    assert_eq!(database.text(asked).await, once.to_string());

    let renewed = token(json!({"role": "authenticated", "sub": ADA, "n": 2}));
    ada.push(&channel, "access_token", json!({"access_token": renewed}))
        .await;
    assert!(sends(&mut ada, &channel).await);
    assert_eq!(database.text(asked).await, (2 * once).to_string());
}

#[tokio::test]
async fn an_error_about_one_extension_takes_both_rights_to_send() {
    let (_database, gateway) = with(
        "create policy r on realtime.messages for select to authenticated using (true);
         create policy w on realtime.messages for insert to authenticated with check (
           case realtime.topic() when 'presence fails' then extension = 'broadcast' or 1 / (length(extension) - 8) = 1
                                 when 'broadcast fails' then extension = 'presence' or 1 / (length(extension) - 9) = 1
                                 else true end)",
    )
    .await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    for (topic, may) in [
        ("presence fails", false),
        ("broadcast fails", false),
        ("good", true),
    ] {
        let channel = ada.joined(topic, config(false)).await;
        assert_eq!(sends(&mut ada, &channel).await, may, "{topic}");
        let track = json!({"event": "track", "payload": {}});
        let reference = ada.push(&channel, "presence", track).await;
        let expected = if may { "ok" } else { "error" };
        assert_eq!(
            ada.reply(&reference).await.payload["status"],
            expected,
            "{topic}"
        );
    }
}

#[tokio::test]
async fn who_may_not_hear_broadcasts_hears_none_wherever_they_come_from() {
    let (database, gateway) = with(
        "create policy r on realtime.messages for select to authenticated using (extension = 'presence' or auth.jwt() ->> 'hears' = 'all');
         create policy w on realtime.messages for insert to authenticated with check (true)",
    )
    .await;
    let all = token(json!({"role": "authenticated", "sub": ADA, "hears": "all"}));
    let mut hears = Client::v1(&gateway, &all).await;
    let h = hears.joined("room", config(false)).await;
    let mut deaf = Client::v1(&gateway, &authenticated(ADA)).await;
    let d = deaf.joined("room", config(true)).await;
    deaf.event(&d, "presence_state").await;
    let mut sender = Client::v2(&gateway, &all).await;
    let s = sender.joined("room", config(false)).await;

    assert!(sends(&mut sender, &s).await);
    assert_eq!(post(&gateway, "room", &all).await, 202);
    let batch =
        json!({"messages": [{"topic": "room", "event": "e", "payload": {}, "private": true}]});
    let batch = reqwest::Client::new()
        .post(gateway.url("/api/broadcast"))
        .bearer_auth(&all)
        .body(batch.to_string());
    let batch = batch.send().await.expect("an answer");
    assert_eq!(batch.status(), 202);
    database
        .execute("select realtime.send('{}', 'e', 'room', true)")
        .await;
    for _ in 0..4 {
        hears.event(&h, "broadcast").await;
    }
    assert_eq!(deaf.until_heartbeat().await, []);
    // It may send all the same.
    assert!(sends(&mut deaf, &d).await);
    hears.event(&h, "broadcast").await;
}
