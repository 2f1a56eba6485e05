//! What one sender sends arrives in its order, whatever has to be asked or stored on the way, and nothing of it is lost.

use super::{stored::kind_3, *};

#[tokio::test]
async fn stored_messages_are_not_overtaken() {
    let (_database, gateway) = rooms().await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, false)).await;
    let mut bob = Client::v1(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(false, false)).await;
    let long = "x".repeat(200_000);
    let persist = r#"{"persist":true}"#;
    for round in 0..5 {
        ada.send_binary(kind_3(&a, "", persist, &format!("{round} long {long}")))
            .await;
        ada.send_binary(kind_3(&a, "", persist, &format!("{round} stored")))
            .await;
        let payload = json!({"event": "e", "payload": {"text": format!("{round} live")}});
        ada.push(&a, "broadcast", payload).await;
    }
    for round in 0..5 {
        for kind in ["long", "stored", "live"] {
            let text = heard(&mut bob, &b).await;
            let text = text.as_str().expect("a text");
            assert!(text.starts_with(&format!("{round} {kind}")), "{text:.20}");
            // What is stored comes through the log: Bob hears of it when it is committed, before what follows is sent.
        }
    }
}

#[tokio::test]
async fn what_was_sent_before_a_leave_is_sent() {
    let (_database, gateway) = rooms().await;
    let mut bob = Client::v1(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(false, false)).await;
    for round in 0..5 {
        let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
        let a = ada.joined("room", config(false, false)).await;
        let payload = json!({"event": "e", "payload": {"text": round.to_string()}});
        ada.push(&a, "broadcast", payload).await;
        let left = ada.push(&a, "phx_leave", json!({})).await;
        assert_eq!(ada.reply(&left).await.payload, ok());
        assert_eq!(heard(&mut bob, &b).await, round.to_string());
    }
}

/// Rights are asked again and again, and an answer comes all the same: neither senders nor refusals starve.
#[tokio::test]
async fn constant_change_stops_neither_senders_nor_refusals() {
    let (database, gateway) = rooms_with(&[("recheck_interval", "1h")]).await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let a = ada.joined("room", config(false, false)).await;
    let mut bob = Client::v1(&gateway, &authenticated(BOB)).await;
    let b = bob.joined("room", config(false, false)).await;
    let churning = database.connect().await;
    let churn = tokio::spawn(async move {
        for number in 0.. {
            // It names both, and takes nothing from them.
            let change = format!(
                "insert into members values ('other {number}', '{ADA}'), ('other {number}', '{BOB}');
                 delete from members where room = 'other {number}'"
            );
            churning.batch_execute(&change).await.expect("a change");
        }
    });
    for number in 0..100 {
        let payload = json!({"event": "e", "payload": {"text": number.to_string()}});
        ada.push(&a, "broadcast", payload).await;
        if number % 10 == 0 {
            ada.until_heartbeat().await;
        }
    }
    for number in 0..100 {
        assert_eq!(heard(&mut bob, &b).await, number.to_string());
    }
    database
        .execute(&format!(
            "delete from members where room = 'room' and person = '{BOB}'"
        ))
        .await;
    bob.event(&b, "phx_close").await;
    churn.abort();
}
