//! The whole scenario against a small server of the tests' own, which can be told to misbehave: the load test must notice.

use std::sync::Mutex;

use clap::Parser;
use futures::{SinkExt, StreamExt};
use protocol::{ChangeData, Ref, event};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_postgres::Client;
use tokio_tungstenite::tungstenite::Message;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Double,
    Swap,
    /// The second subscriber of a session gets the writers' messages in another order, but each writer's in its own.
    Mix,
    Close,
}

const VERSION: Version = Version::V2;
const FAULTY: u64 = 40;

struct Reader {
    topic: String,
    session: String,
    frames: mpsc::Sender<Message>,
}

type Readers = Arc<Mutex<Vec<Reader>>>;

async fn serve(database: tokio_postgres::Config, fault: Fault) -> String {
    let readers = Readers::default();
    let log = database::connect(&database).await.unwrap();
    tokio::spawn(deliver(log, readers.clone(), fault));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(attend(stream, readers.clone()));
        }
    });
    url
}

async fn attend(stream: TcpStream, readers: Readers) {
    stream.set_nodelay(true).unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    let Some(Ok(Message::Text(text))) = socket.next().await else {
        panic!("no join arrived");
    };
    let join = protocol::decode_text(VERSION, &text).unwrap();
    let payload: Value = serde_json::from_str(join.payload.get()).unwrap();
    let filter = payload["config"]["postgres_changes"][0]["filter"]
        .as_str()
        .unwrap();
    let session = filter.strip_prefix("session_id=eq.").unwrap().to_owned();
    let (frames, mut outgoing) = mpsc::channel(10_000);
    readers.lock().unwrap().push(Reader {
        topic: join.topic.clone(),
        session,
        frames,
    });
    let reply = r#"{"status":"ok","response":{"postgres_changes":[{"event":"INSERT","id":7}]}}"#;
    let system = protocol::system(true, "postgres_changes", protocol::SUBSCRIBED, "r");
    for frame in [
        protocol::encode(
            VERSION,
            &join.join_ref,
            &join.reference,
            &join.topic,
            event::REPLY,
            reply,
        ),
        protocol::encode(
            VERSION,
            &join.join_ref,
            &Ref::NULL,
            &join.topic,
            event::SYSTEM,
            &system,
        ),
    ] {
        socket.send(Message::text(frame)).await.unwrap();
    }
    while let Some(frame) = outgoing.recv().await {
        if socket.send(frame).await.is_err() {
            return;
        }
    }
}

/// Reads the change log as the gateway does, and misbehaves at one message in the middle of the run.
async fn deliver(log: Client, readers: Readers, fault: Fault) {
    let first = log
        .query_one("select pg_current_snapshot()::text", &[])
        .await
        .unwrap();
    let mut snapshot: String = first.get(0);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut count = 0;
    loop {
        tick.tick().await;
        // Ends with the cluster.
        let Ok(rows) = log
            .query("select snapshot, op::text, new_record::text from tidings.read($1::text::pg_snapshot)", &[&snapshot])
            .await
        else {
            return;
        };
        let mut changes: Vec<String> = Vec::new();
        for row in rows {
            if let Some(new) = row.get::<_, Option<String>>(0) {
                snapshot = new;
            } else if row.get::<_, String>(1) == "I" {
                count += 1;
                match (fault, count) {
                    (Fault::Lose, FAULTY) => {}
                    (Fault::Double, FAULTY) => changes.extend([row.get(2), row.get(2)]),
                    _ => changes.push(row.get(2)),
                }
            }
        }
        if fault == Fault::Swap {
            changes.reverse();
        }
        let readers = readers.lock().unwrap();
        for (index, reader) in readers.iter().enumerate() {
            let is_second = readers[..index]
                .iter()
                .any(|other| other.session == reader.session);
            let mut changes: Vec<&String> = changes
                .iter()
                .filter(|change| change.contains(&reader.session))
                .collect();
            if fault == Fault::Mix && is_second {
                changes.sort_by_key(|change| {
                    serde_json::from_str::<Value>(change).unwrap()["metadata"]["w"].as_u64()
                });
            }
            for change in changes {
                send(reader, change);
            }
            if fault == Fault::Close && count >= FAULTY && index == 0 {
                let _ = reader.frames.try_send(Message::Close(None));
            }
        }
    }
}

