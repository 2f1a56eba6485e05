//! The servers that Tidings is compared with: what each needs of the database, how it is started, and what its clients speak.

use std::path::PathBuf;

/// Where the peers' sources and settings are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

const CHANGE: &str = include_str!("../../peers/change.sql");
const NOTIFY: &str = include_str!("../../peers/notify.sql");
const OUTBOX: &str = include_str!("../../peers/centrifugo/outbox.sql");

/// How a program says that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// By a line of its own: `ready`.
    Line,
    /// By the status 200 at this path.
    Http(&'static str),
}

/// What the clients of a peer speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Plain,
    SocketIo,
    Centrifuge,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// What its database has beside the tables of the load test.
    pub(super) scripts: &'static [&'static str],
    pub(super) ready: Ready,
    pub(super) speaks: Speaks,
    /// What its installation makes, from the root of the repository.
    made: &'static str,
}

pub(super) const PEERS: [Peer; 6] = [
    Peer {
        name: "node-ws",
        scripts: &[CHANGE, NOTIFY],
        ready: Ready::Line,
        speaks: Speaks::Plain,
        made: "loadtest/peers/node/node_modules/.package-lock.json",
    },
    Peer {
        name: "socket.io",
        scripts: &[CHANGE, NOTIFY],
        ready: Ready::Line,
        speaks: Speaks::SocketIo,
        made: "loadtest/peers/node/node_modules/.package-lock.json",
    },
    Peer {
        name: "socketioxide",
        scripts: &[CHANGE, NOTIFY],
        ready: Ready::Line,
        speaks: Speaks::SocketIo,
        made: "target/peers/socketioxide/release/peer-socketioxide",
    },
    Peer {
        name: "gorilla",
        scripts: &[CHANGE, NOTIFY],
        ready: Ready::Http("/ready"),
        speaks: Speaks::Plain,
        made: "target/peers/bin/peer-gorilla",
    },
    Peer {
        name: "python-websockets",
        scripts: &[CHANGE, NOTIFY],
        ready: Ready::Line,
        speaks: Speaks::Plain,
        made: "target/peers/python/installed",
    },
    Peer {
        name: "centrifugo",
        scripts: &[CHANGE, OUTBOX],
        ready: Ready::Http("/health"),
        speaks: Speaks::Centrifuge,
        made: "target/peers/bin/centrifugo",
    },
];

impl Peer {
    pub(super) fn installed(&self) -> bool {
        sources().join("../..").join(self.made).is_file()
    }

    /// A database's name, of letters and underscores.
    pub(super) fn database(&self) -> String {
        self.name
            .replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
    }
}

pub(super) fn sources() -> PathBuf {
    PathBuf::from(SOURCES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_a_row_for_each_peer() {
        let readme = include_str!("../../peers/README.md");
        for peer in PEERS {
            let row = format!("| {} |", peer.name);
            assert!(
                readme.lines().any(|line| line.starts_with(&row)),
                "loadtest/peers/README.md has no row that begins with `{row}`"
            );
        }
    }

    #[test]
    fn every_peer_can_be_started_and_is_installed_by_the_script() {
        let start = include_str!("../../peers/start");
        let run = include_str!("../../peers/run");
        for peer in PEERS {
            let case = format!("{})", peer.name);
            assert!(
                start.lines().any(|line| line.starts_with(&case)),
                "peers/start does not know {}",
                peer.name
            );
            assert!(
                run.contains(&format!("wanted {}", peer.name)),
                "peers/run does not install {}",
                peer.name
            );
        }
    }

    #[test]
    fn databases_have_plain_and_different_names() {
        let mut names: Vec<String> = PEERS.iter().map(Peer::database).collect();
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        );
        names.sort();
        names.dedup();
        assert_eq!(names.len(), PEERS.len());
    }
}
