//! An operator disconnects somebody everywhere.

use serde_json::json;

use crate::support::{
    Client, TestGateway,
    chat::{A1, ADA, B1, BOB, chat, messages_of},
    token::{anon, authenticated, service_role, token},
};

async fn disconnect(gateway: &TestGateway, token: Option<&str>, body: &str) -> (u16, String) {
    let mut request = reqwest::Client::new()
        .post(gateway.url("/admin/v1/disconnect"))
        .header("content-type", "application/json")
        .body(body.to_owned());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.expect("a response");
    let status = response.status().as_u16();
    (status, response.text().await.expect("a body"))
}

#[tokio::test]
async fn an_operator_closes_every_socket_of_a_user_and_no_other() {
    let (_database, gateway) = chat().await;
    let mut of_ada = Vec::new();
    for _ in 0..3 {
        let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
        client.subscribe("a1", messages_of("*", A1)).await;
        of_ada.push(client);
    }
    // Opened with a key for everybody; the channel's own token is Ada's.
    let mut by_channel = Client::v2(&gateway, &anon()).await;
    let config = json!({"postgres_changes": messages_of("*", A1), "presence": {"enabled": false}});
    let (_, reply) = by_channel
        .join(
            "a1",
            json!({"config": config, "access_token": authenticated(ADA)}),
        )
        .await;
    assert_eq!(reply["status"], "ok", "{reply}");
    of_ada.push(by_channel);
    let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
    bob.subscribe("b1", messages_of("*", B1)).await;

    let body = json!({"sub": ADA}).to_string();
    let (status, text) = disconnect(&gateway, Some(&service_role()), &body).await;
    assert_eq!((status, &*text), (202, r#"{"asked":5}"#));
    for client in &mut of_ada {
        assert_eq!(client.closed().await, Some(4009));
    }
    assert_eq!(bob.until_heartbeat().await, []);

    // She may come back: it was her sockets that were ended, not her rights.
    let mut again = Client::v2(&gateway, &authenticated(ADA)).await;
    again.subscribe("a1", messages_of("*", A1)).await;
}

#[tokio::test]
async fn an_operator_names_a_role_or_claims_and_all_that_is_named_must_fit() {
    let (_database, gateway) = chat().await;
    let of_team = |team: &str| token(json!({"role": "authenticated", "sub": ADA, "team": team}));
    let mut one = Client::v2(&gateway, &of_team("one")).await;
    let mut two = Client::v2(&gateway, &of_team("two")).await;
    let mut nobody = Client::v2(&gateway, &anon()).await;
    for client in [&mut one, &mut two, &mut nobody] {
        client.subscribe("a1", messages_of("*", A1)).await;
    }
    let operator = service_role();
    for (body, of_one) in [
        (json!({"role": "anon", "claims": {"team": "one"}}), "stays"),
        (json!({"sub": ADA, "claims": {"team": "three"}}), "stays"),
        (
            json!({"role": "authenticated", "claims": {"team": "one"}}),
            "goes",
        ),
    ] {
        let (status, text) = disconnect(&gateway, Some(&operator), &body.to_string()).await;
        assert_eq!(status, 202, "{text}");
        match of_one {
            "stays" => assert_eq!(one.until_heartbeat().await, []),
            _ => assert_eq!(one.closed().await, Some(4009)),
        }
    }
    assert_eq!(two.until_heartbeat().await, []);
    let (status, _) = disconnect(&gateway, Some(&operator), r#"{"role": "anon"}"#).await;
    assert_eq!(status, 202);
    assert_eq!(nobody.closed().await, Some(4009));
    assert_eq!(two.until_heartbeat().await, []);
}

#[tokio::test]
async fn nobody_else_may_disconnect_and_nobody_is_meant_by_accident() {
    let (_database, gateway) = chat().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    ada.subscribe("a1", messages_of("*", A1)).await;
    let everybody = json!({"sub": ADA}).to_string();
    for token in [anon(), authenticated(ADA)] {
        assert_eq!(disconnect(&gateway, Some(&token), &everybody).await.0, 403);
    }
    assert_eq!(disconnect(&gateway, None, &everybody).await.0, 401);
    assert_eq!(
        disconnect(&gateway, Some("no token"), &everybody).await.0,
        401
    );
    for body in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"sub": 7}"#,
        r#"{"user": "x"}"#,
        r#"{"sub": null}"#,
        r#"{"claims": {}}"#,
        r#"{"claims": []}"#,
        r#"{"sub": "x", "more": 1}"#,
        "{\"sub\": ",
    ] {
        let (status, text) = disconnect(&gateway, Some(&service_role()), body).await;
        assert_eq!(status, 400, "{body}: {text}");
    }
    assert_eq!(ada.until_heartbeat().await, []);
}
