//! Who is online on a private channel, asked over HTTP: for those who may hear of it on a socket.

use serde_json::{Value, json};

use super::{keyed, track};
use crate::support::{
    Client, TestDatabase, TestGateway,
    token::{anon, authenticated, token},
};

const POLICIES: &str = "
    create policy hear on realtime.messages for select to authenticated using (
      realtime.topic() = 'room' and auth.uid()::text = 'aaaaaaaa-0000-4000-8000-000000000001');
    create policy only_broadcasts on realtime.messages for select to authenticated using (
      realtime.topic() = 'broadcasts' and extension = 'broadcast');
    create policy by_header on realtime.messages for select to authenticated using (
      realtime.topic() = 'by-header' and current_setting('request.headers')::json ->> 'x-room-key' = 'open');
    create policy fails on realtime.messages for select to authenticated using (
      case when topic = 'fails' then 1 / (length(topic) - 5) = 1 else false end)";

const ADA: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const BOB: &str = "bbbbbbbb-0000-4000-8000-000000000002";

async fn ask(gateway: &TestGateway, path: &str, token: &str) -> (u16, Value) {
    let url = gateway.url(&format!("/realtime/v1/api/presence/{path}"));
    let request = reqwest::Client::new().get(url).bearer_auth(token);
    let request = request.header("x-room-key", "open");
    let response = request.send().await.expect("a response");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

#[tokio::test]
async fn who_is_on_a_private_channel_is_told_to_those_who_may_hear_of_it() {
    let database = TestDatabase::new(None).await;
    database.execute(POLICIES).await;
    let gateway = TestGateway::start(&database).await;
    let service = token(json!({"role": "service_role"}));
    let mut client = Client::v2(&gateway, &service).await;
    let mut config = keyed("private");
    config["private"] = true.into();
    let private = client.joined("room", config).await;
    track(&mut client, &private, json!({"n": 1})).await;
    let mut client = Client::v2(&gateway, &service).await;
    let public = client.joined("room", keyed("public")).await;
    track(&mut client, &public, json!({"n": 2})).await;

    let keys = |body: &Value| -> Vec<String> {
        let presences = body["presences"].as_object().expect("an object");
        presences.keys().cloned().collect()
    };
    for token in [&authenticated(ADA), &service] {
        let (status, body) = ask(&gateway, "room?private=true", token).await;
        assert_eq!((status, &*keys(&body)), (200, &["private".to_owned()][..]));
        assert_eq!(body["topic"], "room");
    }
    for path in ["room", "room?private=false"] {
        let (status, body) = ask(&gateway, path, &authenticated(BOB)).await;
        assert_eq!((status, &*keys(&body)), (200, &["public".to_owned()][..]));
    }
    for (path, token) in [
        ("room?private=true", authenticated(BOB)),
        ("room?private=true", anon()),
        ("broadcasts?private=true", authenticated(ADA)),
        ("fails?private=true", authenticated(ADA)),
    ] {
        let (status, body) = ask(&gateway, path, &token).await;
        assert_eq!((status, &body["code"]), (403, &json!("42501")), "{path}");
        assert!(body.get("presences").is_none());
    }
    // Policies see the request's headers.
    let (status, _) = ask(&gateway, "by-header?private=true", &authenticated(BOB)).await;
    assert_eq!(status, 200);
}
