//! Connections to PostgreSQL: one URL in, a tokio-postgres connection or an sqlx pool out, with the same TLS either way.
//!
//! tokio-postgres does not know every `sslmode` that libpq does, so `sslmode` and `sslrootcert` are taken out of the URL and
//! carried out here. As in libpq, `prefer` and `require` encrypt without looking at the certificate.

pub mod bot_keys;
mod tls;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::Settings;

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "tidings";
/// From the first packet to a session that takes statements.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request waits for a free connection of a pool before it is told to come again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection of a pool may take to show that it is still there.
const ALIVE: Duration = Duration::from_secs(2);

const CATALOG_CONNECTIONS: u32 = 4;
const CATALOG_TIMEOUT: &str = "30s";
/// How long whoever asks the catalog waits: a little longer than the server would work on it.
pub const CATALOG_PATIENCE: Duration = Duration::from_secs(33);

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
/// What drives a [`Client`]; notifications arrive here.
pub type Connection = tokio_postgres::Connection<Socket, Stream>;

/// Where the database is and how to get there.
#[derive(Clone)]
pub struct Target {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // Neither parser's message is passed on: it may quote the URL, and with it the password.
    #[error(
        "the database URL is not valid: postgres://user:password@host:5432/name is wanted{hint}"
    )]
    Url { hint: &'static str },
    // sqlx knows one, and the feed must not follow another server than the one that is asked for verdicts.
    #[error(
        "the database URL names several hosts: one is wanted that always leads to the primary, such as a proxy's"
    )]
    SeveralHosts,
    #[error(
        "sslmode `{mode}` is not known: disable, prefer, require, verify-ca and verify-full are"
    )]
    SslMode { mode: String },
    #[error(
        "sslmode `verify-ca` needs to know whose certificates to trust: set database_ssl_root_cert"
    )]
    NoRoots,
    #[error("no certificate can be read from {}: a PEM file is wanted", .path.display())]
    RootCertificate { path: PathBuf },
    #[error("this system's certificate authorities cannot be read: set database_ssl_root_cert")]
    SystemRoots,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error(
        "the database cannot be reached or refuses the login: is it running, and is DATABASE_URL right?"
    )]
    Connect(#[source] tokio_postgres::Error),
    #[error("the database did not answer within {} seconds", CONNECT_TIMEOUT.as_secs())]
    Timeout,
}

impl Target {
    pub fn new(settings: &Settings) -> Result<Target, Error> {
        Target::parse(
            settings.database_url.expose(),
            settings.database_ssl_root_cert.as_deref(),
        )
    }

    /// `root_cert` is used unless the URL names one.
    pub fn parse(url: &str, root_cert: Option<&Path>) -> Result<Target, Error> {
        let (url, encryption) = Encryption::take_from(url, root_cert)?;
        let tls = tls::connector(encryption.trust, encryption.root_cert.as_deref())?;

        let mut config = tokio_postgres::Config::from_str(&url).map_err(|_| Error::Url {
            hint: "; is a special character of the password escaped, such as `%40` for `@`?",
        })?;
        match config.get_hosts().len() {
            0 => drop(config.host("localhost")),
            1 => {}
            _ => return Err(Error::SeveralHosts),
        }
        config
            .ssl_mode(encryption.ssl_mode)
            .application_name(APPLICATION_NAME)
            .connect_timeout(CONNECT_TIMEOUT)
            // A database that vanished without a word is noticed within half a minute.
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30));
        Ok(Target { config, tls })
    }

    /// A session of its own. The connection must be driven by a task, and carries the notifications.
    pub async fn connect(&self) -> Result<(Client, Connection), Error> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.config.connect(self.tls.clone()))
            .await
            .map_err(|_| Error::Timeout)?
            .map_err(Error::Connect)
    }
}

