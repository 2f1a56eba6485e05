//! Decides who may see what.
//!
//! PostgreSQL's catalog says what the policies of a table read ([`access`]). Where a subscription names all of that, one
//! verdict decides for every row that it will ever match; otherwise each row is asked about, all principals of a batch
//! together. Either way the policies themselves are evaluated, as the principal ([`lane`]).

pub mod access;
mod channel;
mod lane;
mod rows;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{Shared, join_all},
};
use sqlx::PgPool;
use tokio::sync::oneshot;

use self::lane::{ANSWER_TIMEOUT, Asking, BATCH_TIMEOUT, Lanes};
pub use self::{
    access::{Access, Reads},
    channel::{Asker, ChannelError, Grant, Right},
};
use crate::{
    auth::Principal,
    catalog::{Table, TableId, Tables},
    database,
    feed::change::Record,
    lifecycle::Lifecycle,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is known, and asking again later may help.
    #[error("the database cannot be asked now")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// PostgreSQL refused the question itself: an error in a policy, a role that is not to be had.
    #[error("the policies of {table} cannot be evaluated for role {role}")]
    Refused {
        table: Box<str>,
        role: Box<str>,
        #[source]
        source: tokio_postgres::Error,
    },
}

/// How a subscription is authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Decided for every row that it matches: row-level security does not apply to the role, or the policies read
    /// nothing that the filter does not fix.
    Decided,
    /// Each row is asked about.
    PerRow,
}

/// Why a subscription is refused. Clients learn only that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    NoSelectPrivilege,
    Policy,
    UnseenParent,
}

/// What the catalog said of a role and a table is forgotten when nobody has needed it for so long.
const ACCESS_UNUSED: Duration = Duration::from_secs(300);
/// Roles come from tokens: the cache must not grow with what they claim.
const ACCESS_ENTRIES: usize = 4096;

pub struct Authorizer {
    pool: PgPool,
    lanes: Lanes,
    known: Mutex<KnownAccess>,
    loading: tokio::sync::Mutex<()>,
    /// Questions under way, for those who ask the same.
    asked: Mutex<HashMap<Question, Shared<oneshot::Receiver<Vec<bool>>>>>,
    channels: channel::Channels,
}

/// Tick, how it is asked, principal, row. All of how it is asked: the text of a statement alone may mean another table.
type Question = (u64, Asking, Arc<Principal>, Box<str>);

/// Takes a question off the list when it has been answered, or given up.
struct Asked<'a> {
    authorizer: &'a Authorizer,
    key: &'a Question,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.authorizer
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.key);
    }
}

#[derive(Default)]
struct KnownAccess {
    entries: HashMap<(TableId, Box<str>), Known>,
    /// Grows whenever all of it is forgotten.
    generation: u64,
}

/// What the catalog said of a table and a role, and when somebody last needed it.
struct Known {
    used: Instant,
    access: Arc<Access>,
}

/// What is asked about a batch of changes: for each principal the rows, by place in the batch.
pub type Questions = HashMap<(TableId, Arc<Principal>), Vec<usize>>;
/// The places of the rows that a principal may see.
pub type Answers = HashMap<(TableId, Arc<Principal>), Vec<usize>>;

impl Authorizer {
    pub fn new(
        pool: PgPool,
        database: database::Target,
        connections: usize,
        statement_timeout: Duration,
        lifecycle: &Lifecycle,
    ) -> Authorizer {
        Authorizer {
            pool,
            lanes: Lanes::start(database, connections, statement_timeout, lifecycle),
            known: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            asked: Mutex::default(),
            channels: channel::Channels::default(),
        }
    }

    /// What the role may read of the table.
    pub async fn access(&self, table: &Arc<Table>, role: &str) -> Result<Arc<Access>, Error> {
        let key = (table.id, Box::from(role));
        if let Some(access) = self.recall(&key, table) {
            return Ok(access);
        }
        // A burst of joins asks the catalog once.
        let _loading = self.loading.lock().await;
        loop {
            if let Some(access) = self.recall(&key, table) {
                return Ok(access);
            }
            let generation = self.known().generation;
            let access = Arc::new(self.load(table, role).await?);
            let mut known = self.known();
            // What was read before the catalog changed must not be remembered after.
            if known.generation == generation {
                if known.entries.len() < ACCESS_ENTRIES {
                    let entry = Known {
                        used: Instant::now(),
                        access: access.clone(),
                    };
                    known.entries.insert(key, entry);
                }
                return Ok(access);
            }
        }
    }

    fn recall(&self, key: &(TableId, Box<str>), table: &Arc<Table>) -> Option<Arc<Access>> {
        let mut known = self.known();
        let known = known.entries.get_mut(key)?;
        if !Arc::ptr_eq(&known.access.table, table) {
            return None;
        }
        known.used = Instant::now();
        Some(known.access.clone())
    }

