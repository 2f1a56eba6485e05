//! All the subscribers of a run: they come in bounded batches, listen, and say at the end what they saw.

use std::sync::Arc;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ChangesArgs;
use super::pulse::progress;
use crate::client::{Subscriber, Subscription};
use crate::database;
use crate::ledger::Received;
use crate::socket::Endpoint;
use crate::target::Target;
use crate::writer::Plan;

pub(super) struct Outcome {
    pub(super) received: Received,
    /// Why it ended before the end of the run.
    pub(super) end: Option<String>,
}

/// Connects everybody, a bounded number at a time. Each starts to listen as soon as it is in.
pub(super) async fn gather(
    args: &ChangesArgs,
    target: &Target,
    plan: &Arc<Plan>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<JoinHandle<Outcome>>> {
    let endpoint = Arc::new(Endpoint::parse(&target.url, args.version())?);
    let subscriptions = plan
        .sessions
        .iter()
        .map(|session| {
            let token = target.sign(&database::owner(*session))?;
            Ok(Subscription {
                session_id: session.to_string(),
                token,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let bar = progress(args.subscribers as u64, "subscribed");
    let audience = stream::iter(0..args.subscribers)
        .map(|index| {
            let session = index % args.sessions;
            let (endpoint, subscription) = (endpoint.clone(), subscriptions[session].clone());
            let (plan, stopped, bar) = (plan.clone(), stopped.clone(), bar.clone());
            let received = Received::new(session, args.writers);
            async move {
                // A task of its own, so that both cores encode and decode.
                let joined =
                    tokio::spawn(
                        async move { Subscriber::connect(&endpoint, &subscription).await },
                    );
                let subscriber = joined
                    .await?
                    .with_context(|| format!("subscriber {index} could not join"))?;
                bar.inc(1);
                anyhow::Ok(tokio::spawn(listen(
                    subscriber, index, received, plan, stopped,
                )))
            }
        })
        .buffer_unordered(args.connecting)
        .try_collect()
        .await;
    bar.finish_and_clear();
    audience
}

async fn listen(
    mut subscriber: Subscriber,
    index: usize,
    mut received: Received,
    plan: Arc<Plan>,
    mut stopped: watch::Receiver<bool>,
) -> Outcome {
    let end = {
        let listening = subscriber.run(|change| {
            let label = change.data.record.metadata;
            // A row of another run can only be in this session by mistake; it belongs to no writer.
            let writer = if label.run == plan.run {
                label.writer
            } else {
                usize::MAX
            };
            received.record(writer, label.number);
            plan.meter.received(index, label.job);
        });
        tokio::select! {
            end = listening => Some(format!("{end:#}")),
            _ = stopped.wait_for(|stopped| *stopped) => None,
        }
    };
    if end.is_none() {
        subscriber.close().await;
    }
    Outcome { received, end }
}

pub(super) async fn collect(audience: Vec<JoinHandle<Outcome>>) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(audience.len());
    for task in audience {
        outcomes.push(task.await?);
    }
    Ok(outcomes)
}
