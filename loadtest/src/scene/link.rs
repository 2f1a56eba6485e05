//! One websocket with any channels on it. It sends what it is told, answers for its heartbeats, and hands out all other frames
//! as they are: a reader that looks into few of them costs little.

use std::time::{Duration, Instant};

use futures::{FutureExt, SinkExt, StreamExt};
use protocol::{Ref, Version, event};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::channel::End;
use crate::frame;
use crate::socket::{self, Endpoint};

/// As the official SDKs do; a server cuts a socket that is silent for 60 s.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// A longer frame is no answer to a heartbeat.
const ANSWER_BYTES: usize = 160;

/// From the first packet until a channel is live.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The code of a connection that ended without one.
const NO_CODE: u16 = 1006;

pub(crate) struct Link {
    socket: WebSocketStream<TcpStream>,
    version: Version,
    heartbeat: Interval,
    heartbeats: u64,
    answered: u64,
    references: u64,
}

#[derive(Debug)]
pub(crate) enum Incoming {
    Text(Utf8Bytes),
    Binary(Bytes),
}

/// What a channel is joined with.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Without `realtime:`.
    pub(crate) topic: String,
    /// `postgres_changes`.
    pub(crate) bindings: Value,
    /// `broadcast`.
    pub(crate) broadcast: Value,
    /// The key of its presence, if that is wanted.
    pub(crate) presence: Option<String>,
    pub(crate) private: bool,
}

/// When the server answered a join.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) replied: Instant,
    /// When it said that the bindings are live, and all that was missed has come. Without bindings the same.
    pub(crate) live: Instant,
}

impl Wish {
    /// A public channel on which nothing is asked for yet.
    pub(crate) fn of(topic: String) -> Self {
        Self {
            topic,
            bindings: json!([]),
            broadcast: json!({"ack": false, "self": false}),
            presence: None,
            private: false,
        }
    }

    /// New messages of one chat.
    pub(crate) fn messages_of(session: uuid::Uuid) -> Self {
        Self {
            bindings: json!([{
                "event": "INSERT", "schema": "public", "table": "chat_messages",
                "filter": format!("session_id=eq.{session}"),
            }]),
            ..Self::of(format!("chat:{session}"))
        }
    }

    pub(crate) fn full_topic(&self) -> String {
        format!("realtime:{}", self.topic)
    }

    fn payload(&self, token: &str) -> String {
        json!({
            "config": {
                "broadcast": self.broadcast,
                "presence": {
                    "key": self.presence.as_deref().unwrap_or_default(), "enabled": self.presence.is_some(),
                },
                "postgres_changes": self.bindings,
                "private": self.private,
            },
            "access_token": token,
        })
        .to_string()
    }

    fn has_bindings(&self) -> bool {
        self.bindings
            .as_array()
            .is_some_and(|list| !list.is_empty())
    }
}

