//! One channel with any bindings over a websocket of its own, and a cursor: what a client does that must not miss anything.
//! It only says what came; whether that is right is for others to judge.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use protocol::{Ref, Version, event};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use uuid::Uuid;

use crate::frame;
use crate::socket::{self, Endpoint};

/// The code of a connection that ended without one.
const NO_CODE: u16 = 1006;

const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How long a client waits for the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until the websocket is open and the join is sent.
    pub(crate) connect: Duration,
    /// From one heartbeat to the next, by which the first must have been answered.
    pub(crate) heartbeat: Duration,
}

pub(crate) struct Channel {
    socket: WebSocketStream<TcpStream>,
    version: Version,
    topic: String,
    heartbeat: Interval,
    patience: Duration,
    heartbeats: u64,
    answered: u64,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// The join was accepted. What was missed follows.
    Joined,
    Change(Change),
    /// A `system` message: everything before it has arrived. The first one of a channel says that it is up to date.
    Position {
        cursor: Option<String>,
        subscribed: bool,
    },
}

#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) kind: Kind,
    pub(crate) session: Uuid,
    pub(crate) label: Label,
    /// How long its text is, in characters. It must be as long as the label says.
    pub(crate) length: usize,
    pub(crate) cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Insert,
    Update,
    Delete,
}

/// What the writers put into `chat_messages.metadata` in the scenarios with cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Label {
    #[serde(rename = "n")]
    pub(crate) number: u64,
    #[serde(rename = "s")]
    pub(crate) size: usize,
}

/// Why a channel ended, or did not come into being.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The server was not there, or not ready.
    Unreachable(String),
    /// The server closed the socket with this code.
    Closed(u16),
    /// The connection broke, or a heartbeat was not answered.
    Broken(String),
    /// The join was refused, for this reason.
    Refused(String),
    /// The server ended the channel.
    Ended(String),
    /// Something came that must not come.
    Wrong(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::Closed(code) => write!(f, "closed with {code}"),
            Self::Broken(why) => write!(f, "broken: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Ended(why) => write!(f, "the server ended the channel: {why}"),
            Self::Wrong(why) => write!(f, "wrong: {why}"),
        }
    }
}

impl Channel {
    /// Opens a socket and asks to join. The answer is the first event.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        token: &str,
        topic: &str,
        bindings: &Value,
        patience: Patience,
    ) -> Result<Self, End> {
        let join = async {
            let socket = socket::open(endpoint, token)
                .await
                .map_err(|error| End::Unreachable(format!("{error:#}")))?;
            let mut channel = Self {
                socket,
                version: endpoint.version,
                topic: format!("realtime:{topic}"),
                heartbeat: interval_at(Instant::now() + patience.heartbeat, patience.heartbeat),
                patience: patience.heartbeat,
                heartbeats: 0,
                answered: 0,
            };
            channel
                .heartbeat
                .set_missed_tick_behavior(MissedTickBehavior::Delay);
            let payload = json!({
                "config": {
                    "broadcast": {"ack": false, "self": false},
                    "presence": {"key": "", "enabled": false},
                    "postgres_changes": bindings,
                    "private": false,
                },
                "access_token": token,
            });
            let (one, topic) = (Ref::from_text("1"), channel.topic.clone());
            channel
                .send(&one, &one, &topic, event::JOIN, &payload.to_string())
                .await?;
            Ok(channel)
        };
        timeout(patience.connect, Box::pin(join))
            .await
            .unwrap_or_else(|_| Err(End::Unreachable("no handshake".to_owned())))
    }

    /// May be dropped and called again: no event is lost.
    pub(crate) async fn next(&mut self) -> Result<Event, End> {
        loop {
            tokio::select! {
                // An answer to a heartbeat may be among what waits.
                biased;
                frame = self.socket.next() => {
                    if let Some(event) = self.take(frame)? {
                        return Ok(event);
                    }
                }
                _ = self.heartbeat.tick() => self.beat().await?,
            }
        }
    }

    fn take(&mut self, frame: Option<Result<Message, Error>>) -> Result<Option<Event>, End> {
        let text = match frame {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(frame))) => {
                return Err(End::Closed(
                    frame.map_or(NO_CODE, |frame| frame.code.into()),
                ));
            }
            Some(Ok(Message::Binary(_))) => {
                return Err(End::Wrong("a binary frame".to_owned()));
            }
            Some(Ok(_)) => return Ok(None),
            Some(Err(error)) => return Err(End::Broken(error.to_string())),
            None => return Err(End::Broken("the stream ended".to_owned())),
        };
        let wrong = |error: anyhow::Error| End::Wrong(format!("{error:#}"));
        let message = frame::Message::parse(self.version, &text).map_err(wrong)?;
        let payload = message.payload.get();
        if message.topic == protocol::HEARTBEAT_TOPIC {
            self.answered += u64::from(message.event == event::REPLY);
            return Ok(None);
        }
        if message.topic != self.topic {
            return Err(End::Wrong(format!("a message to {}", message.topic)));
        }
        match &*message.event {
            event::POSTGRES_CHANGES => Change::parse(payload).map(Event::Change).map(Some),
            event::REPLY => {
                let reply: Reply = parse(payload)?;
                match reply.status {
                    "ok" => Ok(Some(Event::Joined)),
                    _ => Err(End::Refused(reply.response.reason)),
                }
            }
            event::SYSTEM => {
                let system: System = parse(payload)?;
                match (system.status, &*system.extension) {
                    ("ok", "postgres_changes") => Ok(Some(Event::Position {
                        cursor: system.cursor,
                        subscribed: system.message == protocol::SUBSCRIBED,
                    })),
                    ("ok", _) => Ok(None),
                    _ => Err(End::Ended(system.message.into_owned())),
                }
            }
            event::CLOSE | event::ERROR => Err(End::Ended(message.event.into_owned())),
            _ => Ok(None),
        }
    }

    async fn beat(&mut self) -> Result<(), End> {
        if self.answered < self.heartbeats {
            return Err(End::Broken("a heartbeat was not answered".to_owned()));
        }
        self.heartbeats += 1;
        let reference = Ref::from_text(&format!("h{}", self.heartbeats));
        let patience = self.patience;
        let sent = self.send(
            &Ref::NULL,
            &reference,
            protocol::HEARTBEAT_TOPIC,
            event::HEARTBEAT,
            "{}",
        );
        match timeout(patience, sent).await {
            Ok(sent) => sent,
            Err(_) => Err(End::Broken("the server does not read".to_owned())),
        }
    }

    async fn send(
        &mut self,
        join_ref: &Ref,
        reference: &Ref,
        topic: &str,
        event: &str,
        payload: &str,
    ) -> Result<(), End> {
        let frame = protocol::encode(self.version, join_ref, reference, topic, event, payload);
        self.socket
            .send(Message::text(Utf8Bytes::from(frame)))
            .await
            .map_err(|error| End::Broken(error.to_string()))
    }

    /// Leaves politely.
    pub(crate) async fn close(mut self) {
        // What the server still sends, or that it is gone already, is of no interest any more.
        let _ = timeout(CLOSE_LIMIT, self.socket.close(None)).await;
    }
}

