//! Gives a subscription what it missed, before what is live.
//!
//! [`Resume::plan`] says where its bindings start: at a client's cursor, or at the snapshot of the rows that [`history`] has fetched.
//! The hub then holds the live changes back ([`crate::hub::Gate`]), and [`Resume::run`] delivers what lies in between: from the log
//! ([`older`]) what is older than the hub's memory, then what the hub remembers, then what was held back. At each moment only so much
//! as fits into the connection's outbox.

mod history;
mod older;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::try_join_all;
use protocol::{
    Binding, Field,
    resume::{MAX_HISTORY, MAX_STARTS, ResumeError},
};
use tokio::sync::{Notify, Semaphore};

use self::{
    history::{Histories, History},
    older::{Log, Pages},
};
use crate::{
    admission::Wanted,
    auth::Principal,
    authorizer::Authorizer,
    catalog::Catalog,
    database, dispatch,
    feed::{change::Change, mark::Mark, source::Source},
    hub::{
        Announcement, BoundBinding, Entry, Hub, Missed, Moment, Older, Opening, Overflowed, Place,
        Starts, Verdicts, View,
        outbox::{Frame, Outbox},
    },
    lifecycle::Lifecycle,
    metrics::names,
};

pub struct Resume {
    catalog: Arc<Catalog>,
    authorizer: Arc<Authorizer>,
    hub: Arc<Hub>,
    /// Makes the feed read at once.
    nudge: Arc<Notify>,
    log: Log,
    histories: Histories,
    judging: Semaphore,
}

/// Where the bindings of a subscription start, and what comes before that.
pub struct Plan {
    pub starts: Starts,
    histories: Vec<History>,
    /// Before the rows of history were fetched.
    begun: Moment,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] ResumeError),
    #[error("the database cannot be asked now for what was missed")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    #[error("more came meanwhile than may wait")]
    Overflowed,
    #[error("the subscription has ended")]
    Ended,
}

/// Changes that are judged and written together.
const CHUNK: usize = 256;
/// Chunks that are judged at once: live changes share the connections on which verdicts are asked for, and come first.
const JUDGING: usize = 8;
/// How long the hub may take to come to where a cursor is from.
const CATCH_UP: Duration = Duration::from_secs(10);
/// So many reads later the feed has seen all that any gateway had seen before: the reads that wait, one that was under way, and one more.
const READS: usize = 8;
/// How often a plan is made anew when the feed has connected to the database again meanwhile.
const ATTEMPTS: usize = 3;
/// For the verdicts on one chunk.
const VERDICTS: Duration = Duration::from_secs(60);

impl Resume {
    pub fn new(
        catalog: Arc<Catalog>,
        authorizer: Arc<Authorizer>,
        hub: Arc<Hub>,
        nudge: Arc<Notify>,
        pool: sqlx::PgPool,
        database: database::Target,
        lifecycle: &Lifecycle,
    ) -> Resume {
        Resume {
            catalog,
            authorizer,
            hub,
            nudge,
            log: Log::start(database, lifecycle),
            histories: Histories::new(pool),
            judging: Semaphore::new(JUDGING),
        }
    }

