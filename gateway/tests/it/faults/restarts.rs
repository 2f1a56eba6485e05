//! PostgreSQL is stopped, killed and started again in the middle of writing.

use serde_json::json;

use super::{server::Server, stand::Stand};
use crate::support::{
    Client, TestGateway,
    chat::{A1, ADA, messages_of},
    token::authenticated,
};

#[derive(Clone, Copy)]
enum End {
    Stop,
    Immediate,
    Kill,
    /// One process of the server is killed, as the kernel does when memory runs short. PostgreSQL then ends all sessions and
    /// recovers by itself.
    Session,
}

async fn nothing_is_lost_over(end: End) {
    let server = Server::start().await;
    let mut stand = Stand::on(&server).await;
    let mut ada = Client::v2(&stand.gateway, &authenticated(ADA)).await;
    let room = ada
        .joined("room", json!({"broadcast": {"self": true}}))
        .await;
    for first in [true, false] {
        stand.written(100).await;
        match end {
            End::Stop => server.stop().await,
            End::Immediate => server.stop_immediately().await,
            End::Kill => server.kill().await,
            End::Session => server.kill_a_session().await,
        }
        if first && !matches!(end, End::Session) {
            let problems = stand.until_not_ready().await;
            assert!(problems.contains("database"), "{problems}");
            // What needs no database goes on.
            let live = reqwest::get(stand.gateway.url("/livez")).await;
            assert_eq!(live.expect("a response").status(), 200);
            ada.push(&room, "broadcast", json!({"event": "e"})).await;
            ada.event(&room, "broadcast").await;
        }
        // Does nothing where it has recovered by itself.
        server.start_again().await;
        stand.mark().await;
    }
    stand.until_ready().await;
    // Once refused everybody who joined after a restart, until each idle connection had been asked in vain.
    ada.subscribe("a1", messages_of("INSERT", A1)).await;
    stand.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgresql_is_stopped_and_started() {
    Box::pin(nothing_is_lost_over(End::Stop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgresql_is_stopped_immediately() {
    Box::pin(nothing_is_lost_over(End::Immediate)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgresql_crashes() {
    Box::pin(nothing_is_lost_over(End::Kill)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_one_process_of_postgresql_is_killed() {
    Box::pin(nothing_is_lost_over(End::Session)).await;
}

#[tokio::test]
async fn a_join_while_the_database_is_away_is_refused_and_works_afterwards() {
    let server = Server::start().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = [("statement_timeout", "1s")];
    let gateway = TestGateway::start_at(address, &server.gateway_url(), &settings).await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    server.stop().await;
    let reason = ada.refused("a1", messages_of("INSERT", A1)).await;
    assert_eq!(
        reason,
        "UnableToConnectToProject: Realtime was unable to connect to the project database"
    );
    server.start_again().await;
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
