//! What is asked over HTTP: health, metrics, who is online, and posting a message as a principal.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::{
    Client, TestGateway,
    chat::{A1, ADA, B1, BOB, chat, chat_with, messages_of},
    token::{anon, authenticated, service_role, signed_with, token},
};

async fn get(gateway: &TestGateway, path: &str) -> Response {
    reqwest::get(gateway.url(path)).await.expect("a response")
}

fn post(gateway: &TestGateway, path: &str, token: &str, body: &Value) -> RequestBuilder {
    reqwest::Client::new()
        .post(gateway.url(&format!("/rest/v1/{path}")))
        .bearer_auth(token)
        .header("content-type", "application/json")
        .body(body.to_string())
}

/// Status and JSON body.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("a response");
    let status = response.status().as_u16();
    let body = response.text().await.expect("a body");
    (
        status,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    )
}

/// Status and PostgREST's code; the four keys of its shape must be there.
async fn refusal(request: RequestBuilder) -> (u16, String) {
    let (status, body) = answer(request).await;
    let keys: Vec<_> = body
        .as_object()
        .unwrap_or_else(|| panic!("{status}: {body}"))
        .keys()
        .collect();
    assert_eq!(keys, ["code", "details", "hint", "message"]);
    (status, body["code"].as_str().expect("a code").to_owned())
}

fn message(session: &str, content: &str) -> Value {
    json!({"session_id": session, "role": "user", "content": content})
}

#[tokio::test]
async fn health_says_that_it_lives_and_that_it_is_ready() {
    let (_database, gateway) = chat().await;
    for path in ["/livez", "/healthcheck"] {
        let response = get(&gateway, path).await;
        assert_eq!(
            (
                response.status().as_u16(),
                &*response.text().await.expect("a body")
            ),
            (200, "ok")
        );
    }
    for path in ["/api/ping", "/realtime/v1/api/ping"] {
        assert_eq!(
            get(&gateway, path)
                .await
                .json::<Value>()
                .await
                .expect("JSON"),
            json!({"message": "Success"})
        );
    }
    let ready = get(&gateway, "/readyz").await;
    assert_eq!(ready.status(), 200);
    assert_eq!(
        ready.json::<Value>().await.expect("JSON"),
        json!({"status": "ready"})
    );
    assert_eq!(get(&gateway, "/nothing/here").await.status(), 404);
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_name_no_topic_and_nobody() {
    let (_database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    client.joined("a-very-secret-topic", json!({})).await;
    let response = get(&gateway, "/metrics").await;
    assert_eq!(response.status(), 200);
    let content_type = response.headers()["content-type"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    let text = response.text().await.expect("a body");
    for metric in [
        "tidings_connections",
        "tidings_channels",
        "tidings_joins_total",
        "tidings_changes_read_total",
    ] {
        assert!(
            text.contains(&format!("# TYPE {metric} ")),
            "{metric} is missing in:\n{text}"
        );
    }
    assert!(!text.contains("a-very-secret-topic"));
}

#[tokio::test]
async fn browsers_of_any_origin_are_let_in() {
    let (_database, gateway) = chat().await;
    let preflight = reqwest::Client::new()
        .request(Method::OPTIONS, gateway.url("/rest/v1/chat_messages"))
        .header("origin", "https://example.com")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "apikey,authorization,content-profile,content-type,prefer,x-client-info",
        )
        .send()
        .await
        .expect("a response");
    assert!(preflight.status().is_success());
    let header = |name: &str| preflight.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("access-control-allow-origin"), "*");
    assert!(header("access-control-allow-methods").contains("POST"));
    let allowed = header("access-control-allow-headers");
    assert!(
        allowed.contains("authorization") && allowed.contains("prefer"),
        "{allowed}"
    );
    let posted = post(&gateway, "chat_messages", "nonsense", &json!({}))
        .header("origin", "https://example.com");
    let response = posted.send().await.expect("a response");
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["access-control-allow-origin"]
        ),
        (401, &"*".parse().expect("a value"))
    );
}

