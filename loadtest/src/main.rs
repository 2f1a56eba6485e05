//! The load test of Tidings, and of any other server that speaks the Supabase Realtime protocol.
//!
//! Exit codes: 0 everything arrived as promised, 1 something did not, 2 nothing could be measured.

mod broadcast;
mod changes;
mod channel;
mod churn;
mod client;
mod compare;
mod crowd;
mod database;
mod fanout;
mod floor;
mod frame;
mod idle;
mod inserts;
mod join;
mod ledger;
mod log;
mod meter;
mod own;
mod peers;
mod presence;
mod replay;
mod report;
mod resume;
mod scene;
mod sessions;
mod slow;
mod soak;
mod socket;
mod target;
mod usage;
mod writer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser, Debug)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand, Debug)]
enum Scenario {
    /// Subscribers watch chats while messages are written: loss, doubles, order, latency.
    Changes(Box<changes::ChangesArgs>),
    /// Inserts a second without a trigger, with that of Tidings, and with one that sends rows by NOTIFY.
    Inserts(inserts::InsertsArgs),
    /// One session and many readers: what a delivery costs, and how many there can be in a second.
    Fanout(Box<fanout::FanoutArgs>),
    /// Many small sessions: how late a message is, and how many changes a second are committed and delivered.
    Sessions(Box<sessions::SessionsArgs>),
    /// The process that `--floor` compares with.
    #[command(hide = true)]
    FloorServer,
    /// Thousands lose their connection at once and come back at once, with cursors: how long it takes, and what it costs.
    Resume(resume::ResumeArgs),
    /// Everything fails, at random, while everybody writes and reads: is everything delivered once and in order all the same?
    Soak(Box<soak::SoakArgs>),
    /// The change log is written for minutes and kept for one: does it stay small, and does anybody wait for that?
    Log(log::LogArgs),
    /// Shows the tables of runs that were written to files with --json.
    Show(report::ShowArgs),
    /// Connections that do nothing, more and more of them: how much memory is one?
    Idle(Box<idle::IdleArgs>),
    /// A storm of joins: how many a second, what each costs, and whether a change costs the same with few and with many.
    Join(Box<join::JoinArgs>),
    /// Messages from client to client, over sockets, HTTP and SQL: cost and latency of a delivery.
    Broadcast(Box<broadcast::BroadcastArgs>),
    /// Many come to a topic: until all know all, what it takes, and whether all see the same.
    Presence(Box<presence::PresenceArgs>),
    /// Clients come at a rate and want the history, what they missed, or the latest broadcasts.
    Replay(Box<replay::ReplayArgs>),
    /// Clients come and go while messages flow to others who stay.
    Churn(Box<churn::ChurnArgs>),
    /// Some readers do not read, or read too slowly: what becomes of them, and do the others notice?
    Slow(Box<slow::SlowArgs>),
    /// Tidings, a floor, and servers that people would pick instead, in turns. Run it by loadtest/peers/run.
    Peers(Box<peers::PeersArgs>),
    /// What changed from one run of a scenario to another, and whether it became better or worse.
    Compare(compare::CompareArgs),
    /// Runs as one page to look at.
    Report(report::HtmlArgs),
    /// Loads the load test's tables into a database that `tidings migrate` has prepared.
    Prepare {
        #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
        database: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = tokio::select! {
        result = Box::pin(run(cli.scenario)) => result,
        // Leaving this way drops what was started, which stops it.
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(scenario: Scenario) -> anyhow::Result<bool> {
    match scenario {
        Scenario::Changes(args) => changes::run(*args).await,
        Scenario::Inserts(args) => inserts::run(args).await,
        Scenario::Fanout(args) => fanout::run(*args).await,
        Scenario::Sessions(args) => sessions::run(*args).await,
        // It blocks, and is all that its process does.
        Scenario::FloorServer => tokio::task::spawn_blocking(floor::serve)
            .await?
            .map(|()| true),
        Scenario::Resume(args) => resume::run(args).await,
        Scenario::Soak(args) => soak::run(*args).await,
        Scenario::Log(args) => log::run(args).await,
        Scenario::Show(args) => report::show(&args).map(|()| true),
        Scenario::Idle(args) => idle::run(*args).await,
        Scenario::Join(args) => join::run(*args).await,
        Scenario::Broadcast(args) => broadcast::run(*args).await,
        Scenario::Presence(args) => presence::run(*args).await,
        Scenario::Replay(args) => replay::run(*args).await,
        Scenario::Churn(args) => churn::run(*args).await,
        Scenario::Slow(args) => slow::run(*args).await,
        Scenario::Peers(args) => peers::run(*args).await,
        Scenario::Compare(args) => compare::run(&args),
        Scenario::Report(args) => report::html(&args).map(|()| true),
        Scenario::Prepare { database } => {
            let client = database::connect(&database::config(&database)?).await?;
            database::load_schema(&client).await?;
            println!("the load test's tables are there");
            Ok(true)
        }
    }
}

async fn interrupted() {
    let wait_for = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Without a handler the signal ends the process by itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait_for(SignalKind::interrupt()) => {}
        () = wait_for(SignalKind::terminate()) => {}
    }
}
