//! What is given to those who come back, they may see now.

use super::*;
use crate::support::{TestDatabase, TestGateway, chat::BOB, token::token};

#[tokio::test]
async fn somebody_elses_cursor_shows_nothing_of_theirs() {
    let (database, gateway) = chat().await;
    let mut client = ada(&gateway).await;
    let (_, _, cursor) = join(
        &mut client,
        "a",
        json!([messages(A1, json!({"cursor": true}))]),
    )
    .await;
    say(&database, A1, "for Ada").await;
    let mut bob = Client::v2(&gateway, &authenticated(BOB)).await;
    let reason = bob
        .refused("a", json!([messages(A1, json!({"since": cursor}))]))
        .await;
    assert!(reason.starts_with("Unauthorized"), "{reason}");
    let (_, missed, _) = join(
        &mut bob,
        "b",
        json!([messages(B1, json!({"since": cursor}))]),
    )
    .await;
    assert_eq!(missed, Vec::<Value>::new());
}

/// Whispers go to whom they are for, whether they come from memory or from the log.
#[tokio::test]
async fn each_row_is_judged_by_the_rights_of_now() {
    const TENANT: &str = "aaaaaaaa-0000-4000-8000-000000000000";
    const ROOM: &str = "40000000-0000-4000-8000-0000000000a1";
    const AUTHOR: &str = "10000000-0000-4000-8000-00000000000a";
    const ADDRESSEE: &str = "10000000-0000-4000-8000-0000000000a2";
    const THIRD: &str = "10000000-0000-4000-8000-0000000000a3";
    let member =
        |sub: &str| token(json!({"role": "authenticated", "sub": sub, "tenant_id": TENANT}));
    let binding = |more: Value| {
        let mut binding = json!({"event": "*", "schema": "public", "table": "messages", "filter": format!("room_id=eq.{ROOM}")});
        binding
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("keys").clone());
        json!([binding])
    };
    for recent_bytes in ["64MiB", "1KiB"] {
        let database = TestDatabase::new(Some("tenantrooms")).await;
        database
            .execute("select tidings.watch('public.messages')")
            .await;
        let gateway = TestGateway::start_with(&database, &[("recent_bytes", recent_bytes)]).await;
        let mut client = Client::v2(&gateway, &member(THIRD)).await;
        let (_, _, cursor) = join(&mut client, "a", binding(json!({"cursor": true}))).await;
        for (body, whisper_to) in [
            ("for all", "null".to_owned()),
            ("whisper", format!("'{ADDRESSEE}'")),
            ("end", "null".to_owned()),
        ] {
            database
                .execute(&format!(
                    "insert into messages (room_id, tenant_id, author_id, body, whisper_to)
                     values ('{ROOM}', '{TENANT}', '{AUTHOR}', '{body}', {whisper_to})"
                ))
                .await;
        }
        caught_up(&database, &gateway).await;
        for (sub, expected) in [
            (THIRD, &["for all", "end"][..]),
            (ADDRESSEE, &["for all", "whisper", "end"]),
            (AUTHOR, &["for all", "whisper", "end"]),
        ] {
            let mut client = Client::v2(&gateway, &member(sub)).await;
            let (_, missed, _) = join(&mut client, "a", binding(json!({"since": cursor}))).await;
            let bodies: Vec<_> = missed
                .iter()
                .map(|change| change["record"]["body"].as_str().expect("a body"))
                .collect();
            assert_eq!(bodies, expected, "{sub} with {recent_bytes}");
            let (_, rows, _) = join(&mut client, "b", binding(json!({"history": 10}))).await;
            let bodies: Vec<_> = rows
                .iter()
                .map(|change| change["record"]["body"].as_str().expect("a body"))
                .collect();
            assert_eq!(bodies, expected, "history of {sub}");
        }
    }
}
