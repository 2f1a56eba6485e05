//! What readers and writers share: the clock, the chats and their owners, the way to the server, and how far the run is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_postgres::{Client, Config};
use uuid::Uuid;

use super::truth::Key;
use crate::database;

const MARK_LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct World {
    pub(crate) started: Instant,
    pub(crate) users: Vec<User>,
    /// The database itself, without a proxy.
    pub(crate) database: Config,
    /// The server, through the proxy that fails.
    pub(crate) proxy: SocketAddr,
    /// The server itself, which is elsewhere after each start.
    pub(crate) server: watch::Receiver<SocketAddr>,
    pub(crate) phase: watch::Receiver<Phase>,
    marks: Mutex<Option<Arc<Client>>>,
}

/// The owner of some chats.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) token: String,
    pub(crate) sessions: Vec<Uuid>,
}

/// The last change of each chat.
pub(crate) type Fence = Arc<HashMap<Uuid, Key>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    /// Nothing is broken any more on purpose: everybody stays, and reads.
    pub(crate) calm: bool,
    /// Nothing is written any more.
    pub(crate) fence: Option<Fence>,
    /// Time is up, also for who has not seen the fence.
    pub(crate) over: bool,
}

impl World {
    pub(crate) fn new(
        database: Config,
        users: Vec<User>,
        proxy: SocketAddr,
        server: watch::Receiver<SocketAddr>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            started: Instant::now(),
            users,
            database,
            proxy,
            server,
            phase,
            marks: Mutex::new(None),
        }
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }

    pub(crate) fn sessions(&self) -> Vec<Uuid> {
        let sessions = self.users.iter().flat_map(|user| &user.sessions);
        sessions.copied().collect()
    }

    /// What is committed now, as a snapshot. Fails while the database is away.
    pub(crate) async fn mark(&self) -> anyhow::Result<String> {
        let client = {
            let mut marks = self.marks.lock().await;
            match &*marks {
                Some(client) if !client.is_closed() => client.clone(),
                _ => {
                    let client = Arc::new(database::connect(&self.database).await?);
                    marks.insert(client).clone()
                }
            }
        };
        let row = client.query_one("select pg_current_snapshot()::text", &[]);
        let row = timeout(MARK_LIMIT, row)
            .await
            .context("no answer")?
            .context("no snapshot")?;
        Ok(row.get(0))
    }
}
