//! Private channels: what a token may do there, what was sent there before, and messages that are to be kept.
//!
//! The policies on `realtime.messages` decide. They are asked at the join, at the first message of a channel and for each new token;
//! and again when something has changed that they read ([`Doubt`]), or after a while, since a function may hide what it reads.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::Encoding;
use sqlx::{PgPool, Row};
use tokio::sync::{Semaphore, broadcast};
use uuid::Uuid;

use crate::{
    authorizer::{Asker, Authorizer, ChannelError, Grant, Right},
    feed::{change::Change, snapshot::Snapshot},
    hub::Hub,
    posting,
    topics::{Replay, Stored, TopicKey},
};

/// Who may have lost a right.
#[derive(Debug, Clone)]
pub enum Doubt {
    Everybody,
    /// Those who have something to do with one of these values; what is JSON text comes without its quotes.
    Named(Arc<HashSet<Box<str>>>),
}

/// Doubts that a connection may have left unread; then it doubts everything.
const DOUBTS: usize = 64;
/// Beside the statement's own limit: to get a connection, and for a database that has vanished.
const SLACK: Duration = Duration::from_secs(6);
/// How long a question may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Private {
    authorizer: Arc<Authorizer>,
    hub: Arc<Hub>,
    pool: PgPool,
    statement_timeout: Duration,
    doubts: broadcast::Sender<Doubt>,
    /// Questions about rights that are under way: the lanes have rows to judge, too.
    asking: Semaphore,
    /// Replays and messages that are being stored: the connections serve others, too.
    working: Semaphore,
    /// How much one replay may bring.
    replay_bytes: usize,
}

const ASKING: usize = 64;
const WORKING: usize = 4;

#[derive(Debug, thiserror::Error)]
#[error("what was sent before cannot be read")]
pub struct ReplayError(#[source] Option<Box<dyn std::error::Error + Send + Sync>>);

/// A message that is to be kept.
pub struct ToStore<'a> {
    pub id: Uuid,
    pub event: &'a str,
    pub encoding: Encoding,
    pub payload: &'a [u8],
    /// How long it may be replayed; None: as long as messages are kept.
    pub keep: Option<Duration>,
}

impl Private {
    pub fn new(
        authorizer: Arc<Authorizer>,
        hub: Arc<Hub>,
        pool: PgPool,
        statement_timeout: Duration,
        replay_bytes: usize,
    ) -> Private {
        Private {
            authorizer,
            hub,
            pool,
            statement_timeout,
            doubts: broadcast::Sender::new(DOUBTS),
            asking: Semaphore::new(ASKING),
            working: Semaphore::new(WORKING),
            replay_bytes,
        }
    }

    /// What the principal may do on the channel now.
    pub async fn rights(&self, asker: &Asker, right: Right) -> Result<Grant, ChannelError> {
        let place = tokio::time::timeout(PATIENCE, self.asking.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(ChannelError::Unavailable);
        };
        let tick = self.hub.moment().tick();
        self.authorizer.channel(asker, right, tick).await
    }

    /// The last messages that were sent to the topic from the database, or stored. `since_ms` in milliseconds since 1970.
    pub async fn replay(
        &self,
        sub_topic: &str,
        since_ms: i64,
        limit: i64,
    ) -> Result<Replay, ReplayError> {
        let place = tokio::time::timeout(PATIENCE, self.working.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(ReplayError(Some("too many others ask".into())));
        };
        let asked = Instant::now();
        let question = sqlx::query(include_str!(
            "../../migrations/statements/replay_messages.sql"
        ))
        .bind(sub_topic)
        .bind(since_ms as f64)
        .bind(limit as i32)
        .bind(self.replay_bytes as i64)
        .fetch_all(&self.pool);
        let rows = tokio::time::timeout(self.statement_timeout + SLACK, question)
            .await
            .map_err(|_| ReplayError(None))?
            .map_err(|error| ReplayError(Some(error.into())))?;
        let seen = rows.first().map(|row| row.get::<String, _>("seen"));
        let seen = seen
            .as_deref()
            .and_then(Snapshot::parse)
            .ok_or_else(|| ReplayError(Some("the answer has no snapshot".into())))?;
        let mut messages: Vec<_> = rows
            .into_iter()
            .filter_map(|row| {
                // Without messages there is one row with nothing but the snapshot.
                let id: String = row.get::<Option<_>, _>("id")?;
                let text: Option<String> = row.get("payload");
                let binary: Option<Vec<u8>> = row.get("binary_payload");
                let (encoding, payload) = match (text, binary) {
                    (Some(text), _) => (Encoding::Json, text.into_bytes()),
                    (None, binary) => (Encoding::Binary, binary.unwrap_or_default()),
                };
                Some(Stored {
                    // It is not published again.
                    xid: 0,
                    id: id.into(),
                    event: row.get::<String, _>("event").into(),
                    encoding,
                    payload: payload.into(),
                })
            })
            .collect();
        messages.reverse();
        Ok(Replay {
            asked,
            seen,
            messages,
        })
    }