#[tokio::test]
async fn who_is_online_can_be_asked_with_a_token() {
    let (_database, gateway) = chat().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client
        .joined(
            "rooms/1:é",
            json!({"presence": {"enabled": true, "key": "ada"}}),
        )
        .await;
    let reference = client
        .push(
            &channel,
            "presence",
            json!({"event": "track", "payload": {"name": "Ada"}}),
        )
        .await;
    client.reply(&reference).await;

    for path in [
        "/realtime/v1/api/presence/rooms%2F1%3A%C3%A9",
        "/api/presence/rooms%2F1:%C3%A9",
    ] {
        assert_eq!(get(&gateway, path).await.status(), 401);
        let ask = |token: String| {
            reqwest::Client::new()
                .get(gateway.url(path))
                .bearer_auth(token)
        };
        assert_eq!(
            ask("nonsense".into())
                .send()
                .await
                .expect("a response")
                .status(),
            401
        );
        let (status, body) = answer(ask(anon())).await;
        assert_eq!((status, &body["topic"]), (200, &json!("rooms/1:é")));
        let metas = body["presences"]["ada"]["metas"].as_array().expect("metas");
        assert_eq!((metas.len(), &metas[0]["name"]), (1, &json!("Ada")));
        assert_eq!(
            body["presences"].as_object().map(|keys| keys.len()),
            Some(1)
        );
        // The token may come in the header of Supabase's clients, too.
        let with_key = reqwest::Client::new()
            .get(gateway.url(path))
            .header("apikey", anon());
        assert_eq!(answer(with_key).await.0, 200);
    }
    let empty = reqwest::Client::new()
        .get(gateway.url("/api/presence/elsewhere"))
        .bearer_auth(anon());
    assert_eq!(
        answer(empty).await,
        (200, json!({"topic": "elsewhere", "presences": {}}))
    );
}

#[tokio::test]
async fn a_message_is_stored_as_its_sender_answered_with_its_row_and_received() {
    let (database, gateway) = chat().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = ada.subscribe("a1", messages_of("INSERT", A1)).await;

    let row = json!({"session_id": A1, "role": "assistant", "content": "It's \"quoted\" \u{1f600}", "metadata": {"n": [1, 2.50]}});
    let (status, body) = answer(post(
        &gateway,
        "chat_messages?select=*",
        &authenticated(ADA),
        &row,
    ))
    .await;
    assert_eq!(status, 201, "{body}");
    let stored = body
        .as_array()
        .filter(|rows| rows.len() == 1)
        .expect("one row")[0]
        .clone();
    let in_table: Value = serde_json::from_str(
        &database
            .text(&format!(
                "select row_to_json(m) from chat_messages m where id = '{}'",
                stored["id"].as_str().expect("an id")
            ))
            .await,
    )
    .expect("JSON");
    assert_eq!(stored, in_table);
    assert_eq!(stored["content"], row["content"]);
    assert_eq!(ada.change(&channel).await["record"], stored);

    // Several at once; one as an object; none back.
    let two = json!([message(A1, "one"), message(A1, "two")]);
    let (status, body) = answer(post(&gateway, "chat_messages", &authenticated(ADA), &two)).await;
    assert_eq!((status, body.as_array().map(Vec::len)), (201, Some(2)));
    let object = post(
        &gateway,
        "chat_messages",
        &authenticated(ADA),
        &message(A1, "three"),
    )
    .header("accept", "application/vnd.pgrst.object+json");
    let (status, body) = answer(object).await;
    assert_eq!((status, &body["content"]), (201, &json!("three")));
    let minimal = post(
        &gateway,
        "chat_messages",
        &authenticated(ADA),
        &message(A1, "four"),
    )
    .header("prefer", "return=minimal");
    assert_eq!(answer(minimal).await, (201, json!("")));
    let named = post(
        &gateway,
        "chat_messages?columns=%22session_id%22,%22role%22,%22content%22",
        &authenticated(ADA),
        &message(A1, "five"),
    );
    assert_eq!(answer(named).await.0, 201);
    for content in ["one", "two", "three", "four", "five"] {
        assert_eq!(ada.change(&channel).await["record"]["content"], content);
    }
    assert_eq!(ada.until_heartbeat().await, []);
}

