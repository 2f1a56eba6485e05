//! Takes access away: asks again about subscriptions whose verdict may not hold any more, and ends those that are refused.
//!
//! What verdicts rest on is known from the catalog, and tells of its changes through the change log ([`crate::dispatch`]). What
//! the catalog cannot show, behind functions, is covered by asking about everybody again after a while.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::sync::Notify;

use crate::{
    admission::{Admission, Outcome},
    hub::{Hub, Unit},
    metrics::names,
};

/// Questions under way at once: enough to keep the authorizer's lanes busy, few enough to leave room for joins.
const CONCURRENT: usize = 64;
/// Units of a round. Between rounds urgent ones come first.
const ROUND: usize = 256;
/// How often those are looked for that have not been asked about for long.
const TICK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);

pub struct Revocation {
    pub admission: Arc<Admission>,
    pub hub: Arc<Hub>,
    /// Rung when verdicts have become doubtful.
    pub doubts: Arc<Notify>,
    /// How old a verdict may become.
    pub recheck: Duration,
}

impl Revocation {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.doubts.notified() => {}
                _ = tick.tick() => {
                    // Twice the pace at which verdicts grow old, so that a burst of joins does not make a burst of questions.
                    let rounds = self.recheck.as_secs().max(1) as usize;
                    let most = (self.hub.subscriptions() * 2 / rounds).max(ROUND);
                    self.ask(self.hub.due(self.recheck, most)).await;
                }
            }
            self.settle_stale().await;
        }
    }

    /// Asks until no verdict is stale.
    pub async fn settle_stale(&self) {
        loop {
            let units = self.hub.stale(ROUND);
            if units.is_empty() {
                return;
            }
            self.ask(units).await;
        }
    }

    async fn ask(&self, units: Vec<Unit>) {
        let asks = stream::iter(units)
            .map(|unit| self.settle(unit))
            .buffer_unordered(CONCURRENT);
        let settled = asks
            .fold(true, |all, settled| std::future::ready(all && settled))
            .await;
        if !settled {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Admits or ends one unit. Returns false if nothing could be learned now.
    async fn settle(&self, unit: Unit) -> bool {
        let verified = self.hub.moment();
        match self
            .admission
            .admit(&unit.principal, &unit.wanted, verified)
            .await
        {
            Outcome::Bound(bindings) => self.hub.confirm(&unit, &bindings, verified),
            Outcome::Denied => {
                metrics::counter!(names::REVOCATIONS).increment(1);
                self.hub.revoke(&unit);
            }
            Outcome::Wrong(refusal) => self.hub.void(&unit, &refusal.to_string().into()),
            // Admission alone refuses nothing that it has taken before.
            Outcome::Refused(_) | Outcome::Unavailable => return false,
        }
        true
    }
}
