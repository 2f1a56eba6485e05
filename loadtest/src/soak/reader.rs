//! One reader: connects, reads, loses its connection, comes back with its cursor, and writes down what it was told.

mod ends;
mod taking;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocol::Version;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

pub(crate) use self::ends::Counts;
use self::ends::{describe, is_final};
use super::plan;
use super::story::{Beginning, Connection, Entry, Habit, Interest, Life, Story};
use super::world::{Phase, World};
use crate::channel::{Channel, End, Kind, Patience};
use crate::socket::Endpoint;

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    heartbeat: Duration::from_secs(5),
};

/// From the join to the word that the channel is up to date, which may take as long as the database is away.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// Once nothing is broken any more, nobody rests longer than this before the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// How far back a reader may go on purpose.
const CURSORS: usize = 200;

/// What a slow reader's kernel keeps for it.
const SMALL_BUFFER: u32 = 8 << 10;

pub(crate) struct Reader {
    world: Arc<World>,
    token: String,
    version: Version,
    history: Option<usize>,
    random: StdRng,
    phase: watch::Receiver<Phase>,
    story: Story,
    life: Option<Life>,
    /// Of the present life.
    length: usize,
    cursors: VecDeque<(usize, String)>,
    after: Option<JoinHandle<Option<String>>>,
    reached: HashSet<Uuid>,
    resumes: Counts,
    ends: Counts,
}

pub(crate) struct Outcome {
    pub(crate) story: Story,
    /// In milliseconds since the start.
    pub(crate) done_at: u32,
    /// Attempts to come back with a cursor, by result.
    pub(crate) resumes: Counts,
    /// Ends of connections, by cause.
    pub(crate) ends: Counts,
}

/// Why a reader does not listen to a connection any more.
enum Leave {
    End(End),
    /// It wanted to.
    ByItself,
    /// It has lived long enough, and begins anew.
    NewLife,
    /// The run has ended.
    Done,
}

/// One connection, from the reader's side.
struct Listening {
    connection: u32,
    resumed: bool,
    before: Option<String>,
    joined: bool,
    subscribed: bool,
    /// What comes now are rows of the history.
    history: bool,
}

impl Habit {
    pub(crate) const ALL: [Self; 8] = [
        Self::Steady,
        Self::Hopper,
        Self::Slow,
        Self::Wide,
        Self::Unfiltered,
        Self::Inserts,
        Self::Newcomer,
        Self::Plain,
    ];

    fn has_cursors(self) -> bool {
        self != Self::Plain
    }

    /// Begins before the first change, so that nothing at all may be missing.
    fn is_there_from_the_start(self) -> bool {
        !matches!(self, Self::Newcomer | Self::Plain)
    }
}

impl Reader {
    /// The readers differ by their number alone.
    pub(crate) fn new(world: Arc<World>, number: usize, habit: Habit, seed: u64) -> Self {
        let mut random = plan::stream(seed, 1_000 + number as u64);
        let user = &world.users[number / Habit::ALL.len() % world.users.len()];
        let sessions = match habit {
            Habit::Wide | Habit::Unfiltered => user.sessions.clone(),
            _ => {
                let one = number / Habit::ALL.len() / world.users.len() % user.sessions.len();
                vec![user.sessions[one]]
            }
        };
        let version = if habit == Habit::Plain || random.random_bool(0.2) {
            Version::V1
        } else {
            Version::V2
        };
        let life = habit.is_there_from_the_start().then(|| Life {
            beginning: Beginning::Start,
            entries: Vec::new(),
            complete: false,
        });
        let history = (habit == Habit::Newcomer).then(|| random.random_range(1..200));
        Self {
            token: user.token.clone(),
            phase: world.phase.clone(),
            version,
            history,
            random,
            story: Story {
                reader: number,
                habit,
                serializer: match version {
                    Version::V1 => "1.0.0",
                    Version::V2 => "2.0.0",
                },
                interest: Interest {
                    sessions,
                    only: (habit == Habit::Inserts).then_some(Kind::Insert),
                },
                lives: Vec::new(),
                connections: Vec::new(),
                wrong: Vec::new(),
            },
            life,
            length: 0,
            cursors: VecDeque::new(),
            after: None,
            reached: HashSet::new(),
            resumes: Counts::new(),
            ends: Counts::new(),
            world,
        }
    }

