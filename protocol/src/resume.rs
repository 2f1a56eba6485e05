//! Our own additions to the protocol: cursors, and why one is refused.

/// The key of a record that holds its change's cursor, for bindings that asked for cursors.
pub const CURSOR_KEY: &str = "tidings_cursor";

/// The `system` message that now and then brings a subscription without changes a fresh cursor.
pub const CURSOR: &str = "Cursor";

/// Rows that one channel may ask for with `history`.
pub const MAX_HISTORY: u64 = 1000;

/// Bindings of one channel that may start in the past, each in its own place.
pub const MAX_STARTS: usize = 32;

/// Why a subscription cannot go on from where it wants to. The word before the colon is for programs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResumeError {
    #[error(
        "cursor_expired: changes since this cursor are not kept any more: fetch the rows anew, and join without `since`"
    )]
    Expired,
    #[error(
        "cursor_foreign: this cursor was made by another database, or by this one before it lost changes: fetch the rows anew, and join without `since`"
    )]
    Foreign,
    #[error(
        "cursor_invalid: `since` is not a cursor that this server has made: fetch the rows anew, and join without `since`"
    )]
    Invalid,
    #[error("history_invalid: {0}")]
    History(String),
    #[error(
        "resume_limit: at most {MAX_STARTS} bindings of a channel may have `since` or `history`"
    )]
    Limit,
}

impl ResumeError {
    /// The word before the colon.
    pub fn code(&self) -> &'static str {
        match self {
            ResumeError::Expired => "cursor_expired",
            ResumeError::Foreign => "cursor_foreign",
            ResumeError::Invalid => "cursor_invalid",
            ResumeError::History(_) => "history_invalid",
            ResumeError::Limit => "resume_limit",
        }
    }
}
