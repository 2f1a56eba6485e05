//! `tidings doctor`: looks at the database as `tidings serve` would, changes nothing, and says who may read what, what that
//! rests on, and what should be mended.

mod findings;
mod look;
mod page;
mod report;

use std::io::Write;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use crate::config::{Flags, Settings, Sources};
use crate::database;

use report::{Report, Severity};

/// For everything that is asked of the database, together.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The roles of tokens that every installation has.
const ROLES: [&str; 2] = ["anon", "authenticated"];

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Look at this role, too; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "the database cannot be reached or refuses the login: is it running, and is DATABASE_URL right?"
    )]
    Connect(#[source] sqlx::Error),
    #[error("the database did not answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    #[error("the database cannot be examined: look at its log")]
    Look(#[from] sqlx::Error),
    #[error("the report cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the report cannot be written to standard output")]
    Print(#[source] std::io::Error),
    #[error("{} found, see the report", count(*.problems, "problem"))]
    Problems { problems: usize },
}

pub(super) fn run(arguments: Arguments) -> Result<(), super::Error> {
    let settings = Sources::from_process(arguments.flags)?.load(&["database_url"])?;
    let mut roles = ROLES.map(str::to_owned).to_vec();
    for role in arguments.roles {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    super::block_on(async {
        let report = tokio::time::timeout(TIMEOUT, examine(&settings, &roles))
            .await
            .unwrap_or_else(|_| Err(Error::Timeout.into()))?;
        let page = match arguments.json {
            true => serde_json::to_string_pretty(&report).map_err(Error::Json)? + "\n",
            false => page::page(&report),
        };
        print(&page).map_err(Error::Print)?;
        match report.count(Severity::Problem) {
            0 => Ok(()),
            problems => Err(Error::Problems { problems }.into()),
        }
    })
}

/// Whoever reads only the beginning of the report has read enough.
fn print(page: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

async fn examine(settings: &Settings, roles: &[String]) -> Result<Report, super::Error> {
    let mut connection = connect(settings).await?;
    let mut report = look::look(&mut connection, roles, settings.recheck_interval)
        .await
        .map_err(Error::Look)?;
    drop(connection.close().await);
    report.findings.extend(findings::findings(&report));
    report.findings.sort_by_key(|finding| finding.severity);
    Ok(report)
}

async fn connect(settings: &Settings) -> Result<PgConnection, super::Error> {
    let root_cert = settings.database_ssl_root_cert.as_deref();
    let options = database::pool_options(settings.database_url.expose(), root_cert)?.options([
        // Whoever looks must not change anything, and must not make anybody wait.
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "20000"),
        ("lock_timeout", "2000"),
    ]);
    Ok(options.connect().await.map_err(Error::Connect)?)
}

/// `1 problem`, `2 problems`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
