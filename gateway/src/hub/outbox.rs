//! The bounded queue between the hub and one connection.
//!
//! Whoever has a frame for the connection pushes it and goes on at once. A connection that does not keep up is never
//! dropped from silently: its outbox ends, and the connection closes with a code that says why.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::SubscriptionId;
use crate::{auth::Whom, metrics::names};

/// What is sent to a client. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Frame {
    pub fn text(text: String) -> Frame {
        Frame::Text(text.into())
    }

    fn len(&self) -> usize {
        match self {
            Frame::Text(text) => text.len(),
            Frame::Binary(bytes) => bytes.len(),
        }
    }
}

/// What waits in an outbox, in its order.
#[derive(Debug, Clone)]
pub enum Item {
    Frame(Frame),
    /// Something that the connection itself has to do, after what came before has been written.
    Signal(Signal),
}

#[derive(Debug, Clone)]
pub enum Signal {
    /// The hub has ended a subscription, because its principal may not have it any more.
    Revoked(SubscriptionId),
    /// The hub has ended a subscription, because what it asks for exists no more.
    Void(SubscriptionId, Arc<str>),
    /// A subscription cannot be given what it missed. Its channel should be joined again.
    Failed(SubscriptionId),
    /// Changes may be lost, and the client should find out what it has.
    Lost,
    /// An operator disconnects whoever fits.
    Disconnect(Arc<Whom>),
}

/// How much may wait. A single frame larger than `bytes` is let through when nothing else waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub frames: usize,
    pub bytes: usize,
}

pub struct Outbox {
    limits: Limits,
    queue: Mutex<Queue>,
    reader: AtomicWaker,
    /// Rung when what waited has been taken.
    taken: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Item>,
    bytes: usize,
    overflowed: bool,
    /// What was taken last cannot be written now, because the client does not read.
    blocked: bool,
}

impl Queue {
    fn fullness(&self, limits: Limits) -> f32 {
        (self.frames.len() as f32 / limits.frames as f32)
            .max(self.bytes as f32 / limits.bytes as f32)
    }
}

/// The reader was too slow, and what it has missed is gone from here.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflowed;

/// An outbox that is fuller than this is crowded, until it is emptier than [`ROOMY`].
const CROWDED: f32 = 0.5;
const ROOMY: f32 = 0.25;
/// So much is taken at a time: what is being written is not counted any more.
const PIECE_BYTES: usize = 256 * 1024;
/// Frames for which a drained queue keeps room. An idle connection should cost little.
const KEEP: usize = 16;