#[tokio::test]
async fn row_level_security_and_grants_decide_who_may_post() {
    let (database, gateway) = chat().await;
    let before = database.text("select count(*) from chat_messages").await;
    let refused = [
        // Not hers; only SELECT is granted to anon; no subject; no such role.
        (authenticated(ADA), B1, (403, "42501")),
        (anon(), A1, (401, "42501")),
        (token(json!({"role": "authenticated"})), A1, (403, "42501")),
        (token(json!({"role": "nobody_knows"})), A1, (403, "42501")),
        (token(json!({"role": "postgres"})), A1, (403, "42501")),
        ("nonsense".to_owned(), A1, (401, "PGRST301")),
        (
            token(json!({"role": "authenticated", "sub": ADA, "exp": 1})),
            A1,
            (401, "PGRST301"),
        ),
        (
            signed_with(
                json!({"role": "service_role"}),
                "not the secret of this gateway, at all",
            ),
            A1,
            (401, "PGRST301"),
        ),
    ];
    for (token, session, (status, code)) in refused {
        let got = refusal(post(
            &gateway,
            "chat_messages",
            &token,
            &message(session, "no"),
        ))
        .await;
        assert_eq!(got, (status, code.to_owned()), "{session}");
    }
    let none = reqwest::Client::new()
        .post(gateway.url("/rest/v1/chat_messages"))
        .body("{}");
    assert_eq!(refusal(none).await, (401, "PGRST302".to_owned()));
    // One row of several is refused: none is stored.
    let both = json!([message(A1, "hers"), message(B1, "not hers")]);
    assert_eq!(
        refusal(post(&gateway, "chat_messages", &authenticated(ADA), &both)).await,
        (403, "42501".to_owned())
    );
    assert_eq!(
        database.text("select count(*) from chat_messages").await,
        before
    );

    // Whoever may, may; what came before on the same connections leaves nothing behind.
    for (token, session) in [
        (authenticated(BOB), B1),
        (service_role(), A1),
        (authenticated(ADA), A1),
    ] {
        assert_eq!(
            answer(post(
                &gateway,
                "chat_messages",
                &token,
                &message(session, "yes")
            ))
            .await
            .0,
            201
        );
    }
    assert_eq!(
        refusal(post(
            &gateway,
            "chat_messages",
            &authenticated(ADA),
            &message(B1, "no")
        ))
        .await
        .0,
        403
    );
    // Without an answer no right to read is needed.
    database
        .execute("grant insert on chat_messages to anon; revoke select on chat_messages from anon; create policy drop_box on chat_messages for insert to anon with check (true)")
        .await;
    let posting = || post(&gateway, "chat_messages", &anon(), &message(B1, "dropped"));
    assert_eq!(refusal(posting()).await, (401, "42501".to_owned()));
    assert_eq!(
        answer(posting().header("prefer", "return=minimal")).await.0,
        201
    );
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_with_the_status_of_postgrest() {
    let (database, gateway) = chat().await;
    database
        .execute("create table plain (id int primary key); grant all on plain to service_role")
        .await;
    let id = database.text("select id from chat_messages limit 1").await;
    let with = |changes: Value| {
        let mut row = message(A1, "x");
        for (key, value) in changes.as_object().expect("an object") {
            row[key] = value.clone();
        }
        row
    };
    let cases = [
        ("chat_messages", with(json!({"id": id})), (409, "23505")),
        (
            "chat_messages",
            with(json!({"session_id": "00000000-0000-4000-8000-00000000dead"})),
            (409, "23503"),
        ),
        (
            "chat_messages",
            with(json!({"session_id": "not a uuid"})),
            (400, "22P02"),
        ),
        (
            "chat_messages",
            with(json!({"role": "king"})),
            (400, "23514"),
        ),
        (
            "chat_messages",
            with(json!({"content": null})),
            (400, "23502"),
        ),
        ("chat_messages", json!({}), (400, "23502")),
        (
            "chat_messages",
            with(json!({"no_such_column": 1})),
            (400, "42703"),
        ),
        (
            "chat_messages",
            with(json!({"content\") values (null); drop table chat_messages; --": 1})),
            (400, "42703"),
        ),
        ("chat_messages", json!([1]), (400, "PGRST102")),
        ("chat_messages", json!("text"), (400, "PGRST102")),
        (
            "chat_messages?on_conflict=id",
            message(A1, "x"),
            (400, "PGRST100"),
        ),
        // Tables that are there but not watched, a schema of its own, one that is not there.
        ("plain", json!({"id": 1}), (404, "PGRST205")),
        ("profiles", json!({"id": "x"}), (404, "PGRST205")),
        ("chat_messages%22", message(A1, "x"), (404, "PGRST205")),
        ("nowhere", json!({}), (404, "PGRST205")),
    ];
    for (path, body, (status, code)) in cases {
        let got = refusal(post(&gateway, path, &service_role(), &body)).await;
        assert_eq!(got, (status, code.to_owned()), "{path} {body}");
    }
    let foreign = post(
        &gateway,
        "chat_messages",
        &service_role(),
        &message(A1, "x"),
    )
    .header("content-profile", "private");
    assert_eq!(refusal(foreign).await, (404, "PGRST205".to_owned()));
    let broken = reqwest::Client::new()
        .post(gateway.url("/rest/v1/chat_messages"))
        .bearer_auth(service_role())
        .body("{\"a\":");
    assert_eq!(refusal(broken).await, (400, "PGRST102".to_owned()));
    assert_eq!(
        database.text("select count(*) from chat_messages").await,
        "3"
    );

    // A table of another schema, once it is watched.
    database
        .execute(
            "create schema private; create table private.notes (id int primary key, n text default 'd');
             grant usage on schema private to service_role; grant all on private.notes to service_role;
             select tidings.watch('private.notes')",
        )
        .await;
    let note = post(&gateway, "notes", &service_role(), &json!({"id": 1}))
        .header("content-profile", "private");
    assert_eq!(answer(note).await, (201, json!([{"id": 1, "n": "d"}])));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_413() {
    let (_database, gateway) = chat_with(&[("max_message_bytes", "20000")]).await;
    let large = message(A1, &"x".repeat(21_000));
    assert_eq!(
        refusal(post(&gateway, "chat_messages", &service_role(), &large))
            .await
            .0,
        413
    );
    let fits = message(A1, &"x".repeat(15_000));
    assert_eq!(
        answer(post(&gateway, "chat_messages", &service_role(), &fits))
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up() {
    let (database, gateway) = chat_with(&[("statement_timeout", "300ms")]).await;
    let holder = database.connect().await;
    holder
        .batch_execute("begin; lock table chat_messages in access exclusive mode")
        .await
        .expect("a lock");
    let stuck = post(
        &gateway,
        "chat_messages",
        &service_role(),
        &message(A1, "late"),
    );
    assert_eq!(refusal(stuck).await, (504, "57014".to_owned()));
    holder
        .batch_execute("rollback")
        .await
        .expect("the lock is released");
    assert_eq!(
        answer(post(
            &gateway,
            "chat_messages",
            &service_role(),
            &message(A1, "in time")
        ))
        .await
        .0,
        201
    );
    assert_eq!(
        database
            .text("select count(*) from chat_messages where content = 'late'")
            .await,
        "0"
    );
}
