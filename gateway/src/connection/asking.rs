//! What a connection asks others, and the answers that it waits for.

use std::{sync::Arc, time::Duration};

use protocol::{ClientMessage, Refusal, UserBroadcast};
use uuid::Uuid;

use super::machine::{Question, RightsQuestion, Told};
use crate::{
    admission::{Outcome, Wanted},
    app::App,
    auth::Principal,
    authorizer::{Asker, ChannelError, Grant, Right},
    hub::{Greeting, Missed, Moment, Subscription, SubscriptionId},
    metrics::names,
    private::ToStore,
    resume::{self, Plan},
    topics::{MemberId, Replay},
};

/// What was learned about a subscription, and the moment before it was asked.
pub(super) enum Answer {
    /// To a question of the machine.
    Admitted {
        topic: Arc<str>,
        asked: u64,
        outcome: Outcome,
        /// What the channel may receive, and what was sent to it before; or why it may not be.
        read: Result<(Grant, Option<Replay>), Refusal>,
        admitted: Admitted,
    },
    /// What a private channel may do now.
    Rights {
        topic: Arc<str>,
        asked: u64,
        right: Right,
        answer: Result<Grant, ChannelError>,
    },
    /// A message was stored, or why not.
    Stored {
        told: Told,
        result: Result<(), String>,
    },
    /// Whether messages from the database arrive.
    Replicated {
        topic: Arc<str>,
        member: MemberId,
        ready: bool,
    },
    /// A token's key is known now, or never will be.
    Learned { message: ClientMessage, asked: u64 },
    /// For a subscription whose bindings were outdated before it was made.
    Again {
        late: Box<Late>,
        outcome: Outcome,
        admitted: Admitted,
    },
}

/// What belongs to an admission beside its outcome.
pub(super) struct Admitted {
    /// The moment before it was asked.
    pub(super) verified: Moment,
    pub(super) plan: Option<Plan>,
    pub(super) replay: Option<Replay>,
}

impl Admitted {
    fn at(verified: Moment) -> Admitted {
        Admitted {
            verified,
            plan: None,
            replay: None,
        }
    }
}

/// How long messages from the database may take to arrive, and how often that is looked at (protocol §3.8).
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);
/// How long the log may take to bring what was stored.
const PUBLISHED: Duration = Duration::from_secs(5);
/// The longest time for which a client may have its join wait for its bindings (protocol §13).
const MOST_WAIT: Duration = Duration::from_secs(20);

/// The end of giving a subscription what it missed.
pub(super) struct Replayed {
    pub(super) result: Result<(), resume::Error>,
    pub(super) missed: Arc<Missed>,
}

/// A subscription that waits to be made.
pub(super) struct Late {
    pub(super) subscription: Subscription,
    pub(super) replaced: Option<SubscriptionId>,
    pub(super) greeting: Greeting,
    pub(super) plan: Option<Plan>,
}

pub(super) async fn ask(app: Arc<App>, question: Question) -> Answer {
    let Question {
        topic,
        asked,
        principal,
        wanted,
        first,
        private,
        replay,
    } = question;
    let nothing = || (Outcome::Bound(Vec::new()), Admitted::at(app.hub.moment()));
    let asking = async {
        let read = may_read(&app, private, replay).await;
        let (outcome, admitted) = match &read {
            Ok(_) => admit(&app, &principal, &wanted, first).await,
            Err(_) => nothing(),
        };
        (read, outcome, admitted)
    };
    let (read, outcome, admitted) = match wanted.config.wait.filter(|_| first) {
        None => asking.await,
        Some(wait) => {
            let most = Duration::from_millis(wait).min(MOST_WAIT);
            match tokio::time::timeout(most, asking).await {
                Ok(answer) => answer,
                Err(_) => {
                    let (outcome, admitted) = nothing();
                    (Err(Refusal::SubscribeTimeout), outcome, admitted)
                }
            }
        }
    };
    Answer::Admitted {
        topic,
        asked,
        outcome,
        read,
        admitted,
    }
}

