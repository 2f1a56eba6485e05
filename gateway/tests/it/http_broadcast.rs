//! Broadcast over HTTP: what is answered, and what members of a channel get of it.

mod batch;
mod limits;
mod private;
mod sdk;
mod single;

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::{
    Channel, Client, Incoming, TestDatabase, TestGateway,
    token::{anon, authenticated},
};

const ADA: &str = "aaaaaaaa-0000-4000-8000-000000000001";
/// As a Supabase API gateway shows them, and as the server behind it does.
const APIS: [&str; 2] = ["/realtime/v1/api/broadcast", "/api/broadcast"];

async fn start(settings: &[(&str, &str)]) -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start_with(&database, settings).await;
    (database, gateway)
}

fn post(gateway: &TestGateway, path: &str) -> RequestBuilder {
    reqwest::Client::new().post(gateway.url(path))
}

/// A batch, from anybody.
fn batch(gateway: &TestGateway, messages: Value) -> RequestBuilder {
    batch_text(gateway, json!({ "messages": messages }).to_string())
}

fn batch_text(gateway: &TestGateway, body: impl Into<reqwest::Body>) -> RequestBuilder {
    post(gateway, APIS[0])
        .bearer_auth(anon())
        .header("content-type", "application/json")
        .body(body)
}

/// One message, from anybody; `names` are `topic/events/event`, and a query.
fn single(gateway: &TestGateway, names: &str) -> RequestBuilder {
    post(gateway, &format!("{}/{names}", APIS[0])).bearer_auth(anon())
}

fn with_json(request: RequestBuilder, body: &str) -> RequestBuilder {
    request
        .header("content-type", "application/json")
        .body(body.to_owned())
}

fn with_bytes(request: RequestBuilder, body: &[u8]) -> RequestBuilder {
    request
        .header("content-type", "application/octet-stream")
        .body(body.to_vec())
}

/// Status and body, which is JSON or empty (null).
async fn answer(request: RequestBuilder) -> (u16, Value) {
    told(request.send().await.expect("a response")).await
}

async fn told(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].clone();
    assert!(id.len() >= 20, "{id:?}");
    let is_json = response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind == "application/json; charset=utf-8");
    let body = response.text().await.expect("a body");
    match body.is_empty() {
        true => (status, Value::Null),
        false => {
            assert!(is_json, "{status}: {body}");
            (status, serde_json::from_str(&body).expect("JSON"))
        }
    }
}

fn accepted() -> (u16, Value) {
    (202, Value::Null)
}

fn message(text: &str) -> Value {
    json!({ "message": text })
}

/// A member for each serializer, without presence.
async fn members(gateway: &TestGateway, topic: &str) -> [(Client, Channel); 2] {
    let config = json!({"presence": {"enabled": false}});
    let mut v1 = Client::v1(gateway, &anon()).await;
    let c1 = v1.joined(topic, config.clone()).await;
    let mut v2 = Client::v2(gateway, &anon()).await;
    let c2 = v2.joined(topic, config).await;
    [(v1, c1), (v2, c2)]
}

/// A kind 4 frame, read.
#[derive(Debug, PartialEq)]
struct Kind4 {
    topic: String,
    event: String,
    metadata: Value,
    is_json: bool,
    payload: Vec<u8>,
}

async fn kind_4(client: &mut Client) -> Kind4 {
    let incoming = client.next().await;
    let Incoming::Binary(bytes) = incoming else {
        panic!("no binary frame: {incoming:?}");
    };
    let [4, topic, event, metadata, encoding, ref rest @ ..] = bytes[..] else {
        panic!("no frame of kind 4: {bytes:?}");
    };
    let (topic, rest) = rest.split_at(topic.into());
    let (event, rest) = rest.split_at(event.into());
    let (metadata, payload) = rest.split_at(metadata.into());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    Kind4 {
        topic: text(topic),
        event: text(event),
        metadata: serde_json::from_slice(metadata).unwrap_or_default(),
        is_json: encoding == 1,
        payload: payload.to_vec(),
    }
}

