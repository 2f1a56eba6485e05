//! Reads the change log by snapshots.

use std::{future::Future, time::Duration};

use futures::TryStreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{
    Client, Row, Statement,
    types::{FromSql, ToSql},
};

use super::{
    Batch, Error,
    change::{Change, Operation, Record},
    snapshot::Snapshot,
};
use crate::metrics::names;

/// Where the feed is: everything that `seen` sees has been handed on.
#[derive(Debug)]
pub(super) struct Position {
    database: String,
    seen: Snapshot,
    /// While a read is under way: what its snapshot sees has been handed on as far as it has reached, too. A read that breaks
    /// half-way is repeated from `seen`, and leaves out what these cover.
    partial: Vec<Partial>,
}

#[derive(Debug)]
struct Partial {
    snapshot: Snapshot,
    /// Place and sequence number: the order of a read.
    reached: (i64, i64),
}

impl Position {
    fn has_handed_on(&self, xid: u64, here: (i64, i64)) -> bool {
        self.partial
            .iter()
            .any(|partial| here <= partial.reached && partial.snapshot.sees(xid))
    }
}

/// A batch is handed on when it has this many changes or bytes, also if the read has not ended: after an outage the
/// log may hold more than fits into memory.
const BATCH_CHANGES: usize = 512;
const BATCH_BYTES: usize = 4 << 20;

pub(super) struct Reader {
    client: Client,
    read: Statement,
    answer_timeout: Duration,
}

impl Reader {
    /// `position` is set on the first connection, and kept on later ones.
    pub(super) async fn open(
        client: Client,
        position: &mut Option<Position>,
        answer_timeout: Duration,
    ) -> Result<Reader, Error> {
        let prepare = async {
            // A parameter's selectivity is unknown to the planner, which could make it scan the whole log.
            client
                .batch_execute("set enable_seqscan = off; set jit = off; set plan_cache_mode = force_generic_plan; listen tidings")
                .await?;
            let read = client
                .prepare("select * from tidings.read($1::text::pg_snapshot)")
                .await?;
            let here = client
                .query_one(
                    "select tidings.identity(), pg_current_snapshot()::text",
                    &[],
                )
                .await?;
            Ok::<_, tokio_postgres::Error>((read, here))
        };
        let (read, here) = within(answer_timeout, prepare)
            .await?
            .map_err(Error::Prepare)?;
        let (database, now): (String, String) = (here.get(0), here.get(1));
        let now =
            Snapshot::parse(&now).ok_or_else(|| Error::Unexpected(format!("snapshot {now}")))?;
        match position {
            Some(position) if position.database == database => {}
            Some(position) => {
                tracing::error!(
                    before = position.database,
                    now = database,
                    "this is another database than before; changes that the old one committed since the last read are not delivered"
                );
                metrics::counter!(names::FEED_RESETS).increment(1);
                *position = Position {
                    database,
                    seen: now,
                    partial: Vec::new(),
                };
            }
            None => {
                *position = Some(Position {
                    database,
                    seen: now,
                    partial: Vec::new(),
                })
            }
        }
        Ok(Reader {
            client,
            read,
            answer_timeout,
        })
    }