impl Outbox {
    pub fn new(limits: Limits) -> Outbox {
        Outbox {
            limits,
            queue: Mutex::default(),
            reader: AtomicWaker::new(),
            taken: Notify::new(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns whether the outbox is crowded, and not by the fault of its client: whoever pushes a lot should wait then. What
    /// comes after an overflow is not kept.
    pub fn push(&self, frame: Frame) -> bool {
        self.put(frame, false)
    }

    /// For what a client is owed when it joins, of whatever size: there are no more of these than channels.
    pub fn push_greeting(&self, frame: Frame) {
        self.put(frame, true);
    }

    fn put(&self, frame: Frame, always: bool) -> bool {
        let mut queue = self.queue();
        if queue.overflowed {
            return false;
        }
        let bytes = queue.bytes + frame.len();
        let fits = queue.frames.len() < self.limits.frames
            && (bytes <= self.limits.bytes || queue.frames.is_empty() || always);
        let crowded = if fits {
            queue.bytes = bytes;
            queue.frames.push_back(Item::Frame(frame));
            !queue.blocked && queue.fullness(self.limits) > CROWDED
        } else {
            metrics::counter!(names::FRAMES_DISCARDED).increment(queue.frames.len() as u64 + 1);
            *queue = Queue {
                overflowed: true,
                ..Queue::default()
            };
            false
        };
        drop(queue);
        self.reader.wake();
        crowded
    }

    /// How full a crowded outbox is, from 0 to 1, for whoever waits for it. None if there is nothing to wait for: there is room
    /// again, or its client is what it waits for.
    pub fn crowded(&self) -> Option<f32> {
        let queue = self.queue();
        let full = queue.fullness(self.limits);
        (!queue.blocked && full > ROOMY).then_some(full)
    }

    /// Tells the connection something. There are never more signals than subscriptions and operators' calls.
    pub fn signal(&self, signal: Signal) {
        let mut queue = self.queue();
        if !queue.overflowed {
            queue.frames.push_back(Item::Signal(signal));
        }
        drop(queue);
        self.reader.wake();
    }

    /// Waits until there is room for this frame: for those who have more to say than fits. They leave most of the outbox to what
    /// is live, or it would be crowded for as long as they speak. Returns whether it had to wait.
    pub async fn room(&self, frame: &Frame) -> bool {
        let mut waited = false;
        loop {
            let taken = self.taken.notified();
            {
                let queue = self.queue();
                let fits = queue.bytes + frame.len() <= self.limits.bytes;
                let free = fits && queue.fullness(self.limits) <= ROOMY / 2.0;
                if free || queue.frames.is_empty() || queue.overflowed {
                    return waited;
                }
            }
            waited = true;
            taken.await;
        }
    }

    /// Waits until there is something, and moves what can be written in one go into `items`. To be called by one task only,
    /// and again when that is written.
    pub async fn take(&self, items: &mut Vec<Item>) -> Result<(), Overflowed> {
        poll_fn(|context| {
            self.reader.register(context.waker());
            let mut queue = self.queue();
            if queue.overflowed {
                return Poll::Ready(Err(Overflowed));
            }
            queue.blocked = false;
            if queue.frames.is_empty() {
                return Poll::Pending;
            }
            let mut bytes = 0;
            while bytes < PIECE_BYTES
                && let Some(item) = queue.frames.pop_front()
            {
                if let Item::Frame(frame) = &item {
                    bytes += frame.len();
                }
                items.push(item);
            }
            queue.bytes -= bytes;
            if queue.frames.is_empty() {
                queue.frames.shrink_to(KEEP);
            }
            drop(queue);
            self.taken.notify_waiters();
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits until the queue has overflowed: for a connection that cannot go on writing. Until it takes something again, the
    /// outbox counts as one whose client does not read.
    pub async fn overflowed(&self) {
        poll_fn(|context| {
            self.reader.register(context.waker());
            let mut queue = self.queue();
            // A task that has had its share of the processor for now cannot write either, and its client is not to blame.
            queue.blocked = tokio::task::coop::has_budget_remaining();
            if queue.overflowed {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn frame(length: usize) -> Frame {
        Frame::text("x".repeat(length))
    }

    #[test]
    fn frames_come_in_order_and_together() {
        let outbox = Outbox::new(Limits {
            frames: 4,
            bytes: 100,
        });
        let mut frames = Vec::new();
        assert_eq!(outbox.take(&mut frames).now_or_never(), None);
        outbox.push(frame(1));
        outbox.push(frame(2));
        assert_eq!(outbox.take(&mut frames).now_or_never(), Some(Ok(())));
        let lengths: Vec<_> = frames
            .iter()
            .map(|item| match item {
                Item::Frame(frame) => frame.len(),
                Item::Signal(_) => 0,
            })
            .collect();
        assert_eq!(lengths, [1, 2]);
    }

    #[test]
    fn too_many_frames_or_bytes_end_it() {
        for (limits, lengths) in [
            (
                Limits {
                    frames: 2,
                    bytes: 100,
                },
                vec![1, 1, 1],
            ),
            (
                Limits {
                    frames: 10,
                    bytes: 100,
                },
                vec![60, 60],
            ),
        ] {
            let outbox = Outbox::new(limits);
            for length in lengths {
                outbox.push(frame(length));
            }
            assert_eq!(
                outbox.take(&mut Vec::new()).now_or_never(),
                Some(Err(Overflowed))
            );
            assert!(!outbox.push(frame(1)));
            assert_eq!(
                outbox.take(&mut Vec::new()).now_or_never(),
                Some(Err(Overflowed))
            );
        }
    }

    #[test]
    fn one_frame_may_be_larger_than_the_limit() {
        let outbox = Outbox::new(Limits {
            frames: 10,
            bytes: 100,
        });
        outbox.push(frame(1000));
        let mut frames = Vec::new();
        assert_eq!(outbox.take(&mut frames).now_or_never(), Some(Ok(())));
        assert_eq!(frames.len(), 1);
        outbox.push(frame(50));
        assert_eq!(outbox.take(&mut frames).now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_piece_is_taken_at_a_time_and_the_rest_still_counts() {
        let outbox = Outbox::new(Limits {
            frames: 10,
            bytes: 4 * PIECE_BYTES,
        });
        for _ in 0..4 {
            outbox.push(frame(PIECE_BYTES - 1));
        }
        let mut items = Vec::new();
        for taken in [2, 4] {
            assert_eq!(outbox.take(&mut items).now_or_never(), Some(Ok(())));
            assert_eq!(items.len(), taken);
        }
        assert_eq!(outbox.queue().bytes, 0);
        assert_eq!(outbox.take(&mut items).now_or_never(), None);
    }

    #[test]
    fn it_is_crowded_until_there_is_room_or_its_client_does_not_read() {
        let outbox = Outbox::new(Limits {
            frames: 8,
            bytes: 10_000,
        });
        let crowded: Vec<_> = (0..6).map(|_| outbox.push(frame(1))).collect();
        assert_eq!(crowded, [false, false, false, false, true, true]);
        assert_eq!(outbox.crowded(), Some(0.75));
        // The connection writes what it had taken before, and cannot.
        assert_eq!(outbox.overflowed().now_or_never(), None);
        assert_eq!(outbox.crowded(), None);
        assert!(!outbox.push(frame(1)));
        let mut items = Vec::new();
        assert_eq!(outbox.take(&mut items).now_or_never(), Some(Ok(())));
        assert_eq!((items.len(), outbox.crowded()), (7, None));
    }

    #[test]
    fn who_has_much_to_say_leaves_room_and_waits_for_all_of_it_with_a_large_frame() {
        let outbox = Outbox::new(Limits {
            frames: 16,
            bytes: 1000,
        });
        let has_room = |length| outbox.room(&frame(length)).now_or_never().is_some();
        assert!(has_room(5000));
        outbox.push(frame(100));
        assert!(has_room(900) && !has_room(901));
        outbox.push(frame(100));
        assert!(!has_room(1));
        assert_eq!(outbox.take(&mut Vec::new()).now_or_never(), Some(Ok(())));
        assert!(has_room(5000));
    }
}
