//! A chat whose doorbell is watched: writers in bursts, writers that take their time, and listeners that note when each row
//! came.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::Version;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, Client as Session, NoTls};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::support::{
    Client, OwnCluster, TestDatabase, TestGateway,
    chat::{A1, ADA, messages_of},
    token::authenticated,
    wait::wait_for,
};

/// No safety poll: whoever misses a ring is late by far more than [`LATE`]. And room for all that is written.
const SETTINGS: [(&str, &str); 4] = [
    ("poll_interval", "60s"),
    ("outbox_frames", "200000"),
    ("outbox_bytes", "256MiB"),
    ("idle_timeout", "10m"),
];

/// From the answer to a commit to its arrival. Generous: the machine has other tests to run.
const LATE: Duration = Duration::from_secs(3);

const WRITERS: usize = 12;
/// Transactions of a writer in one round trip, so that also a busy machine makes enough of them.
const AT_ONCE: usize = 3;
/// Between two round trips.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the commit of some is held back.
const HELD_BACK: u64 = 200;

pub(super) struct Stand {
    // A transaction anywhere in a cluster makes its gateways linger: other tests have theirs elsewhere.
    _cluster: OwnCluster,
    pub(super) database: TestDatabase,
    written: Written,
    next: AtomicU32,
}

/// When commits were asked for, and when they were answered.
type Written = Arc<Mutex<HashMap<String, (Instant, Instant)>>>;

impl Stand {
    pub(super) async fn start() -> Stand {
        let cluster = OwnCluster::start().await;
        let database = cluster.database("chattwelve").await;
        Stand {
            _cluster: cluster,
            database,
            written: Written::default(),
            next: AtomicU32::new(0),
        }
    }

    pub(super) async fn gateway(&self, settings: &[(&str, &str)]) -> TestGateway {
        let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
        TestGateway::start_with(&self.database, &settings).await
    }

