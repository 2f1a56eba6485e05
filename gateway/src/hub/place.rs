//! How far the hub has come.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Hub, outbox::Signal};
use crate::feed::{
    Read,
    mark::{ALL, Mark},
};

/// How far the hub has delivered.
#[derive(Clone)]
pub struct Place {
    pub read: Arc<Read>,
    /// The last sequence number, or [`ALL`].
    pub(super) reached: i64,
}

impl Place {
    pub fn mark(&self) -> Mark {
        match self.reached {
            ALL => self.read.end(),
            reached => self.read.mark(reached),
        }
    }

    /// For a client that has been given everything up to here.
    pub fn cursor(&self) -> String {
        match self.reached {
            ALL => self.read.source.cursor(&self.read.end(), self.read.written),
            reached => self.read.cursor(reached),
        }
    }
}

impl Hub {
    /// The changes of the last survey have been delivered.
    pub fn delivered(&self) {
        self.state().delivering = false;
        self.progress.send_replace(());
    }

    /// A read has been delivered as a whole.
    pub fn complete(&self, read: &Arc<Read>) {
        let mut state = self.state();
        if state.recent.start().is_none() {
            state.recent.begin(Some(read.end()));
        }
        state.place = Some(Place {
            read: read.clone(),
            reached: ALL,
        });
        drop(state);
        self.progress.send_replace(());
    }

    /// Changes may be lost: everybody has to come back, and nothing that was kept can be relied on.
    pub fn lose(&self) {
        let mut state = self.state();
        state.recent.begin(None);
        state.place = None;
        let members: Vec<_> = state.subscriptions.keys().copied().collect();
        for id in members {
            // What is delivered from now on has cursors from after the loss, which would hide it.
            if let Some(member) = state.remove(id) {
                member.outbox.signal(Signal::Lost);
            }
        }
    }

    /// How far the hub has delivered; None until the feed's first read.
    pub fn place(&self) -> Option<Place> {
        self.state().place.clone()
    }

    /// Tells of progress.
    pub fn progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }
}
