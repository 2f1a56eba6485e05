//! Who is there, as one client sees it: the state, and each diff applied to it as the SDKs do.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use protocol::event;
use serde::Deserialize;

use crate::frame::Message;

/// Each key with the refs of its metas, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    metas: Vec<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    phx_ref: Cow<'a, str>,
}

type Entries<'a> = HashMap<Cow<'a, str>, Entry<'a>>;

#[derive(Deserialize)]
struct Diff<'a> {
    #[serde(borrow)]
    joins: Entries<'a>,
    #[serde(borrow)]
    leaves: Entries<'a>,
}

impl View {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a message changed it; those that are not about presence do not.
    pub(super) fn take(&mut self, message: &Message<'_>) -> Result<bool, String> {
        let payload = message.payload.get();
        let wrong = |error: serde_json::Error| format!("not understood: {error}");
        match &*message.event {
            event::PRESENCE_STATE => {
                let state: Entries<'_> = serde_json::from_str(payload).map_err(wrong)?;
                self.0 = state
                    .into_iter()
                    .map(|(key, entry)| (key.into_owned(), refs(entry)))
                    .collect();
                self.0.values_mut().for_each(|refs| refs.sort());
                Ok(true)
            }
            event::PRESENCE_DIFF => {
                let diff: Diff<'_> = serde_json::from_str(payload).map_err(wrong)?;
                self.apply(diff);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn apply(&mut self, diff: Diff<'_>) {
        for (key, entry) in diff.joins {
            let known = self.0.entry(key.into_owned()).or_default();
            known.extend(refs(entry));
            known.sort();
            known.dedup();
        }
        for (key, entry) in diff.leaves {
            let Some(known) = self.0.get_mut(&*key) else {
                continue;
            };
            let gone = refs(entry);
            known.retain(|one| !gone.contains(one));
            if known.is_empty() {
                self.0.remove(&*key);
            }
        }
    }
}

fn refs(entry: Entry<'_>) -> Vec<String> {
    let refs = entry.metas.into_iter();
    refs.map(|meta| meta.phx_ref.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use protocol::Version;

    use super::*;

    fn take(view: &mut View, event: &str, payload: &str) -> bool {
        let text = format!(r#"[null,null,"realtime:a","{event}",{payload}]"#);
        view.take(&Message::parse(Version::V2, &text).unwrap())
            .unwrap()
    }

    #[test]
    fn state_and_diffs_make_the_same_view() {
        let mut one = View::default();
        let state =
            r#"{"ada":{"metas":[{"phx_ref":"1","x":{}}]},"bob":{"metas":[{"phx_ref":"2"}]}}"#;
        assert!(take(&mut one, "presence_state", state));
        // Ada tracks again, Bob leaves, Cy comes with two tabs.
        let diff = r#"{"joins":{"ada":{"metas":[{"phx_ref":"3","phx_ref_prev":"1"}]},"cy":{"metas":[{"phx_ref":"5"},{"phx_ref":"4"}]}},
                       "leaves":{"ada":{"metas":[{"phx_ref":"1"}]},"bob":{"metas":[{"phx_ref":"2"}]},"dan":{"metas":[]}}}"#;
        assert!(take(&mut one, "presence_diff", diff));
        let mut other = View::default();
        let state = r#"{"cy":{"metas":[{"phx_ref":"4"},{"phx_ref":"5"}]},"ada":{"metas":[{"phx_ref":"3"}]}}"#;
        take(&mut other, "presence_state", state);
        assert_eq!(one, other);
        assert_eq!(one.len(), 2);
        // One of two tabs is closed: the key stays, and the views differ.
        let diff = r#"{"joins":{},"leaves":{"cy":{"metas":[{"phx_ref":"4"}]}}}"#;
        take(&mut one, "presence_diff", diff);
        assert_eq!(one.len(), 2);
        assert_ne!(one, other);
    }

    #[test]
    fn other_messages_change_nothing() {
        let mut view = View::default();
        assert!(!take(&mut view, "broadcast", "{}"));
        assert_eq!(view.len(), 0);
    }
}
