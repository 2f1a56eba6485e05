//! Clients that read slowly, or not at all, or are gone without a word: they end, cost little until then, and nobody else
//! notices.

mod latency;

use std::{sync::atomic::Ordering, time::Duration};

use faultproxy::{Flow, Proxy, Way};
use futures::{SinkExt, future::join_all};
use protocol::Version;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::support::{
    Client, TestDatabase,
    chat::{A1, ADA, chat_with, messages_of, say},
    client::Incoming,
    process::GatewayProcess,
    token::{SECRET, authenticated},
    wait::wait_for,
};

/// What a row is long.
const BYTES: usize = 20_000;

fn row(number: usize) -> String {
    format!("{number:0BYTES$}")
}

/// Clients that stop to read once they are subscribed, each on a topic of its own: none has bytes in common with another.
async fn stuck(gateway: &GatewayProcess, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = Client::narrow(gateway.address, &authenticated(ADA)).await;
        let topic = format!("stuck-{number}");
        client.subscribe(&topic, messages_of("INSERT", A1)).await;
        clients.push(client);
    }
    clients
}

fn environment(database: &TestDatabase) -> [(&'static str, &str); 3] {
    [
        ("DATABASE_URL", &database.gateway_url),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_OUTBOX_BYTES", "256KiB"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_closed_with_4008_and_counted() {
    const STUCK: usize = 30;
    const ROWS: usize = 60;
    let database = TestDatabase::new(Some("chattwelve")).await;
    let gateway = GatewayProcess::start(&environment(&database)).await;
    let mut stuck = stuck(&gateway, STUCK).await;
    let mut reader = Client::connect_to(gateway.address, Version::V2, &authenticated(ADA)).await;
    let channel = reader.subscribe("a1", messages_of("INSERT", A1)).await;
    for number in 0..ROWS {
        say(&database, A1, &row(number)).await;
        assert_eq!(
            reader.change(&channel).await["record"]["content"],
            row(number)
        );
    }
    let all_closed = || async {
        match gateway.metric("tidings_slow_readers_total").await as usize {
            STUCK => Ok(()),
            slow => Err(slow),
        }
    };
    wait_for("the end of those who do not read", all_closed).await;
    let read_on = stuck.iter_mut().map(|client| async move {
        let mut rows = 0;
        loop {
            match client.next().await {
                Incoming::Message(message) => {
                    // Nothing is skipped: what comes is the beginning.
                    let content = &message.payload["data"]["record"]["content"];
                    assert!(*content == row(rows), "not row {rows}");
                    rows += 1;
                }
                Incoming::Closed(code) => return (rows, code),
                other => panic!("{other:?}"),
            }
        }
    });
    let mut lost = 0;
    for (rows, code) in join_all(read_on).await {
        assert_eq!(code, Some(4008));
        lost += ROWS - rows;
    }
    // What came after the overflow was never meant for them.
    let discarded = gateway.metric("tidings_frames_discarded_total").await as usize;
    assert!((STUCK..=lost).contains(&discarded), "{discarded} of {lost}");
    let closed = gateway
        .metric("tidings_connections_closed_total{reason=\"slow_reader\"}")
        .await;
    assert_eq!(closed as usize, STUCK);
    assert_eq!(reader.until_heartbeat().await, []);
}

/// What the kernel keeps for those who are connected to this port, in bytes.
fn unsent(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the connections");
    let own = format!(":{port:04X}");
    let queued = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next().filter(|local| local.ends_with(&own))?;
        let (unsent, _) = columns.nth(2)?.split_once(':')?;
        usize::from_str_radix(unsent, 16).ok()
    });
    queued.sum()
}

