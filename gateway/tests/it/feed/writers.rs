//! Many writers at once, with all that writers do.

use std::{collections::HashMap, time::Duration};

use protocol::Version;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio_postgres::Client as Session;

use super::{Event, assert_same, event, listen};
use crate::support::{
    Client, TestDatabase, TestGateway,
    chat::{A1, ADA, messages_of, say},
    token::{anon, authenticated},
};

const WRITERS: u64 = 32;
const TRANSACTIONS: usize = 40;
const SESSIONS: usize = 6;
/// The largest row.
const MEGABYTE: usize = 1_000_000;

/// Settings of writers that must not show in what subscribers get.
const ODD_SETTINGS: [&str; 6] = [
    "set timezone = 'Asia/Kathmandu'; set datestyle = 'SQL, DMY'",
    "set intervalstyle = 'sql_standard'; set bytea_output = 'escape'",
    "set extra_float_digits = -3; set lc_monetary = 'C.utf8'; set lc_time = 'POSIX'",
    "set search_path = evil, pg_catalog, public",
    "set default_transaction_isolation = 'repeatable read'",
    "set synchronous_commit = off; set standard_conforming_strings = off",
];

/// Room for all that a test writes: these tests are about the feed, not about slow readers.
const ROOM: [(&str, &str); 2] = [("outbox_frames", "200000"), ("outbox_bytes", "512MiB")];

fn session(number: usize) -> String {
    format!("00000000-0000-4000-8000-00000000ad{number:02}")
}

async fn prepare() -> TestDatabase {
    let database = TestDatabase::new(Some("chattwelve")).await;
    for number in 0..SESSIONS {
        let statement = format!(
            "insert into chat_sessions (id, user_id) values ('{}', '{ADA}')",
            session(number)
        );
        database.execute(&statement).await;
    }
    database
}

/// One writer: transactions that commit, roll back, use savepoints, or take their time.
struct Writer {
    number: u64,
    session: Session,
    random: StdRng,
    /// Rows that it has stored, by session.
    rows: Vec<(usize, String)>,
    /// What it has committed, by session.
    committed: HashMap<usize, Vec<Event>>,
    said: usize,
}

