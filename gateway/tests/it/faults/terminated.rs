//! An administrator, a pooler or the memory killer ends the gateway's sessions, again and again.

use std::time::{Duration, Instant};

use super::{server::Server, stand::Stand};
use crate::support::{
    Client,
    chat::{A1, ADA, messages_of},
    token::authenticated,
};

/// For so long sessions are ended.
const TROUBLE: Duration = Duration::from_secs(3);
/// Rows of one statement: several batches, so that a read can be broken in its middle.
const BULK: i32 = 1500;

const FEED: &str = "query ~ 'listen tidings|tidings.read|tidings.begin_reading'";

async fn terminate(session: &tokio_postgres::Client, which: &str) -> i64 {
    let statement = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'tidings' and {which}"
    );
    let row = session.query_one(&statement, &[]).await;
    row.expect("the sessions are ended").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_every_session_of_the_gateway_is_ended_repeatedly() {
    let server = Server::start().await;
    let mut stand = Stand::on(&server).await;
    let session = server.session().await;
    let begun = Instant::now();
    let mut ended = 0;
    while begun.elapsed() < TROUBLE {
        stand.bulk(BULK).await;
        for _ in 0..20 {
            ended += terminate(&session, "random() < 0.3").await;
            stand.written(2).await;
        }
        // The feed alone, as it connects and as it reads.
        for _ in 0..20 {
            ended += terminate(&session, FEED).await;
            stand.written(1).await;
        }
    }
    assert!(ended > 10, "only {ended} sessions were there to be ended");
    stand.mark().await;
    stand.until_ready().await;
    let mut late = Client::v2(&stand.gateway, &authenticated(ADA)).await;
    late.subscribe("a1", messages_of("INSERT", A1)).await;
    stand.finish().await;
}