/// The most memory that it ever had, in bytes.
fn peak(gateway: &GatewayProcess) -> usize {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse::<usize>().ok());
    kib.expect("a size") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_those_who_do_not_read_has_a_bound() {
    const STUCK: usize = 100;
    const ROWS: usize = 150;
    let database = TestDatabase::new(Some("chattwelve")).await;
    let gateway = GatewayProcess::start(&environment(&database)).await;
    let _stuck = stuck(&gateway, STUCK).await;
    let before = peak(&gateway);
    for number in 0..ROWS {
        say(&database, A1, &row(number)).await;
    }
    let all_closed = || async {
        match gateway.metric("tidings_slow_readers_total").await as usize {
            STUCK => Ok(()),
            slow => Err(slow),
        }
    };
    wait_for("the end of those who do not read", all_closed).await;
    let kernel = unsent(gateway.address.port());
    assert!(
        kernel < STUCK * 256 * 1024,
        "the kernel keeps {kernel} bytes"
    );
    let grown = peak(&gateway) - before;
    // The outbox, a piece of it that is being written, and what is on its way to all of them.
    let bound = STUCK * (256 + 256 + 64) * 1024 + (32 << 20);
    println!(
        "a stuck reader took {} KiB, and {} KiB of the kernel's",
        grown / STUCK / 1024,
        kernel / STUCK / 1024
    );
    assert!(grown < bound, "{grown} bytes of {}", STUCK * ROWS * BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_with_a_cursor_gets_the_rest() {
    const ROWS: usize = 100;
    let (database, gateway) = chat_with(&[("outbox_bytes", "256KiB")]).await;
    let mut bindings = messages_of("INSERT", A1);
    bindings[0]["cursor"] = true.into();
    let mut expected = 0;
    let mut closed = Vec::new();
    while expected < ROWS {
        let mut client = Client::narrow(gateway.address, &authenticated(ADA)).await;
        let config =
            json!({"config": {"postgres_changes": bindings, "presence": {"enabled": false}}});
        let (channel, reply) = client.join("a1", config).await;
        assert_eq!(reply["status"], "ok", "{reply}");
        if closed.is_empty() {
            let live = client.event(&channel, "system").await;
            bindings[0]["since"] = live.payload["cursor"].clone();
            for number in 0..ROWS {
                say(&database, A1, &row(number)).await;
            }
        }
        loop {
            match client.next().await {
                Incoming::Message(message) if message.event == "postgres_changes" => {
                    let record = &message.payload["data"]["record"];
                    assert!(record["content"] == row(expected), "not row {expected}");
                    assert!(record["tidings_cursor"].is_string(), "no cursor");
                    bindings[0]["since"] = record["tidings_cursor"].clone();
                    expected += 1;
                    if expected == ROWS {
                        break;
                    }
                }
                Incoming::Closed(code) => {
                    closed.push(code);
                    break;
                }
                _ => {}
            }
        }
    }
    assert_eq!(closed.first(), Some(&Some(4008)), "{closed:?}");
}

/// Once closed the client at the first large row, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_missed_rows_that_are_larger_than_an_outbox_gets_them_too() {
    let (database, gateway) = chat_with(&[("outbox_bytes", "64KiB")]).await;
    let mut bindings = messages_of("INSERT", A1);
    bindings[0]["cursor"] = true.into();
    let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = client.joined("a1", config).await;
    let live = client.event(&channel, "system").await;
    drop(client);
    let contents: Vec<String> = (0..10)
        .map(|number| "x".repeat(if number % 2 == 0 { 10 } else { 300_000 }))
        .collect();
    for content in &contents {
        say(&database, A1, content).await;
    }
    bindings[0]["since"] = live.payload["cursor"].clone();
    let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
    let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = client.joined("a1", config).await;
    for content in contents {
        let change = client.change(&channel).await;
        assert!(change["record"]["content"] == content, "not in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_byte_now_and_then_does_not_live_for_ever() {
    let (database, gateway) = chat_with(&[]).await;
    let open = || gateway.app.connections.load(Ordering::Acquire);
    let crawling = Proxy::start(gateway.address).await.expect("a port");
    let stopped = Proxy::start(gateway.address).await.expect("a port");
    let mut clients = Vec::new();
    for proxy in [&crawling, &stopped] {
        let mut client =
            Client::connect_to(proxy.address(), Version::V2, &authenticated(ADA)).await;
        client.subscribe("a1", messages_of("INSERT", A1)).await;
        clients.push(client);
    }
    crawling.set(
        Way::ToClient,
        Flow::Throttled {
            bytes_per_second: 1,
        },
    );
    stopped.set(Way::ToClient, Flow::Hung);
    // More than kernels and proxies keep, and less than an outbox: it does not overflow.
    for number in 0..300 {
        say(&database, A1, &row(number)).await;
    }
    let full = Instant::now();
    let deadline = full + Duration::from_secs(60);
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    while open() > 0 {
        assert!(Instant::now() < deadline, "{} of them live", open());
        beat.tick().await;
        for client in &mut clients {
            // They are alive; only they do not read. The last ones go nowhere.
            let heartbeat = json!([null, "1", "phoenix", "heartbeat", {}]).to_string();
            let sent = client.socket.send(heartbeat.into());
            let _ = timeout(Duration::from_secs(1), sent).await;
        }
    }
    println!("they ended after {:?}", full.elapsed());
}

/// While its socket is full nothing is read from a client, heartbeats neither. That it takes what it is owed is a sign of life, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_on_over_a_slow_line_is_not_idle() {
    const ROWS: usize = 350;
    const IDLE: Duration = Duration::from_secs(3);
    let (database, gateway) = chat_with(&[("idle_timeout", "3s")]).await;
    let proxy = Proxy::start(gateway.address).await.expect("a port");
    let mut client = Client::connect_to(proxy.address(), Version::V2, &authenticated(ADA)).await;
    let channel = client.subscribe("a1", messages_of("INSERT", A1)).await;
    proxy.set(
        Way::ToClient,
        Flow::Throttled {
            bytes_per_second: 400_000,
        },
    );
    let writing = async {
        for number in 0..ROWS {
            say(&database, A1, &row(number)).await;
        }
    };
    let begun = Instant::now();
    let reading = async {
        let mut said = Instant::now();
        for number in 0..ROWS {
            if said.elapsed() > Duration::from_secs(1) {
                said = Instant::now();
                let heartbeat = json!([null, "1", "phoenix", "heartbeat", {}]).to_string();
                client.socket.send(heartbeat.into()).await.expect("a line");
            }
            assert_eq!(
                client.change(&channel).await["record"]["content"],
                row(number)
            );
        }
    };
    tokio::join!(writing, reading);
    assert!(begun.elapsed() > IDLE * 3, "the line was not slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_without_a_word_goes_offline() {
    let (database, gateway) = chat_with(&[("idle_timeout", "2s")]).await;
    let open = || gateway.app.connections.load(Ordering::Acquire);
    let proxy = Proxy::start(gateway.address).await.expect("a port");
    let mut gone = Client::connect_to(proxy.address(), Version::V2, &authenticated(ADA)).await;
    gone.subscribe("a1", messages_of("INSERT", A1)).await;
    let mut reading = Client::connect_to(proxy.address(), Version::V2, &authenticated(ADA)).await;
    reading.subscribe("a1", messages_of("INSERT", A1)).await;
    assert_eq!(open(), 2);
    proxy.set(Way::Both, Flow::Hung);
    // One that is written to all the time is noticed as well.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut number = 0;
    while open() > 0 {
        assert!(Instant::now() < deadline, "{} of them live", open());
        say(&database, A1, &number.to_string()).await;
        number += 1;
    }
}
