//! One subscriber: a websocket of its own that joins one channel with one binding, as the browser of one person would.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{FutureExt, SinkExt, StreamExt};
use protocol::{Ref, event};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::frame::{ChangePayload, Frame};
use crate::socket::{self, Endpoint};

/// From the first packet until the server says that the binding is live.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// As the official SDKs do; a server cuts a socket that is silent for 60 s.
const HEARTBEAT: Duration = Duration::from_secs(25);

const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What a subscriber wants to hear: the new messages of one session.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) session_id: String,
    pub(crate) token: String,
}

pub(crate) struct Subscriber {
    socket: WebSocketStream<TcpStream>,
    endpoint: Endpoint,
    topic: String,
    session_id: String,
    binding_id: u64,
    heartbeat: Interval,
    heartbeats: u64,
    answered: u64,
}

impl Subscriber {
    /// Connects, joins, and returns when every change that is committed from now on will be delivered.
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        subscription: &Subscription,
    ) -> anyhow::Result<Self> {
        timeout(JOIN_LIMIT, Box::pin(Self::join(endpoint, subscription)))
            .await
            .with_context(|| format!("not subscribed within {} s", JOIN_LIMIT.as_secs()))?
    }

    async fn join(endpoint: &Endpoint, subscription: &Subscription) -> anyhow::Result<Self> {
        let socket = socket::open(endpoint, &subscription.token).await?;
        let mut subscriber = Self {
            socket,
            endpoint: endpoint.clone(),
            topic: format!("realtime:chat:{}", subscription.session_id),
            session_id: subscription.session_id.clone(),
            binding_id: 0,
            heartbeat: interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
            heartbeats: 0,
            answered: 0,
        };
        subscriber
            .heartbeat
            .set_missed_tick_behavior(MissedTickBehavior::Delay);
        let payload = json!({
            "config": {
                "broadcast": {"ack": false, "self": false},
                "presence": {"key": "", "enabled": false},
                "postgres_changes": [{
                    "event": "INSERT",
                    "schema": "public",
                    "table": "chat_messages",
                    "filter": format!("session_id=eq.{}", subscription.session_id),
                }],
                "private": false,
            },
            "access_token": subscription.token,
        });
        let join_ref = Ref::from_text("1");
        let topic = subscriber.topic.clone();
        subscriber
            .send(
                &join_ref,
                &join_ref,
                &topic,
                event::JOIN,
                &payload.to_string(),
            )
            .await?;
        while !subscriber.take_join_answer().await? {}
        Ok(subscriber)
    }

    /// Reads one frame of the answer to the join; true when the binding is live.
    async fn take_join_answer(&mut self) -> anyhow::Result<bool> {
        let text = loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => break text,
                Some(Ok(message)) => ended(&message)?,
                other => bail!(end_of(other)),
            }
        };
        let Frame::Other(message) = Frame::parse(self.endpoint.version, &text)? else {
            bail!("a change arrived before the subscription was confirmed");
        };
        match &*message.event {
            event::REPLY => {
                ensure!(
                    message.reference == r#""1""#,
                    "a reply to something that was not asked"
                );
                let reply: JoinReply =
                    serde_json::from_str(message.payload.get()).context("unreadable join reply")?;
                ensure!(
                    reply.status == "ok",
                    "join refused: {}",
                    reply.response.reason
                );
                let [binding] = reply.response.postgres_changes.as_slice() else {
                    bail!("the join reply does not answer exactly one binding");
                };
                self.binding_id = binding.id;
                Ok(false)
            }
            event::SYSTEM => {
                let system: System = serde_json::from_str(message.payload.get())
                    .context("unreadable system message")?;
                ensure!(
                    system.status == "ok",
                    "the binding was refused: {}",
                    system.message
                );
                ensure!(
                    self.binding_id != 0,
                    "the system message came before the join reply"
                );
                Ok(system.extension == "postgres_changes")
            }
            event::CLOSE | event::ERROR => bail!("the server ended the channel"),
            _ => Ok(false),
        }
    }

    /// Hands each change to `take` until the server ends the channel, which is an error, or this future is dropped.
    /// Frames that are there already are read in one go.
    pub(crate) async fn run(&mut self, mut take: impl FnMut(&ChangePayload<'_>)) -> anyhow::Error {
        loop {
            tokio::select! {
                frame = self.socket.next() => {
                    let mut next = Some(frame);
                    while let Some(frame) = next {
                        if let Err(error) = self.take_frame(frame, &mut take) {
                            return error;
                        }
                        next = self.socket.next().now_or_never();
                    }
                }
                _ = self.heartbeat.tick() => {
                    if let Err(error) = self.beat().await {
                        return error;
                    }
                }
            }
        }
    }

    fn take_frame(
        &mut self,
        frame: Option<Result<Message, Error>>,
        take: &mut impl FnMut(&ChangePayload<'_>),
    ) -> anyhow::Result<()> {
        let text = match frame {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(message)) => return ended(&message),
            other => bail!(end_of(other)),
        };
        match Frame::parse(self.endpoint.version, &text)? {
            Frame::Change(change) => {
                let data = &change.data;
                ensure!(data.errors.is_none(), "a change with errors arrived");
                ensure!(
                    data.kind == "INSERT",
                    "an event that was not subscribed to arrived: {}",
                    data.kind
                );
                ensure!(
                    change.ids == [self.binding_id],
                    "a change for another binding arrived"
                );
                ensure!(
                    data.record.session_id == self.session_id,
                    "a change of another session arrived"
                );
                take(&change);
                Ok(())
            }
            Frame::Other(message) => match &*message.event {
                event::REPLY if message.topic == protocol::HEARTBEAT_TOPIC => {
                    self.answered += 1;
                    Ok(())
                }
                event::SYSTEM => {
                    let system: System = serde_json::from_str(message.payload.get())
                        .context("unreadable system message")?;
                    ensure!(
                        system.status == "ok",
                        "the server reports: {}",
                        system.message
                    );
                    Ok(())
                }
                event::CLOSE | event::ERROR => bail!("the server ended the channel"),
                event::POSTGRES_CHANGES => {
                    bail!("a change arrived that the load test did not make")
                }
                _ => Ok(()),
            },
        }
    }

    async fn beat(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.answered == self.heartbeats,
            "a heartbeat was not answered within {} s",
            HEARTBEAT.as_secs()
        );
        self.heartbeats += 1;
        let reference = Ref::from_text(&format!("h{}", self.heartbeats));
        timeout(
            HEARTBEAT,
            self.send(
                &Ref::NULL,
                &reference,
                protocol::HEARTBEAT_TOPIC,
                event::HEARTBEAT,
                "{}",
            ),
        )
        .await
        .context("the server does not read")?
    }

    async fn send(
        &mut self,
        join_ref: &Ref,
        reference: &Ref,
        topic: &str,
        event: &str,
        payload: &str,
    ) -> anyhow::Result<()> {
        let frame = protocol::encode(
            self.endpoint.version,
            join_ref,
            reference,
            topic,
            event,
            payload,
        );
        Ok(self
            .socket
            .send(Message::text(Utf8Bytes::from(frame)))
            .await?)
    }

    /// Leaves politely, so that the server's figures show no broken connections.
    pub(crate) async fn close(mut self) {
        // What the server still sends, or that it is gone already, is of no interest any more.
        let _ = timeout(CLOSE_LIMIT, self.socket.close(None)).await;
    }
}

/// Frames that carry no message are fine, a closing one is not.
fn ended(message: &Message) -> anyhow::Result<()> {
    match message {
        Message::Close(Some(frame)) => bail!(
            "the server closed the connection: {} {}",
            u16::from(frame.code),
            frame.reason
        ),
        Message::Close(None) => bail!("the server closed the connection without a code"),
        Message::Binary(_) => bail!("a binary frame arrived that nobody asked for"),
        _ => Ok(()),
    }
}

fn end_of(frame: Option<Result<Message, Error>>) -> anyhow::Error {
    match frame {
        Some(Err(error)) => anyhow::Error::new(error).context("the connection broke"),
        _ => anyhow::anyhow!("the connection ended"),
    }
}

#[derive(Deserialize)]
struct JoinReply {
    status: String,
    response: JoinResponse,
}

#[derive(Deserialize)]
struct JoinResponse {
    #[serde(default)]
    postgres_changes: Vec<ConfirmedBinding>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct ConfirmedBinding {
    id: u64,
}

#[derive(Deserialize)]
struct System {
    status: String,
    extension: String,
    message: String,
}

#[cfg(test)]
mod tests;
