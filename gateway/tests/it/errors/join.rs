//! Error replies to joins.

use super::*;
use crate::support::{
    binding,
    chat::{A1, messages_of, say},
    token::authenticated,
};

/// The owner of the session A1.
const OWNER: &str = crate::support::chat::ADA;

#[tokio::test]
async fn every_refused_join_is_on_the_page() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    database.execute(POLICIES).await;
    // Whether a row may be seen is known after a while.
    database
        .execute(
            "create table late (id int primary key, room text); alter table late enable row level security;
             create function in_time(room text) returns boolean language plpgsql as $$
             begin
               perform pg_sleep(3);
               return true;
             end $$;
             create policy p on late for select to authenticated using (in_time(room));
             grant select on late to authenticated; select tidings.watch('late')",
        )
        .await;
    let world = TestGateway::start(&database).await;
    walk("Reply to a join", [0], async |[reason]| {
        [Box::pin(refused(&database, &world, reason)).await]
    })
    .await;
}

/// The reason of the reply, which has nothing else.
async fn join(gateway: &TestGateway, token: &str, topic: &str, payload: Value) -> String {
    let mut client = Client::v2(gateway, token).await;
    join_on(&mut client, topic, payload).await
}

async fn join_on(client: &mut Client, topic: &str, payload: Value) -> String {
    client
        .send(json!("1"), json!("join"), topic, "phx_join", payload)
        .await;
    let reply = client.reply("join").await.payload;
    let reason = reply["response"]["reason"].as_str();
    let reason = reason.unwrap_or_else(|| panic!("{topic}: {reply}"));
    assert_eq!(
        reply,
        json!({"status": "error", "response": {"reason": reason}})
    );
    reason.to_owned()
}

fn bindings(bindings: Value) -> Value {
    json!({"config": {"postgres_changes": bindings}})
}

/// A join that waits until its bindings are live, for so many milliseconds.
fn waiting(wanted: Value, timeout: u32) -> Value {
    let mut payload = bindings(wanted);
    payload["config"]["postgres_changes_options"] = json!({"wait": true, "timeout": timeout});
    payload
}

fn messages(key: &str, value: Value) -> Value {
    let mut bindings = messages_of("*", A1);
    bindings[0][key] = value;
    bindings
}

fn private(more: Value) -> Value {
    json!({"config": {"private": true, "broadcast": more, "presence": {"enabled": false}}})
}

/// A cursor of now.
async fn cursor(gateway: &TestGateway) -> Value {
    let mut client = Client::v2(gateway, &authenticated(OWNER)).await;
    let config = json!({"postgres_changes": messages("cursor", json!(true))});
    let channel = client.joined("cursor", config).await;
    client.event(&channel, "system").await.payload["cursor"].take()
}

