//! The built program, run as people run it.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::wait::{PATIENCE, wait_for};

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with these arguments, and this environment alone.
pub(crate) fn tidings(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(Path::new(env!("CARGO_TARGET_TMPDIR")))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let output = timeout(PATIENCE, tidings(arguments, environment).output())
        .await
        .unwrap_or_else(|_| panic!("`tidings {}` does not end", arguments.join(" ")))
        .expect("the program runs");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// `tidings serve` on a free port.
pub(crate) struct GatewayProcess {
    pub(crate) address: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
}

impl GatewayProcess {
    pub(crate) async fn start(environment: &[(&str, &str)]) -> GatewayProcess {
        let mut child = tidings(
            &["serve", "--listen", "127.0.0.1:0", "--log-format", "json"],
            environment,
        )
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
        let stderr = child.stderr.take().expect("its log");
        let mut lines = BufReader::new(stderr).lines();
        let listening = async {
            let mut log = String::new();
            while let Some(line) = lines.next_line().await.expect("a line of the log") {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["message"] == "listening" {
                    return entry["address"]
                        .as_str()
                        .and_then(|address| address.parse().ok())
                        .expect("an address");
                }
                log.push_str(&line);
                log.push('\n');
            }
            panic!("`tidings serve` ended:\n{log}")
        };
        let address = timeout(PATIENCE, listening)
            .await
            .expect("it listens in time");
        // Read on, so that it never waits for a full pipe.
        let log = Arc::<Mutex<Vec<Value>>>::default();
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let entry = serde_json::from_str(&line).unwrap_or_default();
                kept.lock().expect("the log").push(entry);
            }
        });
        GatewayProcess {
            address,
            child,
            log,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it has logged with this message since it listens; waits for the first.
    pub(crate) async fn logged(&self, message: &str) -> Vec<Value> {
        wait_for(&format!("{message:?} in the log"), || async {
            let log = self.log.lock().expect("the log");
            let said = log.iter().filter(|entry| entry["message"] == message);
            let said: Vec<Value> = said.cloned().collect();
            match said.is_empty() {
                false => Ok(said),
                true => Err("not there"),
            }
        })
        .await
    }

    /// The value of a metric, 0 if it is not there; `series` is its name with its labels.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let response = reqwest::get(self.url("/metrics")).await;
        let page = response.expect("a response").text().await.expect("a page");
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().expect("a number"))
    }

    /// Sends a signal, as `kill` does.
    pub(crate) async fn signal(&self, name: &str) {
        signal(self.pid(), name).await;
    }

    /// How it ended: its exit code, or None after a signal.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends in time");
        status.expect("its status").code()
    }
}

/// Runs another program to its end, which must be a good one, and shows what it said otherwise.
pub(crate) async fn run_quietly(mut command: Command) {
    let output = timeout(PATIENCE, command.kill_on_drop(true).output())
        .await
        .unwrap_or_else(|_| panic!("it does not end: {command:?}"))
        .unwrap_or_else(|error| panic!("{error}: {command:?}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Sends a signal to a process, as `kill` does.
pub(crate) async fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .await
        .expect("kill");
    assert!(status.success());
}
