//! Readers against a small server that has cursors: a change's cursor is its number.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use protocol::{Ref, event};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::soak::check;
use crate::soak::truth::{Audited, Key, Truth};
use crate::soak::world::User;

const CHAT: Uuid = Uuid::from_u128(1);

/// So many changes there are. The server ends each connection after a few of them.
const CHANGES: u64 = 30;
const TOGETHER: u64 = 7;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// What comes first after each return is left out.
    Skips,
    /// What was the last before each return comes again.
    Doubles,
    NoCursors,
    Refuses,
}

struct Server {
    fault: Fault,
    /// Changes up to here are committed.
    committed: AtomicU64,
}

impl Server {
    fn change(&self, version: Version, topic: &str, number: u64) -> String {
        let cursor = match self.fault {
            Fault::NoCursors => String::new(),
            _ => format!(r#","tidings_cursor":"{number}""#),
        };
        let payload = format!(
            r#"{{"ids":[7],"data":{{"type":"INSERT","record":{{"session_id":"{CHAT}","content":"hello","metadata":{{"n":{number},"s":5}}{cursor}}},"errors":null}}}}"#
        );
        protocol::encode(
            version,
            &Ref::NULL,
            &Ref::NULL,
            topic,
            event::POSTGRES_CHANGES,
            &payload,
        )
    }

    /// What the server sends to one connection.
    fn frames(&self, version: Version, topic: &str, since: Option<u64>) -> Vec<String> {
        let reply = |payload: &str| {
            let one = Ref::from_text("1");
            protocol::encode(version, &one, &one, topic, event::REPLY, payload)
        };
        if self.fault == Fault::Refuses && since.is_some() {
            return vec![reply(&protocol::error_reply("cursor_expired: too old"))];
        }
        let mut frames = vec![reply(
            r#"{"status":"ok","response":{"postgres_changes":[]}}"#,
        )];
        let committed = self.committed.load(Ordering::Relaxed);
        let first = match (since, self.fault) {
            (None, _) => committed + 1,
            (Some(since), Fault::Skips) => since + 2,
            (Some(since), Fault::Doubles) if since > 0 => since,
            (Some(since), _) => since + 1,
        };
        let last = match since {
            None => committed,
            Some(_) => (first + TOGETHER).min(CHANGES),
        };
        frames.extend((first..=last).map(|number| self.change(version, topic, number)));
        let cursor = match since {
            None => committed,
            Some(since) => last.max(since),
        };
        let system = format!(
            r#"{{"status":"ok","extension":"postgres_changes","message":"{}","cursor":"{cursor}"}}"#,
            protocol::SUBSCRIBED
        );
        // In the middle, so that the cursors of changes count, too.
        if since.is_none() || last == CHANGES {
            let system = protocol::encode(
                version,
                &Ref::NULL,
                &Ref::NULL,
                topic,
                event::SYSTEM,
                &system,
            );
            frames.push(system);
        }
        frames
    }

    async fn answer(&self, stream: TcpStream, version: Version) {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let Some(Ok(Message::Text(text))) = socket.next().await else {
            return;
        };
        let join = protocol::decode_text(version, &text).unwrap();
        let payload: Value = serde_json::from_str(join.payload.get()).unwrap();
        let binding = &payload["config"]["postgres_changes"][0];
        let since = binding["since"]
            .as_str()
            .map(|since| since.parse().unwrap());
        assert_eq!(binding["cursor"], json!(true));
        for frame in self.frames(version, &join.topic, since) {
            if socket.send(Message::text(frame)).await.is_err() {
                return;
            }
        }
        while self.committed.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let _ = socket.close(None).await;
    }
}

/// What a hopper that follows such a server writes down, and what is found to be wrong with it.
async fn follow(fault: Fault, seed: u64) -> (Outcome, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Server {
        fault,
        committed: AtomicU64::new(0),
    });
    let (phase, phases) = watch::channel(Phase::default());
    let user = User {
        token: "a.b.c".to_owned(),
        sessions: vec![CHAT],
    };
    let database = "postgres://nobody@127.0.0.1:1/none".parse().unwrap();
    let (_, addresses) = watch::channel(address);
    let world = Arc::new(World::new(database, vec![user], address, addresses, phases));
    let reader = Reader::new(world, 1, Habit::Hopper, seed);
    let version = reader.version;
    let serving = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = serving.clone();
            tokio::spawn(async move { server.answer(stream, version).await });
        }
    });
    let (ready, is_ready) = oneshot::channel();
    let reading = tokio::spawn(reader.run(ready));
    if is_ready.await.is_ok() {
        server.committed.store(CHANGES, Ordering::Relaxed);
        let last = Key::new(CHANGES, Kind::Insert);
        phase.send_modify(|phase| phase.fence = Some(Arc::new([(CHAT, last)].into())));
    }
    let limit = Duration::from_secs(60);
    let outcome = timeout(limit, reading).await.expect("an end").unwrap();

    let audited = |number: u64| Audited {
        kind: Kind::Insert,
        number,
        message: Uuid::from_u128(u128::from(number)),
        session: CHAT,
        transaction: number,
        snapshot: format!("{number}:{number}:"),
        created: 0,
        at: 0,
    };
    let truth = Truth::new((1..=CHANGES).map(audited).collect(), std::iter::empty()).unwrap();
    let mut found: Vec<String> = outcome
        .story
        .wrong
        .iter()
        .map(|(_, why)| why.clone())
        .collect();
    for life in &outcome.story.lives {
        let verdict = check::check(&truth, &outcome.story.interest, life).unwrap();
        found.extend(verdict.differences.into_iter().map(|one| one.what));
    }
    (outcome, found)
}

#[tokio::test]
async fn a_reader_that_resumes_everywhere_has_everything_once() {
    for (outcome, found) in join_all((0..20).map(|seed| follow(Fault::None, seed))).await {
        assert_eq!(found, [""; 0], "{:?}", outcome.story);
        assert!(outcome.story.connections.len() > 3);
        assert!(outcome.story.lives[0].complete);
    }
}

#[tokio::test]
async fn a_server_that_loses_or_doubles_is_found_out() {
    for (fault, what) in [
        (Fault::Skips, "missing"),
        (Fault::Doubles, "twice"),
        (Fault::NoCursors, "without a cursor"),
        (Fault::Refuses, "cursor_expired"),
    ] {
        let (_, found) = follow(fault, 3).await;
        assert!(
            found.iter().any(|found| found.contains(what)),
            "{what}: {found:?}"
        );
    }
}
