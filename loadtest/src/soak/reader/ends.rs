//! Names for the ends of connections, and which of them must not be.

use std::collections::BTreeMap;

use super::Leave;
use crate::channel::End;

/// How many events of which kind.
pub(crate) type Counts = BTreeMap<String, u64>;

/// No reader's rights or cursors end during a run.
pub(super) fn is_final(why: &str) -> bool {
    why.starts_with("cursor_") || why.contains("nauthorized") || why.contains("permission")
}

/// In full, and in so few words that it can be counted.
pub(super) fn describe(leave: &Leave) -> (String, String) {
    let both = |text: &str| (text.to_owned(), text.to_owned());
    match leave {
        Leave::ByItself | Leave::NewLife => both("left"),
        Leave::Done => both("done"),
        Leave::End(end) => {
            let short = match end {
                End::Unreachable(_) => "unreachable".to_owned(),
                End::Closed(code) => format!("closed_{code}"),
                End::Broken(_) => "broken".to_owned(),
                End::Refused(why) => format!("refused: {}", head(why)),
                End::Ended(why) => format!("ended: {}", head(why)),
                End::Wrong(_) => "wrong".to_owned(),
            };
            (end.to_string(), short)
        }
    }
}

/// What stands before the first colon says which reason it is.
fn head(why: &str) -> &str {
    why.split(':').next().unwrap_or(why)
}
