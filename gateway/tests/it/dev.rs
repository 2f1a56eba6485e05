//! `tidings dev`, the real program, in a directory of its own.

use std::{
    fs::{self, File, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::support::{cluster::connect, wait::PATIENCE};

/// The first start makes a database cluster.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A directory that `tidings dev` is started in.
pub(crate) struct DevDirectory {
    directory: TempDir,
}

impl DevDirectory {
    pub(crate) fn new() -> DevDirectory {
        // Under root, PostgreSQL runs as another user, who has to get through.
        let directory = tempfile::Builder::new()
            .prefix("tidings-dev-test-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .expect("a directory");
        DevDirectory { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn secret(&self) -> String {
        let path = self.path().join(".tidings/jwt_secret");
        fs::read_to_string(path)
            .expect("the secret")
            .trim()
            .to_owned()
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(&self, arguments: &[&str]) -> Dev {
        let complaints = self.path().join("stderr");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("dev")
            .args(arguments)
            .env_remove("DATABASE_URL")
            .env("TIDINGS_LISTEN", "127.0.0.1:0")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints).expect("a file"))
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut said = String::new();
        let reading = async {
            while let Some(line) = lines.next_line().await.expect("a line") {
                said.push_str(&line);
                said.push('\n');
                if line.contains("Ctrl-C stops") {
                    return true;
                }
            }
            false
        };
        let ready = timeout(START_LIMIT, reading).await;
        assert!(
            ready == Ok(true),
            "`tidings dev` did not become ready:\n{said}{}",
            fs::read_to_string(&complaints).unwrap_or_default()
        );
        let rest = tokio::spawn(async move {
            let mut rest = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                rest.push_str(&line);
                rest.push('\n');
            }
            rest
        });
        let address = between(&said, "http://", "/");
        Dev {
            child,
            url: format!("http://{address}"),
            address: address.parse().expect("an address"),
            database_url: between(&said, "psql '", "'").to_owned(),
            said,
            rest,
        }
    }
}

/// A `tidings dev` that is ready.
pub(crate) struct Dev {
    child: Child,
    pub(crate) url: String,
    address: SocketAddr,
    pub(crate) database_url: String,
    /// What it printed before it was ready.
    said: String,
    rest: tokio::task::JoinHandle<String>,
}

impl Dev {
    /// Ctrl-C. It must end well, and leave nothing that listens.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .await
            .expect("kill");
        assert!(sent.success(), "kill ended with {sent}");
        let ended = timeout(PATIENCE, self.child.wait())
            .await
            .expect("an end in time")
            .expect("its exit status");
        let rest = self.rest.await.expect("its last words");
        assert!(ended.success(), "it ended with {ended}:\n{rest}");
        assert!(rest.trim_end().ends_with("stopped"), "{rest}");
        let (_, database) = self
            .database_url
            .split_once('@')
            .expect("a URL with a login");
        let (database, _) = database.split_once('/').expect("a URL with a database");
        for address in [&self.address.to_string(), database] {
            assert!(
                TcpStream::connect(address).await.is_err(),
                "{address} still listens"
            );
        }
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    found
        .map(|(found, _)| found)
        .unwrap_or_else(|| panic!("{before}…{after} is not in:\n{text}"))
}

const OWN_ROW: &str = "insert into chat_messages (session_id, role, content)
    values ('00000000-0000-4000-8000-0000000000a1', 'user', 'kept')";

async fn own_rows(dev: &Dev) -> i64 {
    connect(&dev.database_url)
        .await
        .query_one(
            "select count(*) from chat_messages where content = 'kept'",
            &[],
        )
        .await
        .expect("a count")
        .get(0)
}

#[tokio::test]
async fn a_second_start_has_the_data_of_the_first_until_reset() {
    let directory = DevDirectory::new();
    let first = directory.start(&[]).await;
    connect(&first.database_url)
        .await
        .execute(OWN_ROW, &[])
        .await
        .expect("a row");
    let secret = directory.secret();
    for user in ["Ada", "Bob", "Anon"] {
        let link = format!("{}/?user={user}", first.url);
        assert!(first.said.contains(&link), "{}", first.said);
    }
    first.stop().await;

    let second = directory.start(&[]).await;
    assert_eq!(own_rows(&second).await, 1);
    assert_eq!(directory.secret(), secret, "tokens outlive a restart");
    second.stop().await;

    let third = directory.start(&["--reset"]).await;
    assert_eq!(own_rows(&third).await, 0);
    third.stop().await;
}
