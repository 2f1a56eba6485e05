//! The frames of presence, in pieces that their clients can read.

use std::collections::BTreeMap;

use protocol::{Ref, Version, event};

use super::Tracked;
use crate::hub::outbox::Frame;

/// Python's client, which speaks version 1, closes the socket on frames of more than 1 MiB.
const V1_BYTES: usize = 900 << 10;
/// In a `presence_state`, realtime-js takes this key for the mark of a change of a table, and fails. It is told by a diff.
const NOT_IN_STATE: &str = "ids";

/// All entries as a `presence_state`: its payload, and as diffs what cannot be in it. A client takes a second state for one that
/// replaces the first, and diffs for what is to be added.
pub(super) fn state<'a>(
    version: Version,
    topic: &str,
    tracked: impl Iterator<Item = &'a Tracked>,
) -> (String, Vec<Frame>) {
    let mut within = Within::of(version);
    let (head, rest): (Vec<_>, Vec<_>) =
        tracked.partition(|tracked| *tracked.key != *NOT_IN_STATE && within.takes(tracked));
    (all(head.into_iter()), diffs(version, topic, &rest, &[]))
}

/// All entries, whatever may come of it.
pub(super) fn all<'a>(tracked: impl Iterator<Item = &'a Tracked>) -> String {
    protocol::presence::state(by_key(tracked.map(Tracked::entry)))
}

/// Joins and leaves as diffs; as several where a client could not read it all in one. What is too large by itself is left out: it
/// would cost such a client its connection, again and again.
pub(super) fn diffs(
    version: Version,
    topic: &str,
    joins: &[&Tracked],
    leaves: &[&Tracked],
) -> Vec<Frame> {
    let joins = joins.iter().map(|joined| (true, *joined));
    let leaves = leaves.iter().map(|left| (false, *left));
    let mut pieces: Vec<[Vec<(&str, &str)>; 2]> = Vec::new();
    let mut within = Within { left: Some(0) };
    // Joins come first, so that who only changes is never gone in between.
    for (is_join, tracked) in joins.chain(leaves) {
        if pieces.is_empty() || !within.takes(tracked) {
            within = Within::of(version);
            if !within.takes(tracked) {
                continue;
            }
            pieces.push([Vec::new(), Vec::new()]);
        }
        if let Some(piece) = pieces.last_mut() {
            piece[usize::from(!is_join)].push(tracked.entry());
        }
    }
    let frame = |[joins, leaves]: [Vec<(&str, &str)>; 2]| {
        let payload = protocol::presence::diff(by_key(joins), by_key(leaves));
        Frame::text(protocol::encode(
            version,
            &Ref::NULL,
            &Ref::NULL,
            topic,
            event::PRESENCE_DIFF,
            &payload,
        ))
    };
    pieces.into_iter().map(frame).collect()
}

/// The metas of each key, in their order.
fn by_key<'a>(
    entries: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, meta) in entries {
        keys.entry(key).or_default().push(meta);
    }
    keys
}

/// How much still fits into a frame.
struct Within {
    /// None: anything.
    left: Option<usize>,
}

impl Within {
    fn of(version: Version) -> Within {
        Within {
            left: (version == Version::V1).then_some(V1_BYTES),
        }
    }

    fn takes(&mut self, tracked: &Tracked) -> bool {
        let Some(left) = self.left else { return true };
        let after = left.checked_sub(tracked.bytes);
        // What comes after something that did not fit stays behind it.
        self.left = Some(after.unwrap_or(0));
        after.is_some()
    }
}
