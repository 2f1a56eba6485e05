//! Connections on which questions are asked as somebody else.
//!
//! A lane takes the questions that wait, and sends them all before it reads the first answer: what they cost is the
//! database's time, not the network's. Each question is two statements: become the principal, then ask. The second
//! carries the principal's mark and answers nothing unless the first has taken effect.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{
    Client, Statement,
    error::SqlState,
    types::{Json, ToSql},
};

use crate::{auth::Principal, database, lifecycle::Lifecycle, metrics::names};

const BECOME: &str = include_str!("../../../migrations/statements/become.sql");

/// Questions that may wait for a lane. A burst beyond that waits in its own tasks.
const WAITING: usize = 1024;
/// Questions that one lane sends before it has read their answers.
const IN_FLIGHT: usize = 128;
/// Statements that one lane keeps prepared.
const PREPARED: usize = 512;
/// How long a join waits for an answer: the server's statement timeout plus waiting in line.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a batch of changes waits, which may have very many questions. Lost connections are noticed sooner.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(300);
/// How long PostgreSQL may take for a filter, which a client has written: a regular expression can be made to take for ever.
const FILTER_TIMEOUT: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A lane that has nothing to do finds out in these intervals whether its connection is still there: a network that has
/// forgotten it says nothing.
const LOOK: Duration = Duration::from_secs(5);
/// How long an empty statement may take.
const ALIVE: Duration = Duration::from_secs(5);
/// How much longer an answer may take than the server may work on it.
const WAY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the database cannot be asked now")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    #[error("the database refused the question")]
    Refused(#[source] tokio_postgres::Error),
}

/// How a question is put.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asking {
    pub(super) statement: Arc<str>,
    /// What the statement needs first. It is undone with the transaction that asks.
    pub(super) definition: Option<Arc<str>>,
    /// For questions about a private channel.
    pub(super) scene: Option<Arc<Scene>>,
}

/// What policies may read of a private channel, beside the principal.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Scene {
    pub(super) topic: Arc<str>,
    /// A JSON object.
    pub(super) headers: Arc<str>,
}

struct Question {
    asking: Asking,
    /// None: asked as the gateway itself.
    principal: Option<Arc<Principal>>,
    rows: Vec<Box<str>>,
    answer: oneshot::Sender<Result<Vec<bool>, Error>>,
}

pub(super) struct Lanes {
    /// One queue for questions as principals, one for filters: neither changes the other's role.
    principals: async_queue::Queue<Question>,
    filters: async_queue::Queue<Question>,
    /// Filters that took too long.
    endless: Mutex<HashSet<Arc<str>>>,
}

/// One queue that several tasks take from.
mod async_queue {
    use super::mpsc;

    #[derive(Clone)]
    pub(super) struct Queue<T>(pub(super) mpsc::Sender<T>);
    pub(super) struct Taker<T>(pub(super) std::sync::Arc<tokio::sync::Mutex<mpsc::Receiver<T>>>);

    impl<T> Clone for Taker<T> {
        fn clone(&self) -> Self {
            Taker(self.0.clone())
        }
    }

    pub(super) fn queue<T>(length: usize) -> (Queue<T>, Taker<T>) {
        let (sender, receiver) = mpsc::channel(length);
        (
            Queue(sender),
            Taker(std::sync::Arc::new(tokio::sync::Mutex::new(receiver))),
        )
    }

    impl<T> Taker<T> {
        /// Waits for the first, then takes what else is there. Returns 0 when nobody will ask any more.
        pub(super) async fn take(&self, into: &mut Vec<T>, most: usize) -> usize {
            self.0.lock().await.recv_many(into, most).await
        }
    }
}

