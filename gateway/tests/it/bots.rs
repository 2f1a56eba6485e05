//! Keys of bots: made and revoked by the program, taken wherever a token is.

use protocol::Version;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, TestDatabase, TestGateway, binding,
    chat::{A1, ADA, B1, chat, messages_of, say},
    process::{Outcome, run},
    token::{anon, authenticated},
    wait::wait_for,
};

async fn bot(url: &str, arguments: &[&str]) -> Outcome {
    let arguments = [&["bot"], arguments].concat();
    run(&arguments, &[("DATABASE_URL", url)]).await
}

/// Makes a key, which is the one line that is printed.
async fn create(database: &TestDatabase, arguments: &[&str]) -> String {
    let outcome = bot(&database.url, &[&["create"], arguments].concat()).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let key = outcome.stdout.trim_end().to_owned();
    assert!(
        key.starts_with("tk_") && !key.contains(char::is_whitespace),
        "{key}"
    );
    key
}

fn post(gateway: &TestGateway, table: &str, body: &Value) -> RequestBuilder {
    reqwest::Client::new()
        .post(gateway.url(&format!("/rest/v1/{table}")))
        .header("content-type", "application/json")
        .header("prefer", "return=minimal")
        .body(body.to_string())
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.expect("a response").status()
}

fn message(session: &str, content: &str) -> Value {
    json!({"session_id": session, "role": "assistant", "content": content})
}

