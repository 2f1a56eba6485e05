//! Clients that mean harm: what they cost is bounded, they end as documented, and nobody else waits for his messages.
//!
//! The gateway is a process of its own, so that its memory can be seen. `raw` holds what attackers write, byte by byte.

mod ends;
mod floods;
mod frames;
mod half_open;
mod joins;
mod raw;
mod requests;

use std::{future::Future, time::Duration};

use protocol::Version;
use serde_json::{Value, json};
use tokio::time::{Instant, interval, timeout};

use crate::support::{
    Channel, Client, TestDatabase,
    chat::{A1, ADA, messages_of, say},
    process::GatewayProcess,
    token::{SECRET, authenticated},
};

/// How long a message may take to somebody who has nothing to do with an attack. What is usual are milliseconds.
const DELAY: Duration = Duration::from_secs(5);

/// Without the limits that would end most attacks before they have begun: what is left must hold by itself, since these limits
/// can be set to anything.
const UNLIMITED: [(&str, &str); 3] = [
    ("TIDINGS_MAX_SOCKET_MESSAGES_PER_SECOND", "0"),
    ("TIDINGS_MAX_SOCKET_BYTES_PER_SECOND", "0"),
    ("TIDINGS_MAX_SOCKET_JOINS_PER_SECOND", "0"),
];

/// A gateway that is attacked, and somebody who only wants to read.
struct Stand {
    database: TestDatabase,
    gateway: GatewayProcess,
    reader: Client,
    channel: Channel,
    said: usize,
}

impl Stand {
    async fn new(settings: &[(&str, &str)]) -> Stand {
        let database = TestDatabase::new(Some("chattwelve")).await;
        let mut environment = vec![
            ("DATABASE_URL", &*database.gateway_url),
            ("TIDINGS_JWT_SECRET", SECRET),
        ];
        environment.extend_from_slice(settings);
        let gateway = GatewayProcess::start(&environment).await;
        let mut reader =
            Client::connect_to(gateway.address, Version::V2, &authenticated(ADA)).await;
        let channel = reader.subscribe("a1", messages_of("INSERT", A1)).await;
        Stand {
            database,
            gateway,
            reader,
            channel,
            said: 0,
        }
    }

    /// Somebody says something, and it is heard in time.
    async fn hear(&mut self) {
        self.said += 1;
        let content = self.said.to_string();
        // As clients do now and then.
        let (nobody, nothing) = (Value::Null, json!({}));
        self.reader
            .send(nobody.clone(), nobody, "phoenix", "heartbeat", nothing)
            .await;
        let begun = Instant::now();
        say(&self.database, A1, &content).await;
        let heard = timeout(DELAY, self.reader.change(&self.channel)).await;
        let heard =
            heard.unwrap_or_else(|_| panic!("not heard for {DELAY:?}, after {}", self.said));
        assert_eq!(heard["record"]["content"], content);
        assert!(begun.elapsed() < DELAY, "{:?}", begun.elapsed());
    }

    /// Messages go on until the attack has ended; returns what it returns.
    async fn hear_during<T>(&mut self, attack: impl Future<Output = T>) -> T {
        let mut attack = std::pin::pin!(attack);
        let mut tick = interval(Duration::from_millis(100));
        let mut ended = None;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                done = &mut attack, if ended.is_none() => ended = Some(done),
            }
            {
                let mut hearing = std::pin::pin!(self.hear());
                loop {
                    tokio::select! {
                        () = &mut hearing => break,
                        done = &mut attack, if ended.is_none() => ended = Some(done),
                    }
                }
            }
            if let Some(done) = ended {
                return done;
            }
        }
    }

    /// What the gateway's memory is now, and the most that it ever was, in bytes.
    fn memory(&self) -> Memory {
        let path = format!("/proc/{}/status", self.gateway.pid());
        let status = std::fs::read_to_string(path).expect("its status");
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            let kib = kib.and_then(|kib| kib.parse::<usize>().ok());
            kib.expect("a size") * 1024
        };
        Memory {
            now: value("VmRSS:"),
            peak: value("VmHWM:"),
        }
    }

    async fn raw(&self, token: &str) -> raw::Raw {
        raw::Raw::connect(self.gateway.address, token).await
    }

    async fn open(&self) -> usize {
        self.gateway.metric("tidings_connections ").await as usize
    }
}

#[derive(Debug, Clone, Copy)]
struct Memory {
    now: usize,
    peak: usize,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Memory comes and goes for other reasons, too: arenas of threads, what was read for a query.
const NOISE: usize = 24 * MIB;
