//! What a connection asks others, and the answers that it waits for.

use std::sync::Arc;

use protocol::ClientMessage;

use super::machine::Question;
use crate::{
    admission::{Outcome, Wanted},
    app::App,
    auth::Principal,
    hub::{Greeting, Missed, Moment, Subscription, SubscriptionId},
    metrics::names,
    resume::{self, Plan},
};

/// What was learned about a subscription, and the moment before it was asked.
pub(super) enum Answer {
    /// To a question of the machine.
    Admitted {
        topic: Arc<str>,
        asked: u64,
        outcome: Outcome,
        admitted: Admitted,
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
}

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
    } = question;
    let (outcome, admitted) = admit(&app, &principal, &wanted, first).await;
    Answer::Admitted {
        topic,
        asked,
        outcome,
        admitted,
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
    let mut admitted = Admitted {
        verified,
        plan: None,
    };
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