    /// Where these bindings start. None if nobody asks for cursors.
    pub async fn plan(
        &self,
        principal: &Arc<Principal>,
        wanted: &Wanted,
        bound: &[BoundBinding],
    ) -> Result<Option<Plan>, Error> {
        let bindings = &wanted.config.bindings;
        let starts =
            |binding: &&Binding| binding.since != Field::Absent || binding.history.is_some();
        if !bindings
            .iter()
            .any(|binding| binding.cursor || starts(&binding))
        {
            return Ok(None);
        }
        if bindings.iter().filter(starts).count() > MAX_STARTS {
            return Err(ResumeError::Limit.into());
        }
        let begun = self.hub.moment();
        let histories = self.histories(principal, wanted, bound).await?;
        for _ in 0..ATTEMPTS {
            let source = self.source().await?;
            let mut marks: HashMap<u64, Mark> = histories
                .iter()
                .map(|history| (history.id, history.start.clone()))
                .collect();
            let mut written = 0;
            for (binding, id) in bindings.iter().zip(wanted.ids.iter()) {
                match &binding.since {
                    Field::Absent => {}
                    Field::Invalid => return Err(ResumeError::Invalid.into()),
                    Field::Text(cursor) => {
                        let (mark, by) = source.parse(cursor)?;
                        written = written.max(by);
                        marks.insert(*id, mark);
                    }
                }
            }
            let starts = Starts { marks, source };
            if !self.come_to(&starts, written).await? {
                continue;
            }
            self.check(&starts, bound)?;
            return Ok(Some(Plan {
                starts,
                histories,
                begun,
            }));
        }
        Err(Error::Unavailable(None))
    }

    async fn histories(
        &self,
        principal: &Arc<Principal>,
        wanted: &Wanted,
        bound: &[BoundBinding],
    ) -> Result<Vec<History>, Error> {
        let tables = self.catalog.tables();
        let mut histories = Vec::new();
        let mut rows = MAX_HISTORY;
        for (binding, id) in wanted.config.bindings.iter().zip(wanted.ids.iter()) {
            if let (Field::Absent, Some(wanted)) = (&binding.since, binding.history) {
                if wanted > rows {
                    let text = format!("`history` may ask for {MAX_HISTORY} rows in all");
                    return Err(ResumeError::History(text).into());
                }
                rows -= wanted;
                let fetched = self
                    .histories
                    .fetch(&tables, principal, binding, *id, bound, wanted);
                histories.push(fetched.await?);
            }
        }
        Ok(histories)
    }

    /// Whether what was missed is still there, and was ever captured.
    fn check(&self, starts: &Starts, bound: &[BoundBinding]) -> Result<(), ResumeError> {
        let tables = self.catalog.tables();
        for (id, start) in &starts.marks {
            if !self.hub.remembers(start) && self.is_expired(start) {
                return Err(ResumeError::Expired);
            }
            let mut watched = bound
                .iter()
                .filter(|binding| binding.id == *id)
                .filter_map(|binding| tables.get(binding.table));
            let sees = |attached| start.whole().is_some_and(|seen| seen.sees(attached));
            if !watched.all(|table| sees(table.attached)) {
                return Err(ResumeError::Expired);
            }
        }
        Ok(())
    }

