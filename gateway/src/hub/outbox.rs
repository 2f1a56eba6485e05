//! The bounded queue between the hub and one connection.
//!
//! Whoever has a frame for the connection pushes it and goes on at once. Writing is not the work of the connection's task,
//! which would have to be woken for each frame: a [`flusher`](super::flusher) goes round the outboxes in which something
//! waits, and writes all of it with one system call. The task is woken only where it is needed: for a signal, for a socket
//! that takes no more for now, and for the end. A connection that does not keep up is never dropped from silently: its
//! outbox ends, and the connection closes with a code that says why.

mod line;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Poll,
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::sync::Notify;

use self::line::Line;
pub use self::line::{Piece, Wire};
pub use super::frame::Frame;
use super::{SubscriptionId, flusher::Round};
use crate::{auth::Whom, metrics::names};

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
    /// A key is not trusted any more.
    Keys,
    /// The tables that are watched have changed.
    Tables,
    /// The gateway stops, and sockets are told to go.
    Stop,
}

/// How much may wait. A single frame larger than `bytes` is let through when nothing else waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub frames: usize,
    pub bytes: usize,
}

/// What the connection's task has to know.
#[derive(Debug)]
pub enum Notice {
    /// The reader was too slow, and what it has missed is gone from here.
    Overflowed,
    /// The socket takes no more for now. Told once; [`Outbox::unblock`] when it does.
    Blocked,
    Broken(io::Error),
    Signals(Vec<Signal>),
}

/// What became of one change or broadcast.
#[derive(Default)]
pub struct Pushed {
    pub frames: usize,
    /// Those of its receivers that are crowded, and not by their own fault: nearly always none.
    pub crowded: Vec<Arc<Outbox>>,
}

pub struct Outbox {
    limits: Limits,
    queue: Mutex<Queue>,
    /// The connection's task.
    task: AtomicWaker,
    /// Rung when what waited has been taken.
    taken: Notify,
    round: Option<Arc<Round>>,
    this: Weak<Outbox>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Of the frames that wait.
    bytes: usize,
    /// The unwritten part of a frame of which some has been written. It is still owed after an overflow.
    rest: Bytes,
    /// What was taken to be written with it, and was not begun, since the socket took no more. It does not count as waiting any more.
    taken: Vec<Frame>,
    line: Line,
    /// Bytes that the socket has taken.
    written: u64,
    /// A flusher is going to look at it.
    listed: bool,
    overflowed: bool,
    /// What is being written now was discarded meanwhile, as far as the socket has not taken it.
    discarded: bool,
    /// Somebody waits for room.
    wanted: bool,
    /// Among what waits is a signal that does not wait for a blocked socket.
    urgent: bool,
    /// The task has been told that it is blocked.
    told: bool,
}

impl Signal {
    /// It is not about a subscription, whose frames come before its end, and must not wait for a client that does not read.
    fn is_urgent(&self) -> bool {
        !matches!(
            self,
            Signal::Revoked(_) | Signal::Void(..) | Signal::Failed(_)
        )
    }
}

impl Queue {
    fn fullness(&self, limits: Limits) -> f32 {
        (self.items.len() as f32 / limits.frames as f32)
            .max(self.bytes as f32 / limits.bytes as f32)
    }

    fn is_begun(&self) -> bool {
        !self.rest.is_empty() || !self.taken.is_empty()
    }

    fn has_frames(&self) -> bool {
        self.is_begun() || matches!(self.items.front(), Some(Item::Frame(_)))
    }

    fn has_signals(&self) -> bool {
        !self.is_begun() && matches!(self.items.front(), Some(Item::Signal(_)))
    }

    /// The signals that are to be heard now.
    fn take_signals(&mut self) -> Vec<Signal> {
        let mut signals = Vec::new();
        if self.line.is_blocked() {
            if std::mem::take(&mut self.urgent) {
                self.items.retain(|item| match item {
                    Item::Signal(signal) if signal.is_urgent() => {
                        signals.push(signal.clone());
                        false
                    }
                    _ => true,
                });
            }
        } else if !self.line.is_busy() && !self.is_begun() {
            // What is being written comes before what the task has to do.
            while let Some(Item::Signal(signal)) = self
                .items
                .pop_front_if(|item| matches!(item, Item::Signal(_)))
            {
                signals.push(signal);
            }
        }
        signals
    }

    fn frames(&self) -> usize {
        let waiting = self.items.iter();
        waiting
            .filter(|item| matches!(item, Item::Frame(_)))
            .count()
            + self.taken.len()
    }

    /// Nothing is kept for a client but what it is owed.
    fn discard(&mut self) {
        self.taken = Vec::new();
        self.bytes = 0;
        self.discarded = self.line.is_busy();
    }
}