/// The pool that HTTP requests share. It connects when it is first asked.
pub fn pool(settings: &Settings) -> Result<PgPool, Error> {
    let statement_timeout = settings.statement_timeout.as_millis().to_string();
    let options = pool_options(
        settings.database_url.expose(),
        settings.database_ssl_root_cert.as_deref(),
    )?
    .options([
        // Rows leave as JSON: the same for everybody, whatever the server's defaults are.
        ("timezone", "UTC"),
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("statement_timeout", statement_timeout.as_str()),
        ("idle_in_transaction_session_timeout", "30000"),
    ]);
    Ok(watchful(settings.database_connections).connect_lazy_with(options))
}

/// The pool for questions to the catalog. A posting that hangs must not keep anybody from joining, and reading the catalog may
/// take longer than a client should wait.
pub fn catalog_pool(settings: &Settings) -> Result<PgPool, Error> {
    let options = pool_options(
        settings.database_url.expose(),
        settings.database_ssl_root_cert.as_deref(),
    )?
    .options([
        ("statement_timeout", CATALOG_TIMEOUT),
        ("jit", "off"),
        // The log is emptied at no other level.
        ("default_transaction_isolation", "read committed"),
    ]);
    Ok(watchful(CATALOG_CONNECTIONS).connect_lazy_with(options))
}

/// A pool that does not wait for the dead. sqlx asks a connection before it lends it out and when it comes back, but without a
/// limit of time: one that the network has forgotten would cost its borrower the whole [`ACQUIRE_TIMEOUT`], and would never come
/// back from a question that was given up.
fn watchful(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_secs(300))
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(is_alive(connection)))
        .after_release(|connection, _| Box::pin(is_alive(connection)))
}

/// An error, so that the pool does not try to part in good order.
async fn is_alive(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    in_time(ALIVE, connection.ping()).await.map(|()| true)
}

/// An answer that does not come is an error.
pub async fn in_time<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, asked)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// sqlx's options for the same URL, without a time limit for statements.
pub(crate) fn pool_options(url: &str, root_cert: Option<&Path>) -> Result<PgConnectOptions, Error> {
    let (url, encryption) = Encryption::take_from(url, root_cert)?;
    let options = PgConnectOptions::from_str(&url)
        .map_err(|_| Error::Url { hint: "" })?
        .application_name(APPLICATION_NAME)
        .ssl_mode(match (encryption.ssl_mode, encryption.trust) {
            (_, tls::Trust::SignedForThisHost) => PgSslMode::VerifyFull,
            (_, tls::Trust::Signed) => PgSslMode::VerifyCa,
            (SslMode::Disable, tls::Trust::Anybody) => PgSslMode::Disable,
            (SslMode::Prefer, tls::Trust::Anybody) => PgSslMode::Prefer,
            (_, tls::Trust::Anybody) => PgSslMode::Require,
        });
    Ok(match encryption.root_cert {
        Some(root_cert) => options.ssl_root_cert(root_cert),
        None => options,
    })
}

/// What `sslmode` and `sslrootcert` come to.
struct Encryption {
    ssl_mode: SslMode,
    trust: tls::Trust,
    root_cert: Option<PathBuf>,
}

impl Encryption {
    /// Also gives the URL without them.
    fn take_from(url: &str, root_cert: Option<&Path>) -> Result<(String, Encryption), Error> {
        let (url, options) = split_options(url);
        let root_cert = match options.root_cert.as_deref() {
            // libpq's word for the authorities that everybody trusts.
            None | Some("system") => root_cert.map(Path::to_owned),
            Some(path) => Some(PathBuf::from(path)),
        };
        let mode = options.mode.as_deref().unwrap_or("prefer");
        let (ssl_mode, trust) = match mode {
            "disable" => (SslMode::Disable, tls::Trust::Anybody),
            "prefer" | "allow" => (SslMode::Prefer, tls::Trust::Anybody),
            // libpq: with a root certificate at hand, `require` verifies like `verify-ca`.
            "require" if root_cert.is_none() => (SslMode::Require, tls::Trust::Anybody),
            "verify-ca" if root_cert.is_none() => return Err(Error::NoRoots),
            "require" | "verify-ca" => (SslMode::Require, tls::Trust::Signed),
            "verify-full" => (SslMode::Require, tls::Trust::SignedForThisHost),
            _ => {
                return Err(Error::SslMode {
                    mode: mode.to_owned(),
                });
            }
        };
        let encryption = Encryption {
            ssl_mode,
            trust,
            root_cert,
        };
        Ok((url, encryption))
    }
}

