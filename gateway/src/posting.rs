//! Inserts on behalf of somebody: in one transaction, as that principal, so that row-level security decides.

use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgDatabaseError, PgPool, PgTypeInfo, Postgres};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Encode, Transaction, Type};

use crate::auth::Principal;

/// Beside the statement's own limit: to get a connection, and for a database that has vanished.
const SLACK: Duration = Duration::from_secs(6);

/// $4: the columns to answer with. What [`Returning::Columns`] adds relies on the name `inserted` that the statement gives the
/// new row. It reads these columns and no other, so that a right to SELECT them is enough.
const STATEMENT: &str = "
    select tidings.insert_statement($1::oid::regclass, $2, $3)
        || coalesce(
            ' returning (select pg_catalog.row_to_json(picked) from (select '
            || (select string_agg('inserted.' || quote_ident(name), ', ' order by place)
                  from unnest($4::text[]) with ordinality as selected (name, place))
            || ') as picked)',
            '')";

/// One row to insert: the JSON object as it came, and which of its keys are columns to write. Columns that are not named
/// get their default; named ones that the object lacks get null.
pub struct NewRow<'a> {
    pub columns: Vec<String>,
    pub json: &'a RawValue,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL's own words, about the caller's rights or data.
    #[error("the database refused it: {message}")]
    Refused {
        /// The five characters of the SQLSTATE.
        code: String,
        message: String,
        details: Option<String>,
        hint: Option<String>,
    },
    #[error("the role of the token cannot be used here")]
    Role(#[source] sqlx::Error),
    #[error("the role of the token is a superuser, which no token may name")]
    Superuser,
    #[error("no database connection became free in time: try again")]
    Busy,
    #[error("the database took too long: try again with less, or raise statement_timeout")]
    Slow,
    #[error("the database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    #[error("the database failed")]
    Internal(#[source] sqlx::Error),
}

/// Inserts all rows or none, and returns them as they are stored if `returning`; without that, no right to read is needed.
pub async fn insert(
    pool: &PgPool,
    principal: &Principal,
    table: u32,
    rows: &[NewRow<'_>],
    returning: bool,
    statement_timeout: Duration,
) -> Result<Vec<Box<RawValue>>, Error> {
    let returning = match returning {
        true => Returning::Row,
        false => Returning::Nothing,
    };
    let work = insert_in_time(pool, principal, table, rows, returning, statement_timeout);
    tokio::time::timeout(statement_timeout + SLACK, work)
        .await
        .unwrap_or(Err(Error::Slow))
}

/// The same, returning only `selected`, which are names of columns and at least one; only these need a right to be read.
pub(crate) async fn insert_selecting(
    pool: &PgPool,
    principal: &Principal,
    table: u32,
    rows: &[NewRow<'_>],
    selected: &[String],
    statement_timeout: Duration,
) -> Result<Vec<Box<RawValue>>, Error> {
    let returning = Returning::Columns(selected);
    let work = insert_in_time(pool, principal, table, rows, returning, statement_timeout);
    tokio::time::timeout(statement_timeout + SLACK, work)
        .await
        .unwrap_or(Err(Error::Slow))
}

/// What of the stored rows is read back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Returning<'a> {
    Nothing,
    Row,
    Columns(&'a [String]),
}

async fn insert_in_time(
    pool: &PgPool,
    principal: &Principal,
    table: u32,
    rows: &[NewRow<'_>],
    returning: Returning<'_>,
    statement_timeout: Duration,
) -> Result<Vec<Box<RawValue>>, Error> {
    let selected: &[String] = match returning {
        Returning::Columns(selected) => selected,
        Returning::Nothing | Returning::Row => &[],
    };
    let begun = tokio::time::Instant::now();
    let mut transaction = pool.begin().await?;

    // Before becoming the principal: making the statement takes the gateway's own rights.
    let mut statements: Vec<String> = Vec::with_capacity(rows.len().min(16));
    let mut row_statements = Vec::with_capacity(rows.len());
    let mut shapes: Vec<&[String]> = Vec::new();
    for row in rows {
        let known = shapes.iter().position(|shape| *shape == row.columns);
        let index = match known {
            Some(index) => index,
            None => {
                let statement: String = sqlx::query_scalar(STATEMENT)
                    .bind(Oid(table))
                    .bind(&row.columns)
                    .bind(returning == Returning::Row)
                    .bind(selected)
                    .fetch_one(&mut *transaction)
                    .await?;
                statements.push(statement);
                shapes.push(&row.columns);
                statements.len() - 1
            }
        };
        row_statements.push(index);
    }

    become_principal(&mut transaction, principal).await?;

    let mut stored = Vec::new();
    for (row, index) in rows.iter().zip(row_statements) {
        // Each statement has its own limit; this is for all of them.
        if begun.elapsed() > statement_timeout {
            return Err(Error::Slow);
        }
        let statement = AssertSqlSafe(statements[index].clone());
        let arguments = !row.columns.is_empty();
        if returning != Returning::Nothing {
            let query = sqlx::query_scalar::<_, Json<Box<RawValue>>>(statement);
            let query = match arguments {
                true => query.bind(JsonText(row.json.get())),
                false => query,
            };
            // A trigger may have swallowed the row.
            if let Some(Json(row)) = query.fetch_optional(&mut *transaction).await? {
                stored.push(row);
            }
        } else {
            let query = sqlx::query(statement);
            let query = match arguments {
                true => query.bind(JsonText(row.json.get())),
                false => query,
            };
            query.execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(stored)
}

/// A transaction that is that principal until it ends, for statements whose rows row-level security chooses.
pub(crate) async fn begin_as(
    pool: &PgPool,
    principal: &Principal,
) -> Result<Transaction<'static, Postgres>, Error> {
    let mut transaction = pool.begin().await?;
    become_principal(&mut transaction, principal).await?;
    Ok(transaction)
}

pub(crate) async fn become_principal(
    transaction: &mut Transaction<'static, Postgres>,
    principal: &Principal,
) -> Result<(), Error> {
    let become_local = include_str!("../../migrations/statements/become_local.sql");
    let became = sqlx::query(become_local)
        .bind(&*principal.role)
        .bind(&*principal.claims)
        .bind(&*principal.subject)
        .execute(&mut **transaction)
        .await
        .map_err(|error| match &error {
            // There is no such role, or the gateway's login may not become it.
            sqlx::Error::Database(refused)
                if matches!(refused.code().as_deref(), Some("22023" | "42501")) =>
            {
                Error::Role(error)
            }
            _ => Error::from(error),
        })?;
    match became.rows_affected() {
        1 => Ok(()),
        _ => Err(Error::Superuser),
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        let refused = match &error {
            sqlx::Error::Database(refused) => refused.try_downcast_ref::<PgDatabaseError>(),
            sqlx::Error::PoolTimedOut => return Error::Busy,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed => {
                return Error::Unreachable(error);
            }
            _ => None,
        };
        let Some(refused) = refused else {
            return Error::Internal(error);
        };
        match refused.code() {
            "57014" => Error::Slow,
            code if is_callers_affair(code) => Error::Refused {
                code: code.to_owned(),
                message: refused.message().to_owned(),
                details: refused.detail().map(str::to_owned),
                hint: refused.hint().map(str::to_owned),
            },
            // Connection failures, resources used up, shutting down, read-only while failing over.
            code if ["08", "53", "57"].contains(&&code[..2]) || code == "25006" => {
                Error::Unreachable(error)
            }
            // Serialization failures and deadlocks, a lock that was not to be had.
            code if code.starts_with("40") || code == "55P03" => Error::Busy,
            _ => Error::Internal(error),
        }
    }
}

/// Classes of errors that what was sent, or who sent it, brings about. PostgreSQL's message on any other would tell
/// strangers about the inside.
fn is_callers_affair(code: &str) -> bool {
    // Data exceptions, constraints, what a trigger raises by itself.
    ["22", "23", "P0"]
        .iter()
        .any(|class| code.starts_with(class))
        || matches!(
            code,
            // No privilege or policy; no such column; not that type; a generated column; too large.
            "42501" | "42703" | "42804" | "428C9" | "54000" | "54001" | "42P01"
        )
}

/// Text that is sent as a value of type json, byte for byte.
struct JsonText<'a>(&'a str);

impl Type<Postgres> for JsonText<'_> {
    fn type_info() -> PgTypeInfo {
        // json; its number is the same in every PostgreSQL.
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl Encode<'_, Postgres> for JsonText<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}
