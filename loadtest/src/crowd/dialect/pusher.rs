//! The Pusher protocol, version 7: the session as a public channel.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;

use super::{Dialect, Request, Taken};

pub(crate) struct Pusher {
    /// Of the application.
    key: String,
    session: String,
}

impl Pusher {
    pub(crate) fn new(key: &str, session: &str) -> Self {
        Self {
            key: key.to_owned(),
            session: session.to_owned(),
        }
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

impl Dialect for Pusher {
    fn request(&self) -> Request {
        Request::of(format!(
            "/app/{}?protocol=7&client=loadtest&version=1.0",
            self.key
        ))
    }

    fn take(&mut self, text: &[u8]) -> Taken {
        let event = serde_json::from_slice::<Event<'_>>(text);
        match event.as_ref().map(|event| &*event.event) {
            Ok("pusher:connection_established") => Taken::Send(
                json!({"event": "pusher:subscribe", "data": {"channel": self.session}}).to_string(),
            ),
            Ok("pusher_internal:subscription_succeeded") => Taken::Joined,
            Ok("pusher:ping") => {
                Taken::Send(json!({"event": "pusher:pong", "data": {}}).to_string())
            }
            Ok("pusher:pong") => Taken::Nothing,
            _ => Taken::Ended(format!(
                "the server says: {}",
                String::from_utf8_lossy(text)
            )),
        }
    }

    fn beat(&mut self) -> Taken {
        Taken::Send(json!({"event": "pusher:ping", "data": {}}).to_string())
    }
}
