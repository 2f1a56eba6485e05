//! PostgreSQL binaries that are already on the machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Error, process};

/// The oldest PostgreSQL whose features are relied on.
const OLDEST_MAJOR: u32 = 14;

const QUICK: Duration = Duration::from_secs(10);

/// A directory with a PostgreSQL server that was tried: it told its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub bin_dir: PathBuf,
    pub major: u32,
    /// As PostgreSQL writes it, such as `18.4` or `19beta1`.
    pub version: String,
    pub origin: Origin,
}

impl Installation {
    /// Another program of PostgreSQL's, if it came with the server. Where the server is a symbolic link, the others may be
    /// beside what that points to.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let real = fs::canonicalize(self.bin_dir.join("postgres")).ok();
        let real = real.as_deref().and_then(Path::parent);
        std::iter::once(self.bin_dir.as_path())
            .chain(real)
            .map(|dir| dir.join(name))
            .find(|program| program.is_file())
    }
}

/// Where an installation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Named by the user.
    Configured,
    Path,
    /// A place where operating systems and installers put it.
    System,
    Fetched,
}

/// Finds a PostgreSQL server: the `preferred` directory (an error if that one is unusable), else PATH, else the usual places,
/// newest first. Clients alone (only `psql`) do not count, nor does anything older than 14.
pub fn find(preferred: Option<&Path>) -> Result<Installation, Error> {
    match preferred {
        Some(dir) => configured(dir),
        None => search(env::var_os("PATH").as_deref(), Path::new("/")).ok_or(Error::NotFound {
            command: install_command(),
            fetch: None,
        }),
    }
}

/// Looks at one directory of binaries.
pub(crate) fn inspect(bin_dir: &Path, origin: Origin) -> Result<Installation, Error> {
    let unusable = |reason: String| Error::Unusable {
        dir: bin_dir.to_owned(),
        reason,
    };
    for name in ["postgres", "initdb"] {
        if !bin_dir.join(name).is_file() {
            return Err(unusable(format!("there is no `{name}` in it")));
        }
    }
    let output = process::run_well(Command::new(bin_dir.join("postgres")).arg("-V"), QUICK)
        .map_err(|error| unusable(error.to_string()))?;
    let Some((version, major)) = parse_version(&output) else {
        return Err(unusable(format!("`postgres -V` answers {output:?}")));
    };
    if major < OLDEST_MAJOR {
        return Err(unusable(format!(
            "it is version {version}, and {OLDEST_MAJOR} is the oldest that will do"
        )));
    }
    Ok(Installation {
        bin_dir: bin_dir.to_owned(),
        major,
        version,
        origin,
    })
}

/// The user may name `…/bin` or the directory that contains it.
fn configured(dir: &Path) -> Result<Installation, Error> {
    let dir = std::path::absolute(dir).map_err(Error::io("find", dir))?;
    let inner = dir.join("bin");
    let bin_dir = if !dir.join("postgres").exists() && inner.join("postgres").exists() {
        inner
    } else {
        dir
    };
    inspect(&bin_dir, Origin::Configured)
}

fn search(path: Option<&std::ffi::OsStr>, root: &Path) -> Option<Installation> {
    // An empty or relative entry means the current directory, from which nothing should be run by accident.
    let on_path = path
        .into_iter()
        .flat_map(env::split_paths)
        .filter(|dir| dir.is_absolute());
    if let Some(found) = on_path
        .filter_map(|dir| inspect(&dir, Origin::Path).ok())
        .next()
    {
        return Some(found);
    }
    // Between equal versions the order of the places decides.
    usual_places(root).into_iter().find_map(|group| {
        let found = group
            .iter()
            .filter_map(|dir| inspect(dir, Origin::System).ok());
        found.reduce(|best, next| if next.major > best.major { next } else { best })
    })
}

/// Groups of directories; within a group the newest wins, an earlier group wins over a later one.
fn usual_places(root: &Path) -> Vec<Vec<PathBuf>> {
    vec![
        matching(root, "usr/lib/postgresql", "", "bin"),
        matching(root, "usr", "pgsql-", "bin"),
        vec![root.join("usr/local/pgsql/bin")],
        matching(root, "opt/homebrew/opt", "postgresql@", "bin"),
        matching(root, "usr/local/opt", "postgresql@", "bin"),
        matching(
            root,
            "Applications/Postgres.app/Contents/Versions",
            "",
            "bin",
        ),
    ]
}

