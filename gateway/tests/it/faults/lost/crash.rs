//! A crash takes transaction numbers back: those of transactions that were rolled back, and of those whose writers did not
//! wait for the disk. PostgreSQL gives them to others then.

use super::*;

/// The server writes its log to disk for those who wait for it, and otherwise hardly ever: a crash finds something to forget.
const FORGETFUL: [(&str, &str); 2] = [("wal_writer_delay", "10s"), ("wal_writer_flush_after", "0")];

async fn next_number(server: &Server) -> u64 {
    let number = server.text("pg_snapshot_xmax(pg_current_snapshot())").await;
    number.parse().expect("a number")
}

/// Crashes, and says some messages with the numbers of what is forgotten, and more. The gateway comes back after them.
async fn crash(server: &Server, scene: &Scene) -> Vec<String> {
    let before = next_number(server).await;
    scene.proxy.cut(Cut::Reset);
    server.kill().await;
    server.start_again().await;
    assert!(next_number(server).await < before, "nothing was forgotten");
    let messages: Vec<String> = (0..5).map(|number| format!("after {number}")).collect();
    for message in &messages {
        say(server, message).await;
    }
    assert!(next_number(server).await > before, "too few were said");
    scene.proxy.mend();
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_transactions_that_were_rolled_back_hide_nothing() {
    let server = Server::start_with(&FORGETFUL).await;
    let mut scene = Scene::on(&server).await;
    say(&server, "kept").await;
    assert_eq!(scene.ada.next().await, "kept");
    for _ in 0..3 {
        let undone = format!("begin; {}; rollback", message("undone"));
        server.run(&undone).await;
    }
    scene.has_read(&server).await;
    let after = crash(&server, &scene).await;
    say(&server, "last").await;
    if let Some(messages) = scene.arrives_or_is_loud("last").await {
        assert_eq!(messages, after);
    }
    scene.goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_that_loses_what_was_delivered_is_a_loss() {
    let server = Server::start_with(&FORGETFUL).await;
    let mut scene = Scene::on(&server).await;
    say(&server, "kept").await;
    assert_eq!(scene.ada.next().await, "kept");
    let hasty = format!("set synchronous_commit = off; {}", message("lost"));
    server.run(&hasty).await;
    assert_eq!(scene.ada.next().await, "lost");
    let newest = scene.ada.cursor.clone();
    crash(&server, &scene).await;
    scene.is_loud("rewound").await;
    let missed = scene.comes_back(&server, &newest).await;
    assert_eq!(missed, Err("cursor_foreign".to_owned()));
    scene.goes_on(&server).await;
}