impl Change {
    fn parse(payload: &str) -> Result<Self, End> {
        let data = parse::<Payload>(payload)?.data;
        let (kind, record) = match data.kind {
            "INSERT" => (Kind::Insert, data.record),
            "UPDATE" => (Kind::Update, data.record),
            "DELETE" => (Kind::Delete, data.old_record),
            other => return Err(End::Wrong(format!("a change of the kind {other}"))),
        };
        if data.errors.is_some() {
            return Err(End::Wrong("a change with errors".to_owned()));
        }
        let record: Record = parse(record.map_or("null", |record| record.get()))?;
        Ok(Self {
            kind,
            session: record.session_id,
            label: record.metadata,
            length: record.content.chars().count(),
            cursor: record.tidings_cursor.map(Cow::into_owned),
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, End> {
    // The text may be a whole row; the place of the error says enough.
    serde_json::from_str(text).map_err(|error| End::Wrong(format!("not understood: {error}")))
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    record: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    old_record: Option<&'a serde_json::value::RawValue>,
    errors: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Record<'a> {
    session_id: Uuid,
    #[serde(borrow)]
    content: Cow<'a, str>,
    metadata: Label,
    #[serde(borrow)]
    tidings_cursor: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    status: &'a str,
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct System<'a> {
    status: &'a str,
    #[serde(borrow)]
    extension: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "00000000-0000-4000-8000-0000000000a1";

    fn payload(kind: &str, new: &str, old: &str) -> String {
        format!(
            r#"{{"ids":[7],"data":{{"type":"{kind}","record":{new},"old_record":{old},"errors":null}}}}"#
        )
    }

    fn record(cursor: &str) -> String {
        format!(
            r#"{{"id":"x","session_id":"{SESSION}","content":"d\u00e9j\u00e0","metadata":{{"n":9,"s":4}}{cursor}}}"#
        )
    }

    #[test]
    fn a_cursor_is_in_the_record_that_the_change_is_about() {
        let (with, without) = (record(r#","tidings_cursor":"c""#), record(""));
        for (kind, new, old, expected) in [
            ("INSERT", &with, "{}", Kind::Insert),
            ("UPDATE", &with, &*without, Kind::Update),
            ("DELETE", &"{}".to_owned(), &*with, Kind::Delete),
        ] {
            let change = Change::parse(&payload(kind, new, old)).unwrap();
            assert_eq!((change.kind, change.label.number), (expected, 9));
            assert_eq!((change.length, change.label.size), (4, 4));
            assert_eq!(change.cursor.as_deref(), Some("c"));
            assert_eq!(change.session.to_string(), SESSION);
        }
    }

    #[test]
    fn what_is_not_a_good_change_is_wrong() {
        for text in [
            payload("TRUNCATE", "null", "null"),
            payload("DELETE", &record(""), "{}"),
            payload("INSERT", &record(""), "{}")
                .replace(r#""errors":null"#, r#""errors":["Error 413"]"#),
        ] {
            assert!(matches!(Change::parse(&text), Err(End::Wrong(_))), "{text}");
        }
    }
}
