//! Writes what waits in outboxes. Each flusher has a list of those in which something was pushed, and goes round: one system
//! call for all that waits in one. The more it has to do the longer a round takes, the more frames wait when it comes, and
//! the less each of them costs.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::outbox::{Outbox, Piece};

/// Outboxes between two moments at which other tasks have their turn.
const STRIDE: usize = 64;
/// A list that has grown longer is not kept.
const KEEP: usize = 1024;

/// The outboxes of one flusher in which something waits.
#[derive(Default)]
pub struct Round {
    /// Bounded by the number of sockets: each is in it at most once.
    listed: Mutex<Vec<Arc<Outbox>>>,
    bell: Notify,
}

/// All flushers, one for each core.
pub struct Flushers {
    rounds: Box<[Arc<Round>]>,
    next: AtomicUsize,
}

impl Flushers {
    pub fn new(count: usize) -> Flushers {
        Flushers {
            rounds: (0..count.max(1)).map(|_| Arc::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    pub fn rounds(&self) -> impl Iterator<Item = Arc<Round>> {
        self.rounds.iter().cloned()
    }

    /// The flusher of a new connection.
    pub fn assign(&self) -> Arc<Round> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.rounds[next % self.rounds.len()].clone()
    }
}

impl Round {
    pub(super) fn list(&self, outbox: Arc<Outbox>) {
        let mut listed = self.listed();
        listed.push(outbox);
        let first = listed.len() == 1;
        drop(listed);
        if first {
            self.bell.notify_one();
        }
    }

    /// Goes round for ever.
    pub async fn run(&self) {
        let mut piece = Piece::default();
        let mut visited = Vec::new();
        loop {
            self.bell.notified().await;
            loop {
                std::mem::swap(&mut visited, &mut *self.listed());
                if visited.is_empty() {
                    break;
                }
                for (place, outbox) in visited.drain(..).enumerate() {
                    outbox.unlist();
                    if outbox.flush(&mut piece) && outbox.list_again() {
                        self.listed().push(outbox);
                    }
                    if (place + 1).is_multiple_of(STRIDE) {
                        tokio::task::yield_now().await;
                    }
                }
                visited.shrink_to(KEEP);
                piece.count();
                tokio::task::yield_now().await;
            }
        }
    }

    fn listed(&self) -> MutexGuard<'_, Vec<Arc<Outbox>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
