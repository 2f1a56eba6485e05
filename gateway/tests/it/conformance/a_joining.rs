//! Joins: what is looked at first, what is fixed, and what follows (protocol §3).

use std::net::SocketAddr;

use faultproxy::{Cut, Proxy};
use protocol::Version;
use serde_json::{Value, json};

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway,
    token::{anon, service_role, token},
};

async fn gateway(settings: &[(&str, &str)]) -> TestGateway {
    TestGateway::start_with(&TestDatabase::new(None).await, settings).await
}

fn quiet() -> Value {
    json!({"presence": {"enabled": false}})
}

/// The reason for which such a join is refused.
async fn reason(client: &mut Client, topic: &str, payload: Value) -> String {
    let (join_ref, reference) = (json!("j"), json!("r"));
    client
        .send(join_ref, reference, topic, "phx_join", payload)
        .await;
    let reply = client.reply("r").await.payload;
    let reason = reply["response"]["reason"].as_str();
    reason
        .unwrap_or_else(|| panic!("{topic}: {reply}"))
        .to_owned()
}

const MALFORMED: &str = "MalformedJWT: The token provided is not a valid JWT";
const PRIVATE_ONLY: &str = "PrivateOnly: This project only allows private channels";
const CHANNELS: &str = "ChannelRateLimitReached: Too many channels";
const PUBLIC_REPLAY: &str = "UnableToReplayMessages: Replay is not allowed for public channels";

