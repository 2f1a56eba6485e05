//! The last rows of a table, as a subscriber may see them now, and the snapshot by which they are so.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use protocol::{Binding, Condition, resume::ResumeError};
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row, postgres::types::Oid, types::Json};
use tokio::sync::Semaphore;

use super::Error;
use crate::{
    auth::Principal,
    catalog::{Table, TableId, Tables},
    feed::{
        change::{Change, Operation, Record},
        mark::Mark,
        snapshot::Snapshot,
    },
    hub::BoundBinding,
    memo::Memo,
    posting,
};

pub(super) struct Histories {
    pool: PgPool,
    /// Rows are fetched over the connections that requests use, and must leave some to them.
    turns: Semaphore,
    /// The database makes them from its catalog, which takes it longer than fetching the rows: all who read a chat share one.
    statements: Memo<Wish, Table, str>,
}

/// All that a statement depends on, beside the table.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Wish {
    table: TableId,
    columns: Vec<String>,
    conditions: Vec<Condition>,
    order: Option<String>,
    rows: u64,
}

/// Rows for one binding, oldest first.
pub(super) struct History {
    pub(super) id: u64,
    pub(super) rows: Vec<Change>,
    /// What comes after them.
    pub(super) start: Mark,
}

const TURNS: usize = 4;
/// Statements that are remembered, and the largest.
const REMEMBERED: usize = 2048;
const LARGEST: usize = 2048;
/// Larger rows make fewer of them.
const MOST_BYTES: usize = 8 << 20;
/// How long a join waits for its turn and its rows.
const PATIENCE: Duration = Duration::from_secs(20);

impl Histories {
    pub(super) fn new(pool: PgPool) -> Histories {
        Histories {
            pool,
            turns: Semaphore::new(TURNS),
            statements: Memo::new(REMEMBERED),
        }
    }

    pub(super) async fn fetch(
        &self,
        tables: &Tables,
        principal: &Arc<Principal>,
        binding: &Binding,
        id: u64,
        bound: &[BoundBinding],
        rows: u64,
    ) -> Result<History, Error> {
        let refused = |text: &str| Error::from(ResumeError::History(text.to_owned()));
        let mut of_this = bound.iter().filter(|binding| binding.id == id);
        let (Some(one), None) = (of_this.next(), of_this.next()) else {
            return Err(refused("`history` needs a binding with one `table`"));
        };
        let table = tables.get(one.table).ok_or(Error::Unavailable(None))?;
        let target = binding
            .target()
            .map_err(|error| refused(&error.to_string()))?;
        let work = async {
            // Never closed.
            let _turn = self.turns.acquire().await;
            let wish = Wish {
                table: one.table,
                columns: one.columns.names().map(str::to_owned).collect(),
                conditions: target.filters,
                order: binding.order.as_text().map(str::to_owned),
                rows,
            };
            let statement = match self.statements.recall(&wish, table) {
                Some(statement) => statement,
                None => self.statement(wish, table).await?,
            };
            let mut transaction = match posting::begin_as(&self.pool, principal).await {
                Ok(transaction) => transaction,
                Err(error) => return Ok(Err(Error::Unavailable(Some(error.into())))),
            };
            let fetched = collect(&mut transaction, &statement, table.id).await;
            // It has written nothing.
            transaction.rollback().await?;
            fetched.map(Ok)
        };
        let (snapshot, rows) = match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(fetched)) => fetched?,
            Ok(Err(error)) => return Err(explained(error)),
            Err(late) => return Err(Error::Unavailable(Some(late.into()))),
        };
        let snapshot = Snapshot::parse(&snapshot).ok_or(Error::Unavailable(None))?;
        Ok(History {
            id,
            rows,
            start: Mark::at(Arc::new(snapshot)),
        })
    }
}

impl Histories {
    async fn statement(&self, wish: Wish, table: &Arc<Table>) -> Result<Arc<str>, sqlx::Error> {
        let conditions = wish.conditions.iter().map(crate::admission::as_json);
        let statement: String = sqlx::query_scalar(
            "select tidings.history_statement($1::oid::regclass, $2, $3::jsonb::json, $4, $5)",
        )
        .bind(Oid(table.oid))
        .bind(&wish.columns)
        .bind(Json(conditions.collect::<Vec<_>>()))
        .bind(&wish.order)
        .bind(wish.rows as i32)
        .fetch_one(&self.pool)
        .await?;
        let statement: Arc<str> = statement.into();
        if statement.len() <= LARGEST {
            self.statements.remember(wish, table, &statement);
        }
        Ok(statement)
    }
}

/// The snapshot, and as many of the rows as fit, oldest first.
async fn collect(
    connection: &mut PgConnection,
    statement: &str,
    table: TableId,
) -> Result<(String, Vec<Change>), sqlx::Error> {
    let mut fetched = sqlx::query(AssertSqlSafe(statement)).fetch(connection);
    let (mut snapshot, mut rows, mut bytes) = (String::new(), Vec::new(), 0);
    while let Some(row) = fetched.try_next().await? {
        snapshot = row.try_get("snapshot")?;
        let (Some(Json(record)), moment): (Option<Json<Box<RawValue>>>, Option<String>) =
            (row.try_get("record")?, row.try_get("moment")?)
        else {
            break;
        };
        let record: Box<str> = record.into();
        bytes += record.len();
        if bytes > MOST_BYTES && !rows.is_empty() {
            break;
        }
        rows.push(Change {
            sequence: 0,
            xid: 0,
            table,
            operation: Operation::Insert,
            committed_at: moment.unwrap_or_default().into(),
            age: 0.0,
            new: Some(Record::parse(record).map_err(|error| sqlx::Error::Decode(error.into()))?),
            old: None,
        });
    }
    rows.reverse();
    Ok((snapshot, rows))
}

/// PostgreSQL's complaint, if it is about what was asked.
fn explained(error: sqlx::Error) -> Error {
    let about = error.as_database_error().and_then(|refused| {
        let code = refused.code()?;
        match &*code {
            "P0001" => Some(refused.message().to_owned()),
            code if code.starts_with("42") => Some(refused.message().to_owned()),
            "57014" => Some("the rows could not be found in time: is there an index on the filter and the order?".to_owned()),
            _ => None,
        }
    });
    match about {
        Some(about) => ResumeError::History(about).into(),
        None => Error::Unavailable(Some(error.into())),
    }
}