#[tokio::test]
async fn a_key_is_shown_once_and_what_it_may_be_is_checked() {
    let (database, gateway) = chat().await;
    let key = create(
        &database,
        &["scribe", "--role", "authenticated", "--claim", "team=7"],
    )
    .await;
    let secret = key.rsplit_once('_').expect("its parts").1;

    let refused = [
        (
            vec!["scribe", "--role", "authenticated"],
            "of that name already",
        ),
        (vec!["b", "--role", "none"], "there is no role \"none\""),
        (vec!["b", "--role", "postgres"], "may do too much"),
        (vec!["b", "--role", "tidings_gateway"], "may do too much"),
        (vec!["b", "--role", "tidings_server"], "may do too much"),
        (
            vec!["b", "--role", "anon", "--claim", "role=service_role"],
            "cannot be another",
        ),
        (vec!["b b", "--role", "anon"], "bot_keys_name_check"),
        (
            vec!["b", "--role", "anon", "--claim", "x"],
            "a name and a value",
        ),
        (
            vec!["b", "--role", "anon", "--messages-per-second", "0"],
            "messages-per-second",
        ),
    ];
    for (arguments, reason) in refused {
        let outcome = bot(&database.url, &[vec!["create"], arguments.clone()].concat()).await;
        assert_ne!(outcome.code, Some(0), "{arguments:?}");
        assert_eq!(outcome.stdout, "");
        assert!(
            outcome.stderr.contains(reason),
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
    // A login that may not become the role cannot give it away, nor can one that only reads.
    database
        .execute(
            "create role bot_maker login password 'bot_maker'; grant usage on schema tidings to bot_maker;
             grant execute on all functions in schema tidings to bot_maker",
        )
        .await;
    let maker = database.url_as("bot_maker", "bot_maker");
    let outcome = bot(&maker, &["create", "b", "--role", "anon"]).await;
    assert!(
        outcome.stderr.contains("grant anon to bot_maker"),
        "{outcome:?}"
    );
    let outcome = bot(&database.gateway_url, &["create", "b", "--role", "anon"]).await;
    assert!(outcome.stderr.contains("may not do that"), "{outcome:?}");

    // A role that the gateways lack is told of, and the key is made.
    database.execute("create role unfit nologin").await;
    let outcome = bot(&database.url, &["create", "unfit", "--role", "unfit"]).await;
    assert!(
        outcome.stderr.contains("grant unfit to tidings_server"),
        "{outcome:?}"
    );
    assert_eq!(
        status(
            post(&gateway, "chat_messages", &message(A1, "x")).bearer_auth(outcome.stdout.trim())
        )
        .await,
        StatusCode::FORBIDDEN
    );

    let listed = bot(&database.gateway_url, &["list"]).await;
    assert!(
        listed.stdout.contains("scribe") && listed.stdout.contains("authenticated"),
        "{listed:?}"
    );
    assert!(!listed.stdout.contains(secret));
    let stored = database
        .text("select string_agg(k::text, ' ') from tidings.bot_keys k")
        .await;
    assert!(stored.contains("scribe") && !stored.contains(secret));
    let claims = "select claims->>'team' from tidings.bot_keys where name = 'scribe'";
    assert_eq!(database.text(claims).await, "7");

    let revoked = bot(&database.url, &["revoke", "scribe"]).await;
    assert_eq!((revoked.code, &*revoked.stdout), (Some(0), "revoked\n"));
    assert_ne!(
        bot(&database.url, &["revoke", "scribe"]).await.code,
        Some(0)
    );
    // The name is free again.
    create(&database, &["scribe", "--role", "authenticated"]).await;
}

#[tokio::test]
async fn a_key_is_taken_wherever_a_token_is_until_it_is_revoked() {
    let (database, gateway) = chat().await;
    let mut reader = Client::v2(&gateway, &authenticated(ADA)).await;
    let read = reader.subscribe("read", messages_of("INSERT", A1)).await;
    let arguments = [
        "helper",
        "--role",
        "authenticated",
        "--claim",
        &format!("sub={ADA}"),
    ];
    let key = create(&database, &arguments).await;

    // At once: the first that comes makes the gateway look.
    let mut client = Client::v2(&gateway, &key).await;
    let channel = client.subscribe("own", messages_of("INSERT", A1)).await;
    assert!(
        client
            .refused("foreign", messages_of("INSERT", B1))
            .await
            .starts_with("Unauthorized: ")
    );
    for (place, header) in ["authorization", "apikey", "x-api-key"]
        .into_iter()
        .enumerate()
    {
        let value = match header {
            "authorization" => format!("Bearer {key}"),
            _ => key.clone(),
        };
        let content = format!("message {place}");
        let request =
            post(&gateway, "chat_messages", &message(A1, &content)).header(header, &value);
        assert_eq!(status(request).await, StatusCode::CREATED, "{header}");
        assert_eq!(client.change(&channel).await["record"]["content"], content);
        assert_eq!(reader.change(&read).await["record"]["content"], content);
        let foreign = post(&gateway, "chat_messages", &message(B1, "x")).header(header, &value);
        assert_eq!(status(foreign).await, StatusCode::FORBIDDEN);
    }
    let mut joined = Client::v1(&gateway, &anon()).await;
    let config = json!({"postgres_changes": messages_of("INSERT", A1)});
    let (_, reply) = joined
        .join("own", json!({"config": config, "access_token": key}))
        .await;
    assert_eq!(reply["status"], "ok", "{reply}");

    let outcome = bot(&database.url, &["revoke", "helper"]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    wait_for("the end of the key", || async {
        let request = post(&gateway, "chat_messages", &message(A1, "late")).bearer_auth(&key);
        match status(request).await {
            StatusCode::UNAUTHORIZED => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let (_, reply) = joined
        .join("again", json!({"config": config, "access_token": key}))
        .await;
    assert_eq!(
        reply["response"]["reason"],
        "JwtSignatureError: Failed to validate JWT signature"
    );
    let url = gateway.url(&format!("/realtime/v1/websocket?apikey={key}"));
    let refused = reqwest::get(url).await.expect("a response");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        refused.text().await.expect("a body"),
        "{\"error\":\"Failed to validate JWT signature\"}"
    );
    assert!(!gateway.app.verifier.still_valid(&key));

    // Its channels have ended, and others have not.
    let told = client.event(&channel, "system").await;
    assert_eq!(told.payload["status"], "error");
    assert_eq!(
        client.event(&channel, "phx_close").await,
        channel.closed(Version::V2)
    );
    say(&database, A1, "after").await;
    let after = reader.changes_until(&read, "content", "after").await;
    assert!(
        after
            .iter()
            .all(|change| change["record"]["content"] == "late")
    );
    let stray = client.until_heartbeat().await;
    assert!(!format!("{stray:?}").contains("after"), "{stray:?}");
}

#[tokio::test]
async fn a_bot_posts_as_fast_as_it_may_and_no_faster() {
    let (database, gateway) = chat().await;
    let arguments = [
        "slow",
        "--role",
        "service_role",
        "--messages-per-second",
        "3",
    ];
    let limited = create(&database, &arguments).await;
    let free = create(&database, &["free", "--role", "service_role"]).await;
    let rows = |count: usize| Value::from(vec![message(A1, "m"); count]);

    // More than a second's worth at once is never taken.
    let refused = post(&gateway, "chat_messages", &rows(4)).bearer_auth(&limited);
    let refused = refused.send().await.expect("a response");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!(
        body,
        json!({"code": "PT429", "message": "Too many requests", "details": null, "hint": "This key may post 3 messages per second."})
    );
    assert_eq!(
        status(post(&gateway, "chat_messages", &rows(4)).bearer_auth(&free)).await,
        StatusCode::CREATED
    );
    assert_eq!(
        status(post(&gateway, "chat_messages", &rows(3)).bearer_auth(&limited)).await,
        StatusCode::CREATED
    );
    // The bucket fills by three a second, so that three more cannot come at once; but they can later.
    let again = || post(&gateway, "chat_messages", &rows(3)).bearer_auth(&limited);
    assert_eq!(status(again()).await, StatusCode::TOO_MANY_REQUESTS);
    wait_for("a second", || async {
        match status(again()).await {
            StatusCode::CREATED => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(
        database
            .text("select count(*) from chat_messages where content = 'm'")
            .await,
        "10"
    );
}

/// archety's expectation: "the relay's shared secret lets it insert a message into any conversation, and nothing else".
#[tokio::test]
async fn a_relay_inserts_messages_and_does_nothing_else() {
    let database = TestDatabase::new(Some("archety")).await;
    for table in ["messages", "oauth_tokens", "conversations", "users"] {
        database
            .execute(&format!("select tidings.watch('public.{table}')"))
            .await;
    }
    database
        .execute(
            "create role relay nologin; grant relay to tidings_server; grant usage on schema public to relay;
             grant insert on public.messages to relay;
             create policy relay on public.messages for insert to relay with check (true)",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let conversation = |letter: char| format!("30000000-0000-4000-8000-00000000000{letter}");
    let user = "10000000-0000-4000-8000-00000000000a";
    let mut owner = Client::v2(&gateway, &authenticated(user)).await;
    let filter = format!("conversation_id=eq.{}", conversation('a'));
    let own = owner
        .subscribe("own", json!([binding("INSERT", "messages", Some(&filter))]))
        .await;

    let key = create(&database, &["relay", "--role", "relay"]).await;
    let text = |letter| json!({"conversation_id": conversation(letter), "direction": "inbound", "body": "over SMS"});
    for letter in ['a', 'b', 'c'] {
        let request = post(&gateway, "messages", &text(letter)).bearer_auth(&key);
        assert_eq!(status(request).await, StatusCode::CREATED);
    }
    assert_eq!(owner.change(&own).await["record"]["body"], "over SMS");
    assert_eq!(owner.until_heartbeat().await, []);

    // What it wrote it may not read, nor write anything else.
    let plain = reqwest::Client::new()
        .post(gateway.url("/rest/v1/messages"))
        .bearer_auth(&key)
        .body(text('a').to_string());
    assert_eq!(status(plain).await, StatusCode::FORBIDDEN);
    let user_b = "20000000-0000-4000-8000-00000000000b";
    for (table, row) in [
        (
            "oauth_tokens",
            json!({"user_id": user_b, "provider": "p", "secret": "s"}),
        ),
        ("conversations", json!({"user_id": user_b})),
        ("users", json!({"phone": "+15550000009"})),
    ] {
        let request = post(&gateway, table, &row).bearer_auth(&key);
        assert_eq!(status(request).await, StatusCode::FORBIDDEN, "{table}");
    }
    let mut relay = Client::v2(&gateway, &key).await;
    for table in ["messages", "oauth_tokens", "conversations", "users"] {
        let refused = relay
            .refused(table, json!([binding("*", table, None)]))
            .await;
        assert_eq!(
            refused,
            format!(
                "Unauthorized: You do not have permissions to read from this Channel topic: {table}"
            )
        );
    }
    assert_eq!(
        database.text("select count(*) from oauth_tokens").await,
        "0"
    );
}