#[tokio::test]
async fn the_first_check_that_fails_gives_the_reason() {
    let gateway = gateway(&[("max_channels", "1")]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let replay = json!({"broadcast": {"replay": {"since": "x"}}});
    let wrong = json!({"config": replay, "access_token": "nonsense"});
    // The name, before all else; then the token, before the replay.
    assert_eq!(
        reason(&mut client, "realtime:", wrong.clone()).await,
        "TopicNameRequired: You must provide a topic name"
    );
    assert_eq!(
        reason(&mut client, "r", wrong.clone()).await,
        "unmatched topic"
    );
    assert_eq!(
        reason(&mut client, "realtime:a", wrong.clone()).await,
        MALFORMED
    );
    let public = json!({"config": replay});
    assert_eq!(
        reason(&mut client, "realtime:a", public).await,
        PUBLIC_REPLAY
    );
    // The right to read, before what is wrong with the replay.
    let mut private = json!({"config": replay});
    private["config"]["private"] = true.into();
    assert_eq!(
        reason(&mut client, "realtime:a", private).await,
        "Unauthorized: You do not have permissions to read from this Channel topic: a"
    );
    // How many channels there are, before the token.
    client.joined("one", quiet()).await;
    assert_eq!(reason(&mut client, "realtime:a", wrong).await, CHANNELS);
}

#[tokio::test]
async fn that_a_channel_is_public_is_said_before_how_many_there_are_and_before_its_token() {
    let settings = [("private_only", "true"), ("max_channels", "1")];
    let gateway = gateway(&settings).await;
    let mut client = Client::v2(&gateway, &service_role()).await;
    let private = json!({"private": true, "presence": {"enabled": false}});
    let wrong = json!({"config": {}, "access_token": "nonsense"});
    assert_eq!(
        reason(&mut client, "realtime:a", wrong.clone()).await,
        PRIVATE_ONLY
    );
    client.joined("one", private).await;
    assert_eq!(reason(&mut client, "realtime:a", wrong).await, PRIVATE_ONLY);
}

/// Wrong bindings do not refuse a join, and what refuses it says nothing about them.
#[tokio::test]
async fn bindings_are_looked_at_last() {
    let gateway = gateway(&[]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let mut config = quiet();
    config["postgres_changes"] =
        json!([{"event": "*", "schema": "public", "table": "t", "filter": "wrong"}]);
    let wrong = json!({"config": config, "access_token": "nonsense"});
    assert_eq!(reason(&mut client, "realtime:a", wrong).await, MALFORMED);
    let channel = client.joined("a", config).await;
    let told = client.event(&channel, "system").await.payload;
    assert_eq!(told["status"], "error");
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_name_that_looks_private_is_that_of_a_public_channel() {
    let gateway = gateway(&[]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    // Nobody may join it as a private one.
    let private = json!({"config": {"private": true}});
    assert_eq!(
        reason(&mut client, "realtime:private:x", private).await,
        "Unauthorized: You do not have permissions to read from this Channel topic: private:x"
    );
    client.joined("private:x", quiet()).await;
}

#[tokio::test]
async fn names_differ_by_case() {
    let gateway = gateway(&[]).await;
    let mut listener = Client::v2(&gateway, &anon()).await;
    listener.joined("Room", quiet()).await;
    let room = listener.joined("room", quiet()).await;
    let mut sender = Client::v2(&gateway, &anon()).await;
    for (name, payload) in [("ROOM", "1"), ("room ", "2"), ("room", "3")] {
        let channel = sender.joined(name, quiet()).await;
        let said = json!({"type": "broadcast", "event": "e", "payload": {"n": payload}});
        sender.push(&channel, "broadcast", said).await;
    }
    let heard = listener.event(&room, "broadcast").await.payload;
    assert_eq!(heard["payload"]["n"], "3");
    assert_eq!(listener.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_public_channel_needs_no_database() {
    let database = TestDatabase::new(None).await;
    let (login, rest) = database.gateway_url.split_once('@').expect("a login");
    let (address, name) = rest.split_once('/').expect("a database");
    let address = address.replace("localhost", "127.0.0.1");
    let address: SocketAddr = address.parse().expect("an address");
    let proxy = Proxy::start(address).await.expect("a proxy");
    let url = format!("{login}@{}/{name}", proxy.address());
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let gateway = TestGateway::start_at(here, &url, &[]).await;
    // Nobody listens at an address that was given back.
    let nobody = tokio::net::TcpListener::bind(here).await.expect("a port");
    let nowhere = nobody.local_addr().expect("an address");
    drop(nobody);
    proxy.lead_to(nowhere);
    proxy.cut(Cut::Reset);

    let mut client = Client::v2(&gateway, &anon()).await;
    let mut config = quiet();
    config["broadcast"]["self"] = true.into();
    let channel = client.joined("room", config).await;
    let said = json!({"type": "broadcast", "event": "e", "payload": {}});
    client.push(&channel, "broadcast", said.clone()).await;
    assert_eq!(client.event(&channel, "broadcast").await.payload, said);
}

#[tokio::test]
async fn fields_that_nobody_knows_are_ignored() {
    let gateway = gateway(&[]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let payload = json!({
        "more": {"a": [1]},
        "config": {
            "more": 1,
            "broadcast": {"self": true, "more": [null]},
            "presence": {"enabled": false, "more": {}},
            "postgres_changes_options": {"more": true},
        },
    });
    let (channel, reply) = client.join("room", payload).await;
    assert_eq!(
        reply,
        json!({"status": "ok", "response": {"postgres_changes": []}})
    );
    let said = json!({"type": "broadcast", "event": "e", "payload": {}});
    client.push(&channel, "broadcast", said.clone()).await;
    assert_eq!(client.event(&channel, "broadcast").await.payload, said);
    assert_eq!(client.until_heartbeat().await, []);
}

/// Nothing but another join changes what a channel was joined with.
#[tokio::test]
async fn the_config_of_a_join_holds_until_the_next_join() {
    let gateway = gateway(&[]).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let config = |on: bool| json!({"broadcast": {"self": on, "ack": on}, "presence": {"enabled": on, "key": on.to_string()}});
    let said = json!({"type": "broadcast", "event": "e", "payload": {}});
    let channel = client.joined("room", config(false)).await;
    let renewed = token(json!({"role": "anon", "n": 2}));
    let push = json!({"access_token": renewed, "config": config(true)});
    client.push(&channel, "access_token", push).await;
    client.push(&channel, "broadcast", said.clone()).await;
    assert_eq!(client.until_heartbeat().await, []);

    let channel = client.joined("room", config(true)).await;
    let state = client.event(&channel, "presence_state").await.payload;
    assert_eq!(state, json!({}));
    let reference = client.push(&channel, "broadcast", said.clone()).await;
    assert_eq!(client.event(&channel, "broadcast").await.payload, said);
    assert_eq!(client.reply(&reference).await.payload["status"], "ok");
    let track = json!({"event": "track", "payload": {}});
    client.push(&channel, "presence", track).await;
    let came = client.event(&channel, "presence_diff").await.payload;
    assert!(came["joins"]["true"].is_object(), "{came}");
}

#[tokio::test]
async fn all_that_follows_a_join_comes_after_its_reply() {
    let database = TestDatabase::new(None).await;
    database
        .execute("create table notes (id int primary key); grant select on notes to service_role; alter publication supabase_realtime add table notes")
        .await;
    let gateway = TestGateway::start(&database).await;
    // Messages of one transaction have one time.
    for number in [1, 2] {
        let send = format!("select realtime.send('{{\"n\": {number}}}', 'e', 'room')");
        database.execute(&send).await;
    }
    let config = json!({
        "private": true,
        "broadcast": {"replication_ready": true, "replay": {"since": 0}},
        "presence": {"enabled": true},
        "postgres_changes": [{"event": "*", "schema": "public", "table": "notes"}],
    });
    for version in [Version::V1, Version::V2] {
        let mut client = Client::connect(&gateway, version, &service_role()).await;
        let join = json!({ "config": config });
        let (channel, reference) = client.begin_join("room", join).await;
        let mut came = Vec::new();
        for _ in 0..6 {
            let Incoming::Message(message) = client.next().await else {
                panic!("no message after {came:?}");
            };
            assert_eq!(message.topic, channel.topic);
            if version == Version::V2 {
                assert_eq!(message.join_ref, *channel.join_ref, "{message:?}");
            }
            match &*message.event {
                "phx_reply" => assert_eq!(message.reference, *reference),
                _ => assert_eq!(message.reference, Value::Null),
            }
            came.push(match &*message.event {
                "system" => message.payload["message"].to_string(),
                "broadcast" => message.payload["payload"]["n"].to_string(),
                event => event.to_owned(),
            });
        }
        assert_eq!(came[0], "phx_reply");
        let place = |what: &str| came.iter().position(|event| event == what);
        assert!(place("1") < place("2"), "the oldest first: {came:?}");
        came.sort();
        assert_eq!(
            came,
            [
                "\"Replication connection established\"",
                "\"Subscribed to PostgreSQL\"",
                "1",
                "2",
                "phx_reply",
                "presence_state"
            ]
        );
    }
}
