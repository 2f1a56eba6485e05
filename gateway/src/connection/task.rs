//! The life of a socket: reads frames, carries out what the machine decides, writes what waits in the outbox.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use protocol::{ClientFrame, close};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::CapacityError,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    Opened,
    authorize::{Outcome, authorize},
    machine::{Effect, Machine, Question, Rules},
};
use crate::{
    app::App,
    auth::now_unix,
    hub::{
        Subscription,
        outbox::{Frame, Limits, Outbox},
    },
    metrics::names,
    topics::{Broadcast, Member},
};

/// How long a write may make no progress. A reader that is gone is noticed by its full outbox, too.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest payload of a broadcast or a track (protocol §9).
const MAX_PAYLOAD_BYTES: usize = 3_000_500;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed, or its network is gone.
    Client,
    Idle,
    SlowReader,
    TooBig,
    Protocol,
    Encoding,
    Draining,
}

impl End {
    fn label(self) -> &'static str {
        match self {
            End::Client => "client",
            End::Idle => "idle",
            End::SlowReader => "slow_reader",
            End::TooBig => "too_big",
            End::Protocol => "protocol",
            End::Encoding => "encoding",
            End::Draining => "draining",
        }
    }

    fn close_frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            End::Client => return None,
            End::Idle => (close::IDLE, "idle"),
            End::SlowReader => (close::SLOW_READER, "slow reader"),
            End::TooBig => (close::TOO_BIG, "message too big"),
            End::Protocol => (close::PROTOCOL_ERROR, "protocol error"),
            End::Encoding => (close::BAD_ENCODING, "text that is not UTF-8"),
            End::Draining => (close::RESTART, "the server restarts"),
        };
        Some(CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        })
    }
}

type Answer = (Arc<str>, u64, Outcome);

struct Connection<'a> {
    app: &'a Arc<App>,
    version: protocol::Version,
    outbox: Arc<Outbox>,
    machine: Machine<'a>,
    /// Joins that are being authorized.
    questions: FuturesUnordered<BoxFuture<'static, Answer>>,
    channels: usize,
}

