//! Broadcast (protocol §6): who may post over HTTP, what is private, and what is replayed.

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway,
    token::{anon, service_role, signed_with, token},
};

const API: &str = "/realtime/v1/api/broadcast";

fn private(broadcast: Value) -> Value {
    json!({"private": true, "broadcast": broadcast, "presence": {"enabled": false}})
}

fn post(gateway: &TestGateway, path: &str, token: &str, body: &Value) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .post(gateway.url(&format!("{API}{path}")))
        .header("apikey", token)
        .header("content-type", "application/json")
        .body(body.to_string())
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.text().await.expect("a body"))
}

#[tokio::test]
async fn a_token_over_http_is_checked_as_that_of_a_socket() {
    let gateway = TestGateway::start(&TestDatabase::new(None).await).await;
    let batch = json!({"messages": [{"topic": "room", "event": "e", "payload": {}}]});
    for (what, token, status) in [
        ("good", anon(), 202),
        ("expired", token(json!({"role": "anon", "exp": 1})), 401),
        ("no role", token(json!({"sub": "x"})), 401),
        ("no exp", token(json!({"role": "anon", "exp": null})), 401),
        (
            "exp as text",
            token(json!({"role": "anon", "exp": "2099"})),
            401,
        ),
        (
            "forged",
            signed_with(
                json!({"role": "anon"}),
                "another secret, which is not the gateway's",
            ),
            401,
        ),
        ("a key that is no token", "sb_publishable_x".to_owned(), 401),
    ] {
        let body = if status == 202 {
            ""
        } else {
            r#"{"message":"Unauthorized"}"#
        };
        for (path, sent) in [("", &batch), ("/room/events/e", &json!({}))] {
            let got = answer(post(&gateway, path, &token, sent)).await;
            assert_eq!(got, (status, body.to_owned()), "{what} {path}");
        }
    }
}

#[tokio::test]
async fn the_right_to_write_is_asked_once_for_each_topic_of_a_request() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create sequence asked;
             create function ask() returns boolean language sql security definer as $$ select nextval('public.asked') > 0 $$;
             create policy w on realtime.messages for insert to authenticated with check (public.ask())",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let ada = token(json!({"role": "authenticated", "sub": "ada"}));
    let questions = async |topics: &[&str]| {
        let count = "select case when is_called then last_value else 0 end from asked";
        let before: i64 = database.text(count).await.parse().expect("a number");
        let one =
            |topic: &&str| json!({"topic": topic, "event": "e", "payload": {}, "private": true});
        let messages: Vec<_> = topics.iter().map(one).collect();
        let (status, body) = answer(post(&gateway, "", &ada, &json!({"messages": messages}))).await;
        assert_eq!((status, &*body), (202, ""));
        let after: i64 = database.text(count).await.parse().expect("a number");
        after - before
    };
    let once = questions(&["a"]).await;
    assert!(once > 0);
    assert_eq!(questions(&["a", "a", "a", "a", "a"]).await, once);
    assert_eq!(questions(&["a", "b", "a", "b"]).await, 2 * once);
}

#[tokio::test]
async fn changes_that_a_trigger_broadcasts_are_private() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table notes (id int primary key);
             create function tell() returns trigger language plpgsql security definer as $$
             begin
               perform realtime.broadcast_changes('room', 'happened', tg_op, tg_table_name, tg_table_schema, new, old, tg_level);
               return null;
             end $$;
             create trigger tell after insert on notes for each row execute function tell()",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut member = Client::v1(&gateway, &service_role()).await;
    let m = member.joined("room", private(json!({}))).await;
    let mut public = Client::v1(&gateway, &anon()).await;
    let p = public
        .joined("room", json!({"presence": {"enabled": false}}))
        .await;
    database
        .execute("insert into notes values (1); select realtime.send('{}', 'end', 'room', false)")
        .await;
    let got = member.event(&m, "broadcast").await.payload;
    assert_eq!(got["event"], "happened");
    assert_eq!(got["payload"]["id"], got["meta"]["id"]);
    assert_eq!(public.event(&p, "broadcast").await.payload["event"], "end");
}

/// Thirty messages, one a second, of which the last was sent now; one of the near and one of the far future.
const THIRTY: &str = "
    insert into realtime.messages (topic, extension, payload, event, private, inserted_at)
      select 'room', 'broadcast', jsonb_build_object('n', n), 'e', true, (now() at time zone 'utc') - (30 - n) * interval '1 second'
        from generate_series(1, 30) n;
    insert into realtime.messages (topic, extension, payload, event, private, inserted_at) values
      ('room', 'broadcast', '{\"n\": 31}', 'e', true, (now() at time zone 'utc') + interval '50 seconds'),
      ('room', 'broadcast', '{\"n\": 32}', 'e', true, (now() at time zone 'utc') + interval '10 minutes')";

#[tokio::test]
async fn a_replay_comes_right_after_the_reply_and_is_of_the_newest_25_if_not_said_otherwise() {
    let database = TestDatabase::new(None).await;
    database.execute(THIRTY).await;
    let gateway = TestGateway::start(&database).await;
    for version in [Version::V1, Version::V2] {
        for (replay, first) in [
            (json!({"since": 0}), 7),
            (json!({"since": 0, "limit": 26}), 7),
            (json!({"since": 0, "limit": 2}), 30),
            (json!({"since": 0, "limit": -1}), 31),
        ] {
            let mut client = Client::connect(&gateway, version, &service_role()).await;
            let join = json!({"config": private(json!({"replay": replay}))});
            let (_, reference) = client.begin_join("room", join).await;
            let mut next = async || match client.next().await {
                Incoming::Message(message) => message,
                other => panic!("{other:?}"),
            };
            let reply = next().await;
            assert_eq!(
                (&*reply.event, &reply.reference, &reply.payload["status"]),
                ("phx_reply", &json!(reference), &json!("ok"))
            );
            let mut replayed = Vec::new();
            for _ in first..=31 {
                let message = next().await;
                assert_eq!(message.payload["meta"]["replayed"], true, "{message:?}");
                replayed.push(message.payload["payload"]["n"].as_i64().expect("a number"));
            }
            assert_eq!(replayed, (first..=31).collect::<Vec<_>>(), "{replay}");
            assert_eq!(client.until_heartbeat().await, []);
        }
    }
}
