//! Somebody who is on a topic and listens, and perhaps sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Plan;
use super::sender::{self, Counter};
use super::stamp::Stamp;
use crate::channel::End;
use crate::ledger::Received;
use crate::scene::link::{Incoming, Link, Wish};
use crate::scene::over;
use crate::scene::people::Place;
use crate::socket::Endpoint;

pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) place: Place,
    /// All senders of the run.
    pub(super) senders: usize,
    /// The number of this sender, and when its messages are due.
    pub(super) sends: Option<(usize, mpsc::Receiver<u64>)>,
}

pub(super) struct Outcome {
    pub(super) received: Received,
    /// Which sender it was, and how much it sent.
    pub(super) sent: Option<(usize, u64)>,
    pub(super) fault: Option<String>,
}

impl Member {
    pub(super) async fn join(self, plan: Arc<Plan>) -> Result<JoinHandle<Outcome>, End> {
        let wish = Wish {
            broadcast: json!({"ack": false, "self": true}),
            private: plan.private,
            ..Wish::of(format!("chat:{}", self.place.session))
        };
        let token = &self.place.token;
        let (link, _) = Link::joined(&self.endpoint, token, &wish, |_| Ok(())).await?;
        let received = Received::new(self.place.number, self.senders);
        let listening = Listening {
            plan,
            received,
            counter: Counter {
                sender: self.sends.as_ref().map_or(0, |(sender, _)| *sender),
                topic: wish.topic,
                sent: 0,
            },
        };
        let is_sender = self.sends.is_some();
        let due = self.sends.map(|(_, due)| due);
        Ok(tokio::spawn(async move {
            let mut listening = listening;
            let end = Box::pin(listening.live(link, due)).await;
            Outcome {
                sent: is_sender.then_some((listening.counter.sender, listening.counter.sent)),
                received: listening.received,
                fault: end.err().map(|end| format!("a member: {end}")),
            }
        }))
    }
}

struct Listening {
    plan: Arc<Plan>,
    received: Received,
    counter: Counter,
}

impl Listening {
    async fn live(
        &mut self,
        mut link: Link,
        mut due: Option<mpsc::Receiver<u64>>,
    ) -> Result<(), End> {
        let plan = self.plan.clone();
        let mut stop = plan.stop.clone();
        loop {
            let next_job = async {
                match &mut due {
                    Some(due) => due.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                job = next_job => match job {
                    Some(job) => sender::push(&mut link, &mut self.counter, &plan, job).await?,
                    None => due = None,
                },
                incoming = link.next() => {
                    let mut next = Some(incoming?);
                    while let Some(incoming) = next {
                        self.take(&incoming)?;
                        next = link.ready()?;
                    }
                }
                () = over(&mut stop) => break,
            }
        }
        link.close().await;
        Ok(())
    }

    fn take(&mut self, incoming: &Incoming) -> Result<(), End> {
        let Some(stamp) = Stamp::of(incoming).map_err(End::Wrong)? else {
            return Ok(());
        };
        self.received.record(stamp.sender, stamp.number);
        let due = self.plan.at(stamp.due);
        if self.plan.is_warm(due) {
            let sent = self.plan.at(stamp.sent);
            self.plan.deliveries.record(due, sent, Instant::now());
        }
        self.plan.received.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
