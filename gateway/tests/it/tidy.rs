//! What a machine can see of the house's rules: who knows SQL, who knows the socket, and how long a file may be.

use std::path::Path;

/// Longer files are read by nobody.
const LONGEST: usize = 600;

/// Files below a directory of the workspace with this ending: their paths from the workspace's root, and their texts.
fn files(directory: &str, ending: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let mut found = Vec::new();
    let mut directories = vec![root.join(directory)];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() && !path.ends_with("node_modules") {
                directories.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
            {
                found.push((
                    from(root, &path),
                    std::fs::read_to_string(&path).expect("a text"),
                ));
            }
        }
    }
    assert!(!found.is_empty(), "{directory} has no .{ending}");
    found
}

fn from(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// No file of these mentions any of the words, but for those in the list.
fn absent(files: &[(String, String)], words: &[&str], but: &[&str]) {
    let mentions = |text: &str| {
        words.iter().any(|word| {
            text.lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(word))
        })
    };
    let allowed = |path: &str| {
        but.iter().any(|allowed| {
            path == format!("gateway/src/{allowed}.rs")
                || path.starts_with(&format!("gateway/src/{allowed}/"))
        })
    };
    let found: Vec<_> = files
        .iter()
        .filter(|(path, text)| mentions(text) && !allowed(path))
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "{words:?} do not belong into {found:?}");
    for allowed in but {
        let path = format!("gateway/src/{allowed}");
        let used = files
            .iter()
            .any(|(file, text)| file.starts_with(&path) && mentions(text));
        assert!(
            used,
            "{allowed} is allowed {words:?} but has no use for them"
        );
    }
}

#[test]
fn the_protocol_knows_no_runtime_no_database_and_no_clock() {
    let sources = files("protocol/src", "rs");
    absent(
        &sources,
        &[
            "tokio",
            "sqlx",
            "tungstenite",
            "axum",
            "Instant",
            "SystemTime",
            "std::net",
            "std::fs",
        ],
        &[],
    );
    let manifest = &files("protocol", "toml")[0].1;
    assert!(
        !manifest.contains("tokio") && !manifest.contains("sqlx"),
        "{manifest}"
    );
}

#[test]
fn only_some_rooms_speak_sql() {
    let rooms = [
        "admission",
        "app",
        "authorizer",
        "catalog",
        "cli",
        "database",
        "demo",
        "feed",
        "posting",
        "private",
        "resume",
        "edge/health",
    ];
    absent(
        &files("gateway/src", "rs"),
        &["sqlx", "tokio_postgres"],
        &rooms,
    );
}

#[test]
fn only_the_edge_and_the_connections_task_know_what_a_websocket_is() {
    // A frame is kept in the form in which it is written, header and all, so that one encoding is shared by all readers.
    let rooms = ["edge", "connection/task", "connection", "hub/frame"];
    absent(
        &files("gateway/src", "rs"),
        &["tungstenite", "WebSocket"],
        &rooms,
    );
}

#[test]
fn what_decides_does_not_wait() {
    let deciding = [
        "connection/machine",
        "connection/channel",
        "hub/index",
        "hub/filter",
        "hub/group",
        "hub/encode",
        "hub/columns",
        "topics",
    ];
    for (path, text) in files("gateway/src", "rs") {
        let decides = deciding
            .iter()
            .any(|room| path == format!("gateway/src/{room}.rs"));
        assert!(
            !decides || !text.contains(".await"),
            "{path} waits, and what it decides is not made up by then"
        );
        // Topics know how late a message is.
        let timeless = decides && !path.ends_with("topics.rs");
        assert!(
            !timeless || !text.contains("Instant::now"),
            "{path} reads a clock"
        );
    }
}

#[test]
fn no_file_is_so_long_that_nobody_reads_it() {
    let mut sources = Vec::new();
    for room in [
        "gateway/src",
        "gateway/tests",
        "protocol/src",
        "protocol/tests",
        "devpg",
        "loadtest",
    ] {
        sources.extend(files(room, "rs"));
    }
    sources.extend(files("migrations", "sql"));
    let long: Vec<_> = sources
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn every_source_says_first_what_it_is_for() {
    let rooms = [
        "gateway/src",
        "gateway/tests",
        "protocol/src",
        "devpg/src",
        "loadtest/src",
    ];
    let silent: Vec<_> = rooms
        .into_iter()
        .flat_map(|room| files(room, "rs"))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}
