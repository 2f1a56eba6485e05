//! `tidings migrate`: brings the database's schema up to date, after a look at whether the login may do that.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Row};

use crate::config::{Flags, Sources};
use crate::database;

/// Which migrations have run is kept beside what they made. The default, a table in `public`, may be another program's, and
/// needs rights there.
const SCHEMA: &str = "tidings";
const TABLE: &str = "tidings.migrations";
/// Until the server answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Url(#[from] database::Error),
    #[error(
        "the database cannot be reached or refuses the login: is it running, and is DATABASE_URL right?"
    )]
    Connect(#[source] sqlx::Error),
    #[error("the database did not answer within {} seconds", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the login may not migrate this database:{}", listed(.missing))]
    Rights { missing: Vec<(String, String)> },
    #[error("the login's rights cannot be looked up")]
    LookUp(#[source] sqlx::Error),
    #[error("a migration failed; what it had done is undone")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

fn listed(missing: &[(String, String)]) -> String {
    missing
        .iter()
        .map(|(problem, mend)| format!("\n  - {problem}; mend it with: {mend}"))
        .collect()
}

pub(super) fn command(arguments: Arguments) -> Result<(), super::Error> {
    let settings = Sources::from_process(arguments.flags)?.load(&["database_url"])?;
    crate::telemetry::start(&settings.log, settings.log_format);
    super::block_on(async {
        let url = settings.database_url.expose();
        let applied = run_with(url, settings.database_ssl_root_cert.as_deref()).await?;
        match applied {
            0 => println!("the database is up to date"),
            1 => println!("applied 1 migration"),
            _ => println!("applied {applied} migrations"),
        }
        Ok(())
    })
}

/// Applies what is missing and says how much that was.
pub async fn run(url: &str) -> Result<usize, Error> {
    run_with(url, None).await
}

async fn run_with(url: &str, root_cert: Option<&Path>) -> Result<usize, Error> {
    let options = database::pool_options(url, root_cert)?.options([
        // A migration that waits for a lock makes the application wait behind it, and two migrations wait for each other.
        ("lock_timeout", "30s"),
        // Not "already exists, skipping".
        ("client_min_messages", "warning"),
    ]);
    let mut connection = tokio::time::timeout(CONNECT_TIMEOUT, options.connect())
        .await
        .map_err(|_| Error::Timeout)?
        .map_err(Error::Connect)?;
    check_rights(&mut connection).await?;

    let mut migrator = sqlx::migrate!("../migrations");
    migrator.dangerous_set_table_name(TABLE);
    let before = applied(&mut connection).await?;
    if before.is_none() {
        migrator.create_schema(SCHEMA);
    }
    migrator
        .run(&mut connection)
        .await
        .map_err(Error::Migrate)?;
    let after = applied(&mut connection).await?;
    drop(connection.close().await);
    Ok(after.unwrap_or(0).saturating_sub(before.unwrap_or(0)))
}

async fn check_rights(connection: &mut PgConnection) -> Result<(), Error> {
    let statement = include_str!("../../../migrations/statements/missing_rights_to_migrate.sql");
    let rows = sqlx::raw_sql(statement)
        .fetch_all(connection)
        .await
        .map_err(Error::LookUp)?;
    match rows.is_empty() {
        true => Ok(()),
        false => Err(Error::Rights {
            missing: rows
                .iter()
                .map(|row| (row.get("problem"), row.get("mend")))
                .collect(),
        }),
    }
}

/// How many migrations have run, or nothing if none ever has.
async fn applied(connection: &mut PgConnection) -> Result<Option<usize>, Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
        .bind(TABLE)
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::LookUp)?;
    if !exists {
        return Ok(None);
    }
    let count: i64 = sqlx::query_scalar("select count(*) from tidings.migrations where success")
        .fetch_one(connection)
        .await
        .map_err(Error::LookUp)?;
    Ok(Some(usize::try_from(count).unwrap_or_default()))
}
