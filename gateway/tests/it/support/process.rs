//! The built program, run as people run it.

use std::{net::SocketAddr, path::Path, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::wait::PATIENCE;

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
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        GatewayProcess { address, child }
    }

    /// Sends a signal, as `kill` does.
    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .await
            .expect("kill");
        assert!(status.success());
    }

    /// How it ended: its exit code, or None after a signal.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends in time");
        status.expect("its status").code()
    }
}
