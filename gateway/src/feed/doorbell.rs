//! Hears NOTIFY. A ring says only that there is something to read, so any number of rings is one ring.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt, stream};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

use crate::database::Connection;

pub(super) struct Bell {
    rings: Arc<Rings>,
    broken: CancellationToken,
}

#[derive(Default)]
struct Rings {
    any: Notify,
    silence_over: AtomicBool,
}

/// What rings may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    /// There is something to read.
    Changes,
    /// And there may have been something for a while: another gateway had silenced the bell.
    SilenceOver,
}

/// The payload that says so; see `look_at_doorbell.sql`.
const SILENCE_OVER: &str = "silence over";

#[derive(Debug)]
pub(super) struct Broken;

impl Bell {
    /// Returns when it has rung since the last call, or when the connection has ended.
    pub(super) async fn rung(&self) -> Result<Ring, Broken> {
        tokio::select! {
            () = self.rings.any.notified() => {}
            () = self.broken.cancelled() => return Err(Broken),
        }
        match self.rings.silence_over.swap(false, Ordering::AcqRel) {
            false => Ok(Ring::Changes),
            true => Ok(Ring::SilenceOver),
        }
    }
}

/// Ends the connection's task when dropped.
pub(super) struct Ears(JoinHandle<()>);

impl Drop for Ears {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Drives the connection, and turns its notifications into rings.
pub(super) fn listen(mut connection: Connection) -> (Bell, Ears) {
    let rings = Arc::new(Rings::default());
    let broken = CancellationToken::new();
    let bell = Bell {
        rings: rings.clone(),
        broken: broken.clone(),
    };
    let task = tokio::spawn(async move {
        let _broken = broken.drop_guard();
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notification(ring)) => {
                    if ring.payload() == SILENCE_OVER {
                        rings.silence_over.store(true, Ordering::Release);
                    }
                    rings.any.notify_one();
                }
                Ok(AsyncMessage::Notice(notice)) => {
                    tracing::debug!(message = notice.message(), "notice from the database")
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the feed's connection broke"
                    );
                    break;
                }
            }
        }
    });
    (bell, Ears(task))
}
