//! Settings: flags over environment over a TOML file, turned once into values that are already valid.
//!
//! [`table`] names every setting, its default and its meaning; the flags, the variables, the keys of the file and the page
//! `docs/configuration.md` all follow from it. [`Sources::load`] reports everything that is wrong at once, before anything
//! else of the program starts. Nothing but this module reads the environment.

mod issuers;
mod limits;
mod origins;
mod parse;
mod sources;
pub mod table;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use issuers::Issuer;
pub use limits::LimitSettings;
pub use origins::Origins;
pub use parse::duration as parse_duration;
pub use sources::{Flags, Sources};

use crate::auth::KeySet;

/// Everything that can be set, checked. `docs/configuration.md` says what each value is for.
#[derive(Clone, Debug)]
pub struct Settings {
    pub database_url: Secret,
    pub database_ssl_root_cert: Option<PathBuf>,
    pub database_connections: u32,
    pub authorizer_connections: u32,
    pub statement_timeout: Duration,

    pub listen: SocketAddr,
    pub max_connections: usize,
    pub max_channels: usize,
    pub max_message_bytes: usize,
    pub outbox_bytes: usize,
    pub recent_bytes: usize,
    pub outbox_frames: usize,
    pub idle_timeout: Duration,
    pub limits: LimitSettings,
    pub allowed_origins: Origins,
    pub drain_delay: Duration,
    pub drain_spread: Duration,
    pub drain: Duration,

    /// Empty only where the command needs no tokens; a verifier without a secret refuses every token.
    pub jwt_secret: Secret,
    pub jwt_aud: Option<String>,
    pub jwt_iss: Option<String>,
    pub jwt_leeway: Duration,
    pub jwks: Option<Arc<KeySet>>,
    pub jwks_url: Option<String>,
    /// Others whose tokens are taken, each by its own rules: the list `[[issuer]]` of the file.
    pub issuers: Vec<Issuer>,

    pub watch: Vec<String>,
    pub poll_interval: Duration,
    pub doorbell: Doorbell,
    pub recheck_interval: Duration,
    pub old_record: OldRecord,
    pub unauthorized_join: UnauthorizedJoin,
    pub presence_default: bool,
    /// Public channels are refused.
    pub private_only: bool,

    pub log: String,
    pub log_format: LogFormat,
}

impl Settings {
    /// Settings from names and values alone, as a test or another program has them. What is not named has its default.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Settings, Error> {
        Sources::from_pairs(pairs).load(&["database_url", "jwt_secret"])
    }
}

/// Whether writers always announce what they commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doorbell {
    /// Not while changes come so fast that the log is read all the time anyway.
    Auto,
    On,
}

/// How much of a row's former state goes to the subscribers of an UPDATE or DELETE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldRecord {
    /// The whole row.
    Full,
    /// What the table's replica identity says, which is the primary key unless somebody changed it.
    Identity,
}

/// What becomes of a join that names rows which its principal may not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnauthorizedJoin {
    /// The join itself is answered with an error.
    Refuse,
    /// The channel is joined, and told by a `system` message.
    System,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

/// A value that must not be printed: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the settings are not valid:{}", listed(.problems))]
    Invalid { problems: Vec<String> },
    #[error("the configuration file {} cannot be read: does it exist, and may this user read it?", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

fn listed(problems: &[String]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  - {problem}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: (&str, &str) = ("database_url", "postgres://u:hunter2@localhost/db");
    const SECRET: (&str, &str) = ("jwt_secret", "0123456789abcdef0123456789abcdef");

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = Settings::from_pairs([URL, SECRET]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:4000");
        assert_eq!(settings.watch, ["public.chat_messages"]);
        assert_eq!(settings.outbox_bytes, 8 * 1024 * 1024);
        assert_eq!(settings.idle_timeout, Duration::from_secs(60));
        assert!(settings.presence_default);
        assert_eq!(settings.old_record, OldRecord::Full);
        assert_eq!(settings.unauthorized_join, UnauthorizedJoin::Refuse);
    }

    #[test]
    fn everything_that_is_wrong_is_reported_at_once_and_by_name() {
        let error = Settings::from_pairs([
            ("listen", "here"),
            ("drain", "10"),
            ("old_record", "half"),
            ("databse_url", "x"),
            ("max_channels", "0"),
            ("max_events_per_second", "-1"),
            ("allowed_origins", "example.org"),
            ("watch", "a.b.c.d"),
            ("log", "info,[["),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "listen",
            "drain",
            "`10s`",
            "old_record",
            "full, identity",
            "databse_url",
            "did you mean `database_url`",
            "max_channels",
            "max_events_per_second",
            "allowed_origins",
            "watch",
            "DATABASE_URL",
            "TIDINGS_JWT_SECRET",
        ] {
            assert!(error.contains(part), "{part} is missing from: {error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let settings = Settings::from_pairs([URL, SECRET]).unwrap();
        let printed = format!("{settings:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("0123456789abcdef"));
    }
}
