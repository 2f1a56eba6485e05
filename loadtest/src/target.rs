//! What is tested: a server that runs somewhere already, or one of our own.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use crate::own::{OwnCluster, OwnServer};
use crate::usage::{self, Reading};

/// Longer than any run.
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Args, Debug)]
pub(crate) struct TargetArgs {
    /// Start a private PostgreSQL and the `tidings` beside this program, and remove both afterwards.
    #[arg(long, conflicts_with_all = ["url", "server_pid"])]
    own: bool,

    /// The server, as ws://host:port or with the whole path.
    #[arg(long, required_unless_present = "own")]
    url: Option<String>,

    /// The database of that server. The messages are written here.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        required_unless_present = "own"
    )]
    database: Option<String>,

    /// The secret with which that server checks tokens (HS256).
    #[arg(
        long,
        env = "TIDINGS_JWT_SECRET",
        hide_env_values = true,
        required_unless_present = "own"
    )]
    jwt_secret: Option<String>,

    /// The server's process, if it runs on this machine: its CPU time and memory become part of the report.
    #[arg(long)]
    server_pid: Option<u32>,

    /// With --own: the directory of PostgreSQL's programs, if it is not found by itself.
    #[arg(long, env = "TIDINGS_POSTGRES_BIN", requires = "own")]
    postgres: Option<PathBuf>,
}

pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) database: String,
    key: EncodingKey,
    server_pid: Option<u32>,
    own: Option<(OwnServer, OwnCluster)>,
}

impl Target {
    pub(crate) async fn start(args: &TargetArgs) -> anyhow::Result<Self> {
        Self::start_with(args, false, &[]).await
    }

    /// A database of our own counts its statements if that is wanted, which costs it a little; a server of our own gets these
    /// settings, as variables of its environment.
    pub(crate) async fn start_with(
        args: &TargetArgs,
        counting: bool,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        if !args.own {
            let given = |value: &Option<String>| {
                value
                    .clone()
                    .context("--url, --database and --jwt-secret belong together")
            };
            let (url, database, secret) = (
                given(&args.url)?,
                given(&args.database)?,
                given(&args.jwt_secret)?,
            );
            return Ok(Self::elsewhere(url, database, &secret, args.server_pid));
        }
        let cluster = if counting {
            OwnCluster::start_counting(args.postgres.clone()).await?
        } else {
            OwnCluster::start(args.postgres.clone()).await?
        };
        cluster.prepare("loadtest").await?;
        let server = cluster.serve_with("loadtest", settings).await?;
        Ok(Self {
            url: server.url(),
            database: cluster.url("loadtest"),
            key: EncodingKey::from_secret(server.secret().as_bytes()),
            server_pid: server.pid(),
            own: Some((server, cluster)),
        })
    }

    pub(crate) fn elsewhere(
        url: String,
        database: String,
        secret: &str,
        server_pid: Option<u32>,
    ) -> Self {
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self {
            url,
            database,
            key,
            server_pid,
            own: None,
        }
    }

    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The PostgreSQL of our own, if it is that.
    pub(crate) fn cluster(&self) -> Option<&OwnCluster> {
        self.own.as_ref().map(|(_, cluster)| cluster)
    }

    pub(crate) fn postgres_version(&self) -> Option<String> {
        self.own
            .as_ref()
            .map(|(_, cluster)| cluster.version().to_owned())
    }

    pub(crate) fn sign(&self, user: &str) -> anyhow::Result<String> {
        sign(&self.key, user)
    }

    pub(crate) fn server_pid(&self) -> Option<u32> {
        self.server_pid
    }

    pub(crate) fn server_usage(&self) -> Option<Reading> {
        usage::of_process(self.server_pid?)
    }

    pub(crate) fn postgres_usage(&self) -> Option<Reading> {
        usage::of_tree(self.own.as_ref()?.1.pid()?)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Some((mut server, cluster)) = self.own else {
            return Ok(());
        };
        server.stop().await;
        cluster.stop().await
    }
}

/// A token as the owner of a session has it.
pub(crate) fn sign(key: &EncodingKey, user: &str) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Claims<'a> {
        sub: &'a str,
        role: &'a str,
        aud: &'a str,
        exp: u64,
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let claims = Claims {
        sub: user,
        role: "authenticated",
        aud: "authenticated",
        exp: (now + TOKEN_LIFE).as_secs(),
    };
    jsonwebtoken::encode(&Header::default(), &claims, key).context("cannot sign a token")
}
