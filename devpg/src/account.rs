//! As whom PostgreSQL runs, and where that one may keep files. PostgreSQL refuses to run as root; so when this process is
//! root, initdb and postgres run as the user `postgres`, or `nobody`, and what they need moves to a place where that user can
//! get, if it is below a directory that is root's alone.

use std::{
    fs::{self, DirBuilder},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Error, process};

const QUICK: Duration = Duration::from_secs(10);

/// Who runs PostgreSQL: this process's own user, or, under root, somebody with fewer rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    Own,
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// For new data. Under root the owner of `existing` data goes on running it, whoever that is: nothing is taken from them.
    pub(crate) fn choose(existing: Option<&Path>) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        if let Some(metadata) = existing.and_then(|path| fs::metadata(path).ok())
            && metadata.uid() != 0
        {
            return Ok(Self::Other {
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(Self::named)
            .ok_or(Error::NoAccount)
    }

    /// Asks `id`, not /etc/passwd: users can come from elsewhere.
    fn named(name: &str) -> Option<Self> {
        let id = |flag: &str| {
            let found = process::run(Command::new("id").args([flag, name]), QUICK).ok()?;
            if found.status.success() {
                found.output.parse::<u32>().ok()
            } else {
                None
            }
        };
        Some(Self::Other {
            uid: id("-u")?,
            gid: id("-g")?,
        })
    }

    /// A command that runs as this account, from a directory that everybody can enter (initdb wants to know where it is).
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Hands a file or directory over to this account.
    pub(crate) fn own(self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => {
                chown(path, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))
            }
        }
    }

    /// Whether this account can enter the directory (or execute the file). Asked by trying, so that access lists count too.
    pub(crate) fn reaches(self, path: &Path) -> bool {
        self == Self::Own || {
            let tried = process::run(
                self.command("sh")
                    .args(["-c", "test -x \"$1\"", "sh"])
                    .arg(path),
                QUICK,
            );
            tried.is_ok_and(|tried| tried.status.success())
        }
    }

    /// The error for something that this account must reach and does not.
    pub(crate) fn unreachable(self, path: &Path) -> Error {
        let uid = match self {
            Self::Own => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => uid,
        };
        Error::Unreachable {
            path: path.to_owned(),
            uid,
        }
    }
}

/// A directory that stands in for `path`, which the account cannot reach. The same path has the same one each time.
pub(crate) fn stand_in(path: &Path) -> Result<PathBuf, Error> {
    let place = Path::new("/var/tmp").join(format!(
        "tidings-{:016x}",
        hash(path.as_os_str().as_bytes())
    ));
    // Anybody can write to /var/tmp, so anybody could have put binaries of their own there for us to run.
    match DirBuilder::new().mode(0o755).create(&place) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create", place)(error)),
    }
    let metadata = fs::symlink_metadata(&place).map_err(Error::io("look at", &place))?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && ours && metadata.mode() & 0o022 == 0 {
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(Error::io("open to others", &place))?;
        Ok(place)
    } else {
        Err(Error::Untrusted { path: place })
    }
}

/// FNV-1a. The standard library's hash may change with its version, and the data must be found again after an upgrade.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_stays_what_it_is() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn under_root_somebody_else_runs_it() {
        let root = rustix::process::geteuid().is_root();
        assert_eq!(
            Account::choose(None).expect("an account") != Account::Own,
            root
        );
    }

    #[test]
    fn a_private_directory_of_root_is_out_of_reach() {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let private = tempfile::Builder::new()
            .permissions(mode)
            .tempdir()
            .expect("a directory");
        let account = Account::choose(None).expect("an account");
        assert_eq!(account.reaches(private.path()), account == Account::Own);
        assert!(account.reaches(Path::new("/bin/sh")));
    }
}