    /// The environment of a process with the same settings.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let settings =
            SETTINGS.map(|(name, value)| (format!("TIDINGS_{}", name.to_uppercase()), value));
        let url = ("DATABASE_URL".to_owned(), &*self.database.gateway_url);
        let secret = (
            "TIDINGS_JWT_SECRET".to_owned(),
            crate::support::token::SECRET,
        );
        let pairs = settings.into_iter().chain([url, secret]);
        pairs
            .map(|(name, value)| (name, value.to_owned()))
            .collect()
    }

    fn content(&self, what: &str) -> String {
        format!("{what} {}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// One row, committed at once.
    pub(super) async fn say(&self) {
        self.hold().await.commit().await;
    }

    /// A row whose transaction waits for its commit.
    pub(super) async fn hold(&self) -> Held {
        let session = self.database.connect().await;
        let content = self.content("held");
        let begin = format!("begin; {}", insert(&content));
        session.batch_execute(&begin).await.expect("an insert");
        Held {
            session,
            content,
            written: self.written.clone(),
        }
    }

    /// Writers that write until they are stopped, enough of them to be worth a silence. Some hold their commit back.
    pub(super) async fn burst(&self) -> Burst {
        let enough = CancellationToken::new();
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (session, enough) = (self.database.connect().await, enough.clone());
            let (written, prefix) = (self.written.clone(), self.content("burst"));
            writers.spawn(async move {
                for number in 0.. {
                    let contents: Vec<_> = (0..AT_ONCE)
                        .map(|part| format!("{prefix}.{number}.{part}"))
                        .collect();
                    let mut begun = Instant::now();
                    if rand::random_bool(0.1) {
                        let inserts: String = contents.iter().map(|text| insert(text)).collect();
                        let begin = format!("begin; {inserts}");
                        session.batch_execute(&begin).await.expect("inserts");
                        let held = rand::rng().random_range(0..HELD_BACK);
                        tokio::time::sleep(Duration::from_millis(held)).await;
                        begun = Instant::now();
                        session.batch_execute("commit").await.expect("a commit");
                    } else {
                        let each = |text: &String| format!("begin; {} commit; ", insert(text));
                        let transactions: String = contents.iter().map(each).collect();
                        let done = session.batch_execute(&transactions);
                        done.await.expect("transactions");
                    }
                    for content in contents {
                        note(&written, content, begun);
                    }
                    if enough.is_cancelled() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Burst { enough, writers }
    }

    /// Waits until a lock tells writers not to ring, or until none does.
    pub(super) async fn silent(&self, silent: bool) {
        // And its gateway knows: the answer is a while ago. A session that ends before that has failed to get the lock, after which
        // another attempt takes half a minute.
        const ANSWERED: &str = "granted and exists (select from pg_stat_activity a where a.pid = pg_locks.pid
            and a.state = 'idle' and a.state_change < clock_timestamp() - interval '200 milliseconds')";
        let (wanted, which) = match silent {
            true => ("1", ANSWERED),
            false => ("0", "granted"),
        };
        wait_for(&format!("{wanted} locks that silence the bell"), || async {
            match self.silencing(which).await {
                found if found == wanted => Ok(()),
                found => Err(format!("{found} locks")),
            }
        })
        .await;
    }

    /// How many hold the lock, or what else `which` says.
    pub(super) async fn silencing(&self, which: &str) -> String {
        let of = self.locks(&format!("objid = 1 and mode = 'ExclusiveLock' and {which}"));
        self.database
            .text(&format!("select count(*) from ({of}) x"))
            .await
    }

    /// Waits until the feed waits for nothing but the bell: no statement of its session for longer than any poll.
    pub(super) async fn ringing(&self) {
        let of = self.locks("objid = 3");
        let polls = format!(
            "select min(clock_timestamp() - a.query_start) > '250ms' from pg_stat_activity a where a.pid in ({of})"
        );
        wait_for("a feed that does not poll", || async {
            match &*self.database.text(&polls).await {
                "true" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
    }

    /// Ends the sessions that hold one of the doorbell's locks.
    pub(super) async fn terminate(&self, which: &str) {
        let of = self.locks(which);
        let terminate = format!("select count(pg_terminate_backend(pid)) from ({of}) x");
        assert_ne!(self.database.text(&terminate).await, "0", "{which}");
    }

    fn locks(&self, which: &str) -> String {
        format!(
            "select pid from pg_locks where locktype = 'advisory' and classid = 1953064037 and {which}
               and database = (select oid from pg_database where datname = current_database())"
        )
    }

    /// Waits for all that was committed since the listener came, and says how late the latest was.
    pub(super) async fn arrived(&self, listener: &Listener) -> Duration {
        let mut written = self.written.lock().expect("what was written").clone();
        written.retain(|_, (begun, _)| *begun > listener.since);
        wait_for("all that was committed", || async {
            let arrived = listener.arrived.lock().expect("what has arrived");
            let missing = written
                .keys()
                .filter(|content| !arrived.contains_key(*content));
            let missing: Vec<_> = missing.collect();
            match missing.first() {
                None => Ok(()),
                Some(one) => Err(format!("{} are missing, such as {one}", missing.len())),
            }
        })
        .await;
        let arrived = listener.arrived.lock().expect("what has arrived");
        for (content, times) in &*arrived {
            assert_eq!(times.len(), 1, "{content} came more than once");
        }
        let mut slowest = Duration::ZERO;
        for (content, (_, answered)) in &written {
            let late = arrived[content][0].saturating_duration_since(*answered);
            assert!(late < LATE, "{content} came {late:?} after its commit");
            slowest = slowest.max(late);
        }
        slowest
    }
}

fn insert(content: &str) -> String {
    format!(
        "insert into chat_messages (session_id, role, content) values ('{A1}', 'user', '{content}');"
    )
}

fn note(written: &Written, content: String, begun: Instant) {
    let mut written = written.lock().expect("what was written");
    written.insert(content, (begun, Instant::now()));
}

/// A transaction that has written a row.
pub(super) struct Held {
    session: Session,
    content: String,
    written: Written,
}

impl Held {
    pub(super) async fn commit(self) {
        let begun = Instant::now();
        self.session
            .batch_execute("commit")
            .await
            .expect("a commit");
        note(&self.written, self.content, begun);
    }
}

pub(super) struct Burst {
    enough: CancellationToken,
    writers: JoinSet<()>,
}

impl Burst {
    pub(super) async fn stop(self) {
        self.enough.cancel();
        self.writers.join_all().await;
    }
}

/// Hears all that is said in Ada's session.
pub(super) struct Listener {
    since: Instant,
    arrived: Arc<Mutex<HashMap<String, Vec<Instant>>>>,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    pub(super) async fn at(address: SocketAddr) -> Listener {
        let mut client = Client::connect_to(address, Version::V2, &authenticated(ADA)).await;
        let channel = client.subscribe("a1", messages_of("INSERT", A1)).await;
        let arrived = Arc::<Mutex<HashMap<String, Vec<Instant>>>>::default();
        let noted = arrived.clone();
        let task = tokio::spawn(async move {
            loop {
                let change = client.change(&channel).await;
                let content = change["record"]["content"].as_str().expect("a text");
                let mut noted = noted.lock().expect("what has arrived");
                noted
                    .entry(content.to_owned())
                    .or_default()
                    .push(Instant::now());
            }
        });
        Listener {
            since: Instant::now(),
            arrived,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Hears the bell as the feed does.
pub(super) struct Ear {
    heard: Arc<AtomicU32>,
    _session: Session,
    _task: AbortOnDropHandle<()>,
}

impl Ear {
    pub(super) async fn on(database: &TestDatabase) -> Ear {
        let (session, mut connection) = tokio_postgres::connect(&database.url, NoTls)
            .await
            .expect("a connection");
        let heard = Arc::new(AtomicU32::new(0));
        let count = heard.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(_) = message {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        session.batch_execute("listen tidings").await.expect("ears");
        Ear {
            heard,
            _session: session,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(super) fn rings(&self) -> u32 {
        self.heard.load(Ordering::Relaxed)
    }
}