/// An outbox that is fuller than this is crowded, until it is emptier than [`ROOMY`].
const CROWDED: f32 = 0.5;
const ROOMY: f32 = 0.25;
/// Frames for which a drained queue keeps room at least. An idle connection should cost little: the answer to a heartbeat is one.
const KEEP: usize = 4;

impl Outbox {
    /// `round`: of the flusher that writes what is pushed here. Without one, frames wait until somebody flushes.
    pub fn new(limits: Limits, round: Option<Arc<Round>>) -> Arc<Outbox> {
        Arc::new_cyclic(|this| Outbox {
            limits,
            queue: Mutex::default(),
            task: AtomicWaker::new(),
            taken: Notify::new(),
            round,
            this: this.clone(),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// From now on, what waits here is written to this socket.
    pub fn attach(&self, wire: Arc<dyn Wire>) {
        self.queue().line = Line::Free(wire);
    }

    /// Returns whether the outbox is crowded, and not by the fault of its client: whoever pushes a lot should wait then. What
    /// comes after an overflow is not kept.
    pub fn push(&self, frame: Frame) -> bool {
        self.put(frame, false, true)
    }

    /// For what a client is owed when it joins, of whatever size: there are no more of these than channels.
    pub fn push_greeting(&self, frame: Frame) {
        self.put(frame, true, true);
    }

    /// For the connection's own task, which flushes afterwards.
    pub fn push_own(&self, frame: Frame) {
        self.put(frame, false, false);
    }

    /// An answer of the websocket protocol itself. After [`Outbox::finish`] it is the farewell.
    pub fn push_control(&self, wire: Bytes) {
        let frame = Frame::whole(wire);
        let mut queue = self.queue();
        if queue.overflowed {
            queue.bytes += frame.len();
            queue.items.push_back(Item::Frame(frame));
        } else {
            drop(queue);
            self.put(frame, false, false);
        }
    }

    fn put(&self, frame: Frame, always: bool, flush: bool) -> bool {
        let mut queue = self.queue();
        if queue.overflowed {
            return false;
        }
        let bytes = queue.bytes + frame.len();
        let fits = queue.items.len() < self.limits.frames
            && (bytes <= self.limits.bytes || queue.items.is_empty() || always);
        if !fits {
            let discarded = queue.frames() as u64 + 1;
            queue.items = VecDeque::new();
            queue.overflowed = true;
            queue.discard();
            drop(queue);
            metrics::counter!(names::FRAMES_DISCARDED).increment(discarded);
            self.task.wake();
            return false;
        }
        queue.bytes = bytes;
        queue.items.push_back(Item::Frame(frame));
        let crowded = !queue.line.is_blocked() && queue.fullness(self.limits) > CROWDED;
        // Whoever writes now looks again before it leaves; a blocked socket is its task's affair.
        let list = flush && !queue.listed && queue.line.is_free();
        queue.listed |= list;
        drop(queue);
        if list
            && let Some(round) = &self.round
            && let Some(this) = self.this.upgrade()
        {
            round.list(this);
        }
        crowded
    }

    /// How full a crowded outbox is, from 0 to 1, for whoever waits for it. None if there is nothing to wait for: there is room
    /// again, or its client is what it waits for.
    pub fn crowded(&self) -> Option<f32> {
        let queue = self.queue();
        let full = queue.fullness(self.limits);
        (!queue.line.is_blocked() && full > ROOMY).then_some(full)
    }

    /// Tells the connection something. There are no more of them than subscriptions, operators' calls, and changes of keys and
    /// tables since the task had its turn.
    pub fn signal(&self, signal: Signal) {
        let mut queue = self.queue();
        if !queue.overflowed {
            queue.urgent |= signal.is_urgent();
            queue.items.push_back(Item::Signal(signal));
        }
        drop(queue);
        self.task.wake();
    }

    /// Waits until there is room for this frame: for those who have more to say than fits. They leave most of the outbox to what
    /// is live, or it would be crowded for as long as they speak. Returns whether it had to wait.
    pub async fn room(&self, frame: &Frame) -> bool {
        let mut waited = false;
        loop {
            let taken = self.taken.notified();
            {
                let mut queue = self.queue();
                let fits = queue.bytes + frame.len() <= self.limits.bytes;
                let free = fits && queue.fullness(self.limits) <= ROOMY / 2.0;
                if free || queue.items.is_empty() || queue.overflowed {
                    return waited;
                }
                queue.wanted = true;
            }
            waited = true;
            taken.await;
        }
    }

    /// Writes what waits, as far as one call takes it without waiting. Returns whether there is more that can be written.
    /// Whoever is second leaves it to the first.
    pub fn flush(&self, piece: &mut Piece) -> bool {
        let wire = {
            let mut queue = self.queue();
            if !queue.line.is_free() {
                return false;
            }
            if !queue.has_frames() {
                let signals = queue.has_signals();
                drop(queue);
                if signals {
                    self.task.wake();
                }
                return false;
            }
            let Some(wire) = queue.line.take() else {
                return false;
            };
            piece.begin(
                std::mem::take(&mut queue.rest),
                std::mem::take(&mut queue.taken),
            );
            while piece.has_room()
                && let Some(Item::Frame(frame)) = queue
                    .items
                    .pop_front_if(|item| matches!(item, Item::Frame(_)))
            {
                queue.bytes -= frame.len();
                piece.push(frame);
            }
            if queue.items.is_empty() {
                // As much room as was needed now: in a flood it would be made anew each time.
                queue.items.shrink_to(KEEP.max(piece.frames()));
            }
            let wanted = std::mem::take(&mut queue.wanted);
            drop(queue);
            if wanted {
                self.taken.notify_waiters();
            }
            wire
        };
        let result = piece.write(&*wire);
        self.wrote(piece, wire, result)
    }

    /// Keeps what the socket did not take, for the next time.
    fn wrote(&self, piece: &mut Piece, wire: Arc<dyn Wire>, result: io::Result<()>) -> bool {
        let mut queue = self.queue();
        queue.written += piece.written as u64;
        let (rest, left) = piece.end();
        let blocked = !rest.is_empty() || !left.is_empty();
        queue.rest = rest;
        if !std::mem::take(&mut queue.discarded) {
            queue.taken = left;
        }
        queue.line.give_back(wire, blocked, result);
        if queue.line.is_free() && queue.has_frames() {
            return true;
        }
        let concerns_task = queue.has_signals() || queue.overflowed || !queue.line.is_free();
        drop(queue);
        if concerns_task {
            self.task.wake();
        }
        false
    }

    /// Writes what can be written now. For the connection's task.
    pub fn flush_all(&self) {
        let mut piece = Piece::default();
        while self.flush(&mut piece) {}
        piece.count();
    }

    /// The socket takes something again. Returns whether everything could be written.
    pub fn unblock(&self) -> bool {
        self.queue().line.unblock();
        self.flush_all();
        let mut queue = self.queue();
        queue.told = queue.line.is_blocked();
        !queue.told
    }

    /// Bytes that the socket has taken so far.
    pub fn written(&self) -> u64 {
        self.queue().written
    }

    /// Waits until there is something for the connection's task to do. To be called by one task only.
    pub async fn notice(&self) -> Notice {
        poll_fn(|context| {
            self.task.register(context.waker());
            let mut queue = self.queue();
            if queue.overflowed {
                return Poll::Ready(Notice::Overflowed);
            }
            if let Some(error) = queue.line.error() {
                return Poll::Ready(Notice::Broken(error));
            }
            let signals = queue.take_signals();
            if !signals.is_empty() {
                // A signal takes room, too.
                let wanted = std::mem::take(&mut queue.wanted);
                drop(queue);
                if wanted {
                    self.taken.notify_waiters();
                }
                return Poll::Ready(Notice::Signals(signals));
            }
            if queue.line.is_blocked() && !std::mem::replace(&mut queue.told, true) {
                return Poll::Ready(Notice::Blocked);
            }
            Poll::Pending
        })
        .await
    }

    /// Takes nothing more but the farewell. `last_words`: what waits is still the client's.
    pub fn finish(&self, last_words: bool) {
        let mut queue = self.queue();
        queue.overflowed = true;
        queue
            .items
            .retain(|item| last_words && matches!(item, Item::Frame(_)));
        if !last_words {
            queue.discard();
        }
        drop(queue);
        self.taken.notify_waiters();
    }

    /// Whether nothing waits to be written, and nothing is being written, or nothing can be any more.
    pub fn is_done(&self) -> bool {
        let queue = self.queue();
        queue.line.is_over() || (!queue.line.is_busy() && !queue.has_frames())
    }

    /// Lets go of the socket.
    pub fn detach(&self) {
        self.queue().line = Line::None;
    }

    /// Takes everything that waits. For whoever looks at what has been pushed, instead of writing it.
    pub fn take(&self) -> Vec<Item> {
        let mut queue = self.queue();
        queue.bytes = 0;
        let items = std::mem::take(&mut queue.items).into();
        drop(queue);
        self.taken.notify_waiters();
        items
    }

    /// A flusher has come to it.
    pub(super) fn unlist(&self) {
        self.queue().listed = false;
    }

    pub(super) fn list_again(&self) -> bool {
        !std::mem::replace(&mut self.queue().listed, true)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
