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
    npm_packages(&place, &sources).await;
    let mut node = program("node");
    node.current_dir(&place).args(["driver.mjs", scenario]);
    node
}

/// `node driver.mjs <scenarios>` with an older supabase-js, which is pinned in a folder of its own.
pub(crate) async fn node_with(line: &str, scenarios: &[&str]) -> Command {
    let place = place(&format!("sdk-js-{line}"));
    let pinned = sources(&format!("js-{line}"));
    let _lock = lock(&place).await;
    mirror(&pinned, &place);
    let drivers = place.join("drivers");
    mirror(&sources("js"), &drivers);
    npm_packages(&place, &pinned).await;
    let mut node = program("node");
    node.current_dir(&drivers).arg("driver.mjs").args(scenarios);
    // It looks whether this is what it got.
    node.env("SDK_LINE", line);
    node
}

/// `node` in a directory where the helper of `clients/js` has been built, and its tests are.
pub(crate) async fn client_js(arguments: &[&str]) -> Command {
    let place = place("client-js");
    let sources = client("js");
    let _lock = lock(&place).await;
    let source = ["src", "test/types"]
        .into_iter()
        .flat_map(|folder| contents(&sources.join(folder)))
        .chain(read(&sources.join("tsconfig.json")))
        .collect::<Vec<u8>>();
    let built = is_current(&place, "built", &source);
    if !built {
        // What is gone from the sources must not be built.
        for stale in ["src", "test/types", "dist"] {
            drop(fs::remove_dir_all(place.join(stale)));
        }
    }
    mirror(&sources, &place);
    mirror(&self::sources("js"), &place.join("test/sdk"));
    npm_packages(&place, &sources).await;
    if !built {
        for project in [
            "tsconfig.json",
            "test/tsconfig.json",
            "test/tsconfig.2.85.json",
        ] {
            let mut tsc = program("node");
            tsc.current_dir(&place)
                .args(["node_modules/typescript/bin/tsc", "--project", project]);
            finish(tsc, "what is in clients/js to compile").await;
        }
        set_current(&place, "built", &source);
    }
    let mut node = program("node");
    node.current_dir(&place).args(arguments);
    node
}

async fn npm_packages(place: &Path, sources: &Path) {
    let lock_file = read(&sources.join("package-lock.json"));
    if is_current(place, "installed", &lock_file) {
        return;
    }
    let mut version = program("node");
    version.arg("--version");
    finish(version, NODE).await;
    let mut npm = program("npm");
    npm.current_dir(place).args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--engine-strict=false",
    ]);
    finish(npm, NODE).await;
    set_current(place, "installed", &lock_file);
}

/// `python` with these arguments, in a virtual environment with the packages, or with older ones.
pub(crate) async fn python(older: Option<&str>, arguments: &[&str]) -> Command {
    let sources = sources("python");
    let interpreter = match older {
        None => venv("sdk-python", &sources.join("requirements.txt")).await,
        Some(line) => {
            let requirements = sources.join(format!("requirements-{line}.txt"));
            venv(&format!("sdk-python-{line}"), &requirements).await
        }
    };
    let mut python = Command::new(interpreter);
    if let Some(line) = older {
        python.env("SDK_LINE", line);
    }
    python
        .current_dir(&sources)
        .args(arguments)
        // The sources are no place for caches.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// `python driver.py <scenario>` of the module in `clients/python`, with the package that the other tests have, or an older one.
pub(crate) async fn client_python(scenario: &str, older: Option<&str>) -> Command {
    let module = client("python");
    let sdk_tests = sources("python");
    let interpreter = match older {
        None => venv("sdk-python", &sdk_tests.join("requirements.txt")).await,
        Some(version) => {
            let requirements = module.join(format!("test/requirements-{version}.txt"));
            venv(&format!("sdk-python-{version}"), &requirements).await
        }
    };
    let path = std::env::join_paths([&module, &sdk_tests]).expect("paths without colons");
    let mut python = Command::new(interpreter);
    python
        .current_dir(module.join("test"))
        .args(["driver.py", scenario])
        .env("PYTHONPATH", path)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// The interpreter of a virtual environment with these packages.
async fn venv(name: &str, requirements: &Path) -> PathBuf {
    let place = place(name);
    let _lock = lock(&place).await;
    let interpreter = place.join("venv/bin/python");
    let wanted = read(requirements);
    // It is a link to the system's Python, which may have been replaced since.
    if !is_current(&place, "installed", &wanted) || !interpreter.is_file() {
        let mut venv = program("python3");
        venv.args(["-m", "venv", "--clear"]).arg(place.join("venv"));
        finish(venv, PYTHON).await;
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
        pip.args(["--disable-pip-version-check", "--requirement"]);
        pip.arg(requirements);
        finish(
            pip,
            "the package index, or a mirror of it that pip is set up for",
        )
        .await;
        set_current(&place, "installed", &wanted);
    }
    interpreter
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

/// The sources of what applications may use.
pub(crate) fn client(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../clients")
        .join(language)
}

fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&place).expect("a directory for the packages");
    place
}

/// One at a time, of the tests of this process and of others. Whoever holds it does nothing without a time limit.
async fn lock(place: &Path) -> File {
    // Versions have dots in their names, which are no extensions.
    let mut path = place.as_os_str().to_owned();
    path.push(".lock");
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

/// Whether that has been done to the end for these very inputs.
fn is_current(place: &Path, what: &str, wanted: &[u8]) -> bool {
    fs::read(place.join(what)).is_ok_and(|done| done == wanted)
}

fn set_current(place: &Path, what: &str, wanted: &[u8]) {
    fs::write(place.join(what), wanted).expect("a note of what is done");
}

/// All files of a folder, one after the other.
fn contents(folder: &Path) -> Vec<u8> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("sources")
        .map(|entry| entry.expect("a source").path())
        .collect();
    files.sort();
    files.iter().flat_map(|file| read(file)).collect()
}

/// Copies files that differ. Each is replaced at once: a driver of another test may be reading it.
fn mirror(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory for the drivers");
    for entry in fs::read_dir(from).expect("the drivers") {
        let entry = entry.expect("a driver");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            if entry.file_name() != "node_modules" && entry.file_name() != "dist" {
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
