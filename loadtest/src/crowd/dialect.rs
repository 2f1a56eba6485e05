//! What a reader of the crowd says to its server, and what it makes of what the server says. A message is known by the label
//! in it, whatever the protocol, so a dialect sees only what is none: answers, pings, and bad news.

pub(crate) mod centrifuge;
pub(crate) mod plain;
pub(crate) mod socketio;
pub(crate) mod supabase;

/// One reader's side of a protocol. Each socket has its own.
pub(crate) trait Dialect: Send {
    /// How the websocket is asked for.
    fn request(&self) -> Request;

    /// Texts to send as soon as the websocket is open.
    fn greet(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What a text means in which there is no label.
    fn take(&mut self, text: &[u8]) -> Taken;

    /// Called every 25 seconds once the reader has joined.
    fn beat(&mut self) -> Taken {
        Taken::Nothing
    }

    /// Whether a frame may hold several texts, one a line.
    fn has_lines(&self) -> bool {
        false
    }
}

/// The request that opens the websocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// With the query.
    pub(crate) path: String,
    /// Beside those that every websocket needs.
    pub(crate) headers: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Nothing,
    /// Every message from now on will come.
    Joined,
    /// To be answered with this.
    Send(String),
    /// No message will come any more, or never came, for this reason.
    Ended(String),
}

impl Request {
    pub(crate) fn of(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            headers: Vec::new(),
        }
    }
}
