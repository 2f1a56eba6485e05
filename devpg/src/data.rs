//! A data directory and the files beside it: made once, found again, and never taken for one that it is not.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Error, Installation,
    account::{self, Account},
    process,
};

const INITDB: Duration = Duration::from_secs(120);
const COPY: Duration = Duration::from_secs(120);
const RESET: Duration = Duration::from_secs(60);

/// Of the files that say what became of transactions: each has two bits for so many of them.
const TRANSACTIONS_PER_FILE: u32 = 1 << 20;

/// Where everything of one cluster is. The files beside the data directory have its name with an ending.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    pub(crate) account: Account,
}

impl Place {
    /// The wanted directory, or, if the account that runs PostgreSQL cannot reach it, another one that stands in for it.
    pub(crate) fn choose(wanted: &Path) -> Result<Self, Error> {
        let data_dir = std::path::absolute(wanted).map_err(Error::io("find", wanted))?;
        let account = Account::choose(data_dir.exists().then_some(&data_dir))?;
        let parent = data_dir.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        if account.reaches(parent) {
            return Ok(Self { data_dir, account });
        }
        // Data that is there already must not seem to be gone.
        if data_dir.join("PG_VERSION").exists() {
            return Err(account.unreachable(&data_dir));
        }
        let data_dir = account::stand_in(&data_dir)?.join("data");
        let account = Account::choose(data_dir.exists().then_some(&data_dir))?;
        Ok(Self { data_dir, account })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.beside("log")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.beside("lock")
    }

    fn password_file(&self) -> PathBuf {
        self.beside("password")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.data_dir.clone().into_os_string();
        name.push(".");
        name.push(ending);
        name.into()
    }

    /// Makes the data directory unless it is there. Returns the superuser's password.
    pub(crate) fn prepare(
        &self,
        installation: &Installation,
        durable: bool,
    ) -> Result<Password, Error> {
        match fs::read_to_string(self.data_dir.join("PG_VERSION")) {
            Ok(found) => {
                self.check_major(found.trim(), installation)?;
                self.read_password()
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("read PG_VERSION in", &self.data_dir)(error))
            }
            Err(_) if is_empty(&self.data_dir)? => self.initdb(installation, durable),
            Err(_) => Err(Error::NotData {
                path: self.data_dir.clone(),
            }),
        }
    }

    /// Opens the log; `fresh` begins it anew, so that it does not grow from one run to the next.
    pub(crate) fn open_log(&self, fresh: bool) -> Result<File, Error> {
        let path = self.log();
        if fresh {
            remove_file(&path)?;
        }
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        self.account.own(&path)?;
        Ok(file)
    }

    /// Copies the data and the password. Nobody may be using the data.
    pub(crate) fn copy_to(&self, copy: &Self) -> Result<(), Error> {
        for (from, to) in [
            (&self.data_dir, &copy.data_dir),
            (&self.password_file(), &copy.password_file()),
        ] {
            let mut cp = self.account.command("cp");
            process::run_well(cp.arg("-Rp").args([from, to]), COPY)?;
        }
        Ok(())
    }

    /// Makes it a standby of the server at this address when it is started.
    pub(crate) fn follow(&self, primary: &str) -> Result<(), Error> {
        let signal = self.data_dir.join("standby.signal");
        File::create(&signal).map_err(Error::io("create", &signal))?;
        self.account.own(&signal)?;
        // In a file and not on the command line, which everybody can read: it has the password.
        let settings = self.data_dir.join("postgresql.auto.conf");
        File::options()
            .append(true)
            .open(&settings)
            .and_then(|mut file| writeln!(file, "primary_conninfo = '{primary}'"))
            .map_err(Error::io("write", settings))
    }

    pub(crate) fn set_next_transaction(
        &self,
        installation: &Installation,
        number: u64,
    ) -> Result<(), Error> {
        let (epoch, number) = (number >> 32, number as u32);
        let program = installation.program("pg_resetwal");
        let mut reset = self
            .account
            .command(program.unwrap_or_else(|| "pg_resetwal".into()));
        reset
            .arg(format!("--epoch={epoch}"))
            .arg(format!("--next-transaction-id={number}"))
            .arg("-D")
            .arg(&self.data_dir);
        process::run_well(&mut reset, RESET)?;
        // The server expects to find the file that covers the number.
        let file = format!("{:04X}", number / TRANSACTIONS_PER_FILE);
        let path = self.data_dir.join("pg_xact").join(file);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        file.set_len(u64::from(TRANSACTIONS_PER_FILE) / 4)
            .map_err(Error::io("extend", &path))?;
        self.account.own(&path)
    }

    fn check_major(&self, found: &str, installation: &Installation) -> Result<(), Error> {
        if found == installation.major.to_string() {
            return Ok(());
        }
        Err(Error::OtherMajor {
            data_dir: self.data_dir.clone(),
            bin_dir: installation.bin_dir.clone(),
            found: found.to_owned(),
            installed: installation.major,
        })
    }

    fn read_password(&self) -> Result<Password, Error> {
        let file = self.password_file();
        let lost = || Error::PasswordLost {
            data_dir: self.data_dir.clone(),
            file: file.clone(),
        };
        match fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => Ok(Password(text.trim().to_owned())),
            Ok(_) => Err(lost()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(lost()),
            Err(error) => Err(Error::io("read", file)(error)),
        }
    }

    /// Makes it under another name first: a data directory whose making was interrupted is never found under its own.
    fn initdb(&self, installation: &Installation, durable: bool) -> Result<Password, Error> {
        let password = Password::random()?;
        let file = self.password_file();
        remove_file(&file)?;
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| writeln!(file, "{}", password.0))
            .map_err(Error::io("write", &file))?;
        self.account.own(&file)?;

        let staging = self.beside("initdb");
        // Some systems have no C.UTF-8; with plain C only upper and lower case of other alphabets differ.
        let run = |locale| self.run_initdb(installation, &staging, locale, durable);
        run("C.UTF-8").or_else(|_| run("C"))?;
        remove_with(&self.data_dir, |path| fs::remove_dir(path))?;
        fs::rename(&staging, &self.data_dir)
            .map_err(Error::io("move the new data to", &self.data_dir))?;
        Ok(password)
    }

    fn run_initdb(
        &self,
        installation: &Installation,
        staging: &Path,
        locale: &str,
        durable: bool,
    ) -> Result<String, Error> {
        remove_with(staging, |path| fs::remove_dir_all(path))?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(staging)
            .map_err(Error::io("create", staging))?;
        self.account.own(staging)?;
        let mut initdb = self.account.command(installation.bin_dir.join("initdb"));
        initdb
            .args([
                "--username=postgres",
                "--encoding=UTF8",
                "--auth=scram-sha-256",
                "--no-instructions",
            ])
            .args((!durable).then_some("--no-sync"))
            .arg(format!("--locale={locale}"))
            .arg("--pwfile")
            .arg(self.password_file())
            .arg("-D")
            .arg(staging);
        process::run_well(&mut initdb, INITDB)
    }
}

/// The superuser's password. It shows itself only where a URL is made of it.
pub(crate) struct Password(String);

impl Password {
    /// Hexadecimal, so that it needs no escaping anywhere.
    fn random() -> Result<Self, Error> {
        Ok(Self(
            random::<24>()?
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        ))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let source = Path::new("/dev/urandom");
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::io("read", source))?;
    Ok(bytes)
}

fn is_empty(dir: &Path) -> Result<bool, Error> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("read", dir)(error)),
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    remove_with(path, |path| fs::remove_file(path))
}

fn remove_with(
    path: &Path,
    remove: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), Error> {
    match remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
