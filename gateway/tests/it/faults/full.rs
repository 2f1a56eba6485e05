//! Others have taken all connections that PostgreSQL gives out.

use super::{server::Server, stand::Stand};
use crate::support::{
    Client,
    chat::{A1, ADA, messages_of},
    process,
    token::{SECRET, authenticated},
};

const END: &str = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = 'tidings'";

/// Logins until there are no more.
async fn take_all(url: &str) -> Vec<tokio_postgres::Client> {
    let mut taken = Vec::new();
    while let Ok((client, connection)) = tokio_postgres::connect(url, tokio_postgres::NoTls).await {
        tokio::spawn(connection);
        taken.push(client);
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_keeps_a_gateway_waiting_and_tells_a_new_one_why() {
    let server = Server::start_with(&[("max_connections", "40")]).await;
    let mut stand = Stand::on(&server).await;
    // Writers are superusers here, for whom some places are kept.
    let taken = take_all(&server.gateway_url()).await;
    assert!(!taken.is_empty());
    stand.mark().await;

    let url = server.gateway_url();
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
    ];
    let outcome = process::run(&["serve", "--listen", "127.0.0.1:0"], &environment).await;
    assert_ne!(outcome.code, Some(0));
    let why = outcome.stderr;
    assert!(
        why.contains("connection slots") || why.contains("too many"),
        "{why}"
    );

    // Its own connections end, and others are faster to take their places, sooner or later.
    let session = server.session().await;
    let mut more = Vec::new();
    loop {
        let ended = session.query_one(END, &[]).await.expect("its sessions end");
        more.extend(take_all(&server.gateway_url()).await);
        if ended.get::<_, i64>(0) == 0 {
            break;
        }
    }
    stand.until_not_ready().await;
    stand.written(50).await;
    drop((taken, more));
    stand.mark().await;
    stand.until_ready().await;
    let mut late = Client::v2(&stand.gateway, &authenticated(ADA)).await;
    late.subscribe("a1", messages_of("INSERT", A1)).await;
    stand.finish().await;
}
