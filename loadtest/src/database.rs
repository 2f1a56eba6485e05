//! Connections to the database that is written to, and the few statements that both scenarios need.

use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

const SCHEMA: &str = include_str!("../schema.sql");
const NOTIFY_TRIGGER: &str = include_str!("../notify_trigger.sql");

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Loading the schema waits for whoever uses the tables, but not for ever.
const SCHEMA_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn config(url: &str) -> anyhow::Result<Config> {
    // The error is not passed on: it may quote the password.
    url.parse().map_err(|_| {
        anyhow!("the database URL is not of the form postgres://user:password@host:port/database")
    })
}

pub(crate) async fn connect(config: &Config) -> anyhow::Result<Client> {
    let (client, connection) = timeout(CONNECT_LIMIT, config.connect(NoTls))
        .await
        .with_context(|| {
            format!(
                "the database did not answer within {} s",
                CONNECT_LIMIT.as_secs()
            )
        })?
        .context("cannot connect to the database")?;
    // It ends when the client is dropped or the connection breaks; the client's calls then say so.
    tokio::spawn(connection);
    Ok(client)
}

pub(crate) async fn load_schema(client: &Client) -> anyhow::Result<()> {
    run_script(client, SCHEMA)
        .await
        .context("cannot load the load test's schema")
}

pub(crate) async fn add_notify_trigger(client: &Client) -> anyhow::Result<()> {
    run_script(client, NOTIFY_TRIGGER)
        .await
        .context("cannot add the NOTIFY trigger")
}

async fn run_script(client: &Client, script: &str) -> anyhow::Result<()> {
    let done = timeout(SCHEMA_LIMIT, client.batch_execute(script)).await;
    done.with_context(|| format!("not done within {} s", SCHEMA_LIMIT.as_secs()))?
        .map_err(|error| match error.as_db_error() {
            Some(error) => anyhow!(
                "{} ({})",
                error.message(),
                error.hint().unwrap_or("no hint")
            ),
            None => error.into(),
        })
}

/// Makes sessions, each of a user of its own, named after the session.
pub(crate) async fn add_sessions(
    client: &Client,
    run: u32,
    count: usize,
) -> anyhow::Result<Vec<Uuid>> {
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
    client
        .execute(
            "insert into public.chat_sessions (id, user_id, title)
             select id, 'user-' || id, 'load test ' || $2::bigint from unnest($1::uuid[]) id",
            &[&ids, &i64::from(run)],
        )
        .await
        .context("cannot make the sessions; is the schema loaded? (loadtest prepare)")?;
    Ok(ids)
}

/// The owner of a session.
pub(crate) fn owner(session: Uuid) -> String {
    format!("user-{session}")
}

pub(crate) async fn remove_sessions(client: &Client, sessions: &[Uuid]) -> anyhow::Result<()> {
    client
        .execute(
            "delete from public.chat_sessions where id = any ($1)",
            &[&sessions],
        )
        .await
        .context("cannot remove this run's sessions")?;
    Ok(())
}

/// Which of these messages of a run are in the table.
pub(crate) async fn stored(client: &Client, run: u32, jobs: &[i64]) -> anyhow::Result<Vec<i64>> {
    let rows = client
        .query(
            "select (metadata ->> 'j')::bigint from public.chat_messages
              where metadata @> jsonb_build_object('run', $1::bigint) and (metadata ->> 'j')::bigint = any ($2)",
            &[&i64::from(run), &jobs],
        )
        .await
        .context("cannot ask the table which inserts were committed")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
