//! The gateway whose cost is measured, with people who listen to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use jsonwebtoken::EncodingKey;
use protocol::Version;
use tokio::task::JoinSet;

use super::stand::Stand;
use super::{InsertsArgs, Variant};
use crate::client::{Subscriber, Subscription};
use crate::database;
use crate::own::{OwnCluster, OwnServer};
use crate::socket::Endpoint;
use crate::target::sign;

/// How long the gateway may take to deliver the rest of a turn.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

/// The gateway, and those who listen to it.
pub(super) struct Audience {
    server: OwnServer,
    listeners: JoinSet<anyhow::Error>,
    received: Arc<AtomicU64>,
    expected: AtomicU64,
    /// How many listen to each session.
    watched: Vec<u64>,
}

impl Audience {
    pub(super) async fn gather(
        args: &InsertsArgs,
        cluster: &OwnCluster,
        stand: &Stand,
    ) -> anyhow::Result<Self> {
        let server = cluster.serve(Variant::Gateway.database()).await?;
        let endpoint = Endpoint::parse(&server.url(), Version::V2)?;
        let key = EncodingKey::from_secret(server.secret().as_bytes());
        let received = Arc::new(AtomicU64::new(0));
        let mut watched = vec![0; stand.sessions.len()];
        let mut listeners = JoinSet::new();
        for index in 0..args.subscribers {
            let session = index % stand.sessions.len();
            let id = stand.sessions[session];
            let subscription = Subscription {
                session_id: id.to_string(),
                token: sign(&key, &database::owner(id))?,
            };
            let mut subscriber = Subscriber::connect(&endpoint, &subscription).await?;
            watched[session] += 1;
            let received = received.clone();
            listeners.spawn(async move {
                subscriber
                    .run(|_| {
                        received.fetch_add(1, Ordering::Relaxed);
                    })
                    .await
            });
        }
        Ok(Self {
            server,
            listeners,
            received,
            expected: AtomicU64::new(0),
            watched,
        })
    }

    /// Waits until what was inserted has been delivered, so that the rest of one turn is no burden to the next.
    pub(super) async fn catch_up(&self, inserted: &[u64]) -> anyhow::Result<f64> {
        let more: u64 = inserted
            .iter()
            .zip(&self.watched)
            .map(|(inserted, watched)| inserted * watched)
            .sum();
        let expected = self.expected.fetch_add(more, Ordering::Relaxed) + more;
        let since = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            let received = self.received.load(Ordering::Relaxed);
            if received >= expected {
                return Ok(since.elapsed().as_secs_f64());
            }
            ensure!(
                since.elapsed() < CATCH_UP_LIMIT,
                "the gateway has delivered {received} of {expected} messages after {} s; {} of its {} listeners are left",
                CATCH_UP_LIMIT.as_secs(),
                self.listeners.len(),
                self.watched.iter().sum::<u64>()
            );
            tick.tick().await;
        }
    }

    pub(super) async fn stop(mut self) {
        self.listeners.shutdown().await;
        self.server.stop().await;
    }
}
