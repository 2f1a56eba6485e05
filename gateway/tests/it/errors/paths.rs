//! Answers of all other paths.

use super::*;
use crate::support::token::service_role;

#[tokio::test]
async fn every_answer_of_other_paths_is_on_the_page() {
    let (database, world) = private().await;
    walk("Other paths", [0, 2], async |[status, body]| {
        let (got, told) = Box::pin(refused(&database, &world, status, body)).await;
        [got, told.trim_end_matches('\n').to_owned()]
    })
    .await;
}

/// Who is on a private channel?
async fn presence(gateway: &TestGateway, topic: &str) -> (String, String) {
    let url = gateway.url(&format!("/api/presence/{topic}?private=true"));
    answer(reqwest::Client::new().get(url).bearer_auth(ada())).await
}

async fn refused(
    database: &TestDatabase,
    world: &TestGateway,
    status: &str,
    body: &str,
) -> (String, String) {
    let client = reqwest::Client::new();
    let disconnect = async |token: &str, body: &'static str| {
        let request = client.post(world.url("/admin/v1/disconnect"));
        answer(request.bearer_auth(token).body(body)).await
    };
    match (status, body) {
        ("400", "Invalid URL: …") => {
            answer(
                client
                    .get(world.url("/api/presence/%FF"))
                    .bearer_auth(anon()),
            )
            .await
        }
        ("400", text) if text.contains("must be a JSON object") => {
            disconnect(&service_role(), "[]").await
        }
        ("400", text) if text.contains("Say who") => disconnect(&service_role(), "{}").await,
        ("403", text) if text.contains("who is on") => presence(world, "closed").await,
        ("504", _) => presence(world, "canceled").await,
        ("403", _) => disconnect(&anon(), r#"{"sub":"x"}"#).await,
        ("404", _) => answer(client.get(world.url("/nothing"))).await,
        ("405", "") => {
            let presence = answer(client.post(world.url("/api/presence/room"))).await;
            let other = answer(client.get(world.url("/admin/v1/disconnect"))).await;
            assert_eq!(presence, other);
            other
        }
        ("431", _) => {
            let long = client
                .get(world.url("/livez"))
                .header("x-long", "x".repeat(5000));
            answer(long).await
        }
        ("503", text) => {
            let (gateway, proxy) = remote(database, &[("statement_timeout", "1s")]).await;
            away(&proxy).await;
            if text.contains("PGRST001") {
                return presence(&gateway, "room").await;
            }
            crate::support::wait::wait_for("the loss of the database", || async {
                let answer = answer(client.get(gateway.url("/readyz"))).await;
                match &*answer.0 {
                    "200" => Err("it is ready"),
                    _ => Ok(answer),
                }
            })
            .await
        }
        other => panic!("no provoker for {other:?}"),
    }
}