fn send(reader: &Reader, record: &str) {
    let data = ChangeData {
        schema: "public",
        table: "chat_messages",
        kind: "INSERT",
        commit_timestamp: Some("2026-01-01T00:00:00.000Z"),
        columns: "[]",
        record: Some(record),
        old_record: None,
        errors: None,
    };
    let frame = protocol::encode_change(VERSION, &reader.topic, &[7], &data.to_json());
    // The subscriber may be gone at the end of the run.
    let _ = reader.frames.try_send(Message::text(frame));
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ChangesArgs,
}

/// One run against the faulty server: whether it passed, and what it reported.
async fn outcome(database: &str, fault: Fault) -> (bool, Value) {
    let url = serve(database::config(database).unwrap(), fault).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let line = Line::parse_from([
        "changes",
        "--own",
        "--subscribers",
        "6",
        "--sessions",
        "3",
        "--rate",
        "400",
        "--seconds",
        "1",
        "--warm-up",
        "0",
        "--writers",
        "3",
        "--quiet",
        "1",
        "--json",
        path,
    ]);
    let target = Target::elsewhere(url, database.to_owned(), "secret", None);
    let passed = measure(&line.args, &target).await.unwrap();
    let report: Value = serde_json::from_reader(file.reopen().unwrap()).unwrap();
    assert_eq!(report["passed"], passed);
    assert_eq!(report["results"]["inserts"]["committed"], 400);
    assert_eq!(report["results"]["deliveries"]["expected"], 800);
    (passed, report["results"].clone())
}

fn start_cluster() -> devpg::Cluster {
    let installation = devpg::find_or_fetch(
        None,
        &std::env::temp_dir().join("tidings-test-postgres"),
        &mut |_| {},
    );
    devpg::Cluster::start_temporary(&installation.unwrap(), Vec::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_server_are_found_and_a_good_one_passes() {
    let cluster = tokio::task::spawn_blocking(start_cluster).await.unwrap();
    let database = cluster.url("postgres");
    let admin = database::connect(&database::config(&database).unwrap())
        .await
        .unwrap();
    let mut migrations: Vec<PathBuf> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .collect();
    migrations.sort();
    for path in migrations {
        admin
            .batch_execute(&std::fs::read_to_string(path).unwrap())
            .await
            .unwrap();
    }
    database::load_schema(&admin).await.unwrap();
    database::load_schema(&admin)
        .await
        .expect("the schema can be loaded again");
    admin
        .batch_execute("select tidings.watch('public.chat_messages')")
        .await
        .unwrap();

    let (passed, results) = outcome(&database, Fault::None).await;
    assert!(passed, "{results:#}");
    assert_eq!(results["deliveries"]["delivered"], 800);
    assert_eq!(results["latency_ms"]["from_due"]["count"], 800);

    // Both subscribers of a session are concerned by what happens to one message.
    for (fault, key) in [(Fault::Lose, "lost"), (Fault::Double, "doubled")] {
        let (passed, results) = outcome(&database, fault).await;
        assert!(!passed, "{fault:?}");
        assert_eq!(results["deliveries"][key], 2, "{results:#}");
    }
    let (passed, results) = outcome(&database, Fault::Swap).await;
    assert!(!passed);
    assert!(
        results["deliveries"]["reordered"].as_u64().unwrap() > 0,
        "{results:#}"
    );
    assert_eq!(results["deliveries"]["lost"], 0);

    let (passed, results) = outcome(&database, Fault::Mix).await;
    assert!(!passed);
    assert_eq!(results["deliveries"]["reordered"], 0, "{results:#}");
    assert_eq!(results["sessions_without_one_order"], 3);

    let (passed, results) = outcome(&database, Fault::Close).await;
    assert!(!passed);
    assert_eq!(
        results["subscribers_ended"]["the server closed the connection without a code"], 1,
        "{results:#}"
    );
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}
