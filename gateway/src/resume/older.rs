//! Reads the log again for subscriptions that have missed more than the hub remembers.
//!
//! Clients come back together, so they share a pass over the log: whoever waits for changes of the same table, found by the same
//! column, and has been away about as long. Somebody who has been away for a day does not make others wait for a day's changes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt;
use protocol::resume::ResumeError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::types::ToSql;

use super::{Error, is_gone};
use crate::{
    catalog::TableId,
    database,
    feed::{
        JsonText,
        change::{Change, Operation, Record},
        mark::Mark,
        snapshot::Snapshot,
    },
    hub::Older,
    lifecycle::Lifecycle,
    metrics::names,
};

/// Passes under way at once, each with a connection of its own.
const PASSES: usize = 2;
/// Requests that may wait; more wait in their own tasks.
const WAITING: usize = 4096;
/// What one request gets in one pass.
const PAGE_CHANGES: usize = 2048;
const PAGE_BYTES: usize = 4 << 20;
/// What all requests of a pass get together.
const PASS_BYTES: usize = 64 << 20;
/// Transactions that make no difference to who shares a pass.
const NEAR: u64 = 10_000;
/// How long the database may take for one pass, and for each part of it.
const PASS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request waits for its turn and its pass.
const PATIENCE: Duration = Duration::from_secs(180);

/// Rows of one pass.
const PASS_ROWS: i64 = 50_000;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const REREAD: &str =
    "select * from tidings.reread($1::text::pg_snapshot, $2::text::xid8, $3, $4, $5, $6, $7)";
const EMPTIED: &str =
    "select emptied::text, pg_catalog.pg_current_snapshot()::text from tidings.horizon";

pub(super) struct Log {
    requests: mpsc::Sender<Request>,
}

struct Request {
    older: Older,
    /// What the hub remembers begins here.
    until: Mark,
    /// Only what comes after this sequence number.
    past: i64,
    answer: oneshot::Sender<Result<Page, Error>>,
}

struct Page {
    changes: Vec<Arc<Change>>,
    /// There may be more after this sequence number.
    more_after: Option<i64>,
}

/// What one request has been given, page by page.
pub(super) struct Pages<'a> {
    log: &'a Log,
    older: Older,
    until: Mark,
    /// None when there is no more.
    past: Option<i64>,
    page: VecDeque<Arc<Change>>,
}

impl Log {
    pub(super) fn start(database: database::Target, lifecycle: &Lifecycle) -> Log {
        let (requests, waiting) = mpsc::channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..PASSES {
            let passes = Passes {
                database: database.clone(),
                requests: waiting.clone(),
                client: None,
            };
            lifecycle.spawn_critical("reader of the log for those who were away", passes.run());
        }
        Log { requests }
    }

    pub(super) fn pages(&self, older: Older, until: Mark) -> Pages<'_> {
        Pages {
            log: self,
            older,
            until,
            past: Some(0),
            page: VecDeque::new(),
        }
    }
}

impl Pages<'_> {
    /// Fetches the next page if there is none.
    pub(super) async fn fill(&mut self) -> Result<(), Error> {
        while self.page.is_empty()
            && let Some(past) = self.past
        {
            let page = self.fetch(past).await?;
            self.past = page.more_after;
            self.page = page.changes.into();
        }
        Ok(())
    }

    /// Whether the next change is known, or that there is none.
    pub(super) fn is_filled(&self) -> bool {
        !self.page.is_empty() || self.past.is_none()
    }

    /// The next change.
    pub(super) fn peek(&self) -> Option<&Arc<Change>> {
        self.page.front()
    }

    /// Goes beyond this change, if it is the next one.
    pub(super) fn skip(&mut self, sequence: i64) {
        if self
            .peek()
            .is_some_and(|change| change.sequence == sequence)
        {
            self.page.pop_front();
        }
    }

    async fn fetch(&self, past: i64) -> Result<Page, Error> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            older: self.older.clone(),
            until: self.until.clone(),
            past,
            answer,
        };
        let asked = async {
            self.log
                .requests
                .send(request)
                .await
                .map_err(|_| Error::Unavailable(None))?;
            answered.await.map_err(|_| Error::Unavailable(None))?
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|late| Err(Error::Unavailable(Some(late.into()))))
    }
}

struct Passes {
    database: database::Target,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    client: Option<tokio_postgres::Client>,
}

