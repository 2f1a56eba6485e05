//! Holds back the live changes of a subscription while it is given what it missed.
//!
//! The gate closes in the moment of the subscription, and opens when everything before that moment has been delivered: so nothing
//! falls between the two, and nothing comes twice. What is held has not been judged: who gives it out asks then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{
    SubscriptionId,
    outbox::{Frame, Limits, Outbox},
    recent::Entry,
};

pub struct Gate {
    state: Mutex<State>,
    limits: Limits,
    ended: CancellationToken,
    /// The survey of changes that were being judged when it closed: it stays closed until they are delivered.
    pub(super) unasked: Option<u64>,
}

struct State {
    /// The subscription moves on to another number when its token is replaced.
    holder: SubscriptionId,
    held: Vec<Entry>,
    bytes: usize,
    overflowed: bool,
}

/// More came meanwhile than may wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflowed;

impl Gate {
    pub(super) fn new(holder: SubscriptionId, unasked: Option<u64>, limits: Limits) -> Gate {
        Gate {
            state: Mutex::new(State {
                holder,
                held: Vec::new(),
                bytes: 0,
                overflowed: false,
            }),
            limits,
            ended: CancellationToken::new(),
            unasked,
        }
    }

    pub fn holder(&self) -> SubscriptionId {
        self.state().holder
    }

    pub(super) fn move_to(&self, holder: SubscriptionId) {
        self.state().holder = holder;
    }

    /// The subscription is over: nothing more may be given to it.
    pub(super) fn end(&self) {
        // Under the lock, so that no frame follows.
        let mut state = self.state();
        state.held = Vec::new();
        self.ended.cancel();
    }

    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ended.cancelled()
    }

    /// Pushes a frame, unless the subscription has ended. Returns whether it has not.
    pub fn push(&self, outbox: &Outbox, frame: Frame) -> bool {
        let _state = self.state();
        if self.ended.is_cancelled() {
            return false;
        }
        outbox.push(frame);
        true
    }

    pub(super) fn hold(&self, entry: &Entry) {
        let mut state = self.state();
        let bytes = state.bytes + entry.change.size();
        if state.overflowed {
            return;
        }
        if state.held.len() >= self.limits.frames
            || (bytes > self.limits.bytes && !state.held.is_empty())
        {
            state.overflowed = true;
            state.held = Vec::new();
            return;
        }
        state.bytes = bytes;
        state.held.push(entry.clone());
    }

    /// Takes what is held. The gate stays closed.
    pub(super) fn take(&self) -> Result<Vec<Entry>, Overflowed> {
        let mut state = self.state();
        if state.overflowed {
            return Err(Overflowed);
        }
        state.bytes = 0;
        Ok(std::mem::take(&mut state.held))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
