//! What is broadcast, and its frames: encoded at most once for each serializer version.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protocol::{Encoding, Ref, Version, event};
use serde_json::value::RawValue;

use super::TopicKey;
use crate::hub::outbox::Frame;

/// What is broadcast, in the form in which it came.
pub enum Broadcast<'a> {
    /// A text frame's payload: relayed as it is.
    Message(&'a RawValue),
    /// A kind 3 frame, a message over HTTP, or the server's own.
    User {
        event: &'a str,
        encoding: Encoding,
        payload: &'a [u8],
        /// Clients get it in `meta`.
        id: Option<&'a str>,
    },
}

/// A row of `realtime.messages`.
#[derive(Debug)]
pub struct Stored {
    /// The transaction that has committed it.
    pub xid: u64,
    pub id: Box<str>,
    pub event: Box<str>,
    pub encoding: Encoding,
    pub payload: Bytes,
}

impl Stored {
    pub(super) fn broadcast(&self) -> Broadcast<'_> {
        Broadcast::User {
            event: &self.event,
            encoding: self.encoding,
            payload: &self.payload,
            id: Some(&self.id),
        }
    }

    /// As it is sent to a channel that asked for what was before it. None where the version cannot say it.
    pub(super) fn replayed(&self, version: Version, topic: &str, join_ref: &Ref) -> Option<Frame> {
        let meta = protocol::broadcast::meta(&self.id, true);
        match (self.encoding, version) {
            (Encoding::Binary, Version::V1) => None,
            (Encoding::Binary, Version::V2) => protocol::encode_user_broadcast(
                topic,
                &self.event,
                Some(&meta),
                self.encoding,
                &self.payload,
            )
            .map(|frame| Frame::binary(&frame)),
            (Encoding::Json, _) => {
                let payload = std::str::from_utf8(&self.payload).ok()?;
                let payload = protocol::broadcast::payload_first(&self.event, payload, Some(&meta));
                Some(Frame::text(protocol::encode(
                    version,
                    join_ref,
                    &Ref::NULL,
                    topic,
                    event::BROADCAST,
                    &payload,
                )))
            }
        }
    }
}

/// One broadcast, encoded at most once for each version.
pub(super) struct Frames<'a> {
    broadcast: Broadcast<'a>,
    encoded: [Option<Option<Frame>>; 2],
}

impl<'a> Frames<'a> {
    pub(super) fn new(broadcast: Broadcast<'a>) -> Frames<'a> {
        Frames {
            broadcast,
            encoded: [None, None],
        }
    }

    /// None where the version cannot say it.
    pub(super) fn get(&mut self, version: Version, topic: &str) -> Option<Frame> {
        let broadcast = &self.broadcast;
        self.encoded[slot(version)]
            .get_or_insert_with(|| encode(broadcast, version, topic))
            .clone()
    }
}

pub(super) fn slot(version: Version) -> usize {
    match version {
        Version::V1 => 0,
        Version::V2 => 1,
    }
}

fn encode(broadcast: &Broadcast<'_>, version: Version, topic: &str) -> Option<Frame> {
    let text = |payload: &str| {
        Frame::text(protocol::encode(
            version,
            &Ref::NULL,
            &Ref::NULL,
            topic,
            event::BROADCAST,
            payload,
        ))
    };
    match broadcast {
        Broadcast::Message(payload) => Some(text(payload.get())),
        Broadcast::User {
            event,
            encoding,
            payload,
            id,
        } => {
            let meta = id.map(|id| protocol::broadcast::meta(id, false));
            if version == Version::V2
                && let Some(frame) = protocol::encode_user_broadcast(
                    topic,
                    event,
                    meta.as_deref(),
                    *encoding,
                    payload,
                )
            {
                return Some(Frame::binary(&frame));
            }
            match encoding {
                Encoding::Binary => None,
                Encoding::Json => {
                    let payload = std::str::from_utf8(payload).ok()?;
                    Some(text(&protocol::broadcast::payload(
                        event,
                        payload,
                        meta.as_deref(),
                    )))
                }
            }
        }
    }
}

/// The messages of private channels that were published last, for those who are joining: what is published between the
/// question what was before, and the join, would be lost to them.
#[derive(Default)]
pub(super) struct Latest {
    messages: VecDeque<(Instant, TopicKey, Arc<Stored>)>,
    bytes: usize,
    /// For each topic, when the newest of those was published that had to go before their time.
    gone: HashMap<TopicKey, Instant>,
}

/// Longer than a join can take.
const KEPT: Duration = Duration::from_secs(60);
const MOST_MESSAGES: usize = 4096;
const MOST_BYTES: usize = 16 << 20;

impl Latest {
    pub(super) fn push(&mut self, key: &TopicKey, message: &Arc<Stored>) {
        let now = Instant::now();
        self.bytes += message.payload.len();
        self.messages.push_back((now, key.clone(), message.clone()));
        let too_many =
            |latest: &Latest| latest.messages.len() > MOST_MESSAGES || latest.bytes > MOST_BYTES;
        while let Some((at, _, _)) = self.messages.front()
            && (at.elapsed() > KEPT || too_many(self))
        {
            let Some((at, key, oldest)) = self.messages.pop_front() else {
                break;
            };
            self.bytes -= oldest.payload.len();
            if at.elapsed() <= KEPT {
                self.gone.insert(key, at);
            }
        }
        if self.gone.len() > MOST_MESSAGES {
            self.gone.retain(|_, at| at.elapsed() <= KEPT);
        }
    }

    /// What was published on a topic since then. None if that is not known any more.
    pub(super) fn since(&self, key: &TopicKey, since: Instant) -> Option<Vec<Arc<Stored>>> {
        if since.elapsed() > KEPT || self.gone.get(key).is_some_and(|gone| *gone >= since) {
            return None;
        }
        let from = self.messages.partition_point(|(at, _, _)| *at < since);
        let found = self.messages.range(from..);
        Some(
            found
                .filter(|(_, other, _)| other == key)
                .map(|(_, _, message)| message.clone())
                .collect(),
        )
    }
}
