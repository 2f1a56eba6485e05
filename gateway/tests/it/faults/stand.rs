//! What every fault is put into the middle of: writers that never rest, subscribers of every kind, and a comparison of what
//! was committed with what arrived.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use protocol::Version;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::server::Server;
use crate::support::{
    Client, Incoming, TestGateway, binding,
    chat::{A1, ADA, B1, BOB, messages_of},
    cluster::connect,
    token::{anon, authenticated, service_role},
    wait::{PATIENCE, wait_for},
};

/// A change, by who wrote it and its place among this writer's changes.
pub(super) type Change = (i32, i32);

/// Whose changes are marks.
const MARKER: i32 = 0;
/// Whose changes come many at a time.
const BULK: i32 = -1;

const WRITERS: i32 = 4;
/// Between two transactions of a writer: the machine has other tests to run.
const PAUSE: Duration = Duration::from_millis(8);

/// Room for all that a test writes: these tests are not about slow readers. Nobody sends heartbeats either.
const SETTINGS: [(&str, &str); 3] = [
    ("outbox_frames", "200000"),
    ("outbox_bytes", "256MiB"),
    ("idle_timeout", "10m"),
];

pub(super) struct Stand {
    pub(super) gateway: TestGateway,
    /// Where the writers write, and the truth is.
    database: watch::Sender<String>,
    writers: JoinSet<()>,
    enough: CancellationToken,
    committed: watch::Sender<u64>,
    readers: Vec<Reader>,
    marks: i32,
    bulked: i32,
    pub(super) seed: u64,
}

impl Stand {
    /// The gateway reaches the server directly.
    pub(super) async fn on(server: &Server) -> Stand {
        Stand::start(server, &server.gateway_url(), &[]).await
    }

    /// The gateway reaches it by this URL. Writers always do directly.
    pub(super) async fn start(
        server: &Server,
        gateway_url: &str,
        settings: &[(&str, &str)],
    ) -> Stand {
        let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let gateway = TestGateway::start_at(address, gateway_url, &settings).await;
        let readers = readers(gateway.address).await;
        let mut stand = Stand {
            gateway,
            database: watch::Sender::new(server.url().to_owned()),
            writers: JoinSet::new(),
            enough: CancellationToken::new(),
            committed: watch::Sender::new(0),
            readers,
            marks: 0,
            bulked: 0,
            seed: rand::random(),
        };
        for number in 1..=WRITERS {
            let writer = Writer {
                number,
                session: if number % 2 == 0 { B1 } else { A1 },
                database: stand.database.subscribe(),
                committed: stand.committed.clone(),
                random: StdRng::seed_from_u64(stand.seed ^ number as u64),
                said: 0,
                stored: None,
            };
            stand.writers.spawn(writer.run(stand.enough.clone()));
        }
        stand.written(50).await;
        stand
    }

    /// The writers turn to another server.
    pub(super) fn write_to(&self, server: &Server) {
        self.database.send_replace(server.url().to_owned());
    }

    /// Waits until so many more transactions have been committed.
    pub(super) async fn written(&self, more: u64) {
        let mut committed = self.committed.subscribe();
        let wanted = *committed.borrow() + more;
        let waiting = committed.wait_for(|committed| *committed >= wanted);
        timeout(PATIENCE, waiting)
            .await
            .expect("the writers write")
            .expect("the writers run");
    }

    /// Commits a change in each session and waits until everybody has it. Returns how long that took.
    pub(super) async fn mark(&mut self) -> Duration {
        let took = self.mark_unless_closed().await;
        took.expect("nobody was told to come back")
    }

    /// None if somebody's socket was closed instead.
    pub(super) async fn mark_unless_closed(&mut self) -> Option<Duration> {
        let url = self.database.borrow().clone();
        let client = wait_for("a session of the database", || async {
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await
        });
        let (client, connection) = client.await;
        tokio::spawn(connection);
        let (a, b) = (self.marks + 1, self.marks + 2);
        self.marks += 2;
        let statement = format!(
            "begin; {}; {}; commit",
            said(MARKER, a, A1),
            said(MARKER, b, B1)
        );
        client.batch_execute(&statement).await.expect("the marks");
        let since = Instant::now();
        for reader in &mut self.readers {
            for (mark, session) in [(a, A1), (b, B1)] {
                if reader.sessions.contains(&session) && !reader.gets((MARKER, mark)).await {
                    return None;
                }
            }
        }
        Some(since.elapsed())
    }

