//! The command line: one file for each command.

mod bot;
mod dev;
mod doctor;
mod health;
pub mod migrate;
mod serve;
mod token;

use std::error::Error as _;
use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{app, auth, config, database, lifecycle};

/// A realtime chat gateway for PostgreSQL that speaks the Supabase Realtime protocol.
#[derive(Parser)]
#[command(name = "tidings", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway against the database of DATABASE_URL
    Serve(serve::Arguments),
    /// Bring the database's schema up to date
    Migrate(migrate::Arguments),
    /// Print a signed token
    Token(token::Arguments),
    /// Make, list and revoke the keys of bots
    Bot(bot::Arguments),
    /// Look at the database: who may read what, what that rests on, and what should be mended
    Doctor(doctor::Arguments),
    /// Run everything on this machine: a private PostgreSQL, the gateway and a demo chat
    Dev(dev::Arguments),
    /// Ask the gateway that runs with the same settings whether it is ready
    Health(health::Arguments),
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    App(#[from] app::Error),
    #[error(transparent)]
    Migrate(#[from] migrate::Error),
    #[error(transparent)]
    Bot(#[from] bot::Error),
    #[error(transparent)]
    Sign(#[from] auth::SignError),
    #[error(transparent)]
    Stopped(#[from] lifecycle::Failure),
    #[error(transparent)]
    Doctor(#[from] doctor::Error),
    #[error(transparent)]
    Dev(#[from] dev::Error),
    #[error(transparent)]
    Health(#[from] health::Error),
    #[error("the runtime cannot be started")]
    Runtime(#[source] std::io::Error),
    #[error("signals cannot be listened for")]
    Signals(#[source] std::io::Error),
    #[error(
        "{address} cannot be listened on: is another program there? TIDINGS_LISTEN chooses another address"
    )]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Usage(String),
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Migrate(arguments) => migrate::command(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Bot(arguments) => bot::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Dev(arguments) => dev::run(arguments),
        Command::Health(arguments) => health::run(arguments),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("tidings: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    match error {
        Error::Config(_) | Error::Usage(_) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
