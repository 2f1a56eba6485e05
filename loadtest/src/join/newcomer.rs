//! One client of the storm: when it came how far, and what it does when it is in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Shared;
use crate::channel::End;
use crate::scene::link::{Incoming, Link, Wish};
use crate::scene::over;
use crate::socket::Endpoint;

pub(super) struct Newcomer {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) token: String,
    pub(super) wish: Wish,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) due: Instant,
    pub(super) began: Instant,
    pub(super) open: Instant,
    pub(super) replied: Instant,
    pub(super) live: Instant,
}

/// How a newcomer is heard of, and what it holds while it is on its way.
pub(super) struct Ways {
    pub(super) news: mpsc::Sender<Result<Arrived, End>>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Newcomer {
    async fn arrive(&self, due: Instant) -> Result<(Link, Arrived), End> {
        let began = Instant::now();
        let mut link = Box::pin(Link::open(&self.endpoint, &self.token)).await?;
        let open = Instant::now();
        let joined = link.join(&self.token, &self.wish, |_| Ok(())).await?;
        let arrived = Arrived {
            due,
            began,
            open,
            replied: joined.replied,
            live: joined.live,
        };
        Ok((link, arrived))
    }

    /// Joins, tells of it, makes room for the next, and stays.
    pub(super) async fn live(
        self,
        due: Instant,
        ways: Ways,
        shared: Arc<Shared>,
    ) -> Option<String> {
        let Ways { news, permit } = ways;
        let (link, arrived) = match self.arrive(due).await {
            Ok((link, arrived)) => (Some(link), Ok(arrived)),
            Err(end) => (None, Err(end)),
        };
        // There is room for the news of everybody, and the run waits for them.
        let _ = news.send(arrived).await;
        drop((news, permit));
        stay(link?, shared).await
    }
}

/// Counts what comes until the run is over. Says why it ended, if the run was not.
async fn stay(mut link: Link, shared: Arc<Shared>) -> Option<String> {
    let mut stop = shared.stop.clone();
    loop {
        tokio::select! {
            incoming = link.next() => match incoming {
                Ok(Incoming::Text(text)) if text.contains(r#""postgres_changes","#) => {
                    shared.received.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(end) => return Some(format!("a client that had joined was cut off: {end}")),
            },
            () = over(&mut stop) => break,
        }
    }
    link.close().await;
    None
}