    /// Hands on everything that has been committed since the last read. Returns how many changes that were.
    pub(super) async fn read(
        &mut self,
        position: &mut Option<Position>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<u64, Error> {
        let Some(position) = position else {
            return Err(Error::Unexpected("no position".into()));
        };
        let resumed = !position.partial.is_empty();
        let since = position.seen.to_string();
        let parameters: [&(dyn ToSql + Sync); 1] = [&since];
        let rows = self.client.query_raw(&self.read, parameters);
        let rows = within(self.answer_timeout, rows)
            .await?
            .map_err(Error::Read)?;
        let mut rows = std::pin::pin!(rows);

        let first = within(self.answer_timeout, rows.try_next())
            .await?
            .map_err(Error::Read)?;
        let snapshot = first
            .as_ref()
            .and_then(|row| Snapshot::parse(row.try_get::<_, Option<&str>>(0).ok()??));
        let Some(snapshot) = snapshot else {
            return Err(Error::Unexpected("a read without a snapshot".into()));
        };

        let (mut batch, mut bytes, mut count) = (Vec::new(), 0, 0);
        while let Some(row) = within(self.answer_timeout, rows.try_next())
            .await?
            .map_err(Error::Read)?
        {
            let (here, xid) = ((column(&row, 1)?, column(&row, 2)?), parse_xid(&row)?);
            if position.has_handed_on(xid, here) {
                continue;
            }
            let change = parse_change(&row, xid)?;
            bytes += change.size();
            batch.push(change);
            count += 1;
            if batch.len() == BATCH_CHANGES || bytes >= BATCH_BYTES {
                hand_on(batches, std::mem::take(&mut batch), true).await?;
                bytes = 0;
                let reached = Partial {
                    snapshot: snapshot.clone(),
                    reached: here,
                };
                // Reads that broke earlier have handed on more than this one by now.
                match position.partial.last_mut() {
                    Some(last) if last.snapshot == snapshot => *last = reached,
                    _ => position.partial.push(reached),
                }
            }
        }
        // Also an empty one, when there was one before: it says that the read is over.
        if count > 0 || resumed {
            hand_on(batches, batch, false).await?;
        }
        position.seen = snapshot;
        position.partial.clear();
        Ok(count)
    }
}

/// Waits as long as the readers of the changes need: the log is the queue.
async fn hand_on(
    batches: &mpsc::Sender<Batch>,
    changes: Vec<Change>,
    more: bool,
) -> Result<(), Error> {
    metrics::counter!(names::CHANGE_BATCHES).increment(1);
    if let Some(newest) = changes.last() {
        metrics::histogram!(names::FEED_LAG).record(newest.age.max(0.0));
    }
    batches
        .send(Batch { changes, more })
        .await
        .map_err(|_| Error::Abandoned)
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Error::TimedOut(limit))
}

/// A column of `tidings.read`. That it has another type means that another version of it is installed.
fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Error> {
    row.try_get(index)
        .map_err(|error| Error::Unexpected(format!("{error}: run tidings migrate")))
}

fn parse_xid(row: &Row) -> Result<u64, Error> {
    let text: &str = column(row, 3)?;
    text.parse()
        .map_err(|_| Error::Unexpected(format!("transaction {text}")))
}

fn parse_change(row: &Row, xid: u64) -> Result<Change, Error> {
    let operation = match column::<i8>(row, 5)? as u8 {
        b'I' => Operation::Insert,
        b'U' => Operation::Update,
        b'D' => Operation::Delete,
        b'T' => Operation::Truncate,
        b'C' => Operation::Control,
        other => return Err(Error::Unexpected(format!("operation {other}"))),
    };
    let record = |index| {
        let Some(JsonText(text)) = column::<Option<JsonText>>(row, index)? else {
            return Ok(None);
        };
        Record::parse(text).map(Some).map_err(|error| {
            Error::Unexpected(format!("a record that is not a JSON object: {error}"))
        })
    };
    Ok(Change {
        sequence: column(row, 2)?,
        xid,
        table: column(row, 4)?,
        operation,
        committed_at: column::<&str>(row, 6)?.into(),
        age: column(row, 7)?,
        new: record(8)?,
        old: record(9)?,
    })
}

/// The text of a `json` column, as it is.
struct JsonText(Box<str>);

impl<'a> tokio_postgres::types::FromSql<'a> for JsonText {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<JsonText, Box<dyn std::error::Error + Sync + Send>> {
        Ok(JsonText(std::str::from_utf8(raw)?.into()))
    }

    fn accepts(ty: &tokio_postgres::types::Type) -> bool {
        *ty == tokio_postgres::types::Type::JSON
    }
}
