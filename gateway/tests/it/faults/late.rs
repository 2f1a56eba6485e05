//! Transactions that take very long: open for thousands of others, idle, or prepared and forgotten over restarts.

use super::{
    server::Server,
    stand::{Stand, said},
};
use crate::support::chat::{A1, B1};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_open_for_thousands_of_others_arrives_when_it_commits() {
    let server = Server::start().await;
    // Open since before the gateway came: one that holds everything back and one that will have written.
    let (idle, early) = (server.session().await, server.session().await);
    for session in [&idle, &early] {
        let begun = session
            .batch_execute("begin isolation level repeatable read; select pg_current_xact_id()");
        begun.await.expect("a transaction");
    }
    early
        .batch_execute(&said(7, 1, A1))
        .await
        .expect("a message");
    let mut stand = Stand::on(&server).await;
    let late = server.session().await;
    late.batch_execute(&format!("begin; {}", said(8, 1, B1)))
        .await
        .expect("a message");
    stand.bulk(1500).await;
    stand.written(200).await;
    stand.mark().await;
    early
        .batch_execute(&format!("{}; commit", said(7, 2, B1)))
        .await
        .expect("a commit");
    stand.written(200).await;
    late.batch_execute(&format!("{}; commit", said(8, 2, A1)))
        .await
        .expect("a commit");
    idle.batch_execute(&format!("{}; rollback", said(9, 1, A1)))
        .await
        .expect("a rollback");
    stand.finish().await;
}

/// The bell's notification cannot be prepared; a gateway that reads all the time anyway holds this lock, and nobody rings.
const BELL: &str = "1953064037, 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_transactions_arrive_when_they_are_committed_after_restarts() {
    let server = Server::start().await;
    // Before anybody writes, or the gateway might have the lock and keep it.
    let bell = server.session().await;
    bell.batch_execute(&format!("select pg_advisory_lock({BELL})"))
        .await
        .expect("the bell's lock");
    let mut stand = Stand::on(&server).await;
    let session = server.session().await;
    for number in 1..=4 {
        let statement = format!(
            "begin; {}; prepare transaction 'late {number}'",
            said(7, number, A1)
        );
        session.batch_execute(&statement).await.expect("prepared");
    }
    bell.batch_execute("select pg_advisory_unlock_all()")
        .await
        .expect("the bell rings again");
    let end = async |statement: &str| {
        let session = server.session().await;
        session.batch_execute(statement).await.expect(statement);
    };
    stand.mark().await;
    end("commit prepared 'late 1'").await;
    server.stop().await;
    server.start_again().await;
    stand.mark().await;
    end("commit prepared 'late 2'").await;
    stand.mark().await;
    server.kill().await;
    server.start_again().await;
    stand.mark().await;
    end("rollback prepared 'late 3'").await;
    end("commit prepared 'late 4'").await;
    stand.finish().await;
}
