//! Multi-tenant rooms: the tenant is a claim of the token, and whispers differ row by row inside one room.

use serde_json::{Value, json};

use super::{unauthorized, watched};
use crate::support::{Client, TestDatabase, TestGateway, binding, token::token};

const TENANT_A: &str = "aaaaaaaa-0000-4000-8000-000000000000";
const TENANT_B: &str = "bbbbbbbb-0000-4000-8000-000000000000";
const ROOM_A: &str = "40000000-0000-4000-8000-0000000000a1";
const ROOM_B: &str = "40000000-0000-4000-8000-0000000000b1";
const AUTHOR: &str = "10000000-0000-4000-8000-00000000000a";
const ADDRESSEE: &str = "10000000-0000-4000-8000-0000000000a2";
const THIRD: &str = "10000000-0000-4000-8000-0000000000a3";

fn member(tenant: &str, sub: &str) -> String {
    token(json!({"role": "authenticated", "sub": sub, "tenant_id": tenant}))
}

fn room(room: &str) -> Value {
    json!([binding(
        "*",
        "messages",
        Some(&format!("room_id=eq.{room}"))
    )])
}

async fn say(database: &TestDatabase, tenant: &str, body: &str, whisper_to: Option<&str>) {
    let whisper_to = whisper_to.map_or("null".to_owned(), |to| format!("'{to}'"));
    database
        .execute(&format!(
            "insert into messages (room_id, tenant_id, author_id, body, whisper_to)
             values ('{ROOM_A}', '{tenant}', '{AUTHOR}', '{body}', {whisper_to})"
        ))
        .await;
}

fn bodies(changes: &[Value]) -> Vec<String> {
    changes
        .iter()
        .map(|change| {
            let row = change.get("record").unwrap_or(&change["old_record"]);
            format!(
                "{} {}",
                change["type"].as_str().unwrap_or_default(),
                row["body"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

#[tokio::test]
async fn a_tenant_may_subscribe_to_its_room_and_is_refused_another_tenants_whatever_the_sub() {
    let database = watched("tenantrooms", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    // The last is the owner of room b1, but the token is of tenant A.
    for sub in [AUTHOR, THIRD, "10000000-0000-4000-8000-00000000000b"] {
        let mut client = Client::v2(&gateway, &member(TENANT_A, sub)).await;
        let channel = client.subscribe("a1", room(ROOM_A)).await;
        assert_eq!(
            client.refused("b1", room(ROOM_B)).await,
            unauthorized("b1"),
            "sub {sub}"
        );
        say(&database, TENANT_A, sub, None).await;
        assert_eq!(client.change(&channel).await["record"]["body"], sub);
    }
    let mut other = Client::v2(&gateway, &member(TENANT_B, AUTHOR)).await;
    assert_eq!(other.refused("a1", room(ROOM_A)).await, unauthorized("a1"));
    let mut none = Client::v2(
        &gateway,
        &token(json!({"role": "authenticated", "sub": AUTHOR})),
    )
    .await;
    assert_eq!(none.refused("a1", room(ROOM_A)).await, unauthorized("a1"));
}

#[tokio::test]
async fn a_whisper_and_its_delete_reach_its_author_and_its_addressee_and_no_one_else() {
    let database = watched("tenantrooms", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut clients = Vec::new();
    for sub in [AUTHOR, ADDRESSEE, THIRD] {
        let mut client = Client::v2(&gateway, &member(TENANT_A, sub)).await;
        // One that names the room, and one that names nothing.
        let named = client.subscribe("named", room(ROOM_A)).await;
        let all = client
            .subscribe("all", json!([binding("*", "messages", None)]))
            .await;
        clients.push((client, [named, all]));
    }
    say(&database, TENANT_A, "hello", None).await;
    say(&database, TENANT_A, "psst", Some(ADDRESSEE)).await;
    say(&database, TENANT_A, "well", None).await;
    database
        .execute("delete from messages where body = 'psst'")
        .await;
    database
        .execute("delete from messages where body = 'well'")
        .await;
    say(&database, TENANT_A, "end", None).await;

    let everything = [
        "INSERT hello",
        "INSERT psst",
        "INSERT well",
        "DELETE psst",
        "DELETE well",
    ];
    let but_the_whisper = ["INSERT hello", "INSERT well", "DELETE well"];
    let expected: [&[&str]; 3] = [&everything, &everything, &but_the_whisper];
    for ((client, channels), expected) in clients.iter_mut().zip(expected) {
        for channel in channels {
            let changes = client.changes_until(channel, "body", "end").await;
            assert_eq!(bodies(&changes), expected, "{}", channel.topic);
        }
        assert_eq!(client.until_heartbeat().await, []);
    }
}

#[tokio::test]
async fn a_filter_on_the_room_does_not_decide_once_and_for_all() {
    let database = watched("tenantrooms", &["public.messages"]).await;
    let gateway = TestGateway::start(&database).await;
    let mut third = Client::v2(&gateway, &member(TENANT_A, THIRD)).await;
    let channel = third.subscribe("a1", room(ROOM_A)).await;
    // Rows of the room, of which the policies judge differently by tenant_id, whisper_to and author_id.
    say(&database, TENANT_B, "of another tenant", None).await;
    say(&database, TENANT_A, "a whisper", Some(ADDRESSEE)).await;
    say(&database, TENANT_A, "to the third", Some(THIRD)).await;
    // An update that hides a row, one that shows a row: the new row counts.
    database
        .execute(&format!(
            "update messages set whisper_to = '{ADDRESSEE}' where body = 'to the third'"
        ))
        .await;
    database
        .execute("update messages set whisper_to = null where body = 'a whisper'")
        .await;
    say(&database, TENANT_A, "end", None).await;

    let changes = third.changes_until(&channel, "body", "end").await;
    assert_eq!(
        bodies(&changes),
        ["INSERT to the third", "UPDATE a whisper"]
    );
    // The old row was a whisper to somebody else, so nothing of it goes along but what the new one says, too.
    let old = changes[1]["old_record"].as_object().expect("an old record");
    assert!(!old.contains_key("whisper_to"), "{old:?}");
}