    async fn load(&self, table: &Arc<Table>, role: &str) -> Result<Access, Error> {
        Access::load(&self.pool, table, role)
            .await
            .map_err(|error| Error::Unavailable(Some(error.into())))
    }

    /// Forgets what the catalog said: it says something else now.
    pub fn forget(&self) {
        let mut known = self.known();
        known.generation += 1;
        known.entries.clear();
        drop(known);
        self.channels.forget();
    }

    /// Asks the catalog again about every role and table in use. Returns whether any answer differs from the one before.
    pub async fn refresh(&self, tables: &Tables) -> Result<bool, Error> {
        let in_use: Vec<_> = {
            let mut known = self.known();
            known.entries.retain(|(table, _), known| {
                known.used.elapsed() < ACCESS_UNUSED && tables.get(*table).is_some()
            });
            let entries = known.entries.iter();
            entries
                .map(|(key, known)| (key.clone(), known.access.clone()))
                .collect()
        };
        let mut changed = Vec::new();
        for (key, before) in in_use {
            let Some(table) = tables.get(key.0) else {
                continue;
            };
            let now = Arc::new(self.load(table, &key.1).await?);
            if *now != *before {
                changed.push((key, now));
            }
        }
        // All or nothing: a difference that is noted must be acted on.
        let mut known = self.known();
        for (key, now) in &changed {
            if let Some(known) = known.entries.get_mut(key) {
                known.access = now.clone();
            }
        }
        Ok(!changed.is_empty())
    }

    /// Whether the principal may subscribe to the rows whose columns have these values, and how its rows are then
    /// authorized. `fixed` are the values of its `eq` conditions, as the log writes them.
    pub async fn admit(
        &self,
        access: &Access,
        principal: &Arc<Principal>,
        fixed: &BTreeMap<Box<str>, Box<str>>,
        tick: u64,
    ) -> Result<Result<Scope, Denial>, Error> {
        if access.columns.is_empty() {
            return Ok(Err(Denial::NoSelectPrivilege));
        }
        let Some(asking) = access.asking() else {
            return Ok(if access.restricted {
                Err(Denial::Policy)
            } else {
                Ok(Scope::Decided)
            });
        };
        let is_fixed = |column: &str| fixed.contains_key(column);
        let record = || {
            let members: Vec<String> = fixed
                .iter()
                .map(|(column, value)| format!("{}:{value}", serde_json::Value::from(&**column)))
                .collect();
            Box::from(format!("{{{}}}", members.join(",")))
        };
        match &*access.reads {
            Reads::Columns(reads) if reads.iter().all(|column| is_fixed(column)) => {
                let seen = self
                    .ask_once(asking, access, principal, record(), tick)
                    .await?;
                Ok(if seen == [true] {
                    Ok(Scope::Decided)
                } else {
                    Err(Denial::Policy)
                })
            }
            // The policies look at something that the subscription fixes, and at more: each row will tell.
            Reads::Columns(reads) if reads.iter().any(|column| is_fixed(column)) => {
                Ok(Ok(Scope::PerRow))
            }
            Reads::WholeRow => Ok(Ok(Scope::PerRow)),
            // The policies do not look at what the subscription names. If that refers to a row of another table (a room),
            // then the principal must see that row.
            Reads::Columns(_) => {
                for (column, statement) in &access.parents {
                    let asking = Asking {
                        statement: statement.clone(),
                        definition: None,
                        scene: None,
                    };
                    if is_fixed(column) {
                        let seen = self
                            .ask_once(asking, access, principal, record(), tick)
                            .await?;
                        if seen != [true] {
                            return Ok(Err(Denial::UnseenParent));
                        }
                    }
                }
                Ok(Ok(Scope::PerRow))
            }
        }
    }