async fn refused(database: &TestDatabase, world: &TestGateway, reason: &str) -> String {
    let room = "realtime:room";
    let with = |what| json!({"config": {}, "access_token": wrong_token(what)});
    match reason {
        "TopicNameRequired: You must provide a topic name" => {
            join(world, &anon(), "realtime:", json!({})).await
        }
        "unmatched topic" => join(world, &anon(), "room", json!({})).await,
        "PrivateOnly: This project only allows private channels" => {
            let gateway = gateway(&[("private_only", "true")]).await;
            join(&gateway, &anon(), room, json!({})).await
        }
        "ClientJoinRateLimitReached: Too many joins per second" => {
            let gateway =
                gateway(&[("max_socket_joins_per_second", "1"), ("max_channels", "1")]).await;
            let mut client = Client::v2(&gateway, &anon()).await;
            for _ in 0..10 {
                client.joined("room", json!({})).await;
            }
            join_on(&mut client, room, json!({})).await
        }
        "ChannelRateLimitReached: Too many channels" => {
            let gateway = gateway(&[("max_channels", "1")]).await;
            let mut client = Client::v2(&gateway, &anon()).await;
            client.joined("one", json!({})).await;
            join_on(&mut client, room, json!({})).await
        }
        "InvalidJWTToken: Token has expired … seconds ago" => {
            join(world, &anon(), room, with("expired")).await
        }
        "InvalidJWTToken: Fields `role` and `exp` are required in JWT" => {
            join(world, &anon(), room, with("incomplete")).await
        }
        "MalformedJWT: The token provided is not a valid JWT" => {
            join(world, &anon(), room, with("malformed")).await
        }
        "JwtSignatureError: Failed to validate JWT signature" => {
            join(world, &anon(), room, with("forged")).await
        }
        "JwtSignerError: Failed to generate JWT signer for key ID (kid) \"…\", check your JWT secret or JWKS configuration" => {
            join(world, &anon(), room, with("unknown key")).await
        }
        "JwtSignerError: Failed to generate JWT signer, check your JWT secret or JWKS configuration" => {
            join(world, &anon(), room, with("no key")).await
        }
        "Unknown Error on Channel" => join(world, &anon(), room, with("other claim")).await,
        "Unauthorized: You do not have permissions to read from this Channel topic: …" => {
            // By the policies on messages of a private channel, and on rows.
            let of_rows = bindings(messages_of("*", A1));
            let rows = join(world, &authenticated("somebody else"), room, of_rows).await;
            let channel = join(world, &ada(), "realtime:closed", private(json!({}))).await;
            assert_eq!(rows.replace("room", "closed"), channel);
            channel
        }
        "UnableToReplayMessages: Replay is not allowed for public channels" => {
            let replay = json!({"config": {"broadcast": {"replay": {"since": 0}}}});
            join(world, &anon(), room, replay).await
        }
        "UnableToReplayMessages: Replay params are not valid" => {
            let replay = private(json!({"replay": {"since": "0"}}));
            join(world, &ada(), room, replay).await
        }
        "UnableToReplayMessages: Realtime was unable to replay messages" => {
            let (database, gateway) = super::private().await;
            database
                .execute("alter table realtime.messages rename column event to happening")
                .await;
            let replay = private(json!({"replay": {"since": 0}}));
            join(&gateway, &ada(), room, replay).await
        }
        "UnableToConnectToProject: Realtime was unable to connect to the project database" => {
            let (gateway, proxy) = remote(database, &[("statement_timeout", "1s")]).await;
            let mut client = Client::v2(&gateway, &authenticated(OWNER)).await;
            away(&proxy).await;
            join_on(&mut client, room, bindings(messages_of("*", A1))).await
        }
        "Realtime was unable to connect to the project database" => {
            let (gateway, proxy) = remote(database, &[("statement_timeout", "1s")]).await;
            let mut client = Client::v2(&gateway, &ada()).await;
            away(&proxy).await;
            join_on(&mut client, room, private(json!({}))).await
        }
        "QueryCanceled: Query was cancelled, please try again" => {
            join(world, &ada(), "realtime:canceled", private(json!({}))).await
        }
        "cursor_expired: changes since this cursor are not kept any more: fetch the rows anew, and join without `since`" =>
        {
            let database = TestDatabase::new(Some("chattwelve")).await;
            let gateway = TestGateway::start(&database).await;
            let cursor = cursor(&gateway).await;
            for content in ["1", "2"] {
                say(&database, A1, content).await;
            }
            database.execute("truncate tidings.changes").await;
            gateway.stop().await;
            // One that does not remember them.
            let gateway = TestGateway::start(&database).await;
            let since = bindings(messages("since", cursor));
            join(&gateway, &authenticated(OWNER), room, since).await
        }
        "cursor_foreign: this cursor was made by another database, or by this one before it lost changes: fetch the rows anew, and join without `since`" =>
        {
            let database = TestDatabase::new(Some("chattwelve")).await;
            let other = TestGateway::start(&database).await;
            let since = bindings(messages("since", cursor(&other).await));
            join(world, &authenticated(OWNER), room, since).await
        }
        "cursor_invalid: `since` is not a cursor that this server has made: fetch the rows anew, and join without `since`" =>
        {
            let since = bindings(messages("since", json!("x")));
            join(world, &authenticated(OWNER), room, since).await
        }
        "history_invalid: …" => Box::pin(histories(world)).await,
        "resume_limit: at most 32 bindings of a channel may have `since` or `history`" => {
            let many = vec![messages("since", json!("x"))[0].clone(); 33];
            join(world, &authenticated(OWNER), room, bindings(many.into())).await
        }
        "PostgresChangesSubscribeTimeout: Subscribing to PostgreSQL took longer than the timeout of the join" =>
        {
            let late = json!([binding("*", "late", Some("room=eq.a"))]);
            let wait = waiting(late, 100);
            join(world, &authenticated(OWNER), room, wait).await
        }
        "RealtimeDisabledForConfiguration: …" => {
            let wrong = json!([binding("*", "nothing", None)]);
            join(world, &authenticated(OWNER), room, waiting(wrong, 15_000)).await
        }
        "UnknownErrorOnChannel: …" => {
            let padding = "x".repeat(70_000);
            let long = join(world, &anon(), room, json!({ "padding": padding })).await;
            let topic = format!("realtime:{}", "x".repeat(1100));
            let topic = join(world, &anon(), &topic, json!({})).await;
            for told in [&long, &topic] {
                let (_, text) = told.split_once(": ").expect("a text");
                assert!(page::PAGE.contains(&format!("`{text}`")), "{text}");
            }
            topic
        }
        other => panic!("no provoker for {other}"),
    }
}

/// All that may be wrong with `history`; the page has each in the row's explanation.
async fn histories(world: &TestGateway) -> String {
    let service = crate::support::token::service_role();
    let history = |key: &str, value: Value| {
        let mut bindings = messages("history", json!(1));
        bindings[0][key] = value;
        bindings
    };
    let mut everything = binding("*", "*", None);
    everything["history"] = json!(1);
    let mut told = String::new();
    for (wanted, expected) in [
        (
            history("order", json!("nothing")),
            "invalid column for order …",
        ),
        (
            history("history", json!(1001)),
            "`history` may ask for 1000 rows in all",
        ),
    ] {
        told = join(world, &service, "realtime:room", bindings(wanted)).await;
        let (_, text) = told.split_once(": ").expect("a text");
        assert!(page::fits(expected, text), "{text}");
        assert!(page::PAGE.contains(expected), "{expected}");
    }
    told
}
