//! One of the many that lose their connection at the same moment, and come back at the same moment.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use protocol::Version;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::channel::{Change, Channel, End, Event, Kind, Patience};
use crate::socket::Endpoint;

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(60),
    heartbeat: Duration::from_secs(25),
};

/// From an attempt that failed to the next one.
const RETRY: Duration = Duration::from_millis(100);

/// From the first attempt to come back until everything is there.
const LIMIT: Duration = Duration::from_secs(180);

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    /// Everybody joins, through a proxy that will be cut.
    Joining(SocketAddr),
    /// All connections are cut, or about to be.
    Dropped,
    /// Everybody may come back, to this address.
    Back(SocketAddr),
    Over,
}

/// What all clients share.
pub(super) struct Shared {
    pub(super) stage: watch::Receiver<Stage>,
    /// How many join at once before the drop.
    pub(super) joining: Semaphore,
    /// Messages that were written while nobody was there, and one more that is written when all are back.
    pub(super) missed: u64,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) first_fault: OnceLock<String>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) joined: usize,
    pub(super) dropped: usize,
    pub(super) back: usize,
    pub(super) live: usize,
    pub(super) failed: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) token: String,
    pub(super) session: Uuid,
}

#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// From the moment it began to come back.
    pub(super) open: Option<Duration>,
    pub(super) caught_up: Option<Duration>,
    pub(super) received: u64,
    pub(super) attempts: u64,
    /// Why attempts failed that were followed by others.
    pub(super) setbacks: Vec<String>,
    /// What is wrong.
    pub(super) fault: Option<String>,
}

struct Client {
    shared: Arc<Shared>,
    place: Place,
    cursor: Option<String>,
    next: u64,
    outcome: Outcome,
}

/// Joins, is dropped, comes back, and reads until the run is over.
pub(super) async fn run(shared: Arc<Shared>, place: Place) -> Outcome {
    let mut client = Client {
        shared: shared.clone(),
        place,
        cursor: None,
        next: 1,
        outcome: Outcome::default(),
    };
    if let Err(fault) = Box::pin(client.live()).await {
        shared.first_fault.get_or_init(|| fault.clone());
        client.outcome.fault = Some(fault);
        shared.progress.send_modify(|progress| progress.failed += 1);
    }
    client.outcome
}

impl Client {
    async fn live(&mut self) -> Result<(), String> {
        let mut stage = self.shared.stage.clone();
        let Stage::Joining(address) = *stage.borrow_and_update() else {
            return Err("it came too late".to_owned());
        };
        let mut channel = {
            let shared = self.shared.clone();
            // It is never closed.
            let _permit = shared.joining.acquire().await;
            let joined = async {
                let mut channel = self.open(address).await?;
                while !self.take(channel.next().await?)? {}
                Ok::<_, End>(channel)
            };
            let joined = timeout(PATIENCE.connect, joined).await;
            let joined = joined.map_err(|_| "it could not join in time".to_owned())?;
            joined.map_err(|end| end.to_string())?
        };
        self.shared
            .progress
            .send_modify(|progress| progress.joined += 1);
        loop {
            match channel.next().await {
                Ok(event) => drop(self.take(event).map_err(|end| end.to_string())?),
                Err(end @ End::Wrong(_)) => return Err(end.to_string()),
                Err(_) => break,
            }
        }
        drop(channel);
        self.shared
            .progress
            .send_modify(|progress| progress.dropped += 1);
        let back = stage
            .wait_for(|stage| matches!(stage, Stage::Back(_)))
            .await;
        let address = match back.map(|stage| *stage) {
            Ok(Stage::Back(address)) => address,
            _ => return Err("the run ended before it could come back".to_owned()),
        };

        let began = Instant::now();
        let comeback = timeout(LIMIT, Box::pin(self.come_back(address, began))).await;
        let mut channel = comeback.map_err(|_| "it did not come back in time".to_owned())??;
        self.shared
            .progress
            .send_modify(|progress| progress.back += 1);
        // Everything that was missed came before the word that everything has come.
        if self.next != self.shared.missed + 1 {
            return Err(format!(
                "it was told that it is up to date when it had {} of {} messages",
                self.next - 1,
                self.shared.missed
            ));
        }
        // One more message shows that it is live again, and that nothing came twice.
        loop {
            tokio::select! {
                event = channel.next() => {
                    self.take(event.map_err(|end| end.to_string())?).map_err(|end| end.to_string())?;
                }
                _ = stage.wait_for(|stage| *stage == Stage::Over) => break,
            }
        }
        channel.close().await;
        if self.next != self.shared.missed + 2 {
            return Err("the message after its return did not reach it".to_owned());
        }
        Ok(())
    }

    async fn come_back(&mut self, address: SocketAddr, began: Instant) -> Result<Channel, String> {
        loop {
            self.outcome.attempts += 1;
            let attempt = async {
                let mut channel = self.open(address).await?;
                self.outcome.open.get_or_insert(began.elapsed());
                while !self.take(channel.next().await?)? {}
                Ok(channel)
            };
            match attempt.await {
                Ok(channel) => {
                    self.outcome.caught_up = Some(began.elapsed());
                    return Ok(channel);
                }
                Err(end @ End::Wrong(_)) => return Err(end.to_string()),
                Err(End::Refused(why)) if why.starts_with("cursor_") => {
                    return Err(format!("refused: {why}"));
                }
                Err(end) => self.outcome.setbacks.push(end.to_string()),
            }
            sleep(RETRY.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }

    async fn open(&self, address: SocketAddr) -> Result<Channel, End> {
        let endpoint = Endpoint::at(address, Version::V2, None);
        let topic = format!("chat:{}", self.place.session);
        Channel::open(
            &endpoint,
            &self.place.token,
            &topic,
            &self.bindings(),
            PATIENCE,
        )
        .await
    }

    fn bindings(&self) -> Value {
        let mut binding = json!({
            "event": "INSERT", "schema": "public", "table": "chat_messages",
            "filter": format!("session_id=eq.{}", self.place.session), "cursor": true,
        });
        if let Some(cursor) = &self.cursor {
            binding["since"] = json!(cursor);
        }
        json!([binding])
    }

    /// Returns whether it is up to date.
    fn take(&mut self, event: Event) -> Result<bool, End> {
        match event {
            Event::Joined => Ok(false),
            Event::Change(change) => self.take_change(change).map(|()| false),
            Event::Position { cursor, subscribed } => {
                let Some(cursor) = cursor else {
                    return Err(End::Wrong("a system message without a cursor".to_owned()));
                };
                self.cursor = Some(cursor);
                Ok(subscribed)
            }
        }
    }

    fn take_change(&mut self, change: Change) -> Result<(), End> {
        self.outcome.received += 1;
        let Some(cursor) = change.cursor else {
            return Err(End::Wrong("a change without a cursor".to_owned()));
        };
        if (change.session, change.kind) != (self.place.session, Kind::Insert) {
            return Err(End::Wrong("a change that it did not ask for".to_owned()));
        }
        if change.label.number != self.next {
            return Err(End::Wrong(format!(
                "message {} came where {} was due",
                change.label.number, self.next
            )));
        }
        self.next += 1;
        self.cursor = Some(cursor);
        if self.next == self.shared.missed + 2 {
            self.shared
                .progress
                .send_modify(|progress| progress.live += 1);
        }
        Ok(())
    }
}
