//! A running PostgreSQL: started, stopped, killed, started again.

use std::{
    ffi::OsString,
    fmt::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    Error, Installation,
    account::Account,
    data::{self, Password, Place},
    lock::Lock,
    postmaster::{self, PidFile},
    process,
    supervisor::{STOP_LIMIT, Supervisor},
};

/// How long a server may take to accept connections; recovery after a crash is included.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long another process of ours may take to let go of the data directory: it may be stopping its server.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// How long processes that got SIGKILL may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Free ports are looked for below the range that systems take ports for outgoing connections from. In that range, a client
/// that tries to reconnect while the server is down may be given the server's port, connect to itself, and keep the port.
const PORTS: (u16, u16) = (20_000, 31_999);

/// What to run a cluster with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Made when it is not there. The password, the log and a lock are kept beside it, under its name with an ending.
    pub data_dir: PathBuf,
    /// `None` takes a free one.
    pub port: Option<u16>,
    /// PostgreSQL settings, as in `-c name=value`. They win over the defaults of this crate.
    pub settings: Vec<(String, String)>,
    /// Whether committed data must survive a failure of the machine. Tests do not need that, and are faster without. A
    /// failure of the server alone loses nothing in either case.
    pub durable: bool,
}

/// A PostgreSQL server that is stopped when this is dropped, and when this process ends in any way.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    place: Place,
    password: Password,
    log: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
    durable: bool,
    server: Option<Server>,
    // The order of the last two: the directory goes while nobody else can begin to use it.
    temporary: Option<TempDir>,
    _lock: Lock,
}

#[derive(Debug)]
struct Server {
    supervisor: Supervisor,
    pid: i32,
}

impl Cluster {
    /// Makes the data directory if need be, starts the server and waits until it accepts connections.
    ///
    /// Under root, PostgreSQL runs as another user; if that one cannot reach the directory, the data is kept below /var/tmp
    /// instead: [`Cluster::data_dir`] says where it really is.
    pub fn start(installation: &Installation, options: Options) -> Result<Self, Error> {
        let place = Place::choose(&options.data_dir)?;
        Self::start_at(installation, place, options, None)
    }

    /// Starts a cluster that is not durable, on a free port and an empty directory that is removed with it.
    pub fn start_temporary(
        installation: &Installation,
        settings: Vec<(String, String)>,
    ) -> Result<Self, Error> {
        let (dir, place) = temporary_place(Account::choose(None)?)?;
        let options = Options {
            data_dir: place.data_dir.clone(),
            port: None,
            settings,
            durable: false,
        };
        Self::start_at(installation, place, options, Some(dir))
    }

    /// A temporary cluster that begins with the data of this one, and has its password and settings; `settings` win over
    /// these. This one must have been stopped, so that its data is whole.
    pub fn copy(&self, settings: Vec<(String, String)>) -> Result<Self, Error> {
        self.copy_with(settings, |_| Ok(()))
    }

    /// A copy that follows this cluster from where it was stopped, once this is running again. `select pg_promote()`
    /// makes it a cluster of its own.
    pub fn standby(&self, settings: Vec<(String, String)>) -> Result<Self, Error> {
        let primary = format!(
            "host=127.0.0.1 port={} user=postgres password={}",
            self.port,
            self.password.reveal()
        );
        // It looks for its primary every five seconds otherwise.
        let retry = ("wal_retrieve_retry_interval".to_owned(), "100ms".to_owned());
        let settings = std::iter::once(retry).chain(settings).collect();
        self.copy_with(settings, |place| place.follow(&primary))
    }

    fn copy_with(
        &self,
        settings: Vec<(String, String)>,
        prepare: impl FnOnce(&Place) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        self.must_be_stopped()?;
        let (dir, place) = temporary_place(self.place.account)?;
        self.place.copy_to(&place)?;
        prepare(&place)?;
        let options = Options {
            data_dir: place.data_dir.clone(),
            port: None,
            settings: self.settings.iter().cloned().chain(settings).collect(),
            durable: self.durable,
        };
        Self::start_at(&self.installation, place, options, Some(dir))
    }

