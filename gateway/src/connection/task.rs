//! The life of a socket: reads frames, carries out what the machine decides, writes what waits in the outbox.

use std::{collections::HashMap, convert::Infallible, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use protocol::ClientFrame;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message, error::CapacityError},
};

use super::{
    Opened,
    asking::{Admitted, Answer, Late, Replayed, admit, ask},
    end::End,
    machine::{Effect, Machine, Rules, Subscribe},
};
use crate::{
    admission::Outcome,
    app::App,
    auth::now_unix,
    hub::{
        Announcement, Greeting, Missed, Outdated, Subscription, SubscriptionId,
        outbox::{Frame, Item, Limits, Outbox, Signal},
    },
    metrics::names,
    resume::{self, Plan},
    topics::{Broadcast, Member},
};

/// How long one write may take: a piece of the outbox. A reader that is gone is noticed by its full outbox, too.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before a subscription is admitted again whose bindings were outdated.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long the last frames and the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest payload of a broadcast or a track (protocol §9).
const MAX_PAYLOAD_BYTES: usize = 3_000_500;

struct Connection<'a> {
    app: &'a Arc<App>,
    version: protocol::Version,
    outbox: Arc<Outbox>,
    machine: Machine<'a>,
    /// Joins that are being authorized.
    questions: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Subscriptions that are being given what they missed.
    replays: FuturesUnordered<BoxFuture<'static, Replayed>>,
    /// Subscriptions among them that wait to be made, unless they end first, and those that are live in their stead.
    late: HashMap<SubscriptionId, Instead>,
    channels: usize,
}

/// What there is while a subscription waits to be made.
struct Instead {
    live: Option<SubscriptionId>,
    /// Nothing: the join has not been answered yet.
    joining: bool,
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
        replays: FuturesUnordered::new(),
        late: HashMap::new(),
        channels: 0,
    };
    let outbox = connection.outbox.clone();
    let registered = app.sockets.register(&outbox);
    let end = match connection.run(&mut socket).await {
        Err(end) => end,
        Ok(never) => match never {},
    };
    // What others see of it ends before the farewell, which may take a while.
    drop(registered);
    drop(connection);
    metrics::counter!(names::CONNECTIONS_CLOSED, "reason" => end.label()).increment(1);
    match end {
        End::SlowReader => metrics::counter!(names::SLOW_READERS).increment(1),
        End::Draining => app.lifecycle.count_told(),
        _ => {}
    }
    tracing::debug!(remote = %opened.remote, reason = end.label(), "connection ended");
    if let Some(frame) = end.close_frame() {
        let mut last = Vec::new();
        let farewell = async {
            // Nothing new comes any more; what has come is still theirs.
            while end == End::Draining
                && let Some(Ok(())) = outbox.take(&mut last).now_or_never()
                && write(&mut socket, &outbox, &mut last).await.is_ok()
            {}
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

/// However it ends, also by a panic: nobody stays online who is gone.
impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.machine.close();
        self.carry_out(None);
    }
}

