//! From the feed to the hub: asks what must be asked about a batch, then delivers it in order.
//!
//! One task does this for all tables, so that the order in which changes were committed is the order in which they leave.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::try_join_all;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    authorizer::{Authorizer, Error},
    catalog::Catalog,
    feed::{
        Batch, Delivery, Read,
        change::{CATALOG, Change, Operation},
    },
    hub::{
        Before, Hub, Survey, Verdicts,
        outbox::{Outbox, Pushed},
    },
    limits::Limits,
    metrics::names,
    private::{self, Doubt, Private},
    revocation::Revocation,
    topics::Topics,
};

/// How often a crowded outbox is looked at.
const BREATH: Duration = Duration::from_millis(2);
/// How long one is waited for that does not become emptier.
const PATIENCE: Duration = Duration::from_secs(1);
/// Frames and changes between two moments at which the readers get the processor.
const STRIDE: usize = 4096;
const RETRY: Duration = Duration::from_millis(250);

pub struct Dispatch {
    pub catalog: Arc<Catalog>,
    pub authorizer: Arc<Authorizer>,
    pub hub: Arc<Hub>,
    pub revocation: Revocation,
    /// Rung when the catalog was found changed without a word in the log.
    pub replan: Arc<Notify>,
    /// For transactions of the present read that took rights away.
    pub before: Before,
    pub private: Arc<Private>,
    pub topics: Arc<Topics>,
    pub limits: Arc<Limits>,
}

impl Dispatch {
    /// Runs until the feed ends.
    pub async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        loop {
            tokio::select! {
                biased;
                () = self.replan.notified() => self.replan().await,
                delivery = deliveries.recv() => match delivery {
                    Some(Delivery::Batch(batch)) => self.batch(&batch).await,
                    Some(Delivery::Lost(_)) => self.lose().await,
                    None => return,
                },
            }
        }
    }

    /// Delivers what comes before a control row under the rights before it, and the rest under those after it.
    async fn batch(&mut self, batch: &Batch) {
        know_tables(&self.catalog, &batch.changes).await;
        for changes in batch
            .changes
            .chunk_by(|a, b| is_control(a) == is_control(b))
        {
            if changes.first().is_some_and(|change| is_control(change)) {
                self.control(changes).await;
            } else {
                self.deliver(&batch.read, changes).await;
            }
        }
        if !batch.more {
            self.hub.complete(&batch.read);
        }
        if !batch.more && !self.before.is_empty() {
            self.before.clear();
            self.hub.release();
            self.revocation.doubts.notify_one();
        }
    }

    /// Nothing that was known of the database can be relied on.
    async fn lose(&mut self) {
        self.before.clear();
        self.hub.lose();
        self.replan().await;
    }

    async fn control(&mut self, changes: &[Arc<Change>]) {
        if changes.iter().any(|change| change.table == CATALOG) {
            return self.replan().await;
        }
        let tables = self.catalog.tables();
        for change in changes {
            let before = match tables.depending_on(change.table) {
                Some(depending) => self.hub.doubt(depending, change.values()),
                // From before a trigger was made anew: it is not known what rests on it.
                None => self
                    .hub
                    .doubt(&tables.ids().collect::<Vec<_>>(), std::iter::empty()),
            };
            let known = self.before.entry(change.xid).or_default();
            for (table, since) in before {
                known.entry(table).or_insert(since);
            }
        }
        // After the clock of rights has ticked: an answer from before is not shared with those who ask now.
        let concerns_channels = |change: &&Arc<Change>| {
            let depending = tables.depending_on(change.table);
            depending.is_none_or(|tables_| tables_.iter().any(|id| Some(*id) == tables.messages()))
        };
        let mut of_channels = changes.iter().filter(concerns_channels).peekable();
        if of_channels.peek().is_some() {
            let doubt = Doubt::about(of_channels.map(|change| &**change));
            self.private.doubt(doubt);
        }
    }

    /// The catalog has changed: nothing is delivered until every subscription has been admitted under what it says now.
    async fn replan(&self) {
        metrics::counter!(names::REPLANS).increment(1);
        while let Err(error) = self.catalog.sync().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the catalog has changed and cannot be read; changes wait until it can be"
            );
            tokio::time::sleep(RETRY).await;
        }
        self.authorizer.forget();
        let tables = self.catalog.tables();
        self.hub.replan(tables.ids());
        self.private.doubt(Doubt::Everybody);
        self.revocation.settle_stale().await;
    }

    async fn deliver(&self, read: &Arc<Read>, batch: &[Arc<Change>]) {
        let survey = self.hub.survey(batch, &self.before);
        let verdicts = if survey.is_empty() {
            Verdicts::default()
        } else {
            answer(&self.catalog, &self.authorizer, survey, batch).await
        };
        let tables = self.catalog.tables();
        let mut patient = true;
        let mut since_turn = 0;
        for (place, change) in batch.iter().enumerate() {
            let pushed = match Some(change.table) == tables.messages() {
                true => self.publish(change),
                false => self
                    .hub
                    .deliver(&tables, read, change, place, &verdicts, &self.before),
            };
            for outbox in &pushed.crowded {
                patient = patient && relieved(outbox).await;
            }
            since_turn += 1 + pushed.frames;
            if since_turn >= STRIDE {
                since_turn = 0;
                tokio::task::yield_now().await;
            }
        }
        self.hub.delivered();
    }

    /// Broadcasts a row of `realtime.messages`.
    fn publish(&self, change: &Change) -> Pushed {
        let Some((key, message)) = private::stored(change) else {
            tracing::debug!(
                "UnableToBroadcastChanges: a row of realtime.messages lacks what is sent"
            );
            return Pushed::default();
        };
        if self.limits.event(Instant::now()).is_err() {
            self.topics.forget_expected(&message.id);
            tracing::debug!(
                "MessagePerSecondRateLimitReached: a message from the database is dropped"
            );
            return Pushed::default();
        }
        if self.limits.payload(message.payload.len()).is_err() {
            self.topics.forget_expected(&message.id);
            tracing::warn!(
                id = &*message.id,
                "UnableToBroadcastChanges: the payload is larger than max_payload_bytes"
            );
            return Pushed::default();
        }
        metrics::counter!(names::BROADCASTS, "source" => "database").increment(1);
        self.topics.publish(&key, &Arc::new(message))
    }
}

