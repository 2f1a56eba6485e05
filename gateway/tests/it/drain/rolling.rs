//! Gateways come and go while rows are written; clients that keep their cursor do not notice.

use std::{net::SocketAddr, time::Duration};

use faultproxy::Proxy;
use protocol::Version;
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use crate::support::{
    Client, TestDatabase,
    chat::{A1, ADA, B1, BOB, messages_of},
    client::Incoming,
    process::GatewayProcess,
    token::{SECRET, authenticated},
    wait::PATIENCE,
};

/// For each of two users.
const CLIENTS: usize = 30;
const SPREAD: Duration = Duration::from_secs(3);
/// As stock clients do, only ten times as fast: without chance, so it is for the server to spread them.
const RECONNECT_AFTER: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];

/// What became of a client.
struct Followed {
    user: usize,
    /// The numbers it got, from the first connection to the last.
    numbers: Vec<u32>,
    /// When it had a socket, each time.
    connected: Vec<Instant>,
}

/// Follows a session to its end, over as many gateways as it takes. Tells when it is up to date for the first time.
async fn follow(proxy: SocketAddr, user: usize, live: mpsc::Sender<()>) -> Followed {
    let (subject, session) = [(ADA, A1), (BOB, B1)][user];
    let token = authenticated(subject);
    let mut bindings = messages_of("INSERT", session);
    bindings[0]["cursor"] = true.into();
    let mut followed = Followed {
        user,
        numbers: Vec::new(),
        connected: Vec::new(),
    };
    let mut tries = 0;
    loop {
        let connected = async {
            let stream = TcpStream::connect(proxy).await.ok()?;
            Client::over(stream, Version::V2, &token).await.ok()
        };
        let Some(mut client) = connected.await else {
            sleep(RECONNECT_AFTER[tries.min(3)]).await;
            tries += 1;
            continue;
        };
        tries = 0;
        followed.connected.push(Instant::now());
        let config =
            json!({"config": {"postgres_changes": bindings, "presence": {"enabled": false}}});
        client.begin_join(session, config).await;
        loop {
            let payload = match client.next().await {
                Incoming::Message(message) if message.event == "phx_reply" => {
                    assert_eq!(message.payload["status"], "ok", "{message:?}");
                    continue;
                }
                Incoming::Message(message) => message.payload,
                Incoming::Closed(_) => break,
                other => panic!("{other:?}"),
            };
            let record = &payload["data"]["record"];
            let (cursor, content) = match record["content"].as_str() {
                Some(content) => (&record["tidings_cursor"], Some(content)),
                None => (&payload["cursor"], None),
            };
            assert!(cursor.is_string(), "no cursor in {payload}");
            bindings[0]["since"] = cursor.clone();
            match content {
                Some("end") => return followed,
                Some(number) => followed.numbers.push(number.parse().expect("a number")),
                // Nobody waits for the later ones.
                None => drop(live.try_send(())),
            }
        }
        sleep(RECONNECT_AFTER[0]).await;
    }
}

/// Numbers the rows of a session until it is told to stop, then marks its end. Returns the last number.
async fn write(
    database: tokio_postgres::Client,
    session: &'static str,
    mut stop: oneshot::Receiver<()>,
) -> u32 {
    let say = async |content: String| {
        let statement = "insert into chat_messages (session_id, role, content) values ($1::text::uuid, 'user', $2)";
        database
            .execute(statement, &[&session, &content])
            .await
            .expect("an insert")
    };
    let mut last = 0;
    while stop.try_recv().is_err() {
        last += 1;
        say(last.to_string()).await;
        // So that a read of the log brings one, or some, or many.
        sleep(Duration::from_millis(u64::from(last % 5))).await;
    }
    say("end".to_owned()).await;
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_over_restarts_and_nobody_is_overrun() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let environment = [
        ("DATABASE_URL", database.gateway_url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_DRAIN_SPREAD", "3s"),
        ("TIDINGS_DRAIN", "20s"),
    ];
    let mut gateway = GatewayProcess::start(&environment).await;
    let proxy = Proxy::start(gateway.address).await.expect("a port");
    let (live, mut lively) = mpsc::channel(2 * CLIENTS);
    let clients: Vec<_> = (0..2 * CLIENTS)
        .map(|number| tokio::spawn(follow(proxy.address(), number % 2, live.clone())))
        .collect();
    let all_live = async {
        for _ in 0..clients.len() {
            lively.recv().await.expect("a client");
        }
    };
    tokio::time::timeout(PATIENCE, all_live)
        .await
        .expect("all clients are live");
    let mut writers = Vec::new();
    for session in [A1, B1] {
        let (stop, stopped) = oneshot::channel();
        let writer = write(database.connect().await, session, stopped);
        writers.push((stop, tokio::spawn(writer)));
    }

    // In good order, with the next one ready.
    let next = GatewayProcess::start(&environment).await;
    proxy.lead_to(next.address);
    let drained = Instant::now();
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await, Some(0));
    let stopped = &gateway.logged("stopped").await[0];
    assert_eq!(
        (&stopped["told"], &stopped["cut"]),
        (&json!(2 * CLIENTS), &json!(0))
    );
    // Without a word, with the next one ready.
    let mut gateway = next;
    let next = GatewayProcess::start(&environment).await;
    proxy.lead_to(next.address);
    gateway.signal("KILL").await;
    assert_eq!(gateway.ended().await, None);
    // Without a word, and nobody there for as long as it takes to start again.
    let mut gateway = next;
    gateway.signal("KILL").await;
    assert_eq!(gateway.ended().await, None);
    let killed = Instant::now();
    let gateway = GatewayProcess::start(&environment).await;
    proxy.lead_to(gateway.address);

    let mut committed = Vec::new();
    for (stop, writer) in writers {
        stop.send(()).expect("the writer writes");
        committed.push(writer.await.expect("the writer"));
    }
    let mut back: Vec<Duration> = Vec::new();
    for client in clients {
        let followed = tokio::time::timeout(PATIENCE, client).await;
        let followed = followed
            .expect("a client that gets to the end")
            .expect("a client");
        let expected: Vec<u32> = (1..=committed[followed.user]).collect();
        assert!(
            followed.numbers == expected,
            "{:?} of {:?}",
            followed.numbers,
            expected.last()
        );
        assert!(followed.connected.last() > Some(&killed));
        back.push(followed.connected[1] - drained);
    }
    back.sort_unstable();
    for quarter in 0..4 {
        let from = RECONNECT_AFTER[0] + SPREAD / 4 * quarter;
        let some = back
            .iter()
            .filter(|at| (from..from + SPREAD / 4).contains(at))
            .count();
        assert!(
            (1..=CLIENTS).contains(&some),
            "{some} in {quarter}: {back:?}"
        );
    }
}
