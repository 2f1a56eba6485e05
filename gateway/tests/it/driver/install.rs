//! The SDKs, installed from their lock files into cargo's directory for temporary files of tests, once.
//!
//! What is missing on the machine fails the test and names how to get it: a test that is skipped proves nothing.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// A download of about 15 MB, on a slow line.
const LIMIT: Duration = Duration::from_secs(300);

const NODE: &str = "Node.js 20 or newer with npm (Debian and Ubuntu: apt-get install nodejs npm)";
const PYTHON: &str =
    "Python 3.11 or newer with its module venv (Debian and Ubuntu: apt-get install python3-venv)";

const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// `node driver.mjs <scenario>` in a directory where the packages are.
pub(crate) async fn node(scenario: &str) -> Command {
    let place = place("sdk-js");
    let sources = sources("js");
    let _lock = lock(&place).await;
    // Node looks for packages beside and above the file that imports them, so the drivers go where the packages are.
    mirror(&sources, &place);
    let mut version = program("node");
    version.arg("--version");
    finish(version, NODE).await;
    let lock_file = sources.join("package-lock.json");
    if !is_current(&place, &lock_file) {
        let mut npm = program("npm");
        npm.current_dir(&place).args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--engine-strict=false",
        ]);
        finish(npm, NODE).await;
        set_current(&place, &lock_file);
    }
    let mut node = program("node");
    node.current_dir(&place).args(["driver.mjs", scenario]);
    node
}

/// `python driver.py <scenario>` in a virtual environment with the packages.
pub(crate) async fn python(scenario: &str) -> Command {
    let place = place("sdk-python");
    let sources = sources("python");
    let _lock = lock(&place).await;
    let interpreter = place.join("venv/bin/python");
    let requirements = sources.join("requirements.txt");
    // It is a link to the system's Python, which may have been replaced since.
    if !is_current(&place, &requirements) || !interpreter.is_file() {
        let mut venv = program("python3");
        venv.args(["-m", "venv", "--clear"]).arg(place.join("venv"));
        finish(venv, PYTHON).await;
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
        pip.args(["--disable-pip-version-check", "--requirement"]);
        pip.arg(&requirements);
        finish(
            pip,
            "the package index, or a mirror of it that pip is set up for",
        )
        .await;
        set_current(&place, &requirements);
    }
    let mut python = Command::new(interpreter);
    python
        .current_dir(&sources)
        .args(["driver.py", scenario])
        // The sources are no place for caches.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// A Chromium: the one that the variable names, or one on the path.
pub(crate) fn chromium() -> PathBuf {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return named.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|directory| BROWSERS.map(|name| directory.join(name)))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| {
            panic!(
                "this test needs Chromium: install it (Debian and Ubuntu: apt-get install chromium), or name one in \
                 the variable CHROMIUM"
            )
        })
}

fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command that has to succeed; `needed` is what the machine must have for that.
async fn finish(mut command: Command, needed: &str) {
    let output = match timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("this test needs {needed}: {command:?}: {error}"),
        Err(_) => panic!("not done after {LIMIT:?}: {command:?}"),
    };
    assert!(
        output.status.success(),
        "this test needs {needed}: {command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sdk")
        .join(language)
}

fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&place).expect("a directory for the packages");
    place
}

/// One at a time, of the tests of this process and of others. Whoever holds it does nothing without a time limit.
async fn lock(place: &Path) -> File {
    let path = place.with_extension("lock");
    let locked = move || {
        let file = File::create(path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    tokio::task::spawn_blocking(locked)
        .await
        .expect("a thread that waits")
        .expect("a lock on the packages")
}

/// Whether what this file asks for has been installed to the end.
fn is_current(place: &Path, wanted: &Path) -> bool {
    fs::read(place.join("installed")).ok() == Some(read(wanted))
}

fn set_current(place: &Path, wanted: &Path) {
    fs::write(place.join("installed"), read(wanted)).expect("a note of what is installed");
}

/// Copies files that differ. Each is replaced at once: a driver of another test may be reading it.
fn mirror(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory for the drivers");
    for entry in fs::read_dir(from).expect("the drivers") {
        let entry = entry.expect("a driver");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            if entry.file_name() != "node_modules" {
                mirror(&entry.path(), &target);
            }
            continue;
        }
        let content = read(&entry.path());
        if fs::read(&target).ok().as_ref() != Some(&content) {
            let new = target.with_extension("new");
            fs::write(&new, content).expect("a copy of a driver");
            fs::rename(&new, &target).expect("a copy in its place");
        }
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
