//! Hears NOTIFY. A ring says only that there is something to read, so any number of rings is one ring.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

use crate::database::Connection;

pub(super) struct Bell {
    rings: Arc<Notify>,
    broken: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Broken;

impl Bell {
    /// Returns when it has rung since the last call, or when the connection has ended.
    pub(super) async fn rung(&self) -> Result<(), Broken> {
        tokio::select! {
            () = self.rings.notified() => Ok(()),
            () = self.broken.cancelled() => Err(Broken),
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
    let rings = Arc::new(Notify::new());
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
                Ok(AsyncMessage::Notification(_)) => rings.notify_one(),
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
