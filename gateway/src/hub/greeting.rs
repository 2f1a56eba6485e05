//! What a subscription is told before its changes.

use std::sync::Arc;

use protocol::{Ref, Version};

use super::{Place, outbox::Frame};

/// What a subscription is told before its changes.
#[derive(Default)]
pub struct Greeting {
    /// At once.
    pub frames: Vec<Frame>,
    /// When it is up to date.
    pub live: Option<Announcement>,
}

/// "Subscribed to PostgreSQL", with a cursor for those who asked for cursors.
#[derive(Clone)]
pub struct Announcement {
    pub version: Version,
    pub topic: Arc<str>,
    pub sub_topic: Arc<str>,
    pub join_ref: Ref,
    pub cursor: bool,
}

impl Announcement {
    pub(super) fn frame(&self, place: Option<&Place>) -> Frame {
        let cursor = place.filter(|_| self.cursor).map(Place::cursor);
        let payload = protocol::system_with_cursor(
            true,
            protocol::extension::POSTGRES_CHANGES,
            protocol::SUBSCRIBED,
            &self.sub_topic,
            cursor.as_deref(),
        );
        Frame::text(protocol::encode(
            self.version,
            &self.join_ref,
            &Ref::NULL,
            &self.topic,
            protocol::event::SYSTEM,
            &payload,
        ))
    }
}
