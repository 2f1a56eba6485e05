//! The open sockets, for what concerns all of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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

    /// Tells every socket what concerns all of them, until somebody drops it: one who listens costs less than all of them.
    /// `keys`: issuers' keys go, and bots' are revoked. `tables`: are published, and taken off. `stop`: sockets are to go.
    pub async fn tell(
        self: Arc<Self>,
        mut keys: watch::Receiver<u64>,
        mut tables: watch::Receiver<()>,
        stop: CancellationToken,
    ) {
        loop {
            let signal = tokio::select! {
                Ok(()) = keys.changed() => Signal::Keys,
                Ok(()) = tables.changed() => Signal::Tables,
                () = stop.cancelled() => break,
            };
            self.signal(&signal);
        }
        self.signal(&Signal::Stop);
        std::future::pending().await
    }

    fn signal(&self, signal: &Signal) {
        self.open
            .iter()
            .for_each(|outbox| outbox.signal(signal.clone()));
    }

    /// Closes every socket on which one of these uses a channel, or that was opened with a token of theirs. Returns how many
    /// sockets were asked whether they are meant.
    pub fn disconnect(&self, whom: Whom) -> usize {
        self.signal(&Signal::Disconnect(Arc::new(whom)));
        self.open.len()
    }
}
