//! The keys of bots as the database keeps them: names, roles and hashes, never a key.

use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::types::Json;

/// More bots than anybody has; beyond, a table that grew by mistake would fill the memory.
const MOST: i64 = 100_000;

/// The table, as the gateway reads it.
#[derive(Clone)]
pub(crate) struct BotKeys(PgPool);

/// A key that is not revoked.
pub(crate) struct StoredKey {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) claims: Map<String, Value>,
    pub(crate) key_hash: Vec<u8>,
    pub(crate) messages_per_second: Option<u32>,
}

/// A key to be made.
pub(crate) struct NewKey<'a> {
    pub(crate) name: &'a str,
    pub(crate) role: &'a str,
    pub(crate) claims: Map<String, Value>,
    pub(crate) key_hash: &'a [u8],
    pub(crate) messages_per_second: Option<u32>,
}

/// What may be told of a key.
pub(crate) struct Listed {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) messages_per_second: Option<i32>,
    pub(crate) created: String,
    pub(crate) revoked: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL's own words, or those of our functions.
    #[error("{message}{}", .hint.as_deref().map(|hint| format!(": {hint}")).unwrap_or_default())]
    Refused {
        message: String,
        hint: Option<String>,
    },
    #[error("this database knows no bot keys yet: run tidings migrate")]
    NotMigrated,
    #[error("this login may not do that: use the login of tidings migrate")]
    Rights,
    #[error("the database cannot be asked about bot keys")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        let Some(refused) = error.as_database_error() else {
            return Error::Database(error);
        };
        match refused.code().as_deref() {
            Some("42P01" | "42883" | "3F000") => Error::NotMigrated,
            Some("42501") => Error::Rights,
            // What our functions raise, and the table's constraints.
            Some(code) if code.starts_with("P0") || code.starts_with("23") => Error::Refused {
                message: refused.message().to_owned(),
                hint: refused
                    .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                    .and_then(|error| error.hint())
                    .map(str::to_owned),
            },
            _ => Error::Database(error),
        }
    }
}

impl BotKeys {
    pub(crate) fn new(pool: PgPool) -> BotKeys {
        BotKeys(pool)
    }

    /// All keys that are good now.
    pub(crate) async fn load(&self) -> Result<Vec<StoredKey>, Error> {
        let rows = sqlx::query(
            "select id, name, role, claims, key_hash, messages_per_second
               from tidings.bot_keys where revoked_at is null order by id limit $1",
        )
        .bind(MOST)
        .fetch_all(&self.0)
        .await?;
        if rows.len() as i64 == MOST {
            tracing::warn!(
                keys = MOST,
                "there are more bot keys than are read: revoke some"
            );
        }
        rows.iter()
            .map(|row| {
                let Json(claims) = row.try_get("claims")?;
                let rate: Option<i32> = row.try_get("messages_per_second")?;
                Ok(StoredKey {
                    id: row.try_get("id")?,
                    name: row.try_get("name")?,
                    role: row.try_get("role")?,
                    claims,
                    key_hash: row.try_get("key_hash")?,
                    messages_per_second: rate.and_then(|rate| u32::try_from(rate).ok()),
                })
            })
            .collect()
    }
}

/// Stores a key and returns its id.
pub(crate) async fn create(connection: &mut PgConnection, key: NewKey<'_>) -> Result<i64, Error> {
    let rate = key
        .messages_per_second
        .map(|rate| i32::try_from(rate).unwrap_or(i32::MAX));
    let id = sqlx::query_scalar("select tidings.create_bot_key($1, $2, $3, $4, $5)")
        .bind(key.name)
        .bind(key.role)
        .bind(Json(key.claims))
        .bind(key.key_hash)
        .bind(rate)
        .fetch_one(connection)
        .await?;
    Ok(id)
}

/// Returns whether there was such a key.
pub(crate) async fn revoke(connection: &mut PgConnection, name: &str) -> Result<bool, Error> {
    let revoked = sqlx::query_scalar("select tidings.revoke_bot_key($1)")
        .bind(name)
        .fetch_one(connection)
        .await?;
    Ok(revoked)
}

/// All keys there ever were.
pub(crate) async fn list(connection: &mut PgConnection) -> Result<Vec<Listed>, Error> {
    let rows = sqlx::query(
        "select id, name, role, messages_per_second,
                to_char(created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as created,
                to_char(revoked_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as revoked
           from tidings.bot_keys order by id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Listed {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                role: row.try_get("role")?,
                messages_per_second: row.try_get("messages_per_second")?,
                created: row.try_get("created")?,
                revoked: row.try_get("revoked")?,
            })
        })
        .collect()
}

/// Logins of gateways that may not become a role, so that a bot of that role can do nothing there.
pub(crate) async fn gateways_without(
    connection: &mut PgConnection,
    role: &str,
) -> Result<Vec<String>, Error> {
    let logins = sqlx::query_scalar(
        "select rolname::text from pg_catalog.pg_roles
          where rolcanlogin and pg_catalog.pg_has_role(oid, 'tidings_gateway', 'MEMBER')
            and not pg_catalog.pg_has_role(oid, $1::name, 'MEMBER')
          order by rolname",
    )
    .bind(role)
    .fetch_all(connection)
    .await?;
    Ok(logins)
}