impl Link {
    pub(crate) async fn open(endpoint: &Endpoint, token: &str) -> Result<Self, End> {
        let open = timeout(JOIN_LIMIT, Box::pin(socket::open(endpoint, token))).await;
        let socket = open
            .map_err(|_| End::Unreachable("no handshake".to_owned()))?
            .map_err(|error| End::Unreachable(format!("{error:#}")))?;
        let now = tokio::time::Instant::now();
        let mut heartbeat = interval_at(now + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            socket,
            version: endpoint.version,
            heartbeat,
            heartbeats: 0,
            answered: 0,
            references: 0,
        })
    }

    /// Opens a socket and joins one channel. Frames that come before it is live go to `take`.
    pub(crate) async fn joined(
        endpoint: &Endpoint,
        token: &str,
        wish: &Wish,
        take: impl FnMut(&Incoming) -> Result<(), End>,
    ) -> Result<(Self, Joined), End> {
        let mut link = Self::open(endpoint, token).await?;
        let joined = link.join(token, wish, take).await?;
        Ok((link, joined))
    }

    /// Joins a channel, and returns when it is live. Frames that come before go to `take`.
    pub(crate) async fn join(
        &mut self,
        token: &str,
        wish: &Wish,
        take: impl FnMut(&Incoming) -> Result<(), End>,
    ) -> Result<Joined, End> {
        let join = Box::pin(self.join_unbounded(token, wish, take));
        timeout(JOIN_LIMIT, join).await.unwrap_or_else(|_| {
            Err(End::Broken(format!(
                "not joined within {} s",
                JOIN_LIMIT.as_secs()
            )))
        })
    }

    async fn join_unbounded(
        &mut self,
        token: &str,
        wish: &Wish,
        mut take: impl FnMut(&Incoming) -> Result<(), End>,
    ) -> Result<Joined, End> {
        let topic = wish.full_topic();
        let reference = self.next_reference();
        let payload = wish.payload(token);
        self.send(&reference, &reference, &topic, event::JOIN, &payload)
            .await?;
        let mut replied = None;
        loop {
            let incoming = self.next().await?;
            if let Incoming::Text(text) = &incoming {
                match answer(self.version, text, reference.as_json())? {
                    Answer::Reply => {
                        let now = Instant::now();
                        if !wish.has_bindings() {
                            return Ok(Joined {
                                replied: now,
                                live: now,
                            });
                        }
                        replied = Some(now);
                        continue;
                    }
                    Answer::Live => {
                        let replied = replied.ok_or_else(|| {
                            End::Wrong("the system message came before the reply".to_owned())
                        })?;
                        return Ok(Joined {
                            replied,
                            live: Instant::now(),
                        });
                    }
                    Answer::Other => {}
                }
            }
            take(&incoming)?;
        }
    }

    /// May be dropped and called again: no frame is lost.
    pub(crate) async fn next(&mut self) -> Result<Incoming, End> {
        loop {
            tokio::select! {
                // The answer to a heartbeat may be among what waits.
                biased;
                frame = self.socket.next() => {
                    if let Some(incoming) = self.take(frame)? {
                        return Ok(incoming);
                    }
                }
                _ = self.heartbeat.tick() => self.beat().await?,
            }
        }
    }

    /// A frame that is there already.
    pub(crate) fn ready(&mut self) -> Result<Option<Incoming>, End> {
        while let Some(frame) = self.socket.next().now_or_never() {
            if let Some(incoming) = self.take(frame)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    fn take(&mut self, frame: Option<Result<Message, Error>>) -> Result<Option<Incoming>, End> {
        match frame {
            Some(Ok(Message::Text(text))) if is_heartbeat_answer(&text) => {
                self.answered += 1;
                Ok(None)
            }
            Some(Ok(Message::Text(text))) => Ok(Some(Incoming::Text(text))),
            Some(Ok(Message::Binary(bytes))) => Ok(Some(Incoming::Binary(bytes))),
            Some(Ok(Message::Close(frame))) => Err(End::Closed(
                frame.map_or(NO_CODE, |frame| frame.code.into()),
            )),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(End::Broken(error.to_string())),
            None => Err(End::Broken("the stream ended".to_owned())),
        }
    }

    async fn beat(&mut self) -> Result<(), End> {
        if self.answered < self.heartbeats {
            return Err(End::Broken("a heartbeat was not answered".to_owned()));
        }
        self.heartbeats += 1;
        let reference = self.next_reference();
        let topic = protocol::HEARTBEAT_TOPIC;
        let sent = self.send(&Ref::NULL, &reference, topic, event::HEARTBEAT, "{}");
        timeout(HEARTBEAT, sent)
            .await
            .unwrap_or_else(|_| Err(End::Broken("the server does not read".to_owned())))
    }

    pub(crate) fn next_reference(&mut self) -> Ref {
        self.references += 1;
        Ref::from_text(&self.references.to_string())
    }

    /// Sends a message on a channel, as text.
    pub(crate) async fn push(
        &mut self,
        topic: &str,
        event: &str,
        payload: &str,
    ) -> Result<(), End> {
        let reference = self.next_reference();
        // The first join of a socket has the reference 1, and load tests join once.
        self.send(&Ref::from_text("1"), &reference, topic, event, payload)
            .await
    }

    pub(crate) async fn push_binary(&mut self, frame: Vec<u8>) -> Result<(), End> {
        self.socket
            .send(Message::binary(frame))
            .await
            .map_err(|error| End::Broken(error.to_string()))
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

    /// Leaves as a program does that is killed with something unread: by a reset.
    pub(crate) fn reset(self) {
        // If that cannot be had, it leaves without a word all the same.
        let _ = self.socket.get_ref().set_zero_linger();
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    Reply,
    Live,
    Other,
}

/// What a text says about the join with this reference.
fn answer(version: Version, text: &str, reference: &str) -> Result<Answer, End> {
    let message =
        frame::Message::parse(version, text).map_err(|error| End::Wrong(format!("{error:#}")))?;
    let payload = message.payload.get();
    match &*message.event {
        event::REPLY if message.reference == reference => {
            let reply: Reply = parse(payload)?;
            match reply.status {
                "ok" => Ok(Answer::Reply),
                _ => Err(End::Refused(reply.response.reason)),
            }
        }
        event::SYSTEM => {
            let system: System = parse(payload)?;
            match system.status {
                "ok" if system.message == protocol::SUBSCRIBED => Ok(Answer::Live),
                "ok" => Ok(Answer::Other),
                _ => Err(End::Ended(system.message.into_owned())),
            }
        }
        event::CLOSE | event::ERROR => Err(End::Ended(message.event.into_owned())),
        _ => Ok(Answer::Other),
    }
}

fn is_heartbeat_answer(text: &str) -> bool {
    text.len() < ANSWER_BYTES && text.contains(r#""phoenix""#) && text.contains(r#""phx_reply""#)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, End> {
    serde_json::from_str(text).map_err(|error| End::Wrong(format!("not understood: {error}")))
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
    message: std::borrow::Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_answers_to_a_join_from_all_else() {
        let of = |text: &str| answer(Version::V2, text, "\"1\"");
        let reply = r#"["1","1","realtime:a","phx_reply",{"status":"ok","response":{}}]"#;
        assert_eq!(of(reply).unwrap(), Answer::Reply);
        let other = reply.replacen(r#""1","1""#, r#""1","2""#, 1);
        assert_eq!(of(&other).unwrap(), Answer::Other);
        let refused =
            r#"["1","1","realtime:a","phx_reply",{"status":"error","response":{"reason":"no"}}]"#;
        assert_eq!(of(refused).unwrap_err(), End::Refused("no".to_owned()));
        let system = |status, message| {
            format!(
                r#"["1",null,"realtime:a","system",{{"message":"{message}","status":"{status}","extension":"postgres_changes"}}]"#
            )
        };
        assert_eq!(
            of(&system("ok", protocol::SUBSCRIBED)).unwrap(),
            Answer::Live
        );
        assert_eq!(of(&system("ok", "Cursor")).unwrap(), Answer::Other);
        assert!(of(&system("error", "x")).is_err());
    }

    #[test]
    fn only_an_answer_to_a_heartbeat_is_swallowed() {
        let answer = r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
        assert!(is_heartbeat_answer(answer));
        assert!(!is_heartbeat_answer(
            r#"["1","2","realtime:a","phx_reply",{"status":"ok","response":{}}]"#
        ));
    }

    #[test]
    fn a_wish_asks_for_what_it_says() {
        let session = uuid::Uuid::nil();
        let wish = Wish::messages_of(session);
        assert!(wish.has_bindings() && !Wish::of("a".to_owned()).has_bindings());
        let payload: Value = serde_json::from_str(&wish.payload("t")).unwrap();
        assert_eq!(payload["config"]["presence"]["enabled"], false);
        assert_eq!(
            payload["config"]["postgres_changes"][0]["filter"],
            format!("session_id=eq.{session}")
        );
    }
}