impl Writer {
    async fn run(mut self) -> HashMap<usize, Vec<Event>> {
        if self.number.is_multiple_of(2) {
            let odd = ODD_SETTINGS[self.random.random_range(0..ODD_SETTINGS.len())];
            self.execute(odd).await;
        }
        for _ in 0..TRANSACTIONS {
            let (rows, mut events) = (self.rows.clone(), Vec::new());
            self.execute("begin").await;
            for _ in 0..self.random.random_range(1..5) {
                if self.random.random_bool(0.2) {
                    // Undone to the savepoint, whatever was done after it.
                    let kept = self.rows.clone();
                    self.execute("savepoint s").await;
                    self.change().await;
                    self.execute("rollback to savepoint s").await;
                    self.rows = kept;
                } else {
                    self.execute("savepoint t").await;
                    events.extend(self.change().await);
                    self.execute("release savepoint t").await;
                }
            }
            if self.random.random_bool(0.1) {
                // Commits late: many others begin and commit meanwhile.
                let pause = self.random.random_range(50..400);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            if self.random.random_bool(0.25) {
                self.execute("rollback").await;
                self.rows = rows;
            } else {
                self.execute("commit").await;
                for (session, event) in events {
                    self.committed.entry(session).or_default().push(event);
                }
            }
        }
        self.committed
    }

    /// One statement of one row.
    async fn change(&mut self) -> Option<(usize, Event)> {
        self.said += 1;
        let content = format!("{}:{}", self.number, self.said);
        let pick =
            |random: &mut StdRng, rows: &[(usize, String)]| random.random_range(0..rows.len());
        let choice = if self.rows.is_empty() {
            0
        } else {
            self.random.random_range(0..10)
        };
        match choice {
            8 => {
                let place = pick(&mut self.random, &self.rows);
                let (session, id) = self.rows[place].clone();
                self.execute(&format!(
                    "update public.chat_messages set content = '{content}' where id = '{id}'"
                ))
                .await;
                Some((
                    session,
                    Event {
                        kind: "UPDATE".into(),
                        id,
                        content,
                    },
                ))
            }
            9 => {
                let place = pick(&mut self.random, &self.rows);
                let (session, id) = self.rows.remove(place);
                let statement =
                    format!("delete from public.chat_messages where id = '{id}' returning content");
                let row = self
                    .session
                    .query_one(&statement, &[])
                    .await
                    .expect("a delete");
                Some((
                    session,
                    Event {
                        kind: "DELETE".into(),
                        id,
                        content: row.get(0),
                    },
                ))
            }
            _ => {
                let session = self.random.random_range(0..SESSIONS);
                let statement = format!(
                    "insert into public.chat_messages (session_id, role, content) values ('{}', 'user', '{content}') returning id::text",
                    super::writers::session(session)
                );
                let row = self
                    .session
                    .query_one(&statement, &[])
                    .await
                    .expect("an insert");
                let id: String = row.get(0);
                self.rows.push((session, id.clone()));
                Some((
                    session,
                    Event {
                        kind: "INSERT".into(),
                        id,
                        content,
                    },
                ))
            }
        }
    }

    async fn execute(&self, statement: &str) {
        self.session
            .batch_execute(statement)
            .await
            .unwrap_or_else(|error| panic!("{error:?} in: {statement}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_subscribers_got_is_what_32_writers_committed() {
    let database = prepare().await;
    // Functions of the names that the trigger calls, in a schema that some writers look into first.
    database
        .execute(
            "create schema evil;
             create function evil.clock_timestamp() returns timestamptz language sql as $$ select 'epoch'::timestamptz $$;
             create function evil.row_to_json(anyelement) returns json language sql as $$ select '{}'::json $$;
             create function evil.left(text, int) returns text language sql as $$ select 'X' $$;
             create table evil.changes (a int)",
        )
        .await;
    let gateway = TestGateway::start_with(&database, &ROOM).await;
    let mut listeners = Vec::new();
    for number in 0..SESSIONS {
        listeners.push((
            number,
            listen(&gateway, Version::V2, &session(number)).await,
        ));
        if number < 2 {
            listeners.push((
                number,
                listen(&gateway, Version::V1, &session(number)).await,
            ));
        }
    }

    let seed: u64 = rand::random();
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let writer = Writer {
            number,
            session: database.connect().await,
            random: StdRng::seed_from_u64(seed ^ number),
            rows: Vec::new(),
            committed: HashMap::new(),
            said: 0,
        };
        writers.push(tokio::spawn(writer.run()));
    }
    // Meanwhile: 10,000 rows in one statement, twice, and rows of a megabyte.
    let bulk = database.connect().await;
    let large = database.connect().await;
    let bulk_rows = async {
        for round in 0..2 {
            let statement = format!(
                "insert into chat_messages (session_id, role, content)
                 select ('00000000-0000-4000-8000-00000000ad' || lpad((n % {SESSIONS})::text, 2, '0'))::uuid, 'user', 'bulk{round}:' || n
                   from generate_series(1, 10000) n order by n"
            );
            bulk.batch_execute(&statement)
                .await
                .expect("the bulk insert");
        }
    };
    let large_rows = async {
        for number in 0..SESSIONS * 2 {
            let statement = format!(
                "insert into chat_messages (session_id, role, content) values ('{}', 'user', 'large{number}:' || repeat('x', {MEGABYTE}))",
                session(number % SESSIONS)
            );
            large
                .batch_execute(&statement)
                .await
                .expect("a large insert");
        }
    };
    tokio::join!(bulk_rows, large_rows);
    let mut by_writer = Vec::new();
    for writer in writers {
        by_writer.push(writer.await.expect("a writer"));
    }
    for number in 0..SESSIONS {
        say(&database, &session(number), "end").await;
    }

    for (number, listener) in listeners {
        let received = listener.await.expect("a listener");
        let what = format!("session {number}, seed {seed}");
        // Each writer's own changes in its own order.
        let mut expected = Vec::new();
        for (writer, committed) in by_writer.iter().enumerate() {
            let own = committed.get(&number).cloned().unwrap_or_default();
            let prefix = format!("{writer}:");
            let of_writer: Vec<_> = received
                .iter()
                .filter(|event| event.content.starts_with(&prefix))
                .cloned()
                .collect();
            assert_eq!(of_writer, own, "{what}: writer {writer}");
            expected.extend(own);
        }
        // The rows of one statement in its order, each bulk without a gap.
        for round in 0..2 {
            let prefix = format!("bulk{round}:");
            let numbers: Vec<usize> = received
                .iter()
                .filter_map(|event| event.content.strip_prefix(&prefix)?.parse().ok())
                .collect();
            let wanted: Vec<usize> = (1..=10_000).filter(|n| n % SESSIONS == number).collect();
            assert_eq!(numbers, wanted, "{what}: bulk {round}");
        }
        let large: Vec<_> = received
            .iter()
            .filter(|event| event.content.starts_with("large"))
            .collect();
        assert_eq!(large.len(), 2, "{what}");
        for (row, wanted) in large.iter().zip([number, number + SESSIONS]) {
            let text = row
                .content
                .strip_prefix(&format!("large{wanted}:"))
                .expect("in their order");
            assert!(text.len() == MEGABYTE && text.bytes().all(|byte| byte == b'x'));
        }
        let of_writers: Vec<_> = received
            .iter()
            .filter(|event| {
                !event.content.starts_with("bulk") && !event.content.starts_with("large")
            })
            .cloned()
            .collect();
        assert_same(&of_writers, &expected, &what);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_row_by_many_writers_arrive_in_the_order_of_the_row() {
    let database = prepare().await;
    let gateway = TestGateway::start_with(&database, &ROOM).await;
    database
        .execute(&format!("insert into chat_messages (session_id, role, content) select '{}', 'user', '0' from generate_series(1, 3)", session(0)))
        .await;
    let listener = listen(&gateway, Version::V2, &session(0)).await;
    let mut writers = Vec::new();
    for _ in 0..16 {
        let writer = database.connect().await;
        writers.push(tokio::spawn(async move {
            for _ in 0..40 {
                // Some are undone after the row was theirs for a while.
                let statement = "begin; update chat_messages set content = (content::int + 1)::text where id = (select id from chat_messages where content ~ '^[0-9]+$' order by random() limit 1)";
                writer.batch_execute(statement).await.expect("an update");
                let end = if rand::random_bool(0.3) { "rollback" } else { "commit" };
                writer.batch_execute(end).await.expect("an end");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    let mut last: HashMap<String, i64> = HashMap::new();
    let finals = database
        .client
        .query(
            "select id::text, content::bigint from chat_messages where content ~ '^[0-9]+$'",
            &[],
        )
        .await
        .expect("the rows");
    say(&database, &session(0), "end").await;
    for event in listener.await.expect("a listener") {
        if event.kind == "UPDATE" {
            let before = last.entry(event.id).or_default();
            assert_eq!(event.content.parse(), Ok(*before + 1));
            *before += 1;
        }
    }
    for row in finals {
        let (id, count): (String, i64) = (row.get(0), row.get(1));
        assert_eq!(last.get(&id).copied().unwrap_or_default(), count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_commits_after_thousands_of_others_is_delivered_then_and_whole() {
    let database = prepare().await;
    let gateway = TestGateway::start_with(&database, &ROOM).await;
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = client
        .subscribe("late", messages_of("INSERT", &session(0)))
        .await;
    let late = database.connect().await;
    let row = |content: &str| {
        format!(
            "insert into chat_messages (session_id, role, content) values ('{}', 'user', '{content}')",
            session(0)
        )
    };
    late.batch_execute(&format!("begin; {}", row("late 1")))
        .await
        .expect("an insert");
    for number in 0..1500 {
        database.execute(&row(&format!("other {number}"))).await;
    }
    for number in 0..1500 {
        let change = client.change(&channel).await;
        assert_eq!(change["record"]["content"], format!("other {number}"));
    }
    assert_eq!(client.until_heartbeat().await, []);
    late.batch_execute(&format!("{}; prepare transaction 'none'", row("late 2")))
        .await
        .expect_err("two-phase commit is off");
    late.batch_execute(&format!(
        "rollback; begin; {}; {}",
        row("late 1"),
        row("late 2")
    ))
    .await
    .expect("inserts");
    database.execute(&row("between")).await;
    assert_eq!(
        client.change(&channel).await["record"]["content"],
        "between"
    );
    late.batch_execute("commit").await.expect("a commit");
    for content in ["late 1", "late 2"] {
        assert_eq!(client.change(&channel).await["record"]["content"], content);
    }
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_insert_reaches_readers_that_read_with_the_default_limits() {
    let database = prepare().await;
    let gateway = TestGateway::start(&database).await;
    let mut listeners = Vec::new();
    for (number, token) in [authenticated(ADA), anon(), anon(), anon()]
        .iter()
        .enumerate()
    {
        let mut client = Client::v2(&gateway, token).await;
        let channel = client
            .subscribe(
                &format!("{number}"),
                json!([crate::support::binding("INSERT", "chat_messages", None)]),
            )
            .await;
        listeners.push(tokio::spawn(async move {
            let mut contents = Vec::new();
            loop {
                let event = event(&client.change(&channel).await);
                if event.content == "end" {
                    return contents;
                }
                contents.push(event.content);
            }
        }));
    }
    database
        .execute(&format!("insert into chat_messages (session_id, role, content) select '{A1}', 'user', n::text from generate_series(1, 10000) n"))
        .await;
    say(&database, A1, "end").await;
    let wanted: Vec<String> = (1..=10_000).map(|n| n.to_string()).collect();
    for listener in listeners {
        assert_eq!(listener.await.expect("a listener"), wanted);
    }
}
