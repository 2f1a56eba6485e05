//! Programs in other languages that drive a gateway: they bring the SDK and the assertions, the test brings the rest of the
//! world.
//!
//! A driver writes one JSON object a line. `{"call":…,"id":…,"args":…}` asks this side to do something (see [`host`]) and is
//! answered on its standard input; `{"done":…}` and `{"failed":…}` are its last word.

pub(crate) mod host;
pub(crate) mod install;
pub(crate) mod recorder;

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
    time::timeout,
};

use host::Host;

/// All scenarios of one process. The slowest ones wait for a token to expire, or for an SDK's pauses before it connects again.
const LIMIT: Duration = Duration::from_secs(240);

/// What is kept of a driver's complaints.
const MAX_COMPLAINTS: u64 = 64 << 10;

/// Runs a driver to its end, which must be a good one.
pub(crate) async fn drive(mut command: Command, host: &mut Host) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{error}: {command:?}"));
    let (Some(input), Some(output), Some(complaints)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        panic!("a driver without pipes");
    };
    let complaints = tokio::spawn(async move {
        let mut text = Vec::new();
        let mut complaints = complaints.take(MAX_COMPLAINTS);
        // What could be read is shown.
        drop(complaints.read_to_end(&mut text).await);
        // A full pipe would stop the driver.
        drop(tokio::io::copy(&mut complaints.into_inner(), &mut tokio::io::sink()).await);
        String::from_utf8_lossy(&text).into_owned()
    });

    host.driver = child.id();
    let run = async {
        let last_word = converse(BufReader::new(output).lines(), input, host).await;
        let status = child.wait().await.expect("the driver's exit status");
        (last_word, status)
    };
    let outcome = timeout(LIMIT, run).await;
    // It ends with the driver, and shows what a driver that hangs had to say.
    drop(child.kill().await);
    let complaints = complaints.await.expect("the driver's complaints");
    let Ok((last_word, status)) = outcome else {
        panic!("the driver was not done after {LIMIT:?}; its complaints:\n{complaints}");
    };
    judge(&last_word, status, &complaints);
}

fn judge(last_word: &Value, status: ExitStatus, complaints: &str) {
    if let Some(failure) = last_word["failed"].as_str() {
        panic!("{failure}\nthe driver's complaints:\n{complaints}");
    }
    assert!(
        status.success() && last_word["done"].is_string(),
        "the driver ended with {status} and the words {last_word}; its complaints:\n{complaints}"
    );
}

/// Answers calls until the driver has said its last word, and returns that.
async fn converse(
    mut lines: Lines<BufReader<ChildStdout>>,
    mut input: ChildStdin,
    host: &mut Host,
) -> Value {
    while let Some(line) = lines.next_line().await.expect("a line of the driver") {
        // SDKs print notes of their own to standard output.
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let Some(call) = message["call"].as_str() else {
            return message;
        };
        let answer = match host.call(call, &message["args"]).await {
            Ok(value) => json!({"id": message["id"], "ok": value}),
            Err(error) => json!({"id": message["id"], "error": error}),
        };
        let answer = format!("{answer}\n");
        if input.write_all(answer.as_bytes()).await.is_err() {
            return json!({"failed": format!("it did not wait for the answer to {call}")});
        }
    }
    Value::Null
}
