//! The codes with which sockets are closed, and the reasons beside them.

use futures::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::support::{
    chat::{A1, chat, messages_of, say},
    token::{authenticated, service_role},
    wait::PATIENCE,
};

#[tokio::test]
async fn every_close_code_is_on_the_page() {
    walk("Close codes", [0, 1], async |[code, reason]| {
        Box::pin(closed(code, reason)).await
    })
    .await;
}

/// The end of a socket; what comes before is left out.
async fn end(client: &mut Client) -> [String; 2] {
    let waiting = async {
        loop {
            match client.socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    let code: u16 = frame.code.into();
                    return [code.to_string(), frame.reason.to_string()];
                }
                Some(Ok(_)) => {}
                other => panic!("an end without a code: {other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("an end in time")
}

/// A gateway with these settings, and a client that sends it these bytes.
async fn sending(settings: &[(&str, &str)], bytes: &[u8]) -> [String; 2] {
    let gateway = gateway(settings).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let stream = client.socket.get_mut();
    stream.write_all(bytes).await.expect("the bytes are sent");
    end(&mut client).await
}

/// The same, and a client that sends such a message until it is closed.
async fn flooding(settings: &[(&str, &str)], message: &str) -> [String; 2] {
    let gateway = gateway(settings).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for _ in 0..200 {
        if client.try_send_text(message).await.is_err() {
            break;
        }
    }
    end(&mut client).await
}

async fn closed(code: &str, reason: &str) -> [String; 2] {
    let join = r#"["1","1","realtime:room","phx_join",{}]"#;
    let few = ("max_channels", "1");
    match reason {
        "idle" => sending(&[("idle_timeout", "1s")], &[]).await,
        "there are too many joins a second" => {
            flooding(&[("max_joins_per_second", "1"), few], join).await
        }
        "this socket joins too often" => {
            flooding(&[("max_socket_joins_per_second", "1"), few], join).await
        }
        // A masked frame of a kind that does not exist, and a text of one byte that is none.
        "protocol error" => sending(&[], &[0x83, 0x80, 0, 0, 0, 0]).await,
        "text that is not UTF-8" => sending(&[], &[0x81, 0x81, 0, 0, 0, 0, 0xff]).await,
        "this socket sends too many messages a second" => {
            flooding(&[("max_socket_messages_per_second", "1"), few], "{}").await
        }
        "this socket sends too many bytes a second" => {
            flooding(
                &[
                    ("max_socket_bytes_per_second", "1"),
                    ("max_message_bytes", "20000"),
                ],
                &"x".repeat(15_000),
            )
            .await
        }
        "message too big" => {
            let gateway = gateway(&[("max_message_bytes", "20000")]).await;
            let mut client = Client::v2(&gateway, &anon()).await;
            client.send_text("x".repeat(20_001)).await;
            end(&mut client).await
        }
        "the server restarts" => {
            let gateway = gateway(&[]).await;
            let mut client = Client::v2(&gateway, &anon()).await;
            stop(&gateway);
            end(&mut client).await
        }
        "changes may be lost" => {
            let (database, gateway) = chat().await;
            let mut client = Client::v2(&gateway, &authenticated(crate::support::chat::ADA)).await;
            client.subscribe("a1", messages_of("*", A1)).await;
            database
                .execute(
                    "update tidings.installation set id = gen_random_uuid(), stamp = pg_current_xact_id();
                     select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'tidings'",
                )
                .await;
            say(&database, A1, "after").await;
            end(&mut client).await
        }
        "slow reader" => {
            let gateway = gateway(&[("outbox_bytes", "256KiB")]).await;
            let mut stuck = Client::narrow(gateway.address, &anon()).await;
            stuck.joined("room", quiet()).await;
            let mut sender = Client::v2(&gateway, &anon()).await;
            let config = json!({"presence": {"enabled": false}, "broadcast": {"ack": true}});
            let channel = sender.joined("room", config).await;
            let text = "x".repeat(100_000);
            for _ in 0..40 {
                let reference = sender.push(&channel, "broadcast", saying(&text)).await;
                sender.reply(&reference).await;
            }
            end(&mut stuck).await
        }
        "disconnected by an operator" => {
            let gateway = gateway(&[]).await;
            let mut client = Client::v2(&gateway, &ada()).await;
            client.socket.flush().await.expect("an open socket");
            let asked = reqwest::Client::new()
                .post(gateway.url("/admin/v1/disconnect"))
                .bearer_auth(service_role())
                .body(json!({ "sub": ADA }).to_string());
            assert_eq!(answer(asked).await.0, "202");
            end(&mut client).await
        }
        other => panic!("no provoker for {code} {other}"),
    }
}