/// `root/parent/prefix*/below`.
fn matching(root: &Path, parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root.join(parent)) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(below))
        .filter(|dir| dir.is_dir())
        .collect();
    found.sort();
    found
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` is `15.14`, major 15.
fn parse_version(output: &str) -> Option<(String, u32)> {
    let rest = output
        .lines()
        .find_map(|line| line.strip_prefix("postgres (PostgreSQL) "))?;
    let version = rest.split_whitespace().next()?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    Some((version.to_owned(), version.get(..digits)?.parse().ok()?))
}

/// The one command that installs PostgreSQL on this operating system.
pub(crate) fn install_command() -> &'static str {
    if cfg!(target_os = "macos") {
        return "brew install postgresql@18";
    }
    install_command_for(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

fn install_command_for(os_release: &str) -> &'static str {
    let names = os_release.lines().filter_map(|line| {
        line.strip_prefix("ID=")
            .or_else(|| line.strip_prefix("ID_LIKE="))
    });
    let names: Vec<&str> = names
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .collect();
    let known = names.into_iter().find_map(|name| match name {
        "debian" | "ubuntu" => Some("sudo apt-get install postgresql"),
        "fedora" | "rhel" | "centos" => Some("sudo dnf install postgresql-server"),
        "alpine" => Some("apk add postgresql"),
        "arch" => Some("sudo pacman -S postgresql"),
        "suse" | "opensuse" => Some("sudo zypper install postgresql-server"),
        _ => None,
    });
    known.unwrap_or("the package manager of this system (package postgresql or postgresql-server)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(root: &Path, dir: &str, version: &str) {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).expect("directories");
        for name in ["postgres", "initdb"] {
            // Written by another process: a file that this one has open while a test beside this one forks cannot be run.
            let script = format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n");
            let mut shell = Command::new("sh");
            shell
                .args([
                    "-c",
                    "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"",
                    "sh",
                    &script,
                ])
                .arg(dir.join(name));
            process::run_well(&mut shell, QUICK).expect("a script");
        }
    }

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let parse =
            |text: &str| parse_version(text).map(|(version, major)| format!("{version} {major}"));
        assert_eq!(
            parse("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)").as_deref(),
            Some("15.14 15")
        );
        assert_eq!(
            parse("warning: x\npostgres (PostgreSQL) 19beta1").as_deref(),
            Some("19beta1 19")
        );
        assert_eq!(parse("postgres (PostgreSQL) devel"), None);
        assert_eq!(parse("psql (PostgreSQL) 16.1"), None);
    }

    #[test]
    fn path_comes_first_then_the_newest_that_is_new_enough() {
        let root = tempfile::tempdir().expect("a directory");
        let found = |path: Option<&Path>| search(path.map(Path::as_os_str), root.path());
        assert_eq!(found(None), None);
        fake(root.path(), "usr/lib/postgresql/9.6/bin", "9.6.24");
        assert_eq!(found(None), None, "9.6 is too old");
        fake(root.path(), "usr/lib/postgresql/14/bin", "14.2");
        fake(root.path(), "usr/lib/postgresql/17/bin", "17.1");
        fs::remove_file(root.path().join("usr/lib/postgresql/17/bin/initdb")).expect("removed");
        fake(root.path(), "opt/homebrew/opt/postgresql@18/bin", "18.0");
        assert_eq!(
            found(None).map(|found| found.version).as_deref(),
            Some("14.2"),
            "17 has no initdb"
        );
        fake(root.path(), "mine", "16.3");
        let on_path = found(Some(&root.path().join("mine"))).expect("on PATH");
        assert_eq!((on_path.major, on_path.origin), (16, Origin::Path));
    }

    #[test]
    fn a_preferred_directory_is_used_or_blamed() {
        let root = tempfile::tempdir().expect("a directory");
        let error = find(Some(root.path()))
            .expect_err("it is empty")
            .to_string();
        assert!(
            error.contains(&root.path().display().to_string()) && error.contains("`postgres`"),
            "{error}"
        );
        fake(root.path(), "bin", "13.9");
        assert!(
            find(Some(root.path()))
                .expect_err("too old")
                .to_string()
                .contains("13.9")
        );
        fake(root.path(), "bin", "14.9");
        let found = find(Some(root.path())).expect("the directory above bin is fine too");
        assert_eq!(
            (found.bin_dir, found.origin),
            (root.path().join("bin"), Origin::Configured)
        );
    }

    #[test]
    fn the_advice_fits_the_system() {
        assert!(
            install_command_for("NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n")
                .contains("apt-get")
        );
        assert!(
            install_command_for("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n").contains("dnf")
        );
        assert!(install_command_for("").contains("package manager"));
    }
}
