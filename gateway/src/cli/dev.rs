//! `tidings dev`: a private PostgreSQL, the gateway and the demo chat, with one command and nothing left behind.

mod cluster;
mod page;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::net::TcpListener;

use crate::app::App;
use crate::config::{Flags, Secret, Settings, Sources};
use crate::demo::Demo;
use crate::{edge, telemetry};

use super::{migrate, serve};
use cluster::DevCluster;
use page::say;

/// If the usual port is taken, so many of the next ones are tried.
const PORTS_TO_TRY: u16 = 100;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Begin with an empty database
    #[arg(long)]
    reset: bool,
    /// Where the database, the token secret and a fetched PostgreSQL are kept
    #[arg(long, value_name = "DIRECTORY", default_value = ".tidings")]
    data: PathBuf,
    /// The directory of PostgreSQL's programs, instead of looking for one
    #[arg(long, value_name = "DIRECTORY", env = "TIDINGS_POSTGRES_BIN")]
    postgres_bin: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("PostgreSQL cannot be run here")]
    Cluster(#[from] devpg::Error),
    #[error("the work on PostgreSQL was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
    #[error("the demo's database cannot be prepared")]
    Prepare(#[source] sqlx::Error),
    #[error("{} cannot be read or written: may this user?", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

pub(super) fn run(arguments: Arguments) -> Result<(), super::Error> {
    let begun = Instant::now();
    let mut sources = Sources::from_process(arguments.flags.clone())?;
    let secret_was_set = sources.is_set("jwt_secret");
    let address_was_set = sources.is_set("listen");
    // A database that the environment names is somebody's: this command has its own. What is wrong with the other
    // settings is told before PostgreSQL starts.
    sources.force("database_url", "postgres://127.0.0.1/tidings".to_owned());
    // Nobody waits for another gateway here.
    if !sources.is_set("drain_spread") {
        sources.force("drain_spread", "0s".to_owned());
    }
    let settings = sources.load(&[])?;
    let log = match sources.is_set("log") {
        true => settings.log.as_str(),
        false => "warn",
    };
    telemetry::start(log, settings.log_format);

    super::block_on(Box::pin(async move {
        let mut cluster = DevCluster::start(&arguments.data, arguments.postgres_bin).await?;
        let outcome = with_cluster(
            &cluster,
            settings,
            Choices {
                reset: arguments.reset,
                data: &arguments.data,
                secret_was_set,
                address_was_set,
                begun,
            },
        )
        .await;
        say("stopping PostgreSQL");
        let stopped = cluster.stop().await;
        outcome?;
        stopped?;
        say("stopped");
        Ok(())
    }))
}

struct Choices<'a> {
    reset: bool,
    data: &'a Path,
    secret_was_set: bool,
    address_was_set: bool,
    begun: Instant,
}

async fn with_cluster(
    cluster: &DevCluster,
    mut settings: Settings,
    choices: Choices<'_>,
) -> Result<(), super::Error> {
    let fresh = cluster.create_database(choices.reset).await?;
    let url = cluster.url();
    let applied = migrate::run(&url).await?;
    if applied > 0 {
        say(&format!("applied {applied} migrations"));
    }
    if cluster.load_demo().await? {
        say("loaded the demo's tables and users");
    } else if !fresh {
        say("using the data of last time; --reset empties it");
    }

    settings.database_url = Secret::new(url.clone());
    if !choices.secret_was_set {
        settings.jwt_secret = cluster::secret(&choices.data.join("jwt_secret"))?;
    }
    let listener = listen(settings.listen, choices.address_was_set)?;
    settings.listen = serve::local_address(&listener);

    let app = App::start(settings).await?;
    let demo = Demo::new(app.clone());
    let router = edge::finish(edge::routes(app.clone()).merge(demo.routes()), &app);
    let address = serve::local_address(&listener);
    serve::start(&app, listener, router)?;
    page::welcome(&demo, address, &url, choices.begun.elapsed())?;
    app.lifecycle.finished().await?;
    Ok(())
}

/// The address of the settings, or, if nobody asked for that one, the next port that is free.
fn listen(address: SocketAddr, exactly: bool) -> Result<TcpListener, super::Error> {
    let first = serve::listen(address);
    if exactly || first.is_ok() {
        return first;
    }
    for port in (1..PORTS_TO_TRY).filter_map(|step| address.port().checked_add(step)) {
        if let Ok(listener) = serve::listen(SocketAddr::new(address.ip(), port)) {
            say(&format!("port {} is taken: using {port}", address.port()));
            return Ok(listener);
        }
    }
    first
}
