//! The database takes no writes for a while, as hosters do to those whose disk is full.

use super::{server::Server, stand::Stand};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_is_followed_as_soon_as_it_does() {
    let server = Server::start().await;
    let mut stand = Stand::on(&server).await;
    server.set("default_transaction_read_only", "on").await;
    // Its sessions are new ones, and find the database as it is now.
    server
        .run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tidings'")
        .await;
    stand.has_reconnected(2).await;
    server.set("default_transaction_read_only", "off").await;
    stand.mark().await;
    stand.written(50).await;
    stand.until_ready().await;
    stand.finish().await;
}