/// Serves a socket until it ends.
pub async fn serve(app: Arc<App>, mut socket: WebSocketStream<TcpStream>, opened: Opened) {
    let settings = &app.settings;
    let rules = Rules {
        max_channels: settings.max_channels,
        max_payload_bytes: MAX_PAYLOAD_BYTES,
        unauthorized_join: settings.unauthorized_join,
        presence_default: settings.presence_default,
    };
    let limits = Limits {
        frames: settings.outbox_frames,
        bytes: settings.outbox_bytes,
    };
    let mut connection = Connection {
        app: &app,
        version: opened.version,
        outbox: Arc::new(Outbox::new(limits)),
        machine: Machine::new(opened.version, opened.token, &app.verifier, rules),
        questions: FuturesUnordered::new(),
        channels: 0,
    };
    let end = connection.run(&mut socket).await;
    // What others see of it ends before the farewell, which may take a while.
    connection.machine.close();
    connection.carry_out();
    metrics::counter!(names::CONNECTIONS_CLOSED, "reason" => end.label()).increment(1);
    tracing::debug!(remote = %opened.remote, reason = end.label(), "connection ended");
    if let Some(frame) = end.close_frame() {
        let farewell = async {
            socket.close(Some(frame)).await?;
            while let Some(message) = socket.next().await {
                message?;
            }
            Ok::<_, WsError>(())
        };
        // A client that does not answer is left behind.
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

impl Connection<'_> {
    async fn run(&mut self, socket: &mut WebSocketStream<TcpStream>) -> End {
        let outbox = self.outbox.clone();
        let draining = self.app.lifecycle.soft().clone();
        let idle_timeout = self.app.settings.idle_timeout;
        // A client may ask for as many joins as it may have channels; while more are open, nothing more is read from it.
        let most_questions = self.app.settings.max_channels;
        let mut frames = Vec::new();
        let mut idle = pin!(tokio::time::sleep(idle_timeout));
        let mut expiry = pin!(tokio::time::sleep(idle_timeout));
        loop {
            let next_expiry = self.machine.next_expiry();
            if let Some(at) = next_expiry {
                // Whole seconds; once a minute in any case, since clocks are set.
                let seconds = (at - now_unix()).clamp(0, 60) as u64;
                let deadline = Instant::now() + Duration::from_secs(seconds);
                if expiry.deadline() > deadline || expiry.is_elapsed() {
                    expiry.as_mut().reset(deadline);
                }
            }
            tokio::select! {
                biased;
                () = draining.cancelled() => return End::Draining,
                // What is to be written comes before what is read: a client that floods us must not delay its own answers.
                taken = outbox.take(&mut frames) => {
                    if taken.is_err() {
                        return End::SlowReader;
                    }
                    if let Err(end) = write(socket, &outbox, &mut frames).await {
                        return end;
                    }
                }
                Some((topic, asked, outcome)) = self.questions.next(), if !self.questions.is_empty() => {
                    self.machine.authorized(&topic, asked, outcome, now_unix());
                    self.carry_out();
                }
                message = socket.next(), if self.questions.len() <= most_questions => {
                    idle.as_mut().reset(Instant::now() + idle_timeout);
                    match self.receive(message) {
                        Ok(true) => self.carry_out(),
                        // A ping is answered when the socket is flushed.
                        Ok(false) => match timeout(WRITE_TIMEOUT, socket.flush()).await {
                            Ok(Ok(())) => {}
                            _ => return End::Client,
                        },
                        Err(end) => return end,
                    }
                }
                () = expiry.as_mut(), if next_expiry.is_some() => {
                    self.machine.expire(now_unix());
                    self.carry_out();
                }
                () = idle.as_mut() => return End::Idle,
            }
        }
    }

    /// Hands a frame to the machine. Returns false for frames of the websocket protocol itself.
    fn receive(&mut self, message: Option<Result<Message, WsError>>) -> Result<bool, End> {
        let decoded = match message {
            None => return Err(End::Client),
            Some(Ok(Message::Text(text))) => {
                protocol::decode_text(self.version, text.as_str()).map(ClientFrame::Message)
            }
            Some(Ok(Message::Binary(bytes))) => protocol::decode_binary(self.version, bytes),
            Some(Ok(Message::Close(_))) => return Err(End::Client),
            Some(Ok(_)) => return Ok(false),
            Some(Err(WsError::Capacity(CapacityError::MessageTooLong { .. }))) => {
                return Err(End::TooBig);
            }
            Some(Err(WsError::Capacity(_) | WsError::Protocol(_))) => return Err(End::Protocol),
            Some(Err(WsError::Utf8(_))) => return Err(End::Encoding),
            Some(Err(_)) => return Err(End::Client),
        };
        match decoded {
            Ok(ClientFrame::Message(message)) => self.machine.message(message, now_unix()),
            Ok(ClientFrame::Broadcast(broadcast)) => self.machine.user_broadcast(broadcast),
            Err(malformed) => {
                metrics::counter!(names::MALFORMED, "kind" => malformed.label()).increment(1);
                tracing::debug!(
                    kind = malformed.label(),
                    "MalformedWebSocketMessage: dropped"
                );
            }
        }
        Ok(true)
    }

    /// Does what the machine has decided, in its order. Never waits.
    fn carry_out(&mut self) {
        for effect in self.machine.effects() {
            match effect {
                Effect::Send(frame) => self.send(frame),
                Effect::Authorize(question) => {
                    self.questions.push(ask(self.app.clone(), question).boxed())
                }
                Effect::Subscribe(subscribe) => {
                    let subscription = Subscription {
                        id: subscribe.id,
                        topic: subscribe.topic,
                        version: self.version,
                        bindings: subscribe.bindings,
                        principal: subscribe.principal,
                        outbox: self.outbox.clone(),
                    };
                    let greeting = subscribe.greeting.into_iter().map(Frame::text).collect();
                    self.app
                        .hub
                        .subscribe(subscription, subscribe.replaced, greeting);
                }
                Effect::Unsubscribe(id) => self.app.hub.unsubscribe(id),
                Effect::Enter { key, id, entrance } => {
                    let member = Member {
                        topic: entrance.topic,
                        version: self.version,
                        join_ref: entrance.join_ref,
                        outbox: self.outbox.clone(),
                        self_send: entrance.self_send,
                        presence_enabled: entrance.presence_enabled,
                        presence_key: entrance.presence_key,
                    };
                    self.app.topics.join(&key, id, member);
                }
                Effect::Leave { key, id } => self.app.topics.leave(&key, id),
                Effect::Broadcast { key, id, payload } => {
                    metrics::counter!(names::BROADCASTS, "source" => "socket").increment(1);
                    self.app
                        .topics
                        .broadcast(&key, Some(id), Broadcast::Message(&payload));
                }
                Effect::BroadcastUser { key, id, broadcast } => {
                    metrics::counter!(names::BROADCASTS, "source" => "socket").increment(1);
                    let broadcast = Broadcast::User {
                        event: &broadcast.event,
                        encoding: broadcast.encoding,
                        payload: &broadcast.payload,
                    };
                    self.app.topics.broadcast(&key, Some(id), broadcast);
                }
                Effect::Track { key, id, payload } => self.app.topics.track(&key, id, &payload),
                Effect::Untrack { key, id } => self.app.topics.untrack(&key, id),
                Effect::Joined(result) => {
                    metrics::counter!(names::JOINS, "result" => result).increment(1)
                }
            }
        }
        let channels = self.machine.channels();
        metrics::gauge!(names::CHANNELS).increment(channels as f64 - self.channels as f64);
        self.channels = channels;
    }

    fn send(&self, frame: String) {
        self.outbox.push(Frame::text(frame));
    }
}

async fn ask(app: Arc<App>, question: Question) -> Answer {
    let outcome = authorize(
        &app,
        &question.principal,
        &question.config.bindings,
        &question.ids,
    )
    .await;
    (question.topic, question.asked, outcome)
}

/// Writes all frames with as few system calls as they fit into.
async fn write(
    socket: &mut WebSocketStream<TcpStream>,
    outbox: &Outbox,
    frames: &mut Vec<Frame>,
) -> Result<(), End> {
    let count = frames.len() as u64;
    let mut bytes = 0;
    let writing = async {
        for frame in frames.drain(..) {
            bytes += match frame {
                Frame::Text(text) => {
                    let length = text.len();
                    socket.feed(Message::Text(text)).await?;
                    length
                }
                Frame::Binary(binary) => {
                    let length = binary.len();
                    socket.feed(Message::Binary(binary)).await?;
                    length
                }
            };
        }
        socket.flush().await
    };
    let written = tokio::select! {
        biased;
        written = timeout(WRITE_TIMEOUT, writing) => written,
        () = outbox.overflowed() => return Err(End::SlowReader),
    };
    frames.shrink_to(64);
    metrics::counter!(names::FRAMES_OUT).increment(count);
    metrics::counter!(names::BYTES_OUT).increment(bytes as u64);
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Client),
        Err(_) => Err(End::SlowReader),
    }
}
