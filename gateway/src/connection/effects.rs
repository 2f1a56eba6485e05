//! Does what the machine has decided: hands on, asks, subscribes. Never waits.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;

use super::{
    asking::{self, Admitted, Answer, Late, Replayed, admit, ask},
    end::End,
    machine::{Effect, Subscribe},
    task::{Connection, Instead},
};
use crate::{
    hub::{
        Announcement, Greeting, Missed, Outdated, Subscription,
        outbox::{Frame, Signal},
    },
    metrics::names,
    resume::Plan,
    topics::{Broadcast, Forgotten, Member},
};

/// The pause before a subscription is admitted again whose bindings were outdated.
const ASK_AGAIN: Duration = Duration::from_millis(100);

impl Connection<'_> {
    /// Does what the machine has decided, in its order. Never waits. `admitted`: what it decides on.
    pub(super) fn carry_out(&mut self, admitted: Option<Admitted>) {
        let (verified, mut plan, mut replay) = match admitted {
            Some(admitted) => (Some(admitted.verified), admitted.plan, admitted.replay),
            None => (None, None, None),
        };
        let mut forgotten = Vec::new();
        for effect in self.machine.effects() {
            match effect {
                Effect::Send(frame) => self.send(frame),
                Effect::Learn {
                    token,
                    message,
                    asked,
                } => {
                    let app = self.app.clone();
                    self.questions.push(
                        async move {
                            app.verifier.learn(&token).await;
                            Answer::Learned { message, asked }
                        }
                        .boxed(),
                    );
                }
                Effect::Authorize(question) => {
                    self.questions.push(ask(self.app.clone(), question).boxed())
                }
                Effect::Subscribe(subscribe) => {
                    let Subscribe {
                        id,
                        topic,
                        bindings,
                        principal,
                        wanted,
                        replaced,
                        greeting,
                        live,
                    } = subscribe;
                    // What it replaces may itself be waiting, with an older one live in its stead.
                    let replaced = match replaced.map(|id| (id, self.late.remove(&id))) {
                        None => None,
                        Some((replaced, None)) => Some(replaced),
                        // The join is still owed an answer, and where to start from: let it come again.
                        Some((_, Some(Instead { joining: true, .. }))) => {
                            self.outbox.signal(Signal::Failed(id));
                            continue;
                        }
                        Some((_, Some(Instead { live, .. }))) => live,
                    };
                    let subscription = Subscription {
                        id,
                        topic,
                        version: self.version,
                        bindings,
                        principal,
                        outbox: self.outbox.clone(),
                        wanted,
                        verified: verified.unwrap_or_else(|| self.app.hub.moment()),
                    };
                    let greeting = Greeting {
                        frames: greeting.into_iter().map(Frame::text).collect(),
                        live: Some(live),
                    };
                    self.subscribe(Late {
                        subscription,
                        replaced,
                        greeting,
                        plan: plan.take(),
                    });
                }
                Effect::Unsubscribe(id) => {
                    if let Some(Instead {
                        live: Some(live), ..
                    }) = self.late.remove(&id)
                    {
                        self.app.hub.unsubscribe(live);
                    }
                    self.app.hub.unsubscribe(id);
                }
                Effect::Enter { key, id, entrance } => {
                    let member = Member {
                        topic: entrance.topic,
                        version: self.version,
                        join_ref: entrance.join_ref,
                        outbox: self.outbox.clone(),
                        self_send: entrance.self_send,
                        presence_enabled: entrance.presence_enabled,
                        presence_key: entrance.presence_key,
                        reads: entrance.reads,
                    };
                    let topic = member.topic.clone();
                    let joined = self.app.topics.join(&key, id, member, replay.take());
                    if joined == Err(Forgotten) {
                        forgotten.push(topic);
                    }
                }
                Effect::Allow { key, id, reads } => self.app.topics.allow(&key, id, reads),
                Effect::AskRights(question) => self
                    .questions
                    .push(asking::rights(self.app.clone(), question).boxed()),
                Effect::Store {
                    told,
                    asker,
                    broadcast,
                    keep,
                } => {
                    metrics::counter!(names::BROADCASTS, "source" => "socket").increment(1);
                    let app = self.app.clone();
                    self.questions
                        .push(asking::store(app, told, asker, broadcast, keep).boxed());
                }
                Effect::AwaitFeed { topic, member } => self
                    .questions
                    .push(asking::replication(self.app.clone(), topic, member).boxed()),
                Effect::Leave { key, id } => self.app.topics.leave(&key, id),
                Effect::Broadcast { key, id, payload } => {
                    metrics::counter!(names::BROADCASTS, "source" => "socket").increment(1);
                    self.app
                        .topics
                        .broadcast(&key, Some(id), Broadcast::Message(&payload));
                }
                Effect::BroadcastUser { key, id, broadcast } => {
                    metrics::counter!(names::BROADCASTS, "source" => "socket").increment(1);
                    let broadcast = Broadcast::User {
                        event: &broadcast.event,
                        encoding: broadcast.encoding,
                        payload: &broadcast.payload,
                        id: None,
                    };
                    self.app.topics.broadcast(&key, Some(id), broadcast);
                }
                Effect::Track {
                    key,
                    id,
                    payload,
                    tracked,
                    full,
                } => match self.app.topics.track(&key, id, &payload) {
                    Ok(()) => self.send(tracked),
                    Err(_) => self.send(full),
                },
                Effect::Untrack { key, id } => self.app.topics.untrack(&key, id),
                Effect::Joined(result) => {
                    metrics::counter!(names::JOINS, "result" => result).increment(1)
                }
                Effect::Close(exceeded) => self.ending = Some(End::TooMuch(exceeded)),
            }
        }
        for topic in forgotten {
            self.machine.broken(&topic);
            self.carry_out(None);
        }
        let channels = self.machine.channels();
        metrics::gauge!(names::CHANNELS).increment(channels as f64 - self.channels as f64);
        self.channels = channels;
    }

    pub(super) fn subscribe(&mut self, late: Late) {
        let Late {
            subscription,
            replaced,
            greeting,
            plan,
        } = late;
        let hub = &self.app.hub;
        let starts = plan.as_ref().map(|plan| &plan.starts);
        match hub.subscribe(subscription, replaced, &greeting, starts) {
            Ok(None) => {}
            Ok(Some(missed)) => {
                if let (Some(plan), Some(live)) = (plan, greeting.live) {
                    self.replay(plan, missed, live);
                }
            }
            Err(outdated) => {
                let Outdated(subscription) = *outdated;
                self.ask_again(Late {
                    subscription,
                    replaced,
                    greeting,
                    plan,
                });
            }
        }
    }

    fn replay(&mut self, plan: Plan, missed: Missed, live: Announcement) {
        let (app, outbox) = (self.app.clone(), self.outbox.clone());
        let missed = Arc::new(missed);
        self.replays.push(
            async move {
                let result = app.resume.run(&outbox, plan, &missed, &live).await;
                Replayed { result, missed }
            }
            .boxed(),
        );
    }

    /// The catalog has changed while the subscription was being admitted.
    pub(super) fn ask_again(&mut self, late: Late) {
        let instead = Instead {
            live: late.replaced,
            joining: !late.greeting.frames.is_empty(),
        };
        self.late.insert(late.subscription.id, instead);
        let app = self.app.clone();
        self.questions.push(
            async move {
                // Not at once: the database may have to recover first.
                tokio::time::sleep(ASK_AGAIN).await;
                let (principal, wanted) = (&late.subscription.principal, &late.subscription.wanted);
                let (outcome, admitted) = admit(&app, principal, wanted, late.plan.is_some()).await;
                Answer::Again {
                    late: Box::new(late),
                    outcome,
                    admitted,
                }
            }
            .boxed(),
        );
    }
}