impl Passes {
    async fn run(mut self) {
        let mut waiting: Vec<Request> = Vec::new();
        for turn in 0_u64.. {
            let room = WAITING - waiting.len().min(WAITING - 1);
            if waiting.is_empty() {
                if self
                    .requests
                    .lock()
                    .await
                    .recv_many(&mut waiting, room)
                    .await
                    == 0
                {
                    return;
                }
            } else if let Ok(mut requests) = self.requests.try_lock() {
                while waiting.len() < WAITING
                    && let Ok(request) = requests.try_recv()
                {
                    waiting.push(request);
                }
            }
            // Whoever has gone meanwhile waits for nothing.
            waiting.retain(|request| !request.answer.is_closed());
            let mut groups = alike(std::mem::take(&mut waiting));
            // Those who were away for a short time come first, but not for ever.
            let next = match turn % 4 {
                3 => groups.len().checked_sub(1),
                _ => (!groups.is_empty()).then_some(0),
            };
            let Some(group) = next.map(|next| groups.swap_remove(next)) else {
                continue;
            };
            waiting.extend(groups.into_iter().flatten());

            metrics::counter!(names::LOG_PASSES).increment(1);
            let mut pass = Pass::new(group);
            let done = tokio::time::timeout(PASS_TIMEOUT * 2, self.pass(&mut pass)).await;
            let failed = match done {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(late) => late.into(),
            };
            // The next pass connects anew.
            self.client = None;
            tracing::warn!(
                error = &*failed as &dyn std::error::Error,
                "the log could not be read for those who were away; they will come again"
            );
            pass.fail();
        }
    }

    async fn pass(&mut self, pass: &mut Pass) -> Result<(), BoxError> {
        let mut complete = true;
        {
            let client = self.connected().await?;
            let parameters: [&(dyn ToSql + Sync); 7] = [
                &pass.since,
                &pass.upto,
                &pass.past,
                &pass.table,
                &pass.column,
                &pass.values,
                &PASS_ROWS,
            ];
            let rows = client.query_raw(REREAD, parameters).await?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await? {
                if pass.take(parse(&row, pass.table)?) {
                    complete = false;
                    break;
                }
            }
        }
        if !complete {
            // Rows that nobody takes are still on their way.
            self.client = None;
        }
        // After the scan: what was emptied during it has been noted by now.
        let row = self.connected().await?.query_one(EMPTIED, &[]).await?;
        let (emptied, now): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let now = Mark::at(Arc::new(Snapshot::parse(now).ok_or("no snapshot")?));
        pass.finish(complete && pass.rows < PASS_ROWS, emptied.parse()?, &now);
        Ok(())
    }

    async fn connected(&mut self) -> Result<&tokio_postgres::Client, BoxError> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let (client, connection) = self.database.connect().await?;
                // It ends with the client.
                tokio::spawn(connection);
                client
                    .batch_execute(&format!(
                        "set enable_seqscan = off; set jit = off; set statement_timeout = {}",
                        PASS_TIMEOUT.as_millis()
                    ))
                    .await?;
                client
            }
        };
        Ok(self.client.insert(client))
    }
}

fn parse(row: &tokio_postgres::Row, table: TableId) -> Result<Change, BoxError> {
    let record = |index| {
        let text: Option<JsonText> = row.try_get(index)?;
        text.map(|JsonText(text)| Record::parse(text))
            .transpose()
            .map_err(BoxError::from)
    };
    let operation: i8 = row.try_get(2)?;
    Ok(Change {
        sequence: row.try_get(0)?,
        xid: row.try_get::<_, &str>(1)?.parse()?,
        table,
        operation: Operation::parse(operation as u8)
            .ok_or("an operation that this version does not know")?,
        committed_at: row.try_get::<_, &str>(3)?.into(),
        age: 0.0,
        new: record(4)?,
        old: record(5)?,
    })
}

/// Requests that share a pass, those who were away for the shortest time first.
fn alike(requests: Vec<Request>) -> Vec<Vec<Request>> {
    let mut kinds: HashMap<(TableId, Option<Box<str>>), Vec<Request>> = HashMap::new();
    for request in requests {
        let column = request.older.key.as_ref().map(|(column, _)| column.clone());
        kinds
            .entry((request.older.table, column))
            .or_default()
            .push(request);
    }
    let away = |request: &Request| {
        let from = request.older.since.whole().map_or(0, |seen| seen.xmax());
        request.until.end().saturating_sub(from)
    };
    let mut groups: Vec<Vec<Request>> = Vec::new();
    for (_, mut kind) in kinds {
        kind.sort_by_key(away);
        let mut shortest = None;
        for request in kind {
            match (shortest, groups.last_mut()) {
                (Some(shortest), Some(group))
                    if away(&request) <= 4_u64.saturating_mul(shortest).max(NEAR) =>
                {
                    group.push(request)
                }
                _ => {
                    shortest = Some(away(&request));
                    groups.push(vec![request]);
                }
            }
        }
    }
    groups.sort_by_key(|group| group.first().map_or(0, away));
    groups
}

