//! Whether those who do not read delay those who do.
//!
//! One session is quiet: its readers are measured. Another is busy, and read by some who keep up and by some who do not read,
//! are closed, and come back. `SLOW_READERS=300 SLOW_BURST=400 SLOW_SECONDS=20` make a longer
//! run of it, for `--release` and `--nocapture`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use protocol::Version;
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};

use crate::support::{
    Channel, Client, TestDatabase,
    chat::{A1, ADA, B1, BOB, messages_of, say},
    process::GatewayProcess,
    token::{SECRET, authenticated},
};

/// Rows of a burst in the busy session, and how often there is one.
const BURST: u64 = 100;
const EVERY: Duration = Duration::from_millis(200);
/// How often there is a row in the quiet one.
const PACE: Duration = Duration::from_millis(10);
const READERS: u64 = 10;
/// How long a connection is not read, and up to twice as long: it is closed meanwhile.
const STAY: Duration = Duration::from_millis(1500);

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |value| value.parse().expect("a number"))
}

/// What the readers of the quiet session saw: from before the insert to the arrival.
struct Measured {
    delays: Vec<Duration>,
    closed: f64,
}

impl Measured {
    fn at(&self, share: f64) -> Duration {
        self.delays[((self.delays.len() - 1) as f64 * share) as usize]
    }
}

async fn connect(gateway: &GatewayProcess, session: &str) -> (Client, Channel) {
    let token = authenticated(if session == A1 { ADA } else { BOB });
    let mut client = Client::connect_to(gateway.address, Version::V2, &token).await;
    let channel = client
        .subscribe(session, messages_of("INSERT", session))
        .await;
    (client, channel)
}

/// Reads the busy session. On a machine that is busy, too, it may be too slow itself.
async fn read(gateway: Arc<GatewayProcess>) {
    loop {
        let (mut client, _) = connect(&gateway, B1).await;
        // Not parsed, which would take longer than all the rest.
        while let Some(Ok(frame)) = client.socket.next().await
            && !frame.is_close()
        {}
    }
}

/// Does not read until it is closed, and comes back.
async fn do_not_read(gateway: Arc<GatewayProcess>, number: u64) {
    loop {
        let mut client = Client::narrow(gateway.address, &authenticated(BOB)).await;
        client.subscribe(B1, messages_of("INSERT", B1)).await;
        // Not all at the same time.
        sleep(STAY.mul_f64(1.0 + (number % 10) as f64 / 10.0)).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Others {
    Nobody,
    Reading(u64),
    Slow(u64),
}

async fn measure(who: Others, time: Duration) -> Measured {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let environment = [
        ("DATABASE_URL", database.gateway_url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_OUTBOX_FRAMES", "500"),
    ];
    let gateway = Arc::new(GatewayProcess::start(&environment).await);
    let mut others = JoinSet::new();
    let (reading, slow) = match who {
        Others::Nobody => (0, 0),
        Others::Reading(count) => (count, 0),
        Others::Slow(count) => (READERS, count),
    };
    for number in 0..slow {
        others.spawn(do_not_read(gateway.clone(), number));
    }
    for _ in 0..reading {
        others.spawn(read(gateway.clone()));
    }
    let busy = database.connect().await;
    others.spawn(async move {
        let mut beat = interval(EVERY);
        let burst = setting("SLOW_BURST", BURST);
        let statement = format!(
            "insert into chat_messages (session_id, role, content) select '{B1}', 'user', repeat('x', 1000) from generate_series(1, {burst})"
        );
        loop {
            beat.tick().await;
            busy.batch_execute(&statement).await.expect("an insert");
        }
    });

    let begun = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (mut client, channel) = connect(&gateway, A1).await;
        readers.spawn(async move {
            let mut delays = Vec::new();
            loop {
                let change = client.change(&channel).await;
                let now = begun.elapsed();
                match change["record"]["content"].as_str() {
                    Some("end") => return delays,
                    sent => {
                        let sent = sent.and_then(|sent| sent.parse().ok()).expect("a time");
                        delays.push(now.saturating_sub(Duration::from_micros(sent)));
                    }
                }
            }
        });
    }
    let mut beat = interval(PACE);
    let end = begun.elapsed() + time;
    while begun.elapsed() < end {
        beat.tick().await;
        say(&database, A1, &begun.elapsed().as_micros().to_string()).await;
    }
    say(&database, A1, "end").await;
    let mut delays: Vec<_> = readers.join_all().await.concat();
    delays.sort_unstable();
    assert!(others.try_join_next().is_none(), "somebody has ended");
    Measured {
        delays,
        closed: gateway.metric("tidings_slow_readers_total").await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_do_not_read_do_not_delay_the_others() {
    let time = Duration::from_secs(setting("SLOW_SECONDS", 2));
    let many = setting("SLOW_READERS", 30);
    for who in [
        Others::Nobody,
        Others::Reading(many),
        Others::Slow(1),
        Others::Slow(many),
    ] {
        let measured = measure(who, time).await;
        let [half, most, all] = [0.5, 0.99, 1.0].map(|share| measured.at(share));
        println!(
            "{who:?}: p50 {half:?}, p99 {most:?}, at most {all:?}; {} were closed",
            measured.closed
        );
        // Generous: this machine may be busy with other tests.
        assert!(most < Duration::from_secs(5), "p99 is {most:?}: {who:?}");
        let slow = matches!(who, Others::Slow(_));
        assert!(measured.closed > 0.0 || !slow, "nobody was slow: {who:?}");
    }
}
