//! The way from an outbox to its socket: at most one writes at a time, and what is written in one call is a piece.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::{Buf, Bytes};

use super::Frame;
use crate::metrics::names;

/// A socket, as far as an outbox knows it.
pub trait Wire: Send + Sync {
    /// Writes some of it, without waiting.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

#[derive(Default)]
pub(super) enum Line {
    /// There is no socket, or none any more.
    #[default]
    None,
    Free(Arc<dyn Wire>),
    /// Somebody writes now.
    Busy,
    /// The socket takes no more for now.
    Blocked(Arc<dyn Wire>),
    Broken(io::ErrorKind),
}

impl Line {
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Line::Free(_))
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Line::Busy)
    }

    pub(super) fn is_blocked(&self) -> bool {
        matches!(self, Line::Blocked(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Line::None | Line::Broken(_))
    }

    pub(super) fn error(&self) -> Option<io::Error> {
        match self {
            Line::Broken(kind) => Some((*kind).into()),
            _ => None,
        }
    }

    /// To write. It is given back afterwards.
    pub(super) fn take(&mut self) -> Option<Arc<dyn Wire>> {
        match std::mem::replace(self, Line::Busy) {
            Line::Free(wire) => Some(wire),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(super) fn give_back(&mut self, wire: Arc<dyn Wire>, blocked: bool, result: io::Result<()>) {
        // It may have been let go of meanwhile.
        if !self.is_busy() {
            return;
        }
        *self = match (result, blocked) {
            (Err(error), _) => Line::Broken(error.kind()),
            (Ok(()), true) => Line::Blocked(wire),
            (Ok(()), false) => Line::Free(wire),
        };
    }

    pub(super) fn unblock(&mut self) {
        *self = match std::mem::take(self) {
            Line::Blocked(wire) => Line::Free(wire),
            other => other,
        };
    }
}

/// Frames in one call. More would not make it cheaper.
const MOST_FRAMES: usize = 64;
/// So much is taken at a time: what is being written is not counted as waiting any more.
const PIECE_BYTES: usize = 256 * 1024;

/// What is written in one call, kept by whoever writes so that it need not be made for each.
#[derive(Default)]
pub struct Piece {
    /// Of a frame of which some has been written before.
    rest: Bytes,
    /// In the order in which they are written.
    frames: Vec<Frame>,
    bytes: usize,
    full: bool,
    /// Frames of `frames` that are written.
    done: usize,
    /// Bytes that the last call has taken.
    pub(super) written: usize,
    counted_frames: u64,
    counted_bytes: u64,
}

impl Piece {
    /// With what is left of the last one. Until that is written, nothing more is taken.
    pub(super) fn begin(&mut self, rest: Bytes, left: Vec<Frame>) {
        self.bytes = 0;
        self.full = !rest.is_empty() || !left.is_empty();
        self.rest = rest;
        self.frames.extend(left);
    }

    pub(super) fn has_room(&self) -> bool {
        !self.full && self.frames.len() < MOST_FRAMES && self.bytes < PIECE_BYTES
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    fn is_left(&self) -> bool {
        self.frames.len() > self.done
    }

    /// What is left of it: of a frame that has been begun, and frames that have not.
    pub(super) fn end(&mut self) -> (Bytes, Vec<Frame>) {
        let left = self.frames.drain(self.done..).collect();
        self.frames.clear();
        self.done = 0;
        (std::mem::take(&mut self.rest), left)
    }

    /// Writes it, as far as the socket takes it without waiting. What is left of a frame becomes the rest.
    pub(super) fn write(&mut self, wire: &dyn Wire) -> io::Result<()> {
        self.written = 0;
        let result = loop {
            if self.rest.is_empty() && !self.is_left() {
                break Ok(());
            }
            let mut slices = [IoSlice::new(&[]); MOST_FRAMES + 1];
            let mut count = usize::from(!self.rest.is_empty());
            slices[0] = IoSlice::new(&self.rest);
            for frame in &self.frames[self.done..] {
                slices[count] = IoSlice::new(frame.wire());
                count += 1;
            }
            match wire.write(&slices[..count]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.take(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.counted_frames += self.done as u64;
        result
    }

    fn take(&mut self, mut taken: usize) {
        self.written += taken;
        self.counted_bytes += taken as u64;
        let of_rest = taken.min(self.rest.len());
        self.rest.advance(of_rest);
        taken -= of_rest;
        while taken > 0
            && let Some(frame) = self.frames.get(self.done)
        {
            let wire = frame.wire();
            if taken < wire.len() {
                self.rest = wire.slice(taken..);
            }
            taken = taken.saturating_sub(wire.len());
            self.done += 1;
        }
    }

    /// Adds what has been written since the last call to the metrics.
    pub fn count(&mut self) {
        if self.counted_bytes > 0 {
            metrics::counter!(names::FRAMES_OUT)
                .increment(std::mem::take(&mut self.counted_frames));
            metrics::counter!(names::BYTES_OUT).increment(std::mem::take(&mut self.counted_bytes));
        }
    }
}