impl Connection<'_> {
    async fn run(&mut self, socket: &mut WebSocketStream<TcpStream>) -> Result<Infallible, End> {
        let outbox = self.outbox.clone();
        let app = self.app;
        let draining = app.lifecycle.soft();
        let mut turn = pin!(app.lifecycle.turn());
        let idle_timeout = self.app.settings.idle_timeout;
        // A client may ask for as many joins as it may have channels; while more are open, nothing more is read from it.
        let most_questions = self.app.settings.max_channels;
        // Keys of issuers go, and keys of bots are revoked.
        let mut keys = self.app.verifier.changes();
        // Tables are published, and taken off.
        let mut tables = self.app.catalog.changes();
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
                () = turn.as_mut() => return Err(End::Draining),
                () = draining.cancelled(), if self.channels == 0 => return Err(End::Draining),
                // What is to be written comes before what is read: a client that floods us must not delay its own answers.
                taken = outbox.take(&mut frames) => {
                    if taken.is_err() {
                        return Err(End::SlowReader);
                    }
                    match write(socket, &outbox, &mut frames).await {
                        Ok(signals) => {
                            for signal in signals {
                                self.signalled(signal)?;
                            }
                        }
                        Err(end) => return Err(end),
                    }
                }
                Some(answer) = self.questions.next(), if !self.questions.is_empty() => self.answered(answer),
                Some(replayed) = self.replays.next(), if !self.replays.is_empty() => self.replayed(replayed)?,
                message = socket.next(), if self.questions.len() <= most_questions && self.replays.len() <= most_questions => {
                    idle.as_mut().reset(Instant::now() + idle_timeout);
                    match self.receive(message) {
                        Ok(true) => self.carry_out(None),
                        // A ping is answered when the socket is flushed.
                        Ok(false) => write(socket, &outbox, &mut frames).await.map(drop)?,
                        Err(end) => return Err(end),
                    }
                }
                Ok(()) = keys.changed() => {
                    self.machine.revalidate();
                    self.carry_out(None);
                }
                Ok(()) = tables.changed() => {
                    self.machine.retry();
                    self.carry_out(None);
                }
                () = expiry.as_mut(), if next_expiry.is_some() => {
                    self.machine.expire(now_unix());
                    self.carry_out(None);
                }
                () = idle.as_mut() => return Err(End::Idle),
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

    fn signalled(&mut self, signal: Signal) -> Result<(), End> {
        match signal {
            Signal::Revoked(id) => self.machine.revoked(id),
            Signal::Void(id, reason) => self.machine.void(id, &reason),
            Signal::Failed(id) => self.machine.failed(id),
            Signal::Lost => return Err(End::Lost),
            Signal::Disconnect(whom) => {
                if self.machine.concerns(&whom, now_unix()) {
                    return Err(End::Disconnected);
                }
            }
        }
        self.carry_out(None);
        Ok(())
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Admitted {
                topic,
                asked,
                outcome,
                admitted,
            } => {
                self.machine.authorized(&topic, asked, outcome, now_unix());
                self.carry_out(Some(admitted));
            }
            Answer::Learned { message, asked } => {
                self.machine.learned(message, asked, now_unix());
                self.carry_out(None);
            }
            Answer::Again {
                mut late,
                outcome,
                admitted,
            } => {
                let id = late.subscription.id;
                let Some(Instead { live: replaced, .. }) = self.late.remove(&id) else {
                    return;
                };
                let ended = match outcome {
                    Outcome::Bound(bindings) => {
                        late.subscription.bindings = bindings;
                        late.subscription.verified = admitted.verified;
                        late.plan = admitted.plan;
                        return self.subscribe(*late);
                    }
                    Outcome::Unavailable => return self.ask_again(*late),
                    Outcome::Denied => Signal::Revoked(id),
                    Outcome::Refused(_) => Signal::Failed(id),
                    Outcome::Wrong(refusal) => Signal::Void(id, refusal.to_string().into()),
                };
                if let Some(replaced) = replaced {
                    self.app.hub.unsubscribe(replaced);
                }
                for frame in late.greeting.frames {
                    self.outbox.push(frame);
                }
                self.outbox.signal(ended);
            }
        }
    }

    fn subscribe(&mut self, late: Late) {
        let Late {
            subscription,
            replaced,
            greeting,
            plan,
        } = late;
        let hub = &self.app.hub;
        let starts = plan.as_ref().map(|plan| &plan.starts);
        match hub.subscribe(subscription, replaced, &greeting, starts) {
            Ok(None) => {}
            Ok(Some(missed)) => {
                if let (Some(plan), Some(live)) = (plan, greeting.live) {
                    self.replay(plan, missed, live);
                }
            }
            Err(outdated) => {
                let Outdated(subscription) = *outdated;
                self.ask_again(Late {
                    subscription,
                    replaced,
                    greeting,
                    plan,
                });
            }
        }
    }

    fn replay(&mut self, plan: Plan, missed: Missed, live: Announcement) {
        let (app, outbox) = (self.app.clone(), self.outbox.clone());
        let missed = Arc::new(missed);
        self.replays.push(
            async move {
                let result = app.resume.run(&outbox, plan, &missed, &live).await;
                Replayed { result, missed }
            }
            .boxed(),
        );
    }

    fn replayed(&mut self, replayed: Replayed) -> Result<(), End> {
        match replayed.result {
            Ok(()) | Err(resume::Error::Ended) => {}
            Err(resume::Error::Overflowed) => return Err(End::SlowReader),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a subscription cannot be given what it missed; its channel is to be joined again"
                );
                // Its channel may already wait for another in its stead.
                let holder = replayed.missed.gate.holder();
                let mut late = self.late.iter();
                let instead = late.find(|(_, instead)| instead.live == Some(holder));
                let id = instead.map_or(holder, |(id, _)| *id);
                self.machine.failed(id);
                self.carry_out(None);
            }
        }
        Ok(())
    }

    /// The catalog has changed while the subscription was being admitted.
    fn ask_again(&mut self, late: Late) {
        let instead = Instead {
            live: late.replaced,
            joining: !late.greeting.frames.is_empty(),
        };
        self.late.insert(late.subscription.id, instead);
        let app = self.app.clone();
        self.questions.push(
            async move {
                // Not at once: the database may have to recover first.
                tokio::time::sleep(ASK_AGAIN).await;
                let (principal, wanted) = (&late.subscription.principal, &late.subscription.wanted);
                let (outcome, admitted) = admit(&app, principal, wanted, late.plan.is_some()).await;
                Answer::Again {
                    late: Box::new(late),
                    outcome,
                    admitted,
                }
            }
            .boxed(),
        );
    }

    /// Does what the machine has decided, in its order. Never waits. `admitted`: what it decides on.
    fn carry_out(&mut self, admitted: Option<Admitted>) {
        let (verified, mut plan) = match admitted {
            Some(admitted) => (Some(admitted.verified), admitted.plan),
            None => (None, None),
        };
        for effect in self.machine.effects() {
            match effect {
                Effect::Send(frame) => self.send(frame),
                Effect::Learn {
                    token,
                    message,
                    asked,
                } => {
                    let app = self.app.clone();
                    self.questions.push(
                        async move {
                            app.verifier.learn(&token).await;
                            Answer::Learned { message, asked }
                        }
                        .boxed(),
                    );
                }
                Effect::Authorize(question) => {
                    self.questions.push(ask(self.app.clone(), question).boxed())
                }
                Effect::Subscribe(subscribe) => {
                    let Subscribe {
                        id,
                        topic,
                        bindings,
                        principal,
                        wanted,
                        replaced,
                        greeting,
                        live,
                    } = subscribe;
                    // What it replaces may itself be waiting, with an older one live in its stead.
                    let replaced = match replaced.map(|id| (id, self.late.remove(&id))) {
                        None => None,
                        Some((replaced, None)) => Some(replaced),
                        // The join is still owed an answer, and where to start from: let it come again.
                        Some((_, Some(Instead { joining: true, .. }))) => {
                            self.outbox.signal(Signal::Failed(id));
                            continue;
                        }
                        Some((_, Some(Instead { live, .. }))) => live,
                    };
                    let subscription = Subscription {
                        id,
                        topic,
                        version: self.version,
                        bindings,
                        principal,
                        outbox: self.outbox.clone(),
                        wanted,
                        verified: verified.unwrap_or_else(|| self.app.hub.moment()),
                    };
                    let greeting = Greeting {
                        frames: greeting.into_iter().map(Frame::text).collect(),
                        live: Some(live),
                    };
                    self.subscribe(Late {
                        subscription,
                        replaced,
                        greeting,
                        plan: plan.take(),
                    });
                }
                Effect::Unsubscribe(id) => {
                    if let Some(Instead {
                        live: Some(live), ..
                    }) = self.late.remove(&id)
                    {
                        self.app.hub.unsubscribe(live);
                    }
                    self.app.hub.unsubscribe(id);
                }
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

/// Writes all frames with as few system calls as they fit into. Returns the signals among them.
async fn write(
    socket: &mut WebSocketStream<TcpStream>,
    outbox: &Outbox,
    items: &mut Vec<Item>,
) -> Result<Vec<Signal>, End> {
    let mut signals = Vec::new();
    let (waiting, mut count, mut bytes) = (items.len() as u64, 0, 0);
    let writing = async {
        for item in items.drain(..) {
            let message = match item {
                Item::Frame(Frame::Text(text)) => Message::Text(text),
                Item::Frame(Frame::Binary(binary)) => Message::Binary(binary),
                Item::Signal(signal) => {
                    signals.push(signal);
                    continue;
                }
            };
            count += 1;
            bytes += message.len();
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    let written = tokio::select! {
        biased;
        written = timeout(WRITE_TIMEOUT, writing) => written.ok(),
        () = outbox.overflowed() => None,
    };
    items.shrink_to(64);
    metrics::counter!(names::FRAMES_OUT).increment(count);
    metrics::counter!(names::BYTES_OUT).increment(bytes as u64);
    match written {
        Some(Ok(())) => Ok(signals),
        Some(Err(_)) => Err(End::Client),
        None => {
            metrics::counter!(names::FRAMES_DISCARDED).increment(waiting.saturating_sub(count));
            Err(End::SlowReader)
        }
    }
}
