//! What one reader was told, from its first join to its last. Recorded while the run goes on, judged afterwards.

use serde::Serialize;
use uuid::Uuid;

use super::truth::Key;
use crate::channel::Kind;

/// What kind of client a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Habit {
    /// Stays as long as it can, and resumes.
    Steady,
    /// Leaves by itself every few seconds, and resumes, at times from an older cursor.
    Hopper,
    /// Stops reading for seconds.
    Slow,
    /// Several chats in one channel, with one cursor for all.
    Wide,
    /// All that its user may see, without a filter: every row is judged by itself.
    Unfiltered,
    /// INSERT only.
    Inserts,
    /// Joins with history, lives for some seconds, and begins anew.
    Newcomer,
    /// Serializer 1.0.0, without cursors.
    Plain,
}

/// What a reader is to be told about.
#[derive(Clone, Debug)]
pub(crate) struct Interest {
    pub(crate) sessions: Vec<Uuid>,
    /// `None` is every kind of change.
    pub(crate) only: Option<Kind>,
}

#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) reader: usize,
    pub(crate) habit: Habit,
    pub(crate) serializer: &'static str,
    pub(crate) interest: Interest,
    pub(crate) lives: Vec<Life>,
    pub(crate) connections: Vec<Connection>,
    /// What needs no truth to be wrong. Time and words.
    pub(crate) wrong: Vec<(u32, String)>,
}

impl Story {
    /// The snapshots that this reader took.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &str> {
        self.lives
            .iter()
            .flat_map(|life| match &life.beginning {
                Beginning::Start => [None, None],
                Beginning::Between { before, after, .. } => {
                    [Some(before.as_str()), after.as_deref()]
                }
            })
            .flatten()
    }
}

/// One unbroken claim: from where it began, everything exactly once.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) beginning: Beginning,
    pub(crate) entries: Vec<Entry>,
    /// The end of the run was reached, so nothing may be missing. Otherwise nothing before the last change may be.
    pub(crate) complete: bool,
}

#[derive(Debug)]
pub(crate) enum Beginning {
    /// Before the first change.
    Start,
    /// In the middle of the run. The marks are snapshots of the database, taken before the join was sent and after it was
    /// confirmed. What the first sees belongs to the history, what the second does not see must come.
    Between {
        before: String,
        after: Option<String>,
        history: Option<History>,
    },
}

#[derive(Debug)]
pub(crate) struct History {
    pub(crate) asked: usize,
    pub(crate) rows: Vec<Key>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    Got {
        key: Key,
        at: u32,
        connection: u32,
    },
    /// The reader went back to an older cursor: so many entries remain.
    Back {
        keep: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) from: u32,
    pub(crate) until: u32,
    pub(crate) since: Option<String>,
    pub(crate) end: String,
}