    async fn source(&self) -> Result<Arc<Source>, Error> {
        let mut progress = self.hub.progress();
        let known = async {
            loop {
                if let Some(place) = self.hub.place() {
                    return place.read.source.clone();
                }
                self.nudge.notify_one();
                if progress.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(CATCH_UP, known)
            .await
            .map_err(|late| Error::Unavailable(Some(late.into())))
    }

    /// Waits until the hub has come to where the subscription starts: it may have been served by a gateway that was ahead of this
    /// one. `written`: so far the write-ahead log had come then. False if the feed has begun with another connection meanwhile.
    async fn come_to(&self, starts: &Starts, written: u64) -> Result<bool, Error> {
        let mut progress = self.hub.progress();
        let arrived = async {
            for _ in 0..READS {
                if let Some(place) = self.hub.place() {
                    if !Arc::ptr_eq(&place.read.source, &starts.source) {
                        return Ok(false);
                    }
                    let here = place.mark();
                    if written <= place.read.written
                        && starts.marks.values().all(|start| here.includes(start))
                    {
                        return Ok(true);
                    }
                }
                self.nudge.notify_one();
                if progress.changed().await.is_err() {
                    return Err(Error::Unavailable(None));
                }
            }
            // From a future that this database has not had.
            Err(ResumeError::Foreign.into())
        };
        tokio::time::timeout(CATCH_UP, arrived)
            .await
            .unwrap_or_else(|late| Err(Error::Unavailable(Some(late.into()))))
    }

    /// Whether changes that a mark does not cover may be gone from the log.
    fn is_expired(&self, start: &Mark) -> bool {
        self.hub
            .place()
            .is_none_or(|place| is_gone(start, place.read.emptied, &place.mark()))
    }

    /// Delivers what was missed, then opens the gate.
    pub async fn run(
        &self,
        outbox: &Outbox,
        plan: Plan,
        missed: &Missed,
        live: &Announcement,
    ) -> Result<(), Error> {
        let mut starts = missed.starts.values();
        let first = starts.next();
        let run = Run {
            resume: self,
            outbox,
            missed,
            // A cursor stands for all bindings of a channel, and here it would not.
            cursors: starts.all(|start| Some(start) == first),
        };
        let work = async {
            run.histories(&plan).await?;
            let from = match (plan.histories.is_empty(), missed.older.is_empty()) {
                (_, false) => "log",
                (true, true) => "memory",
                (false, true) => "history",
            };
            if !plan.starts.marks.is_empty() {
                metrics::counter!(names::RESUMES, "from" => from).increment(1);
            }
            run.older().await?;
            run.recent(&missed.recent).await?;
            run.open(live).await
        };
        tokio::select! {
            done = work => done,
            () = missed.gate.ended() => Err(Error::Ended),
        }
    }
}

/// Whether changes of transactions up to `emptied` may be among those that a mark does not cover. What still runs `now` is not:
/// nothing is removed under a transaction that has written it.
fn is_gone(start: &Mark, emptied: u64, now: &Mark) -> bool {
    let ended = |xid: &u64| *xid <= emptied && now.whole().is_none_or(|now| now.sees(*xid));
    start
        .whole()
        .is_none_or(|seen| emptied >= seen.xmax() || seen.running().iter().any(ended))
}

struct Run<'a> {
    resume: &'a Resume,
    outbox: &'a Outbox,
    missed: &'a Missed,
    /// Changes of the past have cursors.
    cursors: bool,
}

impl Run<'_> {
    fn view(&self) -> Result<View<'_>, Error> {
        self.resume.hub.view(self.missed).ok_or(Error::Ended)
    }

    fn place(&self) -> Result<Place, Error> {
        self.resume.hub.place().ok_or(Error::Ended)
    }

    fn push(&self, frame: Frame) -> Result<(), Error> {
        match self.missed.gate.push(self.outbox, frame) {
            true => Ok(()),
            false => Err(Error::Ended),
        }
    }

    async fn histories(&self, plan: &Plan) -> Result<(), Error> {
        let hub = &self.resume.hub;
        let tables = self.resume.catalog.tables();
        for history in &plan.histories {
            let here = self.place()?;
            let end = here.read.source.cursor(&history.start, here.read.written);
            for (place, row) in history.rows.iter().enumerate() {
                let last = place + 1 == history.rows.len();
                let cursor = (last && self.cursors).then_some(&*end);
                for frame in hub.write_history(&tables, &self.view()?, history.id, row, cursor) {
                    self.outbox.room(&frame).await;
                    // The rows are as old as the verdict by which they were chosen.
                    if hub.is_stale(row.table, plan.begun) {
                        return Err(Error::Unavailable(None));
                    }
                    self.push(frame)?;
                }
            }
        }
        Ok(())
    }

    /// What the hub does not remember, merged in the order of the log.
    async fn older(&self) -> Result<(), Error> {
        let until = &self.missed.until;
        let pages = |older: &Older| self.resume.log.pages(older.clone(), until.clone());
        let mut pages: Vec<Pages<'_>> = self.missed.older.iter().map(pages).collect();
        loop {
            // Together, so that they share a pass over the log.
            try_join_all(pages.iter_mut().map(Pages::fill)).await?;
            let mut chunk: Vec<Arc<Change>> = Vec::with_capacity(CHUNK);
            while chunk.len() < CHUNK && pages.iter().all(Pages::is_filled) {
                let heads = pages.iter().filter_map(Pages::peek);
                let Some(next) = heads.min_by_key(|change| change.sequence).cloned() else {
                    break;
                };
                pages.iter_mut().for_each(|pages| pages.skip(next.sequence));
                chunk.push(next);
            }
            if chunk.is_empty() {
                return Ok(());
            }
            let here = self.place()?;
            self.deliver(&chunk, |_, change, start| {
                let upto = until.up_to(change.sequence);
                let mark = start.map_or_else(|| upto.clone(), |start| upto.and(start));
                here.read.source.cursor(&mark, here.read.written)
            })
            .await?;
        }
    }

    /// What the hub remembers, or has held back.
    async fn recent(&self, entries: &[Entry]) -> Result<(), Error> {
        for entries in entries.chunks(CHUNK) {
            let here = self.place()?;
            let changes: Vec<_> = entries.iter().map(|entry| entry.change.clone()).collect();
            self.deliver(&changes, |place, change, start| {
                let read = &entries[place].read;
                let mark = read.mark(change.sequence);
                match start {
                    Some(start) if !mark.includes(start) => {
                        let written = here.read.written.max(read.written);
                        read.source.cursor(&mark.and(start), written)
                    }
                    _ => read.cursor(change.sequence),
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn deliver(
        &self,
        changes: &[Arc<Change>],
        cursor: impl Fn(usize, &Change, Option<&Mark>) -> String,
    ) -> Result<(), Error> {
        let Resume { catalog, hub, .. } = self.resume;
        let (mut done, mut replayed) = (0, 0);
        while done < changes.len() {
            let (view, verdicts) = self.judge(&changes[done..]).await?;
            let tables = catalog.tables();
            let first = done;
            for (place, change) in changes[first..].iter().enumerate() {
                let frames = hub.write_missed(&tables, &view, change, place, &verdicts, |start| {
                    self.cursors.then(|| cursor(first + place, change, start))
                });
                let mut waited = false;
                replayed += u64::from(!frames.is_empty());
                for frame in frames {
                    waited |= self.outbox.room(&frame).await;
                    self.push(frame)?;
                }
                done += 1;
                // After a while the subscription may be another's, or may see less.
                if waited && view.differs(&self.view()?) {
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
        metrics::counter!(names::REPLAYED).increment(replayed);
        Ok(())
    }

    /// What of these changes may be seen now, and by whom.
    async fn judge(&self, changes: &[Arc<Change>]) -> Result<(View<'_>, Verdicts), Error> {
        let Resume {
            catalog,
            authorizer,
            ..
        } = self.resume;
        loop {
            let view = self.view()?;
            let survey = view.survey(changes.iter().map(|change| &**change));
            if survey.is_empty() {
                return Ok((view, Verdicts::default()));
            }
            // Never closed.
            let _turn = self.resume.judging.acquire().await;
            let answer = dispatch::answer(catalog, authorizer, survey, changes);
            let verdicts = tokio::time::timeout(VERDICTS, answer)
                .await
                .map_err(|late| Error::Unavailable(Some(late.into())))?;
            // Who the subscriber is, or what it may see, may have changed meanwhile.
            if !view.differs(&self.view()?) {
                return Ok((view, verdicts));
            }
        }
    }

    async fn open(&self, live: &Announcement) -> Result<(), Error> {
        let hub = &self.resume.hub;
        let mut progress = hub.progress();
        loop {
            progress.mark_unchanged();
            match hub.open(&self.missed.gate, live) {
                Ok(Opening::Open) => return Ok(()),
                Ok(Opening::Held(held)) => self.recent(&held).await?,
                // The dispatcher asks until it has an answer, and says so.
                Ok(Opening::NotYet) => drop(progress.changed().await),
                Err(Overflowed) => return Err(Error::Overflowed),
            }
        }
    }
}
