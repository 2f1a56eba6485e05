//! Tokens that are pushed on an open channel (protocol §4.5).

use serde_json::{Value, json};

use crate::support::{
    Channel, Client, TestDatabase, TestGateway,
    token::{anon, token},
};

async fn renew(client: &mut Client, channel: &Channel, token: String) {
    let push = json!({ "access_token": token });
    client.push(channel, "access_token", push).await;
}

fn said() -> Value {
    json!({"type": "broadcast", "event": "e", "payload": {}})
}

#[tokio::test]
async fn on_a_public_channel_a_token_of_any_role_takes_over_in_silence() {
    let gateway = TestGateway::start(&TestDatabase::new(None).await).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let config = json!({"broadcast": {"self": true}, "presence": {"enabled": false}});
    let channel = client.joined("room", config).await;
    for role in ["nobody_has_this_role", "", "authenticated"] {
        renew(&mut client, &channel, token(json!({"role": role}))).await;
        assert_eq!(client.until_heartbeat().await, [], "{role:?}");
        client.push(&channel, "broadcast", said()).await;
        assert_eq!(client.event(&channel, "broadcast").await.payload, said());
    }
    // One that has run out is not taken.
    let past = json!({"role": "anon", "exp": gateway::auth::now_unix() - 5});
    renew(&mut client, &channel, token(past)).await;
    let told = client.event(&channel, "system").await.payload;
    let message = told["message"].as_str().expect("text");
    assert!(message.starts_with("Token has expired "), "{message}");
    client.event(&channel, "phx_close").await;
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn the_right_to_send_is_that_of_the_new_token() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create policy hear on realtime.messages for select to authenticated using (true);
             create policy say on realtime.messages for insert to authenticated with check (auth.jwt() ->> 'says' = 'yes')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let who = |says: &str| token(json!({"role": "authenticated", "sub": "ada", "says": says}));
    let mut client = Client::v2(&gateway, &who("yes")).await;
    let config =
        json!({"private": true, "broadcast": {"ack": true}, "presence": {"enabled": false}});
    let channel = client.joined("room", config).await;
    for (says, status) in [("yes", "ok"), ("no", "error"), ("yes", "ok")] {
        renew(&mut client, &channel, who(says)).await;
        let reference = client.push(&channel, "broadcast", said()).await;
        let reply = client.reply(&reference).await.payload;
        assert_eq!(reply["status"], status, "{says}: {reply}");
        assert_eq!(client.until_heartbeat().await, []);
    }
}