    /// `ready` hears when this reader is up to date for the first time.
    pub(crate) async fn run(mut self, ready: tokio::sync::oneshot::Sender<()>) -> Outcome {
        let mut ready = Some(ready);
        loop {
            match Box::pin(self.listen_once(&mut ready)).await {
                Leave::Done => {
                    // Nobody promises a client without a cursor that it has everything.
                    self.end_life(self.story.habit.has_cursors()).await;
                    break;
                }
                Leave::NewLife => self.end_life(false).await,
                Leave::End(End::Wrong(why)) => {
                    self.story.wrong.push((self.world.now(), why));
                    self.end_life(false).await;
                    break;
                }
                Leave::End(End::Unreachable(_) | End::Refused(_)) => self.rest(100..700).await,
                Leave::ByItself if self.stays_away() => self.rest(1_000..15_000).await,
                Leave::End(_) | Leave::ByItself => self.rest(0..300).await,
            }
            if self.story.habit == Habit::Plain {
                self.end_life(false).await;
            }
        }
        Outcome {
            story: self.story,
            done_at: self.world.now(),
            resumes: self.resumes,
            ends: self.ends,
        }
    }

    async fn rest(&mut self, range: std::ops::Range<u64>) {
        let rest = plan::millis(&mut self.random, range);
        // It ends early when the run does; a broken channel of the phase is the run's end, too.
        let _ = timeout(rest, self.phase.wait_for(|phase| phase.fence.is_some())).await;
        if self.phase.borrow().fence.is_some() {
            sleep(rest.min(RETRY)).await;
        }
    }

    /// Some of those who leave stay away for longer than the gateway remembers.
    fn stays_away(&mut self) -> bool {
        self.story.habit == Habit::Hopper && self.random.random_bool(0.15)
    }

    async fn end_life(&mut self, complete: bool) {
        self.length = 0;
        self.cursors.clear();
        let after = self.after.take();
        let Some(mut life) = self.life.take() else {
            return;
        };
        life.complete = complete;
        if let (Beginning::Between { after: mark, .. }, Some(task)) = (&mut life.beginning, after) {
            task.abort();
            *mark = task.await.ok().flatten();
        }
        self.story.lives.push(life);
    }

    /// One connection, from its first packet to its end.
    async fn listen_once(&mut self, ready: &mut Option<tokio::sync::oneshot::Sender<()>>) -> Leave {
        if self.phase.borrow().over {
            return Leave::Done;
        }
        let mut listening = Listening {
            connection: self.story.connections.len() as u32,
            resumed: false,
            before: None,
            joined: false,
            subscribed: false,
            history: false,
        };
        if self.life.is_none() {
            match self.world.mark().await {
                Ok(mark) => listening.before = Some(mark),
                Err(_) => {
                    self.rest(200..400).await;
                    return Leave::ByItself;
                }
            }
        }
        let since = self.choose_cursor();
        listening.resumed = since.is_some();
        let from = self.world.now();
        let (endpoint, bindings) = (self.endpoint(), self.bindings(since.as_deref()));
        // Equal subscriptions of one topic share what the server makes for them.
        let topic = format!("soak-{}", self.story.interest.sessions[0]);
        let opened = Channel::open(&endpoint, &self.token, &topic, &bindings, PATIENCE);
        let leave = match opened.await {
            Err(end) => Leave::End(end),
            Ok(mut channel) => {
                let leave = self.listen(&mut channel, &mut listening, ready).await;
                // Half of those who go by themselves say so.
                if matches!(leave, Leave::Done)
                    || matches!(leave, Leave::ByItself | Leave::NewLife)
                        && self.random.random_bool(0.5)
                {
                    channel.close().await;
                }
                leave
            }
        };
        if listening.history {
            // Half a history is none, and there is no cursor to go on from.
            self.life = None;
            self.length = 0;
            self.cursors.clear();
        }
        let (end, kind) = describe(&leave);
        if listening.resumed && !listening.subscribed {
            *self.resumes.entry(kind.clone()).or_default() += 1;
        }
        *self.ends.entry(kind).or_default() += 1;
        self.story.connections.push(Connection {
            from,
            until: self.world.now(),
            since,
            end,
        });
        match leave {
            Leave::End(End::Refused(why)) if is_final(&why) => {
                Leave::End(End::Wrong(format!("the join was refused: {why}")))
            }
            Leave::End(End::Ended(why)) if is_final(&why) => {
                Leave::End(End::Wrong(format!("the server ended the channel: {why}")))
            }
            leave => leave,
        }
    }

