//! What the tests share: an installation, a directory, a query.

use std::path::Path;

use devpg::{Cluster, Installation, Options};

/// A server of this machine, or else the fetched one: the tests run where there is none, too.
pub(crate) fn installation() -> Installation {
    devpg::find_or_fetch(
        None,
        &std::env::temp_dir().join("tidings-devpg-tests"),
        &mut |_| {},
    )
    .expect("PostgreSQL")
}

/// A directory below which the user that runs PostgreSQL under root can keep data.
pub(crate) fn open_directory() -> tempfile::TempDir {
    directory(0o755)
}

/// A directory that only this test's user can enter.
pub(crate) fn private_directory() -> tempfile::TempDir {
    directory(0o700)
}

fn directory(mode: u32) -> tempfile::TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    tempfile::Builder::new()
        .permissions(mode)
        .tempdir()
        .expect("a directory")
}

pub(crate) fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        port: None,
        settings: Vec::new(),
        durable: false,
    }
}

/// Runs statements; answers with the first column of the last row.
pub(crate) fn query(cluster: &Cluster, sql: &str) -> Option<String> {
    try_query(&cluster.url("postgres"), sql).expect("the query")
}

pub(crate) fn try_query(url: &str, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let messages = client.simple_query(sql).await?;
        drop(client);
        driver.await.expect("the connection's task")?;
        Ok(messages.iter().rev().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    })
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition() {
        assert!(
            std::time::Instant::now() < deadline,
            "waited in vain for: {what}"
        );
        std::thread::yield_now();
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}
