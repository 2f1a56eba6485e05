//! The life of a socket: reads frames, carries out what the machine decides, writes what waits in the outbox.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, poll_fn, ready},
    sync::Arc,
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use protocol::ClientFrame;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::broadcast::error::RecvError,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message, error::CapacityError},
};

use super::{
    Opened,
    asking::{Answer, Replayed},
    awaited::Awaited,
    clock::{Clock, Due},
    end::End,
    machine::{Machine, Now, Rules},
    stream::{self, Stream},
};
use crate::{
    admission::Outcome,
    app::App,
    auth::now_unix,
    hub::{
        SubscriptionId,
        outbox::{Frame, Limits, Notice, Outbox, Signal},
    },
    metrics::names,
    private::Doubt,
    resume,
};

/// How long a socket that is stuck may take for so many bytes. A reader that is gone is noticed by its full outbox, too.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const PROGRESS: u64 = 256 * 1024;
/// How long the last frames and the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Over how long private channels ask for their rights again when all of them may be gone.
const DOUBT_SPREAD: Duration = Duration::from_secs(1);

pub(super) struct Connection<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) version: protocol::Version,
    pub(super) outbox: Arc<Outbox>,
    pub(super) machine: Machine<'a>,
    /// Joins that are being authorized.
    pub(super) questions: Awaited<Answer>,
    /// Subscriptions that are being given what they missed.
    pub(super) replays: Awaited<Replayed>,
    /// Subscriptions among them that wait to be made, unless they end first, and those that are live in their stead.
    pub(super) late: HashMap<SubscriptionId, Instead>,
    pub(super) channels: usize,
    /// It has asked for too much.
    pub(super) ending: Option<End>,
}

/// What there is while a subscription waits to be made.
pub(super) struct Instead {
    pub(super) live: Option<SubscriptionId>,
    /// Nothing: the join has not been answered yet.
    pub(super) joining: bool,
}

/// Serves a socket until it ends. `begun`: what the client has sent of the websocket protocol already. `places`: given back at the
/// end. Not an `async fn`, which would keep its arguments beside what becomes of them, for as long as the socket lives.
pub fn serve<P: Send + 'static>(
    app: Arc<App>,
    tcp: TcpStream,
    begun: Vec<u8>,
    opened: Opened,
    places: P,
) -> impl Future<Output = ()> + Send + 'static {
    let remote = opened.remote;
    let headers: Arc<str> = serde_json::Value::from_iter(opened.headers)
        .to_string()
        .into();
    let (version, token): (_, Arc<str>) = (opened.version, opened.token.into());
    let limits = Limits {
        frames: app.settings.outbox_frames,
        bytes: app.settings.outbox_bytes,
    };
    let outbox = Outbox::new(limits, Some(app.flushers.assign()));
    let tcp = Arc::new(tcp);
    async move {
        // Captured, and dropped at the end.
        let _places = &places;
        let settings = &app.settings;
        let mut socket = stream::open(
            tcp.clone(),
            begun,
            outbox.clone(),
            settings.max_message_bytes,
        )
        .await;
        let rules = Rules {
            max_channels: settings.max_channels,
            unauthorized_join: settings.unauthorized_join,
            presence_default: settings.presence_default,
            private_only: settings.private_only,
            recheck: settings.recheck_interval,
        };
        let mut connection = Connection {
            app: &app,
            version,
            outbox: outbox.clone(),
            machine: Machine::new(
                version,
                token,
                headers,
                &app.verifier,
                app.limits.socket(Instant::now()),
                rules,
            ),
            ending: None,
            questions: Awaited::nothing(),
            replays: Awaited::nothing(),
            late: HashMap::new(),
            channels: 0,
        };
        let registered = app.sockets.register(&outbox);
        let end = match connection.run(&mut socket, &tcp).await {
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
        tracing::debug!(%remote, reason = end.label(), "connection ended");
        // Nothing new comes any more; what has come is still theirs.
        outbox.finish(end.has_last_words());
        let farewell = async {
            // The answer to its close frame, if it has sent one and is still there.
            let Some(frame) = end.close_frame() else {
                socket.flush().await?;
                return written(&tcp, &outbox).await.map_err(WsError::Io);
            };
            socket.close(Some(frame)).await?;
            written(&tcp, &outbox).await?;
            if end == End::TooBig {
                discard(socket.get_mut()).await?;
                return Ok(());
            }
            while let Some(message) = socket.next().await {
                message?;
            }
            Ok::<_, WsError>(())
        };
        // A client that does not answer is left behind.
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
        outbox.detach();
    }
}