    /// Which of these rows the principals may see. Rows that agree on what the policies read are asked about once.
    pub async fn judge<'a>(
        &self,
        questions: Questions,
        table: impl Fn(TableId) -> Option<Arc<Table>>,
        image: impl Fn(usize) -> Option<&'a Record>,
    ) -> Result<Answers, Error> {
        let mut asked = Vec::new();
        for ((table_id, principal), places) in questions {
            // A table that is gone has no readers.
            let Some(table) = table(table_id) else {
                continue;
            };
            let access = self.access(&table, &principal.role).await?;
            if access.columns.is_empty() {
                continue;
            }
            if !access.restricted {
                asked.push(((table_id, principal), places, None));
                continue;
            }
            let Some(asking) = access.asking() else {
                continue;
            };
            let mut distinct: Vec<Box<str>> = Vec::new();
            let mut rows: Vec<(usize, usize)> = Vec::with_capacity(places.len());
            let mut index: HashMap<Box<str>, usize> = HashMap::new();
            for place in places {
                let Some(image) = image(place) else { continue };
                let projected: Box<str> = match &*access.reads {
                    Reads::WholeRow => image.as_json().into(),
                    Reads::Columns(reads) => {
                        image.project(reads.iter().map(|column| &**column)).into()
                    }
                };
                let row = *index.entry(projected).or_insert_with_key(|projected| {
                    distinct.push(projected.clone());
                    distinct.len() - 1
                });
                rows.push((place, row));
            }
            asked.push((
                (table_id, principal),
                Vec::new(),
                Some((access, asking, distinct, rows)),
            ));
        }

        let answers = asked.into_iter().map(|(key, places, question)| async move {
            let Some((access, asking, distinct, rows)) = question else {
                return Ok((key, places));
            };
            let verdicts = self
                .ask(asking, &access, &key.1, distinct, BATCH_TIMEOUT)
                .await?;
            let seen = rows
                .into_iter()
                .filter(|(_, row)| verdicts.get(*row) == Some(&true))
                .map(|(place, _)| place)
                .collect();
            Ok((key, seen))
        });
        join_all(answers).await.into_iter().collect()
    }

    /// Which rows match a filter that only PostgreSQL can evaluate.
    pub async fn matches(
        &self,
        statement: Arc<str>,
        rows: Vec<Box<str>>,
    ) -> Result<Vec<bool>, Error> {
        self.lanes.matches(statement, rows).await
    }

    /// The verdict on one row. Those who ask the same in the same tick of the hub's clock share one question: a right that
    /// is lost later makes the clock tick, and all their verdicts doubtful.
    async fn ask_once(
        &self,
        asking: Asking,
        access: &Access,
        principal: &Arc<Principal>,
        row: Box<str>,
        tick: u64,
    ) -> Result<Vec<bool>, Error> {
        let key = (tick, asking.clone(), principal.clone(), row.clone());
        let (answer, answered) = oneshot::channel();
        let others = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            match asked.get(&key) {
                Some(others) => Some(others.clone()),
                None => {
                    asked.insert(key.clone(), answered.shared());
                    None
                }
            }
        };
        // A yes is shared. A no may be from before a grant, and whoever asked first may have failed or gone: then everybody asks
        // for himself.
        if let Some(others) = others
            && let Ok(verdicts) = others.await
            && verdicts == [true]
        {
            return Ok(verdicts);
        }
        let _done = Asked {
            authorizer: self,
            key: &key,
        };
        let verdicts = self
            .ask(asking, access, principal, vec![row], ANSWER_TIMEOUT)
            .await?;
        let _ = answer.send(verdicts.clone());
        Ok(verdicts)
    }

    /// The verdicts on these rows. An error in a policy means no.
    async fn ask(
        &self,
        asking: Asking,
        access: &Access,
        principal: &Arc<Principal>,
        rows: Vec<Box<str>>,
        patience: Duration,
    ) -> Result<Vec<bool>, Error> {
        let asked = rows.len();
        match self
            .lanes
            .ask(asking.clone(), principal.clone(), rows.clone(), patience)
            .await
        {
            Ok(verdicts) => Ok(verdicts),
            Err(lane::Error::Unavailable(source)) => Err(Error::Unavailable(source)),
            Err(lane::Error::Refused(source)) if asked == 1 => {
                self.count_refusal(access, source);
                Ok(vec![false])
            }
            // One bad row must not decide for the others.
            Err(lane::Error::Refused(_)) => {
                let each = rows.into_iter().map(|row| {
                    self.lanes
                        .ask(asking.clone(), principal.clone(), vec![row], patience)
                });
                let mut verdicts = Vec::with_capacity(asked);
                for answer in join_all(each).await {
                    match answer {
                        Ok(verdict) => verdicts.push(verdict == [true]),
                        Err(lane::Error::Unavailable(source)) => {
                            return Err(Error::Unavailable(source));
                        }
                        Err(lane::Error::Refused(source)) => {
                            self.count_refusal(access, source);
                            verdicts.push(false);
                        }
                    }
                }
                Ok(verdicts)
            }
        }
    }

    fn count_refusal(&self, access: &Access, source: tokio_postgres::Error) {
        let sqlstate = source.code().map_or("none", |code| code.code()).to_owned();
        metrics::counter!(crate::metrics::names::VERDICT_ERRORS, "sqlstate" => sqlstate.clone())
            .increment(1);
        let error = Error::Refused {
            table: access.table.name.clone(),
            role: access.role.clone(),
            source,
        };
        tracing::debug!(
            sqlstate,
            error = &error as &dyn std::error::Error,
            "an error in a policy means no"
        );
    }

    fn known(&self) -> MutexGuard<'_, KnownAccess> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