#[derive(Default)]
struct TlsOptions {
    mode: Option<String>,
    root_cert: Option<String>,
}

/// The URL without what is ours to carry out.
fn split_options(url: &str) -> (String, TlsOptions) {
    let mut options = TlsOptions::default();
    let Some((address, query)) = url.split_once('?') else {
        return (url.to_owned(), options);
    };
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || crate::auth::percent_decoded(value).unwrap_or_else(|| value.to_owned());
        match name {
            "sslmode" => options.mode = Some(value()),
            "sslrootcert" => options.root_cert = Some(value()),
            _ => kept.push(pair),
        }
    }
    match kept.is_empty() {
        true => (address.to_owned(), options),
        false => (format!("{address}?{}", kept.join("&")), options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssl_mode(url: &str) -> SslMode {
        Target::parse(url, None).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn the_modes_of_libpq_are_understood() {
        assert_eq!(ssl_mode("postgres://h/d"), SslMode::Prefer);
        assert_eq!(ssl_mode("postgres://h/d?sslmode=disable"), SslMode::Disable);
        assert_eq!(ssl_mode("postgres://h/d?sslmode=require"), SslMode::Require);
        assert!(matches!(
            Target::parse("postgres://h/d?sslmode=strict", None),
            Err(Error::SslMode { .. })
        ));
        assert!(matches!(
            Target::parse("postgres://h/d?sslmode=verify-ca", None),
            Err(Error::NoRoots)
        ));
        assert!(matches!(
            Target::parse(
                "postgres://h/d?sslmode=verify-full&sslrootcert=%2Fnone",
                None
            ),
            Err(Error::RootCertificate { .. })
        ));
    }

    #[test]
    fn the_pool_and_the_feed_agree_on_encryption() {
        let mode = |url: &str| pool_options(url, None).unwrap().get_ssl_mode();
        assert!(matches!(mode("postgres://h/d"), PgSslMode::Prefer));
        assert!(matches!(
            mode("postgres://h/d?sslmode=require"),
            PgSslMode::Require
        ));
        assert!(matches!(
            mode("postgres://h/d?sslmode=require&sslrootcert=x.pem"),
            PgSslMode::VerifyCa
        ));
        assert!(matches!(
            mode("postgres://h/d?sslmode=verify-full&sslrootcert=system"),
            PgSslMode::VerifyFull
        ));
    }

    #[test]
    fn other_parameters_are_left_where_they_are() {
        let (url, options) =
            split_options("postgres://u@h/d?sslmode=prefer&target_session_attrs=read-write");
        assert_eq!(url, "postgres://u@h/d?target_session_attrs=read-write");
        assert_eq!(options.mode.as_deref(), Some("prefer"));
        assert_eq!(
            split_options("postgres://h/d?sslmode=disable").0,
            "postgres://h/d"
        );
    }

    #[test]
    fn several_hosts_are_refused_by_name() {
        let url = "postgres://u:p@one:5432,two:5432/d?target_session_attrs=read-write";
        let parsed = Target::parse(url, None);
        assert!(matches!(parsed, Err(Error::SeveralHosts)));
    }

    #[test]
    fn an_error_does_not_quote_the_password() {
        let error = Target::parse("postgres://u:hunter2@h:port/d", None)
            .err()
            .unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