struct Pass {
    table: TableId,
    since: String,
    upto: String,
    past: i64,
    column: Option<String>,
    values: Vec<String>,
    takers: Vec<Option<Taker>>,
    /// By the value of the column; the empty text where there is none.
    by_value: HashMap<Box<str>, Vec<usize>>,
    bytes: usize,
    rows: i64,
    /// The sequence number of the last row.
    last: i64,
}

struct Taker {
    request: Request,
    changes: Vec<Arc<Change>>,
    bytes: usize,
}

impl Taker {
    fn is_full(&self) -> bool {
        self.changes.len() >= PAGE_CHANGES || self.bytes >= PAGE_BYTES
    }
}

impl Pass {
    fn new(group: Vec<Request>) -> Pass {
        let seen = group
            .iter()
            .filter_map(|request| request.older.since.whole())
            .fold(None, |all: Option<Snapshot>, seen| match all {
                None => Some((**seen).clone()),
                Some(all) => Some(all.common(seen)),
            });
        let mut by_value: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (place, request) in group.iter().enumerate() {
            let value = request.older.key.as_ref().map(|(_, value)| value.clone());
            by_value
                .entry(value.unwrap_or_default())
                .or_default()
                .push(place);
        }
        let first = group.first();
        let key = first.and_then(|request| request.older.key.as_ref());
        Pass {
            table: first.map_or(0, |request| request.older.table),
            since: seen.map_or_else(|| "1:1:".to_owned(), |seen| seen.to_string()),
            upto: group
                .iter()
                .map(|request| request.until.end())
                .max()
                .unwrap_or(0)
                .to_string(),
            past: group.iter().map(|request| request.past).min().unwrap_or(0),
            column: key.map(|(column, _)| column.to_string()),
            values: by_value.keys().map(|value| value.to_string()).collect(),
            takers: group
                .into_iter()
                .map(|request| {
                    Some(Taker {
                        request,
                        changes: Vec::new(),
                        bytes: 0,
                    })
                })
                .collect(),
            by_value,
            bytes: 0,
            rows: 0,
            last: 0,
        }
    }

    /// Gives a change to those who miss it. Returns whether nothing more can be taken.
    fn take(&mut self, change: Change) -> bool {
        let (xid, sequence, size) = (change.xid, change.sequence, change.size());
        let value = match &self.column {
            None => "",
            Some(column) => change
                .image()
                .and_then(|image| image.value(column))
                .unwrap_or_default(),
        };
        let places = self.by_value.get(value).cloned().unwrap_or_default();
        let change = Arc::new(change);
        for place in places {
            let Some(taker) = self.takers[place].as_mut() else {
                continue;
            };
            let Request {
                older, until, past, ..
            } = &taker.request;
            if sequence <= *past
                || older.since.covers(xid, sequence)
                || !until.covers(xid, sequence)
            {
                continue;
            }
            if !taker.is_full() {
                taker.changes.push(change.clone());
                taker.bytes += size;
                self.bytes += size;
            }
        }
        self.rows += 1;
        self.last = sequence;
        self.bytes >= PASS_BYTES || self.takers.iter().flatten().all(Taker::is_full)
    }

    /// Answers everybody. `complete`: no row is left in the log. `emptied`: the newest transaction whose changes may be gone from it.
    fn finish(&mut self, complete: bool, emptied: u64, now: &Mark) {
        for taker in self.takers.iter_mut().filter_map(Option::take) {
            let more_after = match taker.changes.last() {
                Some(last) if taker.is_full() => Some(last.sequence),
                _ if complete => None,
                _ => Some(self.last.max(taker.request.past)),
            };
            let page = if is_gone(&taker.request.older.since, emptied, now) {
                Err(ResumeError::Expired.into())
            } else {
                Ok(Page {
                    changes: taker.changes,
                    more_after,
                })
            };
            // Whoever asked may have gone.
            let _ = taker.request.answer.send(page);
        }
    }

    fn fail(&mut self) {
        for taker in self.takers.iter_mut().filter_map(Option::take) {
            let _ = taker.request.answer.send(Err(Error::Unavailable(None)));
        }
    }
}