    /// Stores a message as the principal. When it is committed, the feed brings it to everybody.
    pub async fn store(&self, asker: &Asker, message: &ToStore<'_>) -> Result<(), posting::Error> {
        let place = tokio::time::timeout(PATIENCE, self.working.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(posting::Error::Busy);
        };
        let storing = self.store_in_time(asker, message);
        tokio::time::timeout(self.statement_timeout + SLACK, storing)
            .await
            .unwrap_or(Err(posting::Error::Slow))
    }

    async fn store_in_time(
        &self,
        asker: &Asker,
        message: &ToStore<'_>,
    ) -> Result<(), posting::Error> {
        let mut transaction = self.pool.begin().await?;
        if let Some(keep) = message.keep {
            // Before becoming the principal, who knows nothing of this.
            sqlx::query("select tidings.expire_message($1, $2 * interval '1 second')")
                .bind(message.id)
                .bind(keep.as_secs_f64())
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query(include_str!("../../migrations/statements/set_scene.sql"))
            .bind(&*asker.topic)
            .bind(&*asker.headers)
            .execute(&mut *transaction)
            .await?;
        posting::become_principal(&mut transaction, &asker.principal).await?;
        let (text, bytes) = match message.encoding {
            Encoding::Json => (std::str::from_utf8(message.payload).ok(), None),
            Encoding::Binary => (None, Some(message.payload)),
        };
        sqlx::query(include_str!(
            "../../migrations/statements/store_message.sql"
        ))
        .bind(message.id)
        .bind(&*asker.topic)
        .bind(message.event)
        .bind(text)
        .bind(bytes)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    pub fn doubts(&self) -> broadcast::Receiver<Doubt> {
        self.doubts.subscribe()
    }

    /// Rights may not hold any more.
    pub fn doubt(&self, doubt: Doubt) {
        // Nobody has a private channel: nobody listens.
        let _ = self.doubts.send(doubt);
    }
}

impl Doubt {
    /// By the changed rows of tables that the policies read.
    pub fn about<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Doubt {
        let mut names = HashSet::new();
        for change in changes {
            let before = names.len();
            let mut known = false;
            for value in change.values() {
                let name = match serde_json::from_str::<String>(value) {
                    Ok(text) => text.into_boxed_str(),
                    Err(_) => value.into(),
                };
                if !matches!(&*name, "" | "null" | "true" | "false") {
                    known |= names.contains(&name);
                    names.insert(name);
                }
            }
            // A TRUNCATE names nobody, nor does a row whose flags have changed.
            if names.len() == before && !known {
                return Doubt::Everybody;
            }
        }
        Doubt::Named(Arc::new(names))
    }
}

/// A row of `realtime.messages` as a broadcast, and where it goes. None if it cannot be sent.
pub(crate) fn stored(change: &Change) -> Option<(TopicKey, Stored)> {
    let row = change.new.as_ref()?;
    let text = |column: &str| serde_json::from_str::<Option<String>>(row.value(column)?).ok()?;
    let key = TopicKey {
        private: row.value("private")? == "true",
        sub_topic: text("topic")?.into(),
    };
    let (encoding, payload) = match row.value("payload") {
        Some(payload) if payload != "null" => (Encoding::Json, payload.as_bytes().to_vec()),
        _ => (
            Encoding::Binary,
            decode_hex(text("binary_payload")?.strip_prefix("\\x")?)?,
        ),
    };
    let stored = Stored {
        xid: change.xid,
        id: text("id")?.into(),
        event: text("event")?.into(),
        encoding,
        payload: payload.into(),
    };
    Some((key, stored))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_whole_or_not_at_all() {
        assert_eq!(decode_hex("00ff5c"), Some(vec![0, 255, 0x5c]));
        assert_eq!(decode_hex(""), Some(vec![]));
        assert_eq!(decode_hex("0"), None);
        assert_eq!(decode_hex("zz"), None);
    }
}
