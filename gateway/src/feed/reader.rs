//! Reads the change log by snapshots.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::TryStreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{
    Client, Row, Statement,
    types::{FromSql, Json, ToSql},
};

use super::{
    Batch, Delivery, Error, JsonText, Loss,
    change::{Change, Operation, Record},
    mark::Mark,
    snapshot::Snapshot,
    source::{Crash, Source, Stem, Timeline},
};
use crate::metrics::names;

const READ: &str = include_str!("../../../migrations/statements/read.sql");

/// One read of the log. What it brings is handed on in batches, and the last of its changes completes it.
pub struct Read {
    pub source: Arc<Source>,
    /// What had been handed on before it.
    before: Mark,
    snapshot: Arc<Snapshot>,
    /// The place of the write-ahead log by which all that it brings had been written.
    pub written: u64,
    /// Changes of transactions up to this one may have been removed from the log.
    pub emptied: u64,
    stem: OnceLock<Stem>,
}

impl Read {
    pub fn new(
        source: Arc<Source>,
        before: Mark,
        snapshot: Arc<Snapshot>,
        written: u64,
        emptied: u64,
    ) -> Read {
        Read {
            source,
            before,
            snapshot,
            written,
            emptied,
            stem: OnceLock::new(),
        }
    }

    /// What has been handed on when it has reached this change.
    pub fn mark(&self, sequence: i64) -> Mark {
        self.before.and_of(&self.snapshot, sequence)
    }

    /// What has been handed on when it is complete.
    pub fn end(&self) -> Mark {
        Mark::at(self.snapshot.clone())
    }

    /// [`Read::mark`], for a client.
    pub fn cursor(&self, sequence: i64) -> String {
        let stem = self
            .stem
            .get_or_init(|| self.source.stem(self.mark(0).parts(), self.written));
        stem.cursor(sequence)
    }
}

/// Where the feed is: everything that `seen` sees has been handed on.
pub(super) struct Position {
    source: Arc<Source>,
    seen: Arc<Snapshot>,
    /// The one before it. Between the moment of a read's snapshot and its scan a slot may be emptied, of which only the next
    /// read learns.
    seen_before: Arc<Snapshot>,
    written: u64,
    emptied: u64,
    /// The highest transaction of which changes have been handed on.
    highest: u64,
    /// While a read is under way: what its snapshot sees has been handed on as far as it has reached, too. A read that breaks
    /// half-way is repeated from `seen`, and leaves out what these cover.
    partial: Vec<Partial>,
}

#[derive(Debug)]
struct Partial {
    snapshot: Arc<Snapshot>,
    /// Place and sequence number: the order of a read.
    reached: (i64, i64),
}

impl Partial {
    /// The sequence number that it has reached among changes. Control rows come before all of them.
    fn sequence(&self) -> i64 {
        self.reached.0
    }
}

impl Position {
    fn has_handed_on(&self, xid: u64, here: (i64, i64)) -> bool {
        self.partial
            .iter()
            .any(|partial| here <= partial.reached && partial.snapshot.sees(xid))
    }

    /// Forgets what it knows of transaction numbers that a crash has set free. False if that is not known, or if changes have been
    /// handed on that are forgotten.
    fn survive(&mut self, now: &Source) -> bool {
        let Some(reused) = now.reused_since(self.source.crash()) else {
            return false;
        };
        if self.highest >= reused {
            return false;
        }
        if self.seen.xmax() > reused {
            self.seen = Arc::new(self.seen.before(reused));
            self.seen_before = Arc::new(self.seen_before.before(reused));
            for partial in &mut self.partial {
                partial.snapshot = Arc::new(partial.snapshot.before(reused));
            }
        }
        true
    }

    /// Whether changes of transactions up to `emptied`, gone from the log by `now`, may not have been handed on. What still ran
    /// then is not among them: a slot is not emptied under a transaction that has written to it.
    fn may_have_lost(&self, emptied: u64, now: &Snapshot) -> bool {
        let before = &self.seen_before;
        emptied >= before.xmax()
            || before
                .running()
                .iter()
                .any(|xid| *xid <= emptied && now.sees(*xid))
    }