/// Waits until an outbox has room again. A burst of changes should not count as a slow reader where it is this process that
/// does not come to writing; the log keeps the rest meanwhile. It never waits for a client. False if it was in vain.
async fn relieved(outbox: &Outbox) -> bool {
    metrics::counter!(names::DELIVERY_PAUSES).increment(1);
    let mut emptiest = f32::INFINITY;
    let mut since = Instant::now();
    while let Some(full) = outbox.crowded() {
        if full < emptiest {
            emptiest = full;
            since = Instant::now();
        } else if since.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(BREATH).await;
    }
    true
}

fn is_control(change: &Change) -> bool {
    change.operation == Operation::Control
}

/// A table that was watched a moment ago may have changes before the catalog was read anew.
async fn know_tables(catalog: &Catalog, batch: &[Arc<Change>]) {
    let tables = catalog.tables();
    if batch
        .iter()
        .any(|change| tables.get(change.table).is_none())
        && let Err(error) = catalog.reload().await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "changes of a table that is not known yet go to nobody"
        );
    }
}

/// Asks until there is an answer: a change is not dropped because the database could not be asked.
pub(crate) async fn answer(
    catalog: &Catalog,
    authorizer: &Authorizer,
    survey: Survey,
    batch: &[Arc<Change>],
) -> Verdicts {
    let Survey { questions, filters } = survey;
    loop {
        match try_answer(catalog, authorizer, &questions, &filters, batch).await {
            Ok(verdicts) => return verdicts,
            Err(error) => {
                metrics::counter!(names::VERDICT_RETRIES).increment(1);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "rows cannot be judged; changes wait until they can be"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_answer(
    catalog: &Catalog,
    authorizer: &Authorizer,
    questions: &crate::authorizer::Questions,
    filters: &HashMap<(i32, Arc<str>), Vec<usize>>,
    batch: &[Arc<Change>],
) -> Result<Verdicts, Error> {
    let tables = catalog.tables();
    let image = |place: usize| batch.get(place).and_then(|change| change.image());
    let matching = try_join_all(filters.iter().map(|(key, places)| async move {
        let rows = places
            .iter()
            .filter_map(|place| image(*place))
            .map(|image| image.as_json().into())
            .collect();
        let matches = authorizer.matches(key.1.clone(), rows).await?;
        let matching = places
            .iter()
            .zip(matches)
            .filter(|(_, matches)| *matches)
            .map(|(place, _)| *place)
            .collect();
        Ok::<_, Error>((key.clone(), matching))
    }));
    let judged = authorizer.judge(questions.clone(), |id| tables.get(id).cloned(), image);
    let (matching, judged) = futures::try_join!(matching, judged)?;
    Ok(Verdicts::new(judged, matching.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::hub::outbox::{Frame, Limits, Wire};

    struct Full;

    impl Wire for Full {
        fn write(&self, _: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
    }

    /// Crowded: three quarters of its frames.
    fn crowded() -> Arc<Outbox> {
        let limits = Limits {
            frames: 8,
            bytes: 1 << 30,
        };
        let outbox = Outbox::new(limits, None);
        for _ in 0..6 {
            outbox.push(Frame::text("x".repeat(200_000)));
        }
        assert!(outbox.crowded().is_some());
        outbox
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_written_to_is_waited_for_however_long_it_takes() {
        let outbox = crowded();
        let writing = async {
            tokio::time::sleep(PATIENCE - BREATH).await;
            outbox.take();
        };
        assert!(tokio::join!(relieved(&outbox), writing).0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_makes_no_progress_is_waited_for_once() {
        let begun = Instant::now();
        assert!(!relieved(&crowded()).await);
        assert!(begun.elapsed() < 2 * PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_client_that_does_not_read() {
        let outbox = crowded();
        outbox.attach(Arc::new(Full));
        outbox.flush_all();
        assert_eq!(relieved(&outbox).now_or_never(), Some(true));
    }
}
