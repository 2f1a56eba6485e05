//! The queue between whoever has a frame and the socket to which a flusher writes it.

use std::{hint::black_box, sync::Arc};

use gateway::hub::outbox::{Frame, Outbox};

use super::{
    Amount, Prepared, Work,
    network::{AT_ONCE, Network},
    world,
};

/// Frames into empty outboxes, so many into each.
pub(super) fn push(outboxes: usize, frames: usize) -> Prepared {
    let push = Push(Queues::new(outboxes, frames));
    Prepared::new(Amount::Elements(outboxes * frames), push)
}

/// All of it out of them, and to the sockets: all but the kernel's part.
pub(super) fn flush(outboxes: usize, frames: usize) -> Prepared {
    let mut flush = Flush(Queues::new(outboxes, frames));
    flush.reset();
    Prepared::new(Amount::Elements(outboxes * frames), flush)
}

/// The frame of a text: its bytes as they go over the wire.
pub(super) fn frame() -> Prepared {
    let text = world::row(1, world::CONTENT);
    Prepared::new(Amount::Bytes(text.len()), move || {
        drop(black_box(Frame::text(black_box(&text))));
    })
}

struct Queues {
    network: Network,
    outboxes: Vec<Arc<Outbox>>,
    frame: Frame,
    frames: usize,
}

impl Queues {
    fn new(outboxes: usize, frames: usize) -> Queues {
        let network = Network::new();
        let queues = Queues {
            outboxes: (0..outboxes).map(|_| network.outbox()).collect(),
            network,
            frame: Frame::text(world::row(1, world::CONTENT)),
            frames,
        };
        queues.push();
        assert_eq!(queues.network.flush().0, outboxes * frames);
        queues
    }

    fn push(&self) {
        for outbox in &self.outboxes {
            for _ in 0..self.frames {
                black_box(outbox.push(black_box(&self.frame).clone()));
            }
        }
    }
}

struct Push(Queues);

impl Work for Push {
    fn run(&mut self) {
        self.0.push();
    }

    fn reset(&mut self) {
        self.0.network.flush();
    }

    fn at_once(&self) -> u64 {
        AT_ONCE
    }
}

struct Flush(Queues);

impl Work for Flush {
    fn run(&mut self) {
        black_box(self.0.network.flush());
    }

    fn reset(&mut self) {
        self.0.push();
    }
}