    fn start_at(
        installation: &Installation,
        place: Place,
        options: Options,
        temporary: Option<TempDir>,
    ) -> Result<Self, Error> {
        let binary = installation.bin_dir.join("postgres");
        if !place.account.reaches(&binary) {
            return Err(place.account.unreachable(&binary));
        }
        let lock = Lock::take(&place.lock(), &place.data_dir, place.account, LOCK_LIMIT)?;
        postmaster::wait_until_none(&place.data_dir)?;
        let password = place.prepare(installation, options.durable)?;
        place.open_log(true)?;
        let mut cluster = Self {
            installation: installation.clone(),
            log: place.log(),
            place,
            password,
            port: options.port.unwrap_or_default(),
            settings: options.settings,
            durable: options.durable,
            server: None,
            temporary,
            _lock: lock,
        };
        if options.port.is_some() {
            cluster.launch()?;
            return Ok(cluster);
        }
        // A port that was free a moment ago may be taken when the server asks for it.
        for _ in 0..8 {
            cluster.port = free_port()?;
            match cluster.launch() {
                Err(Error::PortTaken { .. }) => {}
                other => return other.map(|()| cluster),
            }
        }
        Err(Error::NoPort {
            first: PORTS.0,
            last: PORTS.1,
        })
    }

    /// The address of a database of this cluster, with the superuser's name and password.
    pub fn url(&self, database: &str) -> String {
        let mut url = format!(
            "postgres://postgres:{}@127.0.0.1:{}/",
            self.password.reveal(),
            self.port
        );
        for byte in database.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(url, "%{byte:02X}");
            }
        }
        url
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Where the data really is.
    pub fn data_dir(&self) -> &Path {
        &self.place.data_dir
    }

    /// What the server writes. It begins anew with each [`Cluster::start`].
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The server's process, if it was started and not stopped.
    pub fn pid(&self) -> Option<i32> {
        self.server.as_ref().map(|server| server.pid)
    }

    /// Stops the server: sessions end, data is written. It is killed if it does not stop; that is an error.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.end(Supervisor::stop)
    }

    /// Ends the sessions and the server at once and leaves the data as it is: the next start recovers it from the log, as
    /// after a crash.
    pub fn stop_immediately(&mut self) -> Result<(), Error> {
        let pid = self.pid();
        self.end(|_| {
            if let Some(pid) = pid {
                process::signal(pid, Signal::QUIT);
            }
        })
    }

    /// Ends the server and all its processes at once, as a crash would.
    pub fn kill(&mut self) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let gone = server.kill();
        gone.then_some(()).ok_or(Error::NotStopped {
            pid: server.pid,
            seconds: KILL_LIMIT.as_secs(),
        })
    }

    /// Starts the server on the same port after [`Cluster::stop`], [`Cluster::kill`] or an end of its own. Does nothing if it
    /// is running.
    pub fn start_again(&mut self) -> Result<(), Error> {
        if let Some(server) = &mut self.server {
            if server.supervisor.ended().is_none() {
                return Ok(());
            }
            self.server = None;
        }
        postmaster::wait_until_none(&self.place.data_dir)?;
        self.launch()
    }

    /// A setting, from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Lets the transaction numbers go on from here (`pg_resetwal`). The cluster must have been stopped. What is in it
    /// becomes unreadable if the number is more than two thousand million after the oldest that is not frozen.
    pub fn set_next_transaction(&self, number: u64) -> Result<(), Error> {
        self.must_be_stopped()?;
        self.place.set_next_transaction(&self.installation, number)
    }

    fn must_be_stopped(&self) -> Result<(), Error> {
        match self.pid() {
            Some(pid) => Err(Error::StillRunning {
                data_dir: self.place.data_dir.clone(),
                pid,
            }),
            None => Ok(()),
        }
    }

    fn end(&mut self, how: impl FnOnce(&mut Supervisor)) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        how(&mut server.supervisor);
        // The script may itself have been killed, so its end does not prove the server's.
        if server.supervisor.wait(STOP_LIMIT) && !process::is_alive(server.pid) {
            return Ok(());
        }
        server.kill();
        Err(Error::NotStopped {
            pid: server.pid,
            seconds: STOP_LIMIT.as_secs(),
        })
    }

    /// Starts the server on the port that is set, and waits until it is ready.
    fn launch(&mut self) -> Result<(), Error> {
        if !is_free(self.port) {
            return Err(Error::PortTaken { port: self.port });
        }
        let before = PidFile::read(&self.place.data_dir);
        let mut shell = self.place.account.command("/bin/sh");
        // Messages in English; what a database sorts by was settled when it was made.
        shell
            .env("LC_ALL", "C")
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .env_remove("PGOPTIONS");
        let log = self.place.open_log(false)?;
        let discard = self.temporary.as_ref().map(TempDir::path);
        let mut supervisor = Supervisor::start(shell, &self.command_line(), discard, log)?;

        let mut ended = false;
        let mut ready = None;
        process::wait_until(READY_LIMIT, || {
            ended = supervisor.ended().is_some();
            ready = PidFile::read(&self.place.data_dir).filter(|now| {
                now.is_ready()
                    && before
                        .as_ref()
                        .is_none_or(|before| !before.is_of_same_server(now))
            });
            ended || ready.is_some()
        });
        if let Some(file) = ready.filter(|_| !ended) {
            self.server = Some(Server {
                supervisor,
                pid: file.pid,
            });
            return Ok(());
        }
        if ended && !is_free(self.port) {
            return Err(Error::PortTaken { port: self.port });
        }
        // Even a temporary directory stays for now: there may be another attempt.
        supervisor.stop();
        supervisor.wait(STOP_LIMIT);
        let (log, tail) = (self.log.clone(), process::log_tail(&self.log));
        Err(if ended {
            Error::Start { log, tail }
        } else {
            Error::NotReady {
                seconds: READY_LIMIT.as_secs(),
                log,
                tail,
            }
        })
    }

    fn command_line(&self) -> Vec<OsString> {
        let mut line = vec![
            self.installation.bin_dir.join("postgres").into_os_string(),
            "-D".into(),
        ];
        line.push(self.place.data_dir.clone().into_os_string());
        let mut set = |name: &str, value: &str| {
            line.extend(["-c".into(), OsString::from(format!("{name}={value}"))])
        };
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", "");
        set("max_connections", "200");
        set("shared_buffers", "128MB");
        set("timezone", "UTC");
        set("log_timezone", "UTC");
        set("logging_collector", "off");
        set("log_destination", "stderr");
        if !self.durable {
            // synchronous_commit stays on: without fsync it costs next to nothing, and a killed server keeps what it
            // has confirmed, on which tests of a crash rely.
            set("fsync", "off");
            set("full_page_writes", "off");
        }
        for (name, value) in &self.settings {
            set(name, value);
        }
        set("port", &self.port.to_string());
        line
    }
}