/// Waits until all that waits in the outbox has been written.
async fn written(tcp: &TcpStream, outbox: &Outbox) -> std::io::Result<()> {
    outbox.flush_all();
    while !outbox.is_done() {
        tcp.writable().await?;
        outbox.unblock();
        // Somebody else may be writing just now.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// However it ends, also by a panic: nobody stays online who is gone.
impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.machine.close();
        self.carry_out(None);
    }
}

impl Connection<'_> {
    async fn run(
        &mut self,
        socket: &mut WebSocketStream<Stream>,
        tcp: &TcpStream,
    ) -> Result<Infallible, End> {
        let outbox = self.outbox.clone();
        let app = self.app;
        // A client may ask for as many joins as it may have channels; while more are open, nothing more is read from it.
        let most_questions = app.settings.max_channels;
        let mut doubts = app.private.doubts();
        let mut doubted = false;
        let mut clock = Clock::new(app.settings.idle_timeout, self.next_recheck());
        // What a socket that takes nothing had taken at the last progress worth the name.
        let mut stuck: Option<u64> = None;
        let mut overdue = false;
        // Registered before: whoever comes too late for the signal sees it here.
        if app.lifecycle.soft().is_cancelled() {
            clock.turn = Some(Instant::now() + app.lifecycle.turn());
        }
        loop {
            outbox.flush_all();
            if clock.turn.is_some() && self.channels == 0 {
                return Err(End::Draining);
            }
            let expiry = self.machine.next_expiry();
            clock.expires_in(expiry.map(|at| at - now_unix()));
            // Nothing is awaited in a branch: what it was given would be part of each connection's state.
            let read = tokio::select! {
                biased;
                answer = self.questions.next() => {
                    self.answered(answer);
                    None
                }
                replayed = self.replays.next() => {
                    self.replayed(replayed)?;
                    None
                }
                doubt = doubts.recv(), if self.machine.has_private() => {
                    match doubt {
                        Ok(doubt @ Doubt::Named(_)) => {
                            self.machine.doubt(&doubt);
                            self.carry_out(None);
                        }
                        Ok(Doubt::Everybody) | Err(RecvError::Lagged(_)) => {
                            if !std::mem::replace(&mut doubted, true) {
                                let soon = DOUBT_SPREAD.mul_f64(rand::random_range(0.0..1.0));
                                clock.rights = Instant::now() + soon;
                            }
                        }
                        Err(RecvError::Closed) => return Err(End::Draining),
                    }
                    None
                }
                due = clock.due(), if !overdue => {
                    match due {
                        Due::Turn => return Err(End::Draining),
                        Due::Stuck => return Err(End::SlowReader),
                        Due::Rights => {
                            clock.rights = self.next_recheck();
                            if std::mem::take(&mut doubted) {
                                self.machine.doubt(&Doubt::Everybody);
                            } else {
                                self.machine.recheck();
                            }
                            self.carry_out(None);
                        }
                        Due::Expiry => {
                            self.machine.expire(now());
                            self.carry_out(None);
                        }
                        // Unless something has come that only was not read yet.
                        Due::Idle => overdue = true,
                    }
                    None
                }
                // After what takes rights away, before what is read: a client that floods us must not delay its own end.
                notice = outbox.notice() => {
                    match notice {
                        Notice::Overflowed => return Err(End::SlowReader),
                        Notice::Broken(_) => return Err(End::Client),
                        Notice::Blocked => {
                            stuck = Some(outbox.written());
                            clock.stuck = Some(Instant::now() + WRITE_TIMEOUT);
                        }
                        Notice::Signals(signals) => {
                            for signal in signals {
                                self.signalled(signal, &mut clock)?;
                            }
                        }
                    }
                    None
                }
                writable = poll_fn(|context| tcp.poll_write_ready(context)), if stuck.is_some() => {
                    writable.map_err(|_| End::Client)?;
                    if outbox.unblock() {
                        stuck = None;
                        clock.stuck = None;
                    } else if stuck.is_some_and(|before| outbox.written() - before >= PROGRESS) {
                        stuck = Some(outbox.written());
                        clock.stuck = Some(Instant::now() + WRITE_TIMEOUT);
                        // It reads what is left, and meanwhile is not read.
                        clock.not_idle();
                        overdue = false;
                    }
                    None
                }
                // Last: who floods us must not keep what it has no right to any more. While it is stuck nothing is read: whoever is silent
                // for so long is gone.
                message = socket.next(), if stuck.is_none() && self.questions.len() <= most_questions && self.replays.len() <= most_questions => {
                    clock.not_idle();
                    overdue = false;
                    Some(self.receive(message)?)
                }
                () = ready(()), if overdue => return Err(End::Idle),
            };
            match read {
                None => {}
                Some(true) => {
                    self.carry_out(None);
                    if let Some(end) = self.ending {
                        return Err(end);
                    }
                    // One read may bring thousands of messages: others have their turn between them.
                    tokio::task::coop::consume_budget().await;
                }
                // A ping is answered when the socket is flushed.
                Some(false) => socket.flush().await.map_err(|_| End::Client)?,
            }
        }
    }

    /// Not for all at the same moment.
    fn next_recheck(&self) -> Instant {
        let interval = self.app.settings.recheck_interval;
        Instant::now() + interval.mul_f64(rand::random_range(0.5..1.0))
    }

    /// Hands a frame to the machine. Returns false for frames of the websocket protocol itself.
    fn receive(&mut self, message: Option<Result<Message, WsError>>) -> Result<bool, End> {
        let now = now();
        if let Some(Ok(message)) = &message {
            self.machine
                .count(message.len(), now.instant)
                .map_err(End::TooMuch)?;
        }
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
            Ok(ClientFrame::Message(message)) => self.machine.message(message, now),
            Ok(ClientFrame::Broadcast(broadcast)) => self.machine.user_broadcast(broadcast, now),
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

    fn signalled(&mut self, signal: Signal, clock: &mut Clock) -> Result<(), End> {
        match signal {
            Signal::Revoked(id) => self.machine.revoked(id),
            Signal::Void(id, reason) => self.machine.void(id, &reason),
            Signal::Failed(id) => self.machine.failed(id),
            Signal::Keys => self.machine.revalidate(),
            Signal::Tables => self.machine.retry(),
            Signal::Stop => clock.turn = Some(Instant::now() + self.app.lifecycle.turn()),
            Signal::Lost => return Err(End::Lost),
            Signal::Disconnect(whom) => {
                if self.machine.concerns(&whom, now()) {
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
                read,
                mut admitted,
            } => {
                let read = read.map(|(read, replay)| {
                    admitted.replay = replay;
                    read
                });
                self.machine.authorized(&topic, asked, outcome, read, now());
                self.carry_out(Some(admitted));
            }
            Answer::Rights {
                topic,
                asked,
                right,
                answer,
            } => {
                self.machine.rights(&topic, asked, right, answer, now());
                self.carry_out(None);
            }
            Answer::Stored { told, result } => {
                self.machine.stored(&told, result, now());
                self.carry_out(None);
            }
            Answer::Replicated {
                topic,
                member,
                ready,
            } => {
                self.machine.replicated(&topic, member, ready);
                self.carry_out(None);
            }
            Answer::Learned { message, asked } => {
                self.machine.learned(message, asked, now());
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

    pub(super) fn send(&self, frame: String) {
        self.outbox.push_own(Frame::text(frame));
    }
}

fn now() -> Now {
    Now {
        unix: now_unix(),
        instant: Instant::now(),
    }
}

/// Ends what we send, and reads to the end what the client does. If a connection is given up while its client still sends, that
/// is a reset, and the client never reads why it was closed.
async fn discard(stream: &mut Stream) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut nowhere = tokio::io::sink();
    tokio::io::copy(stream, &mut nowhere).await?;
    Ok(())
}