impl Lanes {
    pub(super) fn start(
        database: database::Target,
        connections: usize,
        statement_timeout: Duration,
        lifecycle: &Lifecycle,
    ) -> Lanes {
        let (principals, for_principals) = async_queue::queue(WAITING);
        let (filters, for_filters) = async_queue::queue(WAITING);
        // A filter is a client's text: its lane finds no operator that somebody else has made.
        let of_principals = format!("set statement_timeout = {}", statement_timeout.as_millis());
        let of_filters = format!(
            "set statement_timeout = {}; set search_path = ''",
            statement_timeout.min(FILTER_TIMEOUT).as_millis()
        );
        let takers = std::iter::repeat_n((for_principals, of_principals), connections.max(1))
            .chain([(for_filters, of_filters)]);
        for (questions, session) in takers {
            let lane = Lane {
                database: database.clone(),
                session,
                questions,
                patience: statement_timeout + WAY,
            };
            // Connections that drain may still join, so the lanes outlive the soft stop.
            let stop = lifecycle.hard().clone();
            lifecycle.spawn_critical("authorizer lane", async move {
                tokio::select! {
                    () = lane.run() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Lanes {
            principals,
            filters,
            endless: Mutex::default(),
        }
    }

    pub(super) async fn ask(
        &self,
        asking: Asking,
        principal: Arc<Principal>,
        rows: Vec<Box<str>>,
        patience: Duration,
    ) -> Result<Vec<bool>, Error> {
        metrics::counter!(names::VERDICT_QUERIES).increment(1);
        put(&self.principals, asking, Some(principal), rows, patience).await
    }

    /// Which rows match. A row for which the filter raises an error does not; a filter that takes too long is not asked again.
    pub(super) async fn matches(
        &self,
        statement: Arc<str>,
        rows: Vec<Box<str>>,
    ) -> Result<Vec<bool>, super::Error> {
        let asked = rows.len();
        if self.endless().contains(&statement) {
            return Ok(vec![false; asked]);
        }
        let rows = super::rows::only_read(&statement, rows);
        match self.match_rows(&statement, rows.clone()).await {
            Ok(matches) => return Ok(matches),
            Err(Error::Unavailable(source)) => return Err(super::Error::Unavailable(source)),
            Err(Error::Refused(error)) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                self.give_up(statement);
                return Ok(vec![false; asked]);
            }
            Err(Error::Refused(_)) => {}
        }
        let mut matches = Vec::with_capacity(asked);
        for row in rows {
            matches.push(match self.match_rows(&statement, vec![row]).await {
                Ok(matched) => matched == [true],
                Err(Error::Unavailable(source)) => return Err(super::Error::Unavailable(source)),
                Err(Error::Refused(error)) => {
                    if error.code() == Some(&SqlState::QUERY_CANCELED) {
                        self.give_up(statement);
                        return Ok(vec![false; asked]);
                    }
                    false
                }
            });
        }
        Ok(matches)
    }

    async fn match_rows(
        &self,
        statement: &Arc<str>,
        rows: Vec<Box<str>>,
    ) -> Result<Vec<bool>, Error> {
        let asking = Asking {
            statement: statement.clone(),
            definition: None,
            scene: None,
        };
        put(&self.filters, asking, None, rows, BATCH_TIMEOUT).await
    }

    fn give_up(&self, statement: Arc<str>) {
        tracing::warn!("a filter takes too long and matches nothing from now on");
        let mut endless = self.endless();
        if endless.len() == PREPARED {
            endless.clear();
        }
        endless.insert(statement);
    }

    fn endless(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.endless.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn put(
    queue: &async_queue::Queue<Question>,
    asking: Asking,
    principal: Option<Arc<Principal>>,
    rows: Vec<Box<str>>,
    patience: Duration,
) -> Result<Vec<bool>, Error> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        queue
            .0
            .send(Question {
                asking,
                principal,
                rows,
                answer,
            })
            .await
            .map_err(|_| Error::Unavailable(None))?;
        answered.await.map_err(|_| Error::Unavailable(None))?
    };
    tokio::time::timeout(patience, asked)
        .await
        .unwrap_or_else(|late| Err(Error::Unavailable(Some(late.into()))))
}

struct Lane {
    database: database::Target,
    /// What makes the session what it is to be.
    session: String,
    questions: async_queue::Taker<Question>,
    /// How long the database may be silent while it owes an answer.
    patience: Duration,
}

/// Why a lane gives its connection up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the connection broke")]
    Broken(#[from] tokio_postgres::Error),
    #[error("the database did not answer within {0:?}")]
    Silent(Duration),
}

impl Lane {
    async fn run(self) {
        let mut retry = FIRST_RETRY;
        loop {
            match self.database.connect().await {
                Ok((client, connection)) => {
                    // The connection's task ends with the client.
                    let mut driver = tokio::spawn(connection);
                    // A lane that waits for questions notices by its driver that the connection is gone, and not by the
                    // first question, which would be answered in vain.
                    tokio::select! {
                        served = self.serve(&client) => match served {
                            Ok(()) => return,
                            Err(error @ Lost::Silent(_)) => tracing::warn!(
                                error = &error as &dyn std::error::Error,
                                "a lane of the authorizer gives its connection up, and takes a new one"
                            ),
                            Err(error) => tracing::debug!(
                                error = &error as &dyn std::error::Error,
                                "a lane of the authorizer lost the database"
                            ),
                        },
                        _ = &mut driver => {
                            tracing::debug!("a lane of the authorizer lost the database");
                        }
                    }
                    driver.abort();
                    retry = FIRST_RETRY;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the authorizer cannot reach the database; will try again"
                    );
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
            tokio::time::sleep(retry.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }

    /// Answers until nobody asks any more. Returns an error when the connection is lost.
    async fn serve(&self, client: &Client) -> Result<(), Lost> {
        let prepare = async {
            // A policy that never ends must not stop the others behind it.
            client.batch_execute(&self.session).await?;
            client.prepare(BECOME).await
        };
        let as_principal = within(self.patience, prepare).await??;
        let mut prepared: HashMap<Arc<str>, Statement> = HashMap::new();
        let mut waiting = Vec::new();
        loop {
            let taken = self.questions.take(&mut waiting, IN_FLIGHT);
            match tokio::time::timeout(LOOK, taken).await {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    // On the way before the questions, so that it costs them no time. A connection that is gone is given up
                    // long before an answer is late, and its questions are asked on another one.
                    let answers = self.answer(client, &as_principal, &mut prepared, &mut waiting);
                    futures::try_join!(look(client), answers)?;
                }
                Err(_) => look(client).await?,
            }
        }
    }

    /// Answers those who wait.
    async fn answer(
        &self,
        client: &Client,
        as_principal: &Statement,
        prepared: &mut HashMap<Arc<str>, Statement>,
        waiting: &mut Vec<Question>,
    ) -> Result<(), Lost> {
        // PostgreSQL plans a statement anew when the role has changed since.
        waiting.sort_by(|a, b| role(a).cmp(role(b)));
        let mut ready = Vec::with_capacity(waiting.len());
        for question in waiting.drain(..) {
            if let Some(definition) = question.asking.definition.clone() {
                let asked = ask_defined(client, as_principal, &definition, question);
                // Several statements, each of which may take its time.
                within(self.patience * 4, asked).await?;
                continue;
            }
            if let Some(statement) = prepared.get(&question.asking.statement) {
                ready.push((statement.clone(), question));
                continue;
            }
            // Names are looked up when a statement is prepared, and a principal need not be able to look into
            // the schemas that its policies use.
            let statement = async {
                client.batch_execute("reset role").await?;
                client.prepare(&question.asking.statement).await
            };
            match within(self.patience, statement).await? {
                Ok(statement) => {
                    if prepared.len() == PREPARED {
                        prepared.clear();
                    }
                    prepared.insert(question.asking.statement.clone(), statement.clone());
                    ready.push((statement, question));
                }
                Err(error) => reply(question.answer, Err(verdict_error(error))),
            }
        }
        let asks = ready
            .into_iter()
            .map(|(statement, question)| ask(client, as_principal, statement, question));
        // Polled in order, so sent in order; each sends both its statements when it is first polled.
        let mut asks = std::pin::pin!(stream::iter(asks).buffered(IN_FLIGHT));
        while within(self.patience, asks.next()).await?.is_some() {}
        if client.is_closed() {
            client.simple_query("").await?;
        }
        Ok(())
    }
}

/// Whether the connection is still there.
async fn look(client: &Client) -> Result<(), Lost> {
    within(ALIVE, client.simple_query("")).await??;
    Ok(())
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Lost> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Lost::Silent(limit))
}

/// Asks in a transaction of its own that leaves nothing behind.
async fn ask_defined(
    client: &Client,
    as_principal: &Statement,
    definition: &str,
    question: Question,
) {
    let prepare = async {
        client.batch_execute("begin; set local role none").await?;
        client.batch_execute(definition).await?;
        client.prepare(&question.asking.statement).await
    };
    match prepare.await {
        Ok(statement) => ask(client, as_principal, statement, question).await,
        Err(error) => reply(question.answer, Err(verdict_error(error))),
    }
    // If this fails the connection is broken, and the lane notices.
    let _ = client.batch_execute("rollback").await;
}

fn role(question: &Question) -> &str {
    question
        .principal
        .as_ref()
        .map_or("", |principal| &principal.role)
}

/// Marks are unique in this process, so a session never mistakes one principal for another.
static MARKS: AtomicU64 = AtomicU64::new(1);

async fn ask(client: &Client, as_principal: &Statement, statement: Statement, question: Question) {
    let Question {
        asking,
        principal,
        rows,
        answer,
    } = question;
    let rows: Vec<Json<&RawValue>> = rows
        .iter()
        .filter_map(|row| serde_json::from_str::<&RawValue>(row).ok())
        .map(Json)
        .collect();
    let asked = rows.len();
    let mark = MARKS.fetch_add(1, Ordering::Relaxed).to_string();
    let answered = match &principal {
        None => client.query_opt(&statement, &[&rows]).await,
        Some(principal) => {
            let (role, claims, subject) =
                (&*principal.role, &*principal.claims, &*principal.subject);
            let (topic, headers) = match &asking.scene {
                Some(scene) => (&*scene.topic, &*scene.headers),
                // What is not about a channel finds no headers, and JSON all the same.
                None => ("", "{}"),
            };
            let identity: [&(dyn ToSql + Sync); 6] =
                [&role, &claims, &subject, &mark, &topic, &headers];
            let question: [&(dyn ToSql + Sync); 2] = [&rows, &mark];
            let (become_, answered) = futures::join!(
                client.query(as_principal, &identity),
                client.query_opt(&statement, &question)
            );
            become_.and(answered)
        }
    };
    let result = match answered {
        Ok(Some(row)) => match row.try_get::<_, Vec<bool>>(0) {
            Ok(verdicts) if verdicts.len() == asked => Ok(verdicts),
            Ok(_) => Err(Error::Unavailable(Some(
                "the answer has another length than the question".into(),
            ))),
            Err(error) => Err(Error::Unavailable(Some(error.into()))),
        },
        Ok(None) => Err(Error::Unavailable(Some(
            "the session was not the principal that was asked for".into(),
        ))),
        Err(error) => Err(verdict_error(error)),
    };
    reply(answer, result);
}

fn reply(answer: oneshot::Sender<Result<Vec<bool>, Error>>, result: Result<Vec<bool>, Error>) {
    // Whoever asked may have gone.
    let _ = answer.send(result);
}

/// An error of the policy is a refusal. What says more of the server's state than of the question is not.
fn verdict_error(error: tokio_postgres::Error) -> Error {
    let transient = match error.code() {
        None => true,
        Some(code) => {
            let class = &code.code()[..2];
            matches!(class, "08" | "40" | "53")
                || *code == SqlState::LOCK_NOT_AVAILABLE
                || (class == "57" && *code != SqlState::QUERY_CANCELED)
        }
    };
    if transient {
        Error::Unavailable(Some(error.into()))
    } else {
        Error::Refused(error)
    }
}
