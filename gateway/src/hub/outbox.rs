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
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Item>,
    bytes: usize,
    overflowed: bool,
}

/// The reader was too slow, and what it has missed is gone from here.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflowed;

/// Frames for which a drained queue keeps room. An idle connection should cost little.
const KEEP: usize = 16;

impl Outbox {
    pub fn new(limits: Limits) -> Outbox {
        Outbox {
            limits,
            queue: Mutex::default(),
            reader: AtomicWaker::new(),
        }
    }

    /// Returns how full the queue is then, from 0 to 1. What comes after an overflow is not kept.
    pub fn push(&self, frame: Frame) -> f32 {
        self.put(frame, false)
    }

    /// For what a client is owed when it joins, of whatever size: there are no more of these than channels.
    pub fn push_greeting(&self, frame: Frame) {
        self.put(frame, true);
    }

    fn put(&self, frame: Frame, always: bool) -> f32 {
        let mut queue = self.queue();
        if queue.overflowed {
            return 0.0;
        }
        let bytes = queue.bytes + frame.len();
        let fits = queue.frames.len() < self.limits.frames
            && (bytes <= self.limits.bytes || queue.frames.is_empty() || always);
        let full = if fits {
            queue.bytes = bytes;
            queue.frames.push_back(Item::Frame(frame));
            (queue.frames.len() as f32 / self.limits.frames as f32)
                .max(bytes as f32 / self.limits.bytes as f32)
        } else {
            metrics::counter!(names::SLOW_READERS).increment(1);
            metrics::counter!(names::FRAMES_DISCARDED).increment(queue.frames.len() as u64 + 1);
            *queue = Queue {
                overflowed: true,
                ..Queue::default()
            };
            0.0
        };
        drop(queue);
        self.reader.wake();
        full
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

    /// Waits until there is something, and moves all of it into `items`. To be called by one task only.
    pub async fn take(&self, items: &mut Vec<Item>) -> Result<(), Overflowed> {
        poll_fn(|context| {
            self.reader.register(context.waker());
            let mut queue = self.queue();
            if queue.overflowed {
                return Poll::Ready(Err(Overflowed));
            }
            if queue.frames.is_empty() {
                return Poll::Pending;
            }
            items.extend(queue.frames.drain(..));
            queue.frames.shrink_to(KEEP);
            queue.bytes = 0;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits until the queue has overflowed: for a connection that is busy writing.
    pub async fn overflowed(&self) {
        poll_fn(|context| {
            self.reader.register(context.waker());
            if self.queue().overflowed {
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
            assert_eq!(outbox.push(frame(1)), 0.0);
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
}