    /// What had been handed on before a read with this snapshot.
    fn mark(&self, reading: &Arc<Snapshot>) -> Mark {
        self.partial
            .iter()
            .filter(|partial| partial.snapshot != *reading)
            .fold(Mark::at(self.seen.clone()), |mark, partial| {
                mark.and_of(&partial.snapshot, partial.sequence())
            })
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

/// What a read has brought.
pub(super) struct Progress {
    pub(super) changes: u64,
    pub(super) transactions: u64,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Reader {
    /// For other questions between reads.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// `position` is set on the first connection, and kept on later ones. Where that cannot be, the loss is reported.
    pub(super) async fn open(
        client: Client,
        position: &mut Option<Position>,
        answer_timeout: Duration,
    ) -> Result<(Reader, Option<Loss>), Error> {
        let prepare = async {
            // A parameter's selectivity is unknown to the planner, which could make it scan the whole log.
            client
                .batch_execute("set enable_seqscan = off; set jit = off; set plan_cache_mode = force_generic_plan; listen tidings")
                .await?;
            let read = client.prepare(READ).await?;
            let here = client
                .query_one("select * from tidings.begin_reading()", &[])
                .await?;
            Ok::<_, tokio_postgres::Error>((read, here))
        };
        let (read, here) = within(answer_timeout, prepare)
            .await?
            .map_err(Error::Prepare)?;
        let mut source = parse_source(&here)?;
        let (emptied, now): (&str, &str) = (column(&here, 4)?, column(&here, 5)?);
        let now = parse_snapshot(now)?;

        let mut loss = None;
        if let Some(before) = position {
            if before.source.identity() != source.identity() {
                loss = Some(Loss::Foreign);
            } else if !source.has(before.source.timeline(), before.written) {
                // Cursors tell by their timeline what is lost to them.
                loss = Some(Loss::Rewound);
            } else if !before.survive(&source) || !now.includes(&before.seen) {
                // No timeline tells: a crash lost what had been committed without waiting for the disk, or the disk was set back.
                loss = Some(Loss::Rewound);
                let anew = async {
                    begin_anew(&client, &source).await?;
                    client
                        .query_one("select * from tidings.begin_reading()", &[])
                        .await
                };
                let here = within(answer_timeout, anew).await?;
                source = parse_source(&here.map_err(Error::Prepare)?)?;
            }
        }
        let source = Arc::new(source);
        match position {
            Some(position) if loss.is_none() => position.source = source,
            position => {
                let now = Arc::new(now);
                *position = Some(Position {
                    source,
                    seen: now.clone(),
                    seen_before: now,
                    written: 0,
                    emptied: emptied.parse().unwrap_or(0),
                    highest: 0,
                    partial: Vec::new(),
                });
            }
        }
        let reader = Reader {
            client,
            read,
            answer_timeout,
        };
        Ok((reader, loss))
    }

    /// Hands on everything that has been committed since the last read; a batch without changes, too, if `tell`.
    pub(super) async fn read(
        &mut self,
        position: &mut Option<Position>,
        batches: &mpsc::Sender<Delivery>,
        tell: bool,
    ) -> Result<Progress, Error> {
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
        let Some(first) = first else {
            return Err(Error::Unexpected("a read without a snapshot".into()));
        };
        let snapshot = Arc::new(parse_snapshot(
            column::<Option<&str>>(&first, 2)?.unwrap_or_default(),
        )?);
        let (written, emptied) = (parse_number(&first, 0)?, parse_number(&first, 1)?);
        if !snapshot.includes(&position.seen) {
            let anew = begin_anew(&self.client, &position.source);
            within(self.answer_timeout, anew)
                .await?
                .map_err(Error::Read)?;
            return Err(Error::Rewound);
        }
        if emptied > position.emptied && position.may_have_lost(emptied, &snapshot) {
            return Err(Error::Truncated {
                emptied,
                unread: position.seen_before.xmin(),
            });
        }
        let read = Arc::new(Read::new(
            position.source.clone(),
            position.mark(&snapshot),
            snapshot.clone(),
            written,
            emptied,
        ));

        let (mut batch, mut bytes) = (Vec::new(), 0);
        let (mut changes, mut transactions) = (0, BTreeSet::new());
        while let Some(row) = within(self.answer_timeout, rows.try_next())
            .await?
            .map_err(Error::Read)?
        {
            let (here, xid) = ((column(&row, 3)?, column(&row, 4)?), parse_number(&row, 5)?);
            if position.has_handed_on(xid, here) {
                continue;
            }
            let change = Arc::new(parse_change(&row, xid)?);
            bytes += change.size();
            batch.push(change);
            changes += 1;
            position.highest = position.highest.max(xid);
            transactions.insert(xid);
            if batch.len() == BATCH_CHANGES || bytes >= BATCH_BYTES {
                hand_on(batches, &read, std::mem::take(&mut batch), true).await?;
                bytes = 0;
                position.written = written;
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
        if changes > 0 || resumed || tell {
            hand_on(batches, &read, batch, false).await?;
        }
        position.seen_before = std::mem::replace(&mut position.seen, snapshot.clone());
        position.written = written;
        position.emptied = emptied;
        position.partial.clear();
        Ok(Progress {
            changes,
            transactions: transactions.len() as u64,
            snapshot,
        })
    }
}

/// Makes a new beginning, unless another gateway has made it.
async fn begin_anew(client: &Client, source: &Source) -> Result<(), tokio_postgres::Error> {
    let known = source.identity();
    client
        .query_one("select tidings.begin_anew($1)", &[&known])
        .await
        .map(drop)
}

fn parse_source(row: &Row) -> Result<Source, Error> {
    let timelines: Json<Vec<Timeline>> = column(row, 3)?;
    let crashes: Json<Vec<Crash>> = column(row, 6)?;
    let timeline: i32 = column(row, 2)?;
    Ok(Source::new(
        column(row, 0)?,
        column(row, 1)?,
        timeline as u32,
        timelines.0,
        crashes.0,
    ))
}

fn parse_snapshot(text: &str) -> Result<Snapshot, Error> {
    Snapshot::parse(text).ok_or_else(|| Error::Unexpected(format!("snapshot `{text}`")))
}

/// Waits as long as the readers of the changes need: the log is the queue.
async fn hand_on(
    batches: &mpsc::Sender<Delivery>,
    read: &Arc<Read>,
    changes: Vec<Arc<Change>>,
    more: bool,
) -> Result<(), Error> {
    if let Some(newest) = changes.last() {
        metrics::counter!(names::CHANGE_BATCHES).increment(1);
        metrics::histogram!(names::FEED_LAG).record(newest.age.max(0.0));
    }
    batches
        .send(Delivery::Batch(Batch {
            read: read.clone(),
            changes,
            more,
        }))
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

fn parse_number(row: &Row, index: usize) -> Result<u64, Error> {
    let text: &str = column(row, index)?;
    text.parse()
        .map_err(|_| Error::Unexpected(format!("number `{text}`")))
}

/// The columns of `tidings.read` from the sequence number on, two columns further right.
fn parse_change(row: &Row, xid: u64) -> Result<Change, Error> {
    let letter = column::<i8>(row, 7)? as u8;
    let operation =
        Operation::parse(letter).ok_or_else(|| Error::Unexpected(format!("operation {letter}")))?;
    let record = |index| {
        let Some(JsonText(text)) = column::<Option<JsonText>>(row, index)? else {
            return Ok(None);
        };
        Record::parse(text).map(Some).map_err(|error| {
            Error::Unexpected(format!("a record that is not a JSON object: {error}"))
        })
    };
    Ok(Change {
        sequence: column(row, 4)?,
        xid,
        table: column(row, 6)?,
        operation,
        committed_at: column::<&str>(row, 8)?.into(),
        age: column(row, 9)?,
        new: record(10)?,
        old: record(11)?,
    })
}
