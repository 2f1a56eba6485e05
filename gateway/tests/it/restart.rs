//! PostgreSQL goes away in the middle of writing, and comes back: whoever was subscribed gets all that was committed.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Client, OwnCluster, TestGateway,
    chat::{A1, ADA, messages_of},
    token::authenticated,
    wait::wait_for,
};

/// Writes rows one by one, numbered, until it is told to stop; over a restart, too. Returns the numbers of those that
/// were committed, and of those of which nobody can know.
async fn write(
    url: String,
    mut stop: tokio::sync::oneshot::Receiver<()>,
    written: tokio::sync::watch::Sender<usize>,
) -> (Vec<u32>, Vec<u32>) {
    let (mut committed, mut unknown) = (Vec::new(), Vec::new());
    let mut number = 0;
    'connected: loop {
        let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        let Ok((client, connection)) = connected else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        tokio::spawn(connection);
        loop {
            if stop.try_recv().is_ok() {
                return (committed, unknown);
            }
            number += 1;
            let statement = format!(
                "insert into chat_messages (session_id, role, content) values ('{A1}', 'user', '{number}')"
            );
            match client.batch_execute(&statement).await {
                Ok(()) => committed.push(number),
                Err(_) => {
                    unknown.push(number);
                    continue 'connected;
                }
            }
            written.send_replace(committed.len());
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Stop,
    Kill,
}

async fn nothing_is_lost_over(end: End) {
    let cluster = OwnCluster::start().await;
    let database = cluster.database("chattwelve").await;
    let (url, gateway_url) = (database.url.clone(), database.gateway_url.clone());
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let gateway = TestGateway::start_at(
        address,
        &gateway_url,
        &[("outbox_frames", "100000"), ("outbox_bytes", "64MiB")],
    )
    .await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = ada.subscribe("a1", messages_of("INSERT", A1)).await;

    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (written, mut progress) = tokio::sync::watch::channel(0);
    let writer = tokio::spawn(write(url.clone(), stopped, written));
    let mut at_least = 200;
    for _ in 0..2 {
        progress
            .wait_for(|written| *written >= at_least)
            .await
            .expect("the writer writes");
        match end {
            End::Stop => cluster.stop().await,
            End::Kill => cluster.kill().await,
        }
        let not_ready = || async {
            let response = reqwest::get(gateway.url("/readyz"))
                .await
                .map_err(|error| error.to_string())?;
            if response.status() != 503 {
                return Err(response.status().to_string());
            }
            response
                .json::<serde_json::Value>()
                .await
                .map_err(|error| error.to_string())
        };
        let body = wait_for("a gateway that is not ready", not_ready).await;
        assert!(body["problems"]["database"].is_string(), "{body}");
        assert_eq!(
            reqwest::get(gateway.url("/livez"))
                .await
                .expect("a response")
                .status(),
            200
        );
        // Heartbeats are answered all the while; who joins now is told to come again.
        ada.push(&channel, "presence", json!({})).await;
        cluster.start_again().await;
        let before = *progress.borrow();
        at_least = before + 200;
    }
    progress
        .wait_for(|written| *written >= at_least)
        .await
        .expect("the writer writes");
    stop.send(()).expect("the writer runs");
    let (committed, unknown) = writer.await.expect("the writer");
    let database = crate::support::cluster::connect(&url).await;
    database
        .batch_execute(&format!(
            "insert into chat_messages (session_id, role, content) values ('{A1}', 'user', 'end')"
        ))
        .await
        .expect("an insert");

    let received: Vec<u32> = ada
        .changes_until(&channel, "content", "end")
        .await
        .iter()
        .map(|change| {
            change["record"]["content"]
                .as_str()
                .and_then(|content| content.parse().ok())
                .expect("a number")
        })
        .collect();
    // The table knows what became of the commits whose answer was lost.
    let stored: Vec<u32> = database
        .query(
            "select content::int from chat_messages where content ~ '^[0-9]+$' order by 1",
            &[],
        )
        .await
        .expect("the rows")
        .iter()
        .map(|row| row.get::<_, i32>(0).unsigned_abs())
        .collect();
    assert!(
        committed.iter().all(|number| stored.contains(number)),
        "PostgreSQL lost what it had confirmed"
    );
    assert!(
        stored
            .iter()
            .all(|number| committed.contains(number) || unknown.contains(number))
    );
    assert_eq!(received, stored, "{end:?}");

    let ready = || async {
        match reqwest::get(gateway.url("/readyz")).await {
            Ok(response) if response.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_for("a gateway that is ready again", ready).await;
    // Once refused everybody who joined after a restart, until each idle connection had been asked in vain.
    let mut late = Client::v2(&gateway, &authenticated(ADA)).await;
    late.subscribe("a1", messages_of("INSERT", A1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgresql_is_stopped_and_started() {
    Box::pin(nothing_is_lost_over(End::Stop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgresql_crashes() {
    Box::pin(nothing_is_lost_over(End::Kill)).await;
}

#[tokio::test]
async fn a_join_while_the_database_is_away_is_refused_and_works_afterwards() {
    let cluster = OwnCluster::start().await;
    let database = cluster.database("chattwelve").await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let gateway = TestGateway::start_at(
        address,
        &database.gateway_url,
        &[("statement_timeout", "1s")],
    )
    .await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    cluster.stop().await;
    let reason = ada.refused("a1", messages_of("INSERT", A1)).await;
    assert_eq!(
        reason,
        "UnableToConnectToProject: Realtime was unable to connect to the project database"
    );
    // What needs no database goes on.
    let room = ada
        .joined("room", json!({"broadcast": {"self": true}}))
        .await;
    ada.push(&room, "broadcast", json!({"event": "e"})).await;
    ada.event(&room, "broadcast").await;
    cluster.start_again().await;
    let mut tries = 0;
    loop {
        let config = json!({"config": {"postgres_changes": messages_of("INSERT", A1)}});
        let (channel, reply) = ada.join("a1", config).await;
        if reply["status"] == "ok" {
            ada.live(&channel).await;
            break;
        }
        tries += 1;
        assert!(tries < 50, "{reply}");
    }
}
