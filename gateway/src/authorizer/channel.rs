//! What a principal may do on a private channel: the policies on `realtime.messages` decide, SELECT about receiving and INSERT
//! about sending, for broadcast and for presence each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use sqlx::Row;

use super::{
    Authorizer,
    lane::{self, ANSWER_TIMEOUT, Asking, Scene},
};
use crate::{
    auth::Principal,
    database::{CATALOG_PATIENCE, in_time},
    metrics::names,
};

/// Rights on a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant {
    pub broadcast: bool,
    pub presence: bool,
}

impl Grant {
    /// Everybody's on a public channel.
    pub const ALL: Grant = Grant {
        broadcast: true,
        presence: true,
    };

    pub fn is_empty(self) -> bool {
        !self.broadcast && !self.presence
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    Read,
    Write,
}

/// Who asks, and about which channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asker {
    pub principal: Arc<Principal>,
    /// Without the leading `realtime:`.
    pub topic: Arc<str>,
    /// The `x-…` headers of the request, as a JSON object.
    pub headers: Arc<str>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ChannelError {
    /// An error in a policy, or a role that is not to be had.
    #[error("the policies on realtime.messages cannot be evaluated for role {role}")]
    Policy {
        role: Arc<str>,
        #[source]
        source: Arc<tokio_postgres::Error>,
    },
    #[error("the policies on realtime.messages took too long")]
    Canceled,
    #[error("the database cannot be asked now")]
    Unavailable,
}

/// What the catalog says of a role: how old it may be. Where event triggers can be made it is forgotten as soon as it changes.
const ACCESS_AGE: Duration = Duration::from_secs(2);
/// Roles come from tokens: the cache must not grow with what they claim.
const ACCESS_ENTRIES: usize = 1024;

type Asked = Shared<BoxFuture<'static, Result<Grant, ChannelError>>>;

/// What is known of private channels, and who is being asked about.
#[derive(Default)]
pub(super) struct Channels {
    access: Mutex<HashMap<(Arc<str>, Right), Known>>,
    asked: Mutex<HashMap<(u64, Right, Asker), Asked>>,
}

/// What the catalog said of a role, and when.
type Known = (Instant, Arc<Access>);

/// How the policies are asked.
enum Access {
    /// Without a question: all or nothing.
    Known(Grant),
    Ask(Asking),
}

impl Channels {
    fn asked(&self) -> MutexGuard<'_, HashMap<(u64, Right, Asker), Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self) {
        self.access
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Authorizer {
    /// What the principal may do on a private channel. Those who ask the same in the same tick of the hub's clock share one
    /// question: a right that is lost later makes the clock tick.
    pub async fn channel(
        self: &Arc<Self>,
        asker: &Asker,
        right: Right,
        tick: u64,
    ) -> Result<Grant, ChannelError> {
        let key = (tick, right, asker.clone());
        let (asked, first) = {
            let mut all = self.channels.asked();
            match all.get(&key) {
                Some(asked) => (asked.clone(), false),
                None => {
                    let asked = self.clone().start_asking(key.clone());
                    all.insert(key, asked.clone());
                    (asked, true)
                }
            }
        };
        match asked.await {
            answer if first => answer,
            Ok(Grant::ALL) => Ok(Grant::ALL),
            // A no may be from before a grant: then everybody asks for himself.
            _ => self.ask_channel(asker, right).await,
        }
    }

    fn start_asking(self: Arc<Self>, key: (u64, Right, Asker)) -> Asked {
        // It goes on when whoever asked first has gone, and is over in the time that a lane has.
        let task = tokio::spawn(async move {
            let answer = self.ask_channel(&key.2, key.1).await;
            self.channels.asked().remove(&key);
            answer
        });
        async move { task.await.unwrap_or(Err(ChannelError::Unavailable)) }
            .boxed()
            .shared()
    }

    async fn ask_channel(&self, asker: &Asker, right: Right) -> Result<Grant, ChannelError> {
        let role: Arc<str> = asker.principal.role.as_ref().into();
        let access = self.channel_access(&role, right).await.map_err(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what roles may do on private channels cannot be read"
            );
            ChannelError::Unavailable
        })?;
        let asking = match &*access {
            Access::Known(grant) => return Ok(*grant),
            Access::Ask(asking) => Asking {
                scene: Some(Arc::new(Scene {
                    topic: asker.topic.clone(),
                    headers: asker.headers.clone(),
                })),
                ..asking.clone()
            },
        };
        let questions = vec![
            Box::from(r#"{"extension":"broadcast"}"#),
            Box::from(r#"{"extension":"presence"}"#),
        ];
        let verdicts = self
            .lanes
            .ask(asking, asker.principal.clone(), questions, ANSWER_TIMEOUT)
            .await;
        match verdicts {
            Ok(verdicts) => Ok(Grant {
                broadcast: verdicts.first() == Some(&true),
                presence: verdicts.get(1) == Some(&true),
            }),
            Err(lane::Error::Refused(source)) => {
                let sqlstate = source.code().map_or("none", |code| code.code()).to_owned();
                metrics::counter!(names::VERDICT_ERRORS, "sqlstate" => sqlstate.clone())
                    .increment(1);
                if sqlstate == "57014" {
                    return Err(ChannelError::Canceled);
                }
                let source = Arc::new(source);
                let error = ChannelError::Policy { role, source };
                tracing::debug!(
                    sqlstate,
                    error = &error as &dyn std::error::Error,
                    "RlsPolicyError: an error in a policy means no"
                );
                Err(error)
            }
            Err(lane::Error::Unavailable(_)) => Err(ChannelError::Unavailable),
        }
    }

    async fn channel_access(
        &self,
        role: &Arc<str>,
        right: Right,
    ) -> Result<Arc<Access>, sqlx::Error> {
        let key = (role.clone(), right);
        let known = || {
            self.channels
                .access
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some((read, access)) = known().get(&key)
            && read.elapsed() < ACCESS_AGE
        {
            return Ok(access.clone());
        }
        let read = Instant::now();
        let generation = self.known().generation;
        let question = sqlx::query("select * from tidings.channel_access($1, $2)")
            .bind(&**role)
            .bind(right == Right::Write);
        let row = in_time(CATALOG_PATIENCE, question.fetch_one(&self.pool)).await?;
        let (allowed, restricted): (bool, bool) = (row.get("allowed"), row.get("restricted"));
        let statement: Option<String> = row.get("statement");
        let access = Arc::new(match statement {
            _ if !allowed => Access::Known(Grant::default()),
            _ if !restricted => Access::Known(Grant::ALL),
            None => Access::Known(Grant::default()),
            Some(statement) => Access::Ask(Asking {
                statement: statement.into(),
                definition: row.get::<Option<String>, _>("definition").map(Into::into),
                scene: None,
            }),
        });
        // What was read before the catalog changed must not be remembered after.
        if self.known().generation == generation {
            let mut known = known();
            if known.len() >= ACCESS_ENTRIES {
                known.clear();
            }
            known.insert(key, (read, access.clone()));
        }
        Ok(access)
    }
}