    /// Commits so many changes in one statement.
    pub(super) async fn bulk(&mut self, rows: i32) {
        let first = self.bulked + 1;
        self.bulked += rows;
        let statement = format!(
            "with said as (
               insert into public.chat_messages (session_id, role, content)
               select '{A1}', 'user', '{BULK}:' || n from generate_series({first}, {last}) n returning 1)
             insert into public.truth select {BULK}, n, '{A1}' from generate_series({first}, {last}) n",
            last = self.bulked,
        );
        let url = self.database.borrow().clone();
        connect(&url)
            .await
            .batch_execute(&statement)
            .await
            .expect("the rows");
    }

    /// No more is written.
    pub(super) async fn rest(&mut self) {
        self.enough.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a writer");
        }
    }

    /// Ends the writers, and compares: each committed change reached everybody who may see it, once, and those of a writer
    /// in their order.
    pub(super) async fn finish(mut self) {
        self.rest().await;
        self.mark().await;
        let url = self.database.borrow().clone();
        let truth = truth(&url).await;
        for reader in &self.readers {
            reader.check(&truth, self.seed);
        }
    }

    /// Waits until the feed has tried so often to begin anew. The count is that of the whole process, so this is no assertion.
    pub(super) async fn has_reconnected(&self, times: u64) {
        let attempts = || async {
            let page = reqwest::get(self.gateway.url("/metrics")).await;
            let page = page.expect("a response").text().await.expect("a page");
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix("tidings_feed_reconnects_total "));
            line.and_then(|count| count.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let wanted = attempts().await + times;
        wait_for("the feed to try again", || async {
            let now = attempts().await;
            (now >= wanted).then_some(()).ok_or(now)
        })
        .await;
    }

    /// Everybody was told to come back, and got until then what was committed, without a gap.
    pub(super) async fn check_until_closed(mut self) {
        self.rest().await;
        let url = self.database.borrow().clone();
        let truth = truth(&url).await;
        for reader in &mut self.readers {
            let closed = reader
                .received
                .wait_for(|received| received.closed.is_some());
            let closed = timeout(PATIENCE, closed).await.expect("a close in time");
            let code = closed.expect("a reader").closed;
            assert_eq!(code, Some(Some(1012)), "{}", reader.name);
            reader.check_part(&truth, self.seed);
        }
    }

    /// Whether the gateway says of itself that it can serve.
    pub(super) async fn ready(&self) -> Result<(), String> {
        match reqwest::get(self.gateway.url("/readyz")).await {
            Ok(response) if response.status() == 200 => Ok(()),
            Ok(response) => Err(response.text().await.unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) async fn until_ready(&self) {
        wait_for("a gateway that is ready", || self.ready()).await;
    }

    pub(super) async fn until_not_ready(&self) -> String {
        wait_for("a gateway that is not ready", || async {
            match self.ready().await {
                Ok(()) => Err("ready"),
                Err(why) => Ok(why),
            }
        })
        .await
    }
}

/// What was committed: by writer, in its order, each with its session.
pub(super) type Truth = BTreeMap<i32, Vec<(i32, String)>>;

pub(super) async fn truth(url: &str) -> Truth {
    let mut truth = Truth::new();
    let rows = connect(url)
        .await
        .query(
            "select writer, number, session::text from truth order by writer, number",
            &[],
        )
        .await
        .expect("the truth");
    for row in rows {
        truth
            .entry(row.get(0))
            .or_default()
            .push((row.get(1), row.get(2)));
    }
    truth
}

/// A message, and the truth about it.
pub(super) fn said(writer: i32, number: i32, session: &str) -> String {
    format!(
        "insert into public.chat_messages (id, session_id, role, content)
         values (md5('{writer}:{number}')::uuid, '{session}', 'user', '{writer}:{number}');
         insert into public.truth values ({writer}, {number}, '{session}')"
    )
}

struct Writer {
    number: i32,
    session: &'static str,
    database: watch::Receiver<String>,
    committed: watch::Sender<u64>,
    random: StdRng,
    said: i32,
    /// A row of its own that is certainly there.
    stored: Option<i32>,
}

impl Writer {
    /// Writes over every failure, until it is enough. What became of a transaction whose answer was lost, the truth knows.
    async fn run(mut self, enough: CancellationToken) {
        while !enough.is_cancelled() {
            let url = self.database.borrow_and_update().clone();
            let connecting = tokio_postgres::connect(&url, tokio_postgres::NoTls);
            let Ok(Ok((client, connection))) = timeout(Duration::from_secs(2), connecting).await
            else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            tokio::spawn(connection);
            while !enough.is_cancelled() && !self.database.has_changed().unwrap_or(true) {
                let (statement, stored) = self.transaction();
                match timeout(Duration::from_secs(10), client.batch_execute(&statement)).await {
                    Ok(Ok(())) => {
                        self.stored = stored.or(self.stored);
                        self.committed.send_modify(|committed| *committed += 1);
                    }
                    _ => break,
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A whole transaction, and the number of a row that it stores.
    fn transaction(&mut self) -> (String, Option<i32>) {
        match (self.random.random_range(0..10), self.stored) {
            // Uses up a transaction number for nothing.
            (0 | 1, _) => {
                let message = said(self.number, self.next(), self.session);
                (format!("begin; {message}; rollback"), None)
            }
            (2, Some(stored)) => {
                let (writer, number) = (self.number, self.next());
                let update = format!(
                    "with changed as (update public.chat_messages set content = '{writer}:{number}' where id = md5('{writer}:{stored}')::uuid returning session_id)
                     insert into public.truth select {writer}, {number}, session_id from changed"
                );
                (format!("begin; {update}; commit"), None)
            }
            (3, _) => {
                let messages: Vec<_> = (0..3)
                    .map(|_| said(self.number, self.next(), self.session))
                    .collect();
                (format!("begin; {}; commit", messages.join(";")), None)
            }
            _ => {
                let number = self.next();
                let message = said(self.number, number, self.session);
                (format!("begin; {message}; commit"), Some(number))
            }
        }
    }

    fn next(&mut self) -> i32 {
        self.said += 1;
        self.said
    }
}

/// A socket with one subscription.
struct Reader {
    name: &'static str,
    /// Whose messages it gets.
    sessions: &'static [&'static str],
    received: watch::Receiver<Received>,
    /// Up to here `received` has been searched.
    searched: usize,
    _task: JoinHandle<()>,
}

#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) changes: Vec<Change>,
    /// What came beside changes, and should not have.
    pub(super) other: Vec<Value>,
    /// The end, with its close code.
    pub(super) closed: Option<Option<u16>>,
}

/// Both versions; verdicts taken once, taken for each row, and not needed at all.
async fn readers(gateway: SocketAddr) -> Vec<Reader> {
    use Version::{V1, V2};
    let rows = || json!([binding("*", "chat_messages", None)]);
    let (ada, bob) = (authenticated(ADA), authenticated(BOB));
    vec![
        Reader::start(gateway, "ada", V2, &ada, messages_of("*", A1), &[A1]).await,
        Reader::start(gateway, "bob", V1, &bob, messages_of("*", B1), &[B1]).await,
        // Names no session: each row is asked about.
        Reader::start(gateway, "ada, unfiltered", V2, &ada, rows(), &[A1]).await,
        Reader::start(gateway, "anybody", V2, &anon(), rows(), &[A1, B1]).await,
        Reader::start(gateway, "backend", V1, &service_role(), rows(), &[A1, B1]).await,
    ]
}

impl Reader {
    async fn start(
        gateway: SocketAddr,
        name: &'static str,
        version: Version,
        token: &str,
        bindings: Value,
        sessions: &'static [&'static str],
    ) -> Reader {
        let mut client = Client::connect_to(gateway, version, token).await;
        let channel = client.subscribe("stand", bindings).await;
        let (sender, received) = watch::channel(Received::default());
        let task = tokio::spawn(async move {
            loop {
                match client.next().await {
                    Incoming::Message(message)
                        if message.event == "postgres_changes"
                            && message.topic == channel.topic =>
                    {
                        let data = &message.payload["data"];
                        match change(data) {
                            Some(change) => sender.send_modify(|it| it.changes.push(change)),
                            None => sender.send_modify(|it| it.other.push(data.clone())),
                        }
                    }
                    Incoming::Closed(code) => {
                        return sender.send_modify(|it| it.closed = Some(code));
                    }
                    other => sender.send_modify(|it| it.other.push(json!(format!("{other:?}")))),
                }
            }
        });
        Reader {
            name,
            sessions,
            received,
            searched: 0,
            _task: task,
        }
    }

    /// Waits for a change. False if the socket is closed first.
    async fn gets(&mut self, wanted: Change) -> bool {
        let searched = &mut self.searched;
        let waiting = self.received.wait_for(|received| {
            let rest = received.changes[*searched..].iter();
            let found = rest.clone().position(|change| *change == wanted);
            *searched += found.unwrap_or(rest.len());
            found.is_some() || received.closed.is_some()
        });
        match timeout(PATIENCE, waiting).await {
            Ok(Ok(received)) => received.changes.get(*searched) == Some(&wanted),
            Ok(Err(_)) => panic!("{} is gone", self.name),
            Err(_) => panic!("{} waits in vain for {wanted:?}", self.name),
        }
    }

    /// All that was committed has come, and nothing else.
    fn check(&self, truth: &Truth, seed: u64) {
        assert_eq!(
            self.received.borrow().closed,
            None,
            "{} was closed",
            self.name
        );
        self.check_with(truth, seed, |wanted, _| wanted);
    }

    /// The same, as far as it has come.
    fn check_part(&self, truth: &Truth, seed: u64) {
        self.check_with(truth, seed, |mut wanted, got| {
            wanted.truncate(got);
            wanted
        });
    }

    fn check_with(&self, truth: &Truth, seed: u64, expected: impl Fn(Vec<i32>, usize) -> Vec<i32>) {
        let received = self.received.borrow();
        assert_eq!(received.other, Vec::<Value>::new(), "{}", self.name);
        for (writer, written) in truth {
            let wanted: Vec<i32> = written
                .iter()
                .filter(|(_, session)| self.sessions.contains(&session.as_str()))
                .map(|(number, _)| *number)
                .collect();
            let got: Vec<i32> = received
                .changes
                .iter()
                .filter(|(by, _)| by == writer)
                .map(|(_, number)| *number)
                .collect();
            if let Some(difference) = difference(&expected(wanted, got.len()), &got) {
                panic!("{}, writer {writer}, seed {seed}: {difference}", self.name);
            }
        }
        let known = |(writer, _): &&Change| truth.contains_key(writer);
        let unknown = received.changes.iter().find(|change| !known(change));
        assert_eq!(unknown, None, "{}", self.name);
    }
}

fn change(data: &Value) -> Option<Change> {
    let (writer, number) = data["record"]["content"].as_str()?.split_once(':')?;
    Some((writer.parse().ok()?, number.parse().ok()?))
}

/// The first place at which they differ, in words.
fn difference(wanted: &[i32], got: &[i32]) -> Option<String> {
    if wanted == got {
        return None;
    }
    let place = wanted.iter().zip(got).take_while(|(a, b)| a == b).count();
    let around = |all: &[i32]| {
        let end = all.len().min(place + 5);
        all[place.saturating_sub(3).min(end)..end].to_vec()
    };
    let lost = wanted.iter().filter(|number| !got.contains(number)).count();
    let invented = got.iter().filter(|number| !wanted.contains(number)).count();
    Some(format!(
        "{} committed, {} received, {lost} lost, {invented} not committed; the first difference is near {:?} (committed), {:?} (received)",
        wanted.len(),
        got.len(),
        around(wanted),
        around(got),
    ))
}
