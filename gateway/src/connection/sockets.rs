//! The open sockets, for what concerns all of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;

use crate::{
    auth::Whom,
    hub::outbox::{Outbox, Signal},
};

#[derive(Default)]
pub struct Sockets {
    open: DashMap<u64, Arc<Outbox>>,
    next: AtomicU64,
}

/// Takes the socket out of the list when it is dropped.
pub(super) struct Registered<'a> {
    sockets: &'a Sockets,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.sockets.open.remove(&self.id);
    }
}

impl Sockets {
    pub(super) fn register(&self, outbox: &Arc<Outbox>) -> Registered<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.insert(id, outbox.clone());
        Registered { sockets: self, id }
    }

    /// Closes every socket on which one of these uses a channel, or that was opened with a token of theirs. Returns how many
    /// sockets were asked whether they are meant.
    pub fn disconnect(&self, whom: Whom) -> usize {
        let whom = Arc::new(whom);
        self.open
            .iter()
            .for_each(|outbox| outbox.signal(Signal::Disconnect(whom.clone())));
        self.open.len()
    }
}
