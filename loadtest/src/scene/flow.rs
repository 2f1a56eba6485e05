//! Messages that flow to readers who stay, while something else is tried: in phases, each with its own meter, so that the
//! latency with and without it can be compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use uuid::Uuid;

use super::people::Place;
use super::{Scene, over};
use crate::client::{Subscriber, Subscription};
use crate::frame::text;
use crate::ledger::{Committed, Received, Verdict};
use crate::meter::Meter;
use crate::writer::{self, Plan};

/// Between the start of the writers and the first message.
const RUN_UP: Duration = Duration::from_millis(300);

/// A phase has ended when all that was expected has come, or when nothing has for so long.
const QUIET: Duration = Duration::from_secs(5);

/// How the messages flow.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Messages a second, to all sessions together.
    pub(crate) rate: f64,
    pub(crate) size: usize,
    pub(crate) writers: usize,
    /// Of each phase.
    pub(crate) seconds: Vec<f64>,
    /// The first part of each phase, which does not count for latencies.
    pub(crate) warm_up: Duration,
}

pub(crate) struct Flow {
    writers: usize,
    phases: Vec<Phase>,
    stop: watch::Receiver<bool>,
}

struct Phase {
    plan: Arc<Plan>,
    messages: u64,
}

/// The readers who stay.
pub(crate) struct Readers {
    tasks: Vec<JoinHandle<Outcome>>,
    /// How many each session has.
    by_session: Vec<u64>,
}

struct Outcome {
    /// Of each phase.
    received: Vec<Received>,
    end: Option<String>,
}

/// What a phase was like.
pub(crate) struct Finished {
    pub(crate) committed: Committed,
    /// From the first message to the last delivery.
    pub(crate) seconds: f64,
    pub(crate) from_due: Histogram<u64>,
    pub(crate) from_commit: Histogram<u64>,
}

impl Flow {
    pub(crate) fn new(
        scene: &Scene,
        sessions: &[Uuid],
        stream: &Stream,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let phase = |seconds: &f64| {
            let messages = super::pace::count(stream.rate, *seconds);
            let interval = Duration::from_secs_f64(1.0 / stream.rate);
            Phase {
                plan: Arc::new(Plan {
                    database: scene.database.clone(),
                    run: Uuid::new_v4().as_fields().0,
                    sessions: sessions.to_vec(),
                    content: text(stream.size),
                    meter: Meter::new(interval, messages, stream.warm_up),
                }),
                messages,
            }
        };
        Self {
            writers: stream.writers,
            phases: stream.seconds.iter().map(phase).collect(),
            stop,
        }
    }

    /// Connects them, a bounded number at a time. Each starts to listen as soon as it is in.
    pub(crate) async fn gather(
        self: &Arc<Self>,
        scene: &Scene,
        places: &[Place],
        connecting: usize,
    ) -> anyhow::Result<Readers> {
        let mut by_session = vec![0; self.phases[0].plan.sessions.len()];
        for place in places {
            by_session[place.number] += 1;
        }
        let tasks = stream::iter(places.iter().enumerate())
            .map(|(index, place)| {
                let (flow, endpoint, session) =
                    (self.clone(), scene.endpoint.clone(), place.number);
                let subscription = Subscription {
                    session_id: place.session.to_string(),
                    token: place.token.clone(),
                };
                async move {
                    let subscriber = Box::pin(Subscriber::connect(&endpoint, &subscription));
                    let subscriber = subscriber
                        .await
                        .with_context(|| format!("reader {index} could not join"))?;
                    anyhow::Ok(tokio::spawn(flow.listen(subscriber, index, session)))
                }
            })
            .buffer_unordered(connecting)
            .try_collect()
            .await?;
        Ok(Readers { tasks, by_session })
    }

    async fn listen(
        self: Arc<Self>,
        mut subscriber: Subscriber,
        index: usize,
        session: usize,
    ) -> Outcome {
        let mut received: Vec<Received> = self
            .phases
            .iter()
            .map(|_| Received::new(session, self.writers))
            .collect();
        let mut stop = self.stop.clone();
        let end = {
            let listening = subscriber.run(|change| {
                let label = change.data.record.metadata;
                let phase = self
                    .phases
                    .iter()
                    .position(|phase| phase.plan.run == label.run);
                let Some(phase) = phase else {
                    // It belongs to no writer of this run.
                    received[0].record(usize::MAX, label.number);
                    return;
                };
                received[phase].record(label.writer, label.number);
                self.phases[phase].plan.meter.received(index, label.job);
            });
            tokio::select! {
                end = listening => Some(format!("a reader who stays was cut off: {end:#}")),
                () = over(&mut stop) => None,
            }
        };
        if end.is_none() {
            subscriber.close().await;
        }
        Outcome { received, end }
    }

    /// Writes the messages of a phase, and waits until they have come.
    pub(crate) async fn run(&self, phase: usize, readers: &Readers) -> anyhow::Result<Finished> {
        let Phase { plan, messages } = &self.phases[phase];
        let start = Instant::now() + RUN_UP;
        plan.meter.start_at(start);
        let committed = self.write(plan, *messages).await?;
        let expected = (0..plan.sessions.len())
            .map(|session| committed.of_session(session) * readers.by_session[session])
            .sum();
        let mut count = 0;
        let mut changed = Instant::now();
        while count < expected && changed.elapsed() < QUIET {
            sleep(Duration::from_millis(10)).await;
            let now = plan.meter.count();
            if now != count {
                (count, changed) = (now, Instant::now());
            }
        }
        let total = plan.meter.total();
        Ok(Finished {
            committed,
            seconds: changed.saturating_duration_since(start).as_secs_f64(),
            from_due: total.from_due,
            from_commit: total.from_commit,
        })
    }

    async fn write(&self, plan: &Arc<Plan>, messages: u64) -> anyhow::Result<Committed> {
        let mut tasks = JoinSet::new();
        let mut queues = Vec::new();
        for index in 0..self.writers {
            let (sender, due) = writer::queue();
            queues.push(sender);
            let plan = plan.clone();
            tasks.spawn(async move { (index, writer::write(plan, index, due).await) });
        }
        let pacing = plan.clone();
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || writer::pace(&pacing, messages, &queues))
            .context("cannot start a thread")?;
        let mut committed = Committed::new(self.writers, plan.sessions.len());
        while let Some(task) = tasks.join_next().await {
            let (index, written) = task?;
            let written = written?;
            ensure!(
                written.unknown.is_empty(),
                "inserts were not answered: {}",
                written.first_error.unwrap_or_default()
            );
            committed.set_writer(index, &written.last);
            for stamp in &written.failed {
                committed.set_failed(*stamp);
            }
        }
        Ok(committed)
    }
}

impl Readers {
    /// When they have been stopped: what they have by now, and what is wrong with that.
    pub(crate) async fn compare(
        self,
        finished: &[&Finished],
        faults: &mut Vec<String>,
    ) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        for task in self.tasks {
            let outcome = task.await?;
            faults.extend(outcome.end);
            for (received, phase) in outcome.received.iter().zip(finished) {
                verdict += received.compare(&phase.committed);
            }
        }
        if !verdict.is_clean() {
            faults.push(format!(
                "of {} deliveries to readers who stay {} were lost, {} doubled, {} reordered, {} unknown",
                verdict.expected, verdict.lost, verdict.doubled, verdict.reordered, verdict.uncommitted
            ));
        }
        Ok(verdict)
    }
}
