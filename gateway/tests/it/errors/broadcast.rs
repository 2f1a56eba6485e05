//! Refusals of broadcasts over HTTP.

use super::*;
use crate::support::token::service_role;

const API: &str = "/realtime/v1/api/broadcast";

#[tokio::test]
async fn every_refused_broadcast_is_on_the_page() {
    let (database, world) = private().await;
    walk("Broadcast over HTTP", [0, 1], async |[status, body]| {
        let (got, told) = Box::pin(refused(&database, &world, status, body)).await;
        [got, told]
    })
    .await;
}

fn post(
    gateway: &TestGateway,
    path: &str,
    token: &str,
    body: impl Into<reqwest::Body>,
) -> RequestBuilder {
    reqwest::Client::new()
        .post(gateway.url(&format!("{API}{path}")))
        .bearer_auth(token)
        .body(body)
}

async fn refused(
    database: &TestDatabase,
    world: &TestGateway,
    status: &str,
    body: &str,
) -> (String, String) {
    let one = "/room/events/e";
    let batch = async |body: String| answer(post(world, "", &anon(), body)).await;
    let single = async |path: &str, body: String| answer(post(world, path, &anon(), body)).await;
    let bytes = async |path: &str| {
        let request = post(world, path, &anon(), "");
        answer(request.header("content-type", "application/octet-stream")).await
    };
    let private = async |topic: &str| {
        let path = format!("/{topic}/events/e?private=true");
        answer(post(world, &path, &ada(), "{}")).await
    };
    // Stored as somebody who may do everything, and PostgreSQL says this.
    let store = async |sqlstate: &str| {
        let path = format!("/room/events/sqlstate-{sqlstate}?private=true&persist=true");
        answer(post(world, &path, &service_role(), "{}")).await
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let message = json!({"topic": "room", "event": "e", "payload": {}});
    match (status, body) {
        ("400", r#"{"message":"The body is not JSON"}"#) => batch("{".to_owned()).await,
        ("400", r#"{"message":"Topic and event are not percent-encoded UTF-8"}"#) => {
            single("/%FF/events/e", "{}".to_owned()).await
        }
        ("401", r#"{"message":"Unauthorized"}"#) => {
            let none = reqwest::Client::new().post(world.url(API)).body("{}");
            let bad = answer(post(world, "", "nonsense", "{}")).await;
            assert_eq!(answer(none).await, bad);
            bad
        }
        ("403", r#"{"message":"Unauthorized"}"#) => private("mute").await,
        ("405", r#"{"message":"Only POST broadcasts a message"}"#) => {
            answer(reqwest::Client::new().get(world.url(API))).await
        }
        ("408", r#"{"message":"The body did not arrive"}"#) => {
            let broken = format!(
                "POST {API} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                anon()
            );
            raw(world, &broken).await
        }
        ("413", r#"{"message":"The body is larger than 8000000 bytes"}"#) => {
            batch(" ".repeat(8_000_001)).await
        }
        (
            "415",
            r#"{"error":"Unsupported Media Type. Use application/json or application/octet-stream"}"#,
        ) => {
            let request = post(world, one, &anon(), "x");
            answer(request.header("content-type", "text/plain")).await
        }
        ("422", r#"{"errors":{"messages":["can't be blank"]}}"#) => batch("{}".to_owned()).await,
        ("422", r#"{"errors":{"messages":["is invalid"]}}"#) => {
            batch(r#"{"messages":7}"#.to_owned()).await
        }
        ("422", r#"{"errors":{"messages":[{…}]}}"#) => {
            batch(json!({"messages": [message, {}]}).to_string()).await
        }
        ("422", r#"{"errors":{"topic":["can't be blank"]}}"#) => {
            single("/%20/events/e", "{}".to_owned()).await
        }
        ("422", r#"{"errors":{"event":["can't be blank"]}}"#) => {
            single("/room/events/%20", "{}".to_owned()).await
        }
        ("422", r#"{"errors":{"topic":["should be at most 246 byte(s)"]}}"#) => {
            bytes(&format!("/{}/events/e", "x".repeat(300))).await
        }
        ("422", r#"{"errors":{"event":["should be at most 255 byte(s)"]}}"#) => {
            bytes(&format!("/room/events/{}", "x".repeat(300))).await
        }
        ("422", r#"{"errors":{"payload":["Payload size exceeds tenant limit"]}}"#) => {
            let gateway = gateway(&[("max_payload_bytes", "1KiB")]).await;
            answer(post(&gateway, one, &anon(), " ".repeat(1025))).await
        }
        ("422", r#"{"errors":{"payload":["is nested too deeply"]}}"#) => single(one, deep).await,
        ("422", r#"{"message":"RLS policy error"}"#) => {
            let nobody = token(json!({"role": "nobody_has_this_role"}));
            let path = "/room/events/e?private=true";
            let role = answer(post(world, path, &nobody, "{}")).await;
            assert_eq!(private("fails").await, role);
            role
        }
        ("422", r#"{"message":"Query canceled"}"#) => private("canceled").await,
        ("422", r#"{"message":"Tenant database unavailable"}"#) => store("53300").await,
        ("422", r#"{"message":"Missing messages partition"}"#) => {
            let (database, gateway) = super::private().await;
            database
                .execute(
                    "do $$ declare part regclass; begin
                       for part in select inhrelid from pg_inherits where inhparent = 'realtime.messages'::regclass loop
                         execute format('drop table %s', part);
                       end loop; end $$",
                )
                .await;
            let path = "/room/events/e?private=true&persist=true";
            answer(post(&gateway, path, &service_role(), "{}")).await
        }
        ("422", r#"{"message":"the database refused it: …"}"#) => store("P0001").await,
        ("429", r#"{"message":"Too many requests"}"#) => {
            let gateway = gateway(&[("max_events_per_second", "1")]).await;
            let now = tokio::time::Instant::now();
            while gateway.app.limits.event(now).is_ok() {}
            answer(post(&gateway, "", "nonsense", "{}")).await
        }
        (
            "429",
            r#"{"message":"Too many messages to broadcast, please reduce the batch size"}"#,
        ) => {
            let gateway = gateway(&[("max_events_per_second", "1")]).await;
            let messages = json!({"messages": [message, message]}).to_string();
            let two = answer(post(&gateway, "", &anon(), messages)).await;
            let many = json!({"messages": vec![message; 1001]}).to_string();
            assert_eq!(batch(many).await, two);
            two
        }
        ("429", r#"{"message":"You have exceeded your rate limit"}"#) => {
            let key = slow_bot(database).await;
            let many = json!({"messages": vec![message; 100]}).to_string();
            answer(post(world, "", &key, many)).await
        }
        ("429", r#"{"message":"Connection pool exhausted"}"#) => store("55P03").await,
        ("500", r#"{"message":"Unable to authorize broadcast"}"#) => store("XX000").await,
        other => panic!("no provoker for {other:?}"),
    }
}
