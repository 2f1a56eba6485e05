//! Writes what waits in outboxes. Each flusher has a list of those in which something was pushed, and goes round: one system
//! call for all that waits in one. The more it has to do the longer a round takes, the more frames wait when it comes, and
//! the less each of them costs.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::outbox::{Outbox, Piece};

/// Outboxes between two moments at which other tasks have their turn. While no worker is idle, a task that yields waits for some
/// sixty others; so it is not done after each round.
const STRIDE: usize = 64;
/// What is written to one outbox before the next has its turn, in pieces. In its turn a flusher has to write more than all the
/// tasks push that run between two turns.
const PIECES: usize = 16;
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
        let mut round = Vec::new();
        let mut visited = 0_usize;
        loop {
            self.bell.notified().await;
            loop {
                std::mem::swap(&mut round, &mut *self.listed());
                if round.is_empty() {
                    break;
                }
                for outbox in round.drain(..) {
                    outbox.unlist();
                    let more = (0..PIECES).all(|_| outbox.flush(&mut piece));
                    if more && outbox.list_again() {
                        self.listed().push(outbox);
                    }
                    visited += 1;
                    if visited.is_multiple_of(STRIDE) {
                        piece.count();
                        tokio::task::yield_now().await;
                    }
                }
                round.shrink_to(KEEP);
                piece.count();
            }
        }
    }

    fn listed(&self) -> MutexGuard<'_, Vec<Arc<Outbox>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
