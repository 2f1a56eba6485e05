//! Sockets that take everything, and the flusher that writes to them: what becomes of frames when they have been pushed.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use gateway::hub::{
    flusher::Round,
    outbox::{Limits, Outbox, Wire},
};
use tokio::runtime::Runtime;

/// As many runs as leave every outbox roomy, and the room that it keeps is enough for them.
pub(super) const AT_ONCE: u64 = 4;
/// The flusher lets others have their turn after so many outboxes.
const STRIDE: usize = 64;

pub(super) struct Network {
    runtime: Runtime,
    round: Arc<Round>,
    sockets: Arc<Sockets>,
    outboxes: AtomicUsize,
}

/// What all sockets have taken.
#[derive(Default)]
struct Sockets {
    frames: AtomicUsize,
    bytes: AtomicUsize,
}

impl Wire for Sockets {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.frames.fetch_add(slices.len(), Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Network {
    pub(super) fn new() -> Network {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let round = Arc::<Round>::default();
        let flusher = round.clone();
        runtime.spawn(async move { flusher.run().await });
        Network {
            runtime,
            round,
            sockets: Arc::default(),
            outboxes: AtomicUsize::new(0),
        }
    }

    /// That of a new connection.
    pub(super) fn outbox(&self) -> Arc<Outbox> {
        self.outboxes.fetch_add(1, Ordering::Relaxed);
        let limits = Limits {
            frames: 1024,
            bytes: 8 << 20,
        };
        let outbox = Outbox::new(limits, Some(self.round.clone()));
        outbox.attach(self.sockets.clone());
        outbox
    }

    /// Lets the flusher go round until nothing waits. Returns how many frames were written, and of how many bytes.
    pub(super) fn flush(&self) -> (usize, usize) {
        let turns = self.outboxes.load(Ordering::Relaxed) / STRIDE + 4;
        self.runtime.block_on(async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
        let Sockets { frames, bytes } = &*self.sockets;
        (
            frames.swap(0, Ordering::Relaxed),
            bytes.swap(0, Ordering::Relaxed),
        )
    }
}