    /// The newest one, or, at times, an older one: what came after it must come again.
    fn choose_cursor(&mut self) -> Option<String> {
        let calm = self.phase.borrow().calm;
        let older = self.story.habit == Habit::Hopper && !calm && self.random.random_bool(0.3);
        if older && self.cursors.len() > 1 {
            let keep = self.random.random_range(0..self.cursors.len());
            self.cursors.truncate(keep + 1);
        }
        let (keep, cursor) = self.cursors.back().cloned()?;
        if keep < self.length {
            self.length = keep;
            self.record(Entry::Back { keep });
        }
        Some(cursor)
    }

    fn endpoint(&self) -> Endpoint {
        // A proxy would read for a slow reader.
        let slow = self.story.habit == Habit::Slow;
        let address = if slow {
            *self.world.server.borrow()
        } else {
            self.world.proxy
        };
        Endpoint::at(address, self.version, slow.then_some(SMALL_BUFFER))
    }

    fn bindings(&self, since: Option<&str>) -> Value {
        let filters: Vec<Option<String>> = match self.story.habit {
            Habit::Unfiltered => vec![None],
            _ => {
                let sessions = self.story.interest.sessions.iter();
                sessions
                    .map(|session| Some(format!("session_id=eq.{session}")))
                    .collect()
            }
        };
        let binding = |filter: Option<String>| {
            let event = match self.story.interest.only {
                Some(_) => "INSERT",
                None => "*",
            };
            let mut binding = json!({"event": event, "schema": "public", "table": "chat_messages"});
            if let Some(filter) = filter {
                binding["filter"] = json!(filter);
            }
            if let Some(history) = self.history {
                binding["history"] = json!(history);
            } else if self.story.habit.has_cursors() {
                binding["cursor"] = json!(true);
            }
            if let Some(since) = since {
                binding["since"] = json!(since);
            }
            binding
        };
        filters.into_iter().map(binding).collect()
    }

    async fn listen(
        &mut self,
        channel: &mut Channel,
        listening: &mut Listening,
        ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
    ) -> Leave {
        let habit = self.story.habit;
        let start = Instant::now();
        let calm = self.phase.borrow().calm;
        let mut leave_at = match habit {
            Habit::Hopper => Some(start + plan::millis(&mut self.random, 20..3_000)),
            Habit::Newcomer => Some(start + plan::millis(&mut self.random, 4_000..20_000)),
            _ => None,
        }
        .filter(|_| !calm);
        let mut pause_at = (habit == Habit::Slow && !calm)
            .then(|| start + plan::millis(&mut self.random, 500..6_000));
        loop {
            if self.is_done(listening) {
                return Leave::Done;
            }
            let at = |time: Option<Instant>| sleep_until(time.unwrap_or(start + JOIN_LIMIT));
            tokio::select! {
                event = channel.next() => {
                    let taken = match event {
                        Ok(event) => self.take(event, listening),
                        Err(end) => Err(end),
                    };
                    if let Err(end) = taken {
                        return Leave::End(end);
                    }
                    if listening.subscribed && let Some(ready) = ready.take() {
                        // Nobody waits any more when the run is broken off.
                        let _ = ready.send(());
                    }
                }
                () = at(leave_at), if leave_at.is_some() => {
                    return if habit == Habit::Newcomer { Leave::NewLife } else { Leave::ByItself };
                }
                () = at(pause_at), if pause_at.is_some() => {
                    let pause = plan::millis(&mut self.random, 1_000..12_000);
                    // It ends early when the run does; a broken channel of the phase is the run's end, too.
                    let _ = timeout(pause, self.phase.wait_for(|phase| phase.calm)).await;
                    pause_at = Some(Instant::now() + plan::millis(&mut self.random, 500..6_000));
                }
                () = at(None), if !listening.subscribed => {
                    return Leave::End(End::Broken("the join was not confirmed in time".to_owned()));
                }
                changed = self.phase.changed() => {
                    if changed.is_err() {
                        return Leave::Done;
                    }
                    if self.phase.borrow().calm {
                        (leave_at, pause_at) = (None, None);
                    }
                }
            }
        }
    }

    fn is_done(&self, listening: &Listening) -> bool {
        let phase = self.phase.borrow();
        phase.over
            || phase.fence.is_some()
                && listening.subscribed
                && self.reached.len() == self.story.interest.sessions.len()
    }
}

#[cfg(test)]
mod tests;
