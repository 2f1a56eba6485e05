//! Somebody who is on a topic: tracks, goes and comes back when told, and keeps a view of who else is there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use protocol::Version;
use tokio::sync::mpsc;

use super::view::View;
use crate::channel::End;
use crate::frame::Message;
use crate::scene::link::{Incoming, Link, Wish};
use crate::scene::people::Place;
use crate::scene::tally::lock;
use crate::socket::Endpoint;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Track,
    /// Untracks, and tracks again.
    Blink,
    /// Closes its socket, comes back with a new one, and tracks.
    Return,
}

/// What all members share.
#[derive(Default)]
pub(super) struct Counts {
    /// Of presence, with all that came to everybody.
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What the run can see of a member.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) view: View,
    /// When it first saw as many as there should be.
    pub(super) complete: Option<Instant>,
}

pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) place: Place,
    pub(super) counts: Arc<Counts>,
    pub(super) seen: Arc<Mutex<Seen>>,
    /// How many there should be on its topic.
    pub(super) everybody: usize,
}

impl Member {
    fn wish(&self) -> Wish {
        Wish {
            presence: Some(self.place.user.clone()),
            ..Wish::of(format!("room:{}", self.place.session))
        }
    }

    pub(super) async fn join(&self) -> Result<Link, End> {
        let wish = self.wish();
        let take = |incoming: &Incoming| self.take(incoming);
        let joined = Link::joined(&self.endpoint, &self.place.token, &wish, take);
        Ok(Box::pin(joined).await?.0)
    }

    /// Until there are no more orders. Returns why it ended earlier.
    pub(super) async fn live(self, link: Link, orders: mpsc::Receiver<Order>) -> Option<String> {
        let end = Box::pin(self.obey(link, orders)).await;
        end.err().map(|end| format!("a member: {end}"))
    }

    async fn obey(&self, mut link: Link, mut orders: mpsc::Receiver<Order>) -> Result<(), End> {
        let topic = self.wish().full_topic();
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Track) => self.track(&mut link, &topic).await?,
                    Some(Order::Blink) => {
                        let untrack = r#"{"type":"presence","event":"untrack"}"#;
                        link.push(&topic, "presence", untrack).await?;
                        self.track(&mut link, &topic).await?;
                    }
                    Some(Order::Return) => {
                        link.close().await;
                        link = self.join().await?;
                        self.track(&mut link, &topic).await?;
                    }
                    None => break,
                },
                incoming = link.next() => self.take(&incoming?)?,
            }
        }
        link.close().await;
        Ok(())
    }

    async fn track(&self, link: &mut Link, topic: &str) -> Result<(), End> {
        let payload = format!(
            r#"{{"type":"presence","event":"track","payload":{{"user":"{}","status":"here"}}}}"#,
            self.place.user
        );
        link.push(topic, "presence", &payload).await
    }

    fn take(&self, incoming: &Incoming) -> Result<(), End> {
        let Incoming::Text(text) = incoming else {
            return Err(End::Wrong("a binary frame".to_owned()));
        };
        let message =
            Message::parse(Version::V2, text).map_err(|error| End::Wrong(format!("{error:#}")))?;
        if message.event == "phx_reply" && message.payload.get().contains(r#""status":"error""#) {
            return Err(End::Refused(message.payload.get().to_owned()));
        }
        let mut seen = lock(&self.seen);
        if seen.view.take(&message).map_err(End::Wrong)? {
            self.counts.frames.fetch_add(1, Ordering::Relaxed);
            let bytes = text.len() as u64;
            self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
            if seen.view.len() == self.everybody {
                seen.complete.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }
}