impl Server {
    /// Whether all its processes are gone. The server is halted first, so that it does not start further ones.
    fn kill(&mut self) -> bool {
        process::signal(self.pid, Signal::STOP);
        let mut all = process::children(self.pid);
        all.push(self.pid);
        for pid in all.iter().rev() {
            process::signal(*pid, Signal::KILL);
        }
        // The script ends with the server, and it must have: it would take a later word for one about this server.
        self.supervisor.wait(KILL_LIMIT)
            && process::wait_until(KILL_LIMIT, || {
                !all.iter().any(|pid| process::is_alive(*pid))
            })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody is left to be told; a server that did not stop was killed.
        let _ = self.end(Supervisor::let_go);
    }
}

/// A new directory that the account owns and can reach, and the place of a cluster in it.
fn temporary_place(account: Account) -> Result<(TempDir, Place), Error> {
    let make = |parent: &Path| {
        let dir = tempfile::Builder::new()
            .prefix("tidings-pg-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(Error::io("create a directory in", parent))?;
        account.own(dir.path())?;
        if account.reaches(dir.path()) {
            Ok(dir)
        } else {
            Err(account.unreachable(dir.path()))
        }
    };
    // TMPDIR may be this user's alone, which is of no use when another user runs the server.
    let dir = make(&std::env::temp_dir()).or_else(|_| make(Path::new("/var/tmp")))?;
    let data_dir = dir.path().join("data");
    Ok((dir, Place { data_dir, account }))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Begins at a random place, so that clusters that start together seldom meet.
fn free_port() -> Result<u16, Error> {
    let (first, last) = PORTS;
    let count = last - first + 1;
    let start = u16::from_ne_bytes(data::random()?) % count;
    let candidates = (0..256).map(|step| first + (start + step) % count);
    candidates
        .into_iter()
        .find(|port| is_free(*port))
        .ok_or(Error::NoPort { first, last })
}
