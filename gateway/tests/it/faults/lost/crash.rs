//! A crash takes transaction numbers back: those of transactions that were rolled back, and of those whose writers did not
//! wait for the disk. PostgreSQL gives them to others then.

use super::*;

/// The server writes its log to disk for those who wait for it, and otherwise hardly ever: a crash finds something to forget.
const FORGETFUL: [(&str, &str); 2] = [("wal_writer_delay", "10s"), ("wal_writer_flush_after", "0")];

async fn next_number(server: &Server) -> u64 {
    let number = server.text("pg_snapshot_xmax(pg_current_snapshot())").await;
    number.parse().expect("a number")
}

/// A gateway whose own writing is over for now: it would take to the disk what was written before it.
async fn settled(server: &Server) -> Scene {
    let mut scene = Scene::on(server).await;
    wait_for("the first mark of the retention", || async {
        let marks = server
            .text("(select count(*) from tidings.log_marks)")
            .await;
        (marks != "0").then_some(()).ok_or(marks)
    })
    .await;
    say(server, "kept").await;
    assert_eq!(scene.ada.next().await, "kept");
    scene
}

/// Runs statements until there is one of which nothing is on the disk: whole pages are written early. Returns how many.
async fn leave_behind(server: &Server, statement: impl Fn(usize) -> String) -> usize {
    let mut number = 0;
    loop {
        number += 1;
        let place = server.text("pg_current_wal_insert_lsn()").await;
        server.run(&statement(number)).await;
        let behind = format!("pg_current_wal_flush_lsn() <= '{place}'");
        if server.text(&behind).await == "true" {
            return number;
        }
    }
}

/// Crashes, and says some messages with the numbers of what is forgotten, and more. The gateway comes back after them.
async fn crash(server: &Server, scene: &Scene) -> Vec<String> {
    let before = next_number(server).await;
    scene.proxy.cut(Cut::Reset);
    server.kill().await;
    server.start_again().await;
    assert!(next_number(server).await < before, "nothing was forgotten");
    let messages: Vec<String> = (0..12).map(|number| format!("after {number}")).collect();
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
    let mut scene = settled(&server).await;
    leave_behind(&server, |_| {
        format!("begin; {}; rollback", message("undone"))
    })
    .await;
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
    let mut scene = settled(&server).await;
    let said = leave_behind(&server, |number| {
        let message = message(&format!("lost {number}"));
        format!("set synchronous_commit = off; {message}")
    })
    .await;
    for number in 1..=said {
        assert_eq!(scene.ada.next().await, format!("lost {number}"));
    }
    let newest = scene.ada.cursor.clone();
    crash(&server, &scene).await;
    scene.is_loud("rewound").await;
    let missed = scene.comes_back(&server, &newest).await;
    assert_eq!(missed, Err("cursor_foreign".to_owned()));
    scene.goes_on(&server).await;
}