#[tokio::test]
async fn the_token_is_that_of_the_authorization_or_of_apikey() {
    let (_database, gateway) = start(&[]).await;
    let messages = r#"{"messages":[{"topic":"room","event":"e","payload":{}}]}"#;
    let token = authenticated(ADA);
    let bad = format!("{token}x");
    for api in APIS {
        for (path, body) in [
            (api.to_owned(), messages),
            (format!("{api}/room/events/e"), "{}"),
        ] {
            let request = || with_json(post(&gateway, &path), body);
            let in_query = || with_json(post(&gateway, &format!("{path}?apikey={token}")), body);
            for (request, status) in [
                (request().bearer_auth(&token), 202),
                (
                    request().header("authorization", format!("bEaReR {token}")),
                    202,
                ),
                (request().header("apikey", &token), 202),
                (request().header("apikey", &bad).bearer_auth(&token), 202),
                (request().header("apikey", &token).bearer_auth(&bad), 401),
                (
                    request()
                        .header("apikey", &token)
                        .header("authorization", "Basic x"),
                    202,
                ),
                (request().bearer_auth(&bad), 401),
                (request().header("apikey", ""), 401),
                (request().header("x-api-key", &token), 401),
                (in_query(), 401),
                (request(), 401),
            ] {
                let shown = format!("{request:?}");
                let (got, body) = answer(request).await;
                assert_eq!(got, status, "{shown}");
                if status == 401 {
                    assert_eq!(body, message("Unauthorized"));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_bot_may_send_as_many_messages_as_its_key_says() {
    let (database, gateway) = start(&[]).await;
    let [(mut v1, c1), _] = members(&gateway, "room").await;
    let arguments = [
        "bot",
        "create",
        "scribe",
        "--role",
        "authenticated",
        "--messages-per-second",
        "2",
    ];
    let made = crate::support::process::run(&arguments, &[("DATABASE_URL", &database.url)]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let key = made.stdout.trim_end();
    let three = json!([
        {"topic": "room", "event": "e", "payload": {"n": 1}},
        {"topic": "room", "event": "e", "payload": {"n": 2}},
        {"topic": "room", "event": "e", "payload": {"n": 3}},
    ]);
    let post = |messages: &Value| {
        let body = json!({ "messages": messages }).to_string();
        with_json(post(&gateway, APIS[1]).header("apikey", key), &body)
    };
    assert_eq!(
        answer(post(&three)).await,
        (429, message("You have exceeded your rate limit"))
    );
    assert_eq!(answer(post(&json!([three[0]]))).await, accepted());
    assert_eq!(v1.event(&c1, "broadcast").await.payload["payload"]["n"], 1);
}

#[tokio::test]
async fn other_methods_are_answered_and_browsers_are_let_in() {
    let (_database, gateway) = start(&[]).await;
    for path in [APIS[0].to_owned(), format!("{}/t/events/e", APIS[1])] {
        let got = reqwest::get(gateway.url(&path)).await.expect("a response");
        assert_eq!(got.headers()["allow"], "POST, OPTIONS");
        let (status, body) = told(got).await;
        assert_eq!((status, body["message"].is_string()), (405, true));

        let preflight = reqwest::Client::new()
            .request(reqwest::Method::OPTIONS, gateway.url(&path))
            .header("origin", "https://example.com")
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "apikey,authorization,content-type,x-client-info",
            )
            .send()
            .await
            .expect("a response");
        assert_eq!(preflight.status(), 200);
        let allowed = preflight.headers()["access-control-allow-headers"].clone();
        assert!(
            allowed
                .to_str()
                .is_ok_and(|names| names.contains("x-client-info")),
            "{allowed:?}"
        );

        let refused = post(&gateway, &path).header("origin", "https://example.com");
        let refused = refused.send().await.expect("a response");
        assert_eq!(refused.headers()["access-control-allow-origin"], "*");
    }
    let kept = single(&gateway, "t/events/e").header("x-request-id", "a-proxy-gave-this-one-id");
    let kept = kept.send().await.expect("a response");
    assert_eq!(kept.headers()["x-request-id"], "a-proxy-gave-this-one-id");
    // Without a limit nobody counts.
    assert!(!kept.headers().contains_key("x-rate-limit"));
}
