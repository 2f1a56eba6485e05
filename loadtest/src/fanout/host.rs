//! A server that is measured, whatever it speaks.

use anyhow::{Context, ensure};
use clap::ValueEnum;
use protocol::Version;
use tokio_postgres::Config;
use tokio_tungstenite::tungstenite::http::Uri;
use uuid::Uuid;

pub(crate) use super::costs::{Costs, Readings};
use crate::crowd::dialect::Dialect;
use crate::crowd::dialect::supabase::Supabase;
use crate::database;
use crate::target::Target;
use crate::usage::Reading;

/// Where the SDKs expect the server's socket.
const PATH: &str = "/realtime/v1/websocket";

pub(crate) trait Host: Sync {
    /// In the report.
    fn name(&self) -> &str;

    /// `host:port` of its websockets.
    fn authority(&self) -> &str;

    /// How a reader of this session speaks to it.
    fn dialect(&self, session: Uuid) -> anyhow::Result<Box<dyn Dialect>>;

    /// Where the messages are written.
    fn database(&self) -> &Config;

    fn server_usage(&self) -> Option<Reading>;

    fn postgres_usage(&self) -> Option<Reading>;

    /// Whether its database is gone after the run, and may keep what was written.
    fn is_own(&self) -> bool {
        true
    }
}

/// A server of the Supabase protocol.
pub(crate) struct Realtime<'a> {
    target: &'a Target,
    database: Config,
    authority: String,
    path: String,
    version: Version,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Serializer {
    #[value(name = "1.0.0")]
    V1,
    #[value(name = "2.0.0")]
    V2,
}

impl Serializer {
    pub(crate) fn version(self) -> Version {
        match self {
            Self::V1 => Version::V1,
            Self::V2 => Version::V2,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
        }
    }
}

impl<'a> Realtime<'a> {
    pub(crate) fn new(target: &'a Target, serializer: Serializer) -> anyhow::Result<Self> {
        let (authority, path) = place(&target.url)?;
        Ok(Self {
            target,
            database: database::config(&target.database)?,
            authority,
            path,
            version: serializer.version(),
        })
    }
}

impl Host for Realtime<'_> {
    fn name(&self) -> &str {
        if self.target.is_own() {
            "tidings"
        } else {
            "server"
        }
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn dialect(&self, session: Uuid) -> anyhow::Result<Box<dyn Dialect>> {
        let token = self.target.sign(&database::owner(session))?;
        let session = session.to_string();
        Ok(Box::new(Supabase::new(
            self.version,
            &self.path,
            &session,
            &token,
        )))
    }

    fn database(&self) -> &Config {
        &self.database
    }

    fn server_usage(&self) -> Option<Reading> {
        self.target.server_usage()
    }

    fn postgres_usage(&self) -> Option<Reading> {
        self.target.postgres_usage()
    }

    fn is_own(&self) -> bool {
        self.target.is_own()
    }
}

/// `host:port` and path of a server's socket. A URL without a path gets the one that the SDKs use.
fn place(url: &str) -> anyhow::Result<(String, String)> {
    let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    ensure!(
        matches!(uri.scheme_str(), Some("ws" | "http")),
        "{url} must begin with ws:// (the load test speaks no TLS)"
    );
    let host = uri.host().with_context(|| format!("{url} names no host"))?;
    let path = match uri.path().trim_end_matches('/') {
        "" => PATH,
        path => path,
    };
    let port = uri.port_u16().unwrap_or(80);
    Ok((format!("{host}:{port}"), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_gets_the_one_of_the_sdks() {
        let owned = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            place("ws://127.0.0.1:4000").unwrap(),
            owned("127.0.0.1:4000", PATH)
        );
        assert_eq!(
            place("http://[::1]/socket/websocket/").unwrap(),
            owned("[::1]:80", "/socket/websocket")
        );
        assert!(place("wss://localhost").is_err() && place("localhost").is_err());
    }
}