/// What a channel may receive, and what was sent to it before.
async fn may_read(
    app: &App,
    private: Option<Asker>,
    replay: Option<(i64, i64)>,
) -> Result<(Grant, Option<Replay>), Refusal> {
    let Some(asker) = private else {
        return Ok((Grant::ALL, None));
    };
    let unauthorized = || Refusal::Unauthorized {
        topic: asker.topic.to_string(),
    };
    let grant = match app.private.rights(&asker, Right::Read).await {
        Ok(grant) => grant,
        Err(ChannelError::Policy { .. }) => return Err(unauthorized()),
        Err(ChannelError::Canceled) => return Err(Refusal::QueryCanceled),
        Err(ChannelError::Unavailable) => return Err(Refusal::PoliciesUnavailable),
    };
    let Some((since_ms, limit)) = replay else {
        return Ok((grant, None));
    };
    if !grant.broadcast {
        return Err(unauthorized());
    }
    match app.private.replay(&asker.topic, since_ms, limit).await {
        Ok(replay) => Ok((grant, Some(replay))),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "UnableToReplayMessages"
            );
            Err(Refusal::ReplayFailed)
        }
    }
}

pub(super) async fn rights(app: Arc<App>, question: RightsQuestion) -> Answer {
    let RightsQuestion {
        topic,
        asked,
        asker,
        right,
    } = question;
    let answer = app.private.rights(&asker, right).await;
    Answer::Rights {
        topic,
        asked,
        right,
        answer,
    }
}

/// Stores a message. The log brings it back, to be broadcast.
pub(super) async fn store(
    app: Arc<App>,
    told: Told,
    asker: Asker,
    broadcast: UserBroadcast,
    keep: Option<Duration>,
) -> Answer {
    let id = Uuid::new_v4();
    let text = id.to_string();
    let message = ToStore {
        id,
        event: &broadcast.event,
        encoding: broadcast.encoding,
        payload: &broadcast.payload,
        keep,
    };
    let mut expected = app.topics.expect(&text, told.member);
    let stored = app.private.store(&asker, &message).await;
    if stored.is_ok() {
        // What the same sender sends next comes after it. If the log stands still it is not waited for any longer.
        let _ = tokio::time::timeout(PUBLISHED, &mut expected.published).await;
    }
    Answer::Stored {
        told,
        result: stored.map_err(|error| error.to_string()),
    }
}

/// Waits until the feed reads, for as long as the protocol says.
pub(super) async fn replication(app: Arc<App>, topic: Arc<str>, member: MemberId) -> Answer {
    let reading = async {
        while app.feed.ready().is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let ready = tokio::time::timeout(REPLICATION_TIMEOUT, reading)
        .await
        .is_ok();
    Answer::Replicated {
        topic,
        member,
        ready,
    }
}

/// Whether the bindings may be, and, for a subscription that is new, where they start.
pub(super) async fn admit(
    app: &App,
    principal: &Arc<Principal>,
    wanted: &Wanted,
    first: bool,
) -> (Outcome, Admitted) {
    let verified = app.hub.moment();
    let outcome = app.admission.admit(principal, wanted, verified).await;
    let mut admitted = Admitted::at(verified);
    let Outcome::Bound(bound) = &outcome else {
        return (outcome, admitted);
    };
    if !first || bound.is_empty() {
        return (outcome, admitted);
    }
    match app.resume.plan(principal, wanted, bound).await {
        Ok(plan) => {
            admitted.plan = plan;
            (outcome, admitted)
        }
        Err(resume::Error::Refused(error)) => {
            metrics::counter!(names::RESUMES_REFUSED, "reason" => error.code()).increment(1);
            (Outcome::Refused(error), admitted)
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a subscription cannot be told from where to go on"
            );
            (Outcome::Unavailable, admitted)
        }
    }
}
