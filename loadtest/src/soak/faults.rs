//! Carries out the plan, and notes when each fault really was.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use faultproxy::Proxy;
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

use super::plan::{self, Effect, Fault, Kind, Line, Side};
use super::stand::Stand;
use super::world::World;
use super::writer;

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Timeline(Mutex<Vec<Incident>>);

#[derive(Clone, Debug)]
pub(crate) struct Incident {
    pub(crate) kind: Kind,
    /// Milliseconds since the start of the run.
    pub(crate) from: u32,
    /// `None` while it lasts.
    pub(crate) until: Option<u32>,
    pub(crate) effect: Effect,
    /// Why it could not be carried out: the database was away already, for instance.
    pub(crate) failed: Option<String>,
}

impl Timeline {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Incident>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, world: &World, fault: &Fault) -> usize {
        let mut incidents = self.lock();
        incidents.push(Incident {
            kind: fault.kind,
            from: world.now(),
            until: None,
            effect: fault.effect,
            failed: None,
        });
        incidents.len() - 1
    }

    fn end(&self, world: &World, incident: usize, result: anyhow::Result<()>) {
        let mut incidents = self.lock();
        incidents[incident].until = Some(world.now());
        incidents[incident].failed = result.err().map(|error| format!("{error:#}"));
    }

    pub(crate) fn incidents(&self) -> Vec<Incident> {
        self.lock().clone()
    }

    /// Those that were carried out, by kind.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, u64> {
        let mut counts = BTreeMap::new();
        for incident in self.lock().iter().filter(|one| one.failed.is_none()) {
            *counts.entry(incident.kind).or_default() += 1;
        }
        counts
    }
}

impl Incident {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "fault": self.kind, "effect": format!("{:?}", self.effect), "from_ms": self.from, "until_ms": self.until,
            "failed": self.failed,
        })
    }
}

/// All faults of one side, one after the other.
pub(crate) async fn inject(
    faults: &[Fault],
    side: Side,
    seed: u64,
    world: &World,
    stand: &Stand,
    timeline: &Timeline,
) -> anyhow::Result<()> {
    let sessions = world.sessions();
    for (number, fault) in faults.iter().enumerate() {
        sleep_until((world.started + fault.at).into()).await;
        let incident = timeline.begin(world, fault);
        let line = match side {
            Side::Database => &stand.database_line,
            Side::Clients => &stand.clients_line,
        };
        let result = match fault.effect {
            Effect::Line(effect) => {
                disturb(line, effect);
                sleep(fault.lasts).await;
                line.mend();
                Ok(())
            }
            Effect::Terminate(victims) => stand.terminate(victims).await,
            Effect::Postgres(how) => {
                // Nothing would work without it, so this one may not fail.
                stand.restart_postgres(how, fault.lasts).await?;
                Ok(())
            }
            Effect::GatewayKilled => Ok(stand.kill_gateway(fault.lasts).await?),
            Effect::GatewayTerminated => Ok(stand.restart_gateway(fault.lasts).await?),
            Effect::Burst(count) => burst(world, &sessions, count, seed, number).await,
        };
        timeline.end(world, incident, result);
    }
    Ok(())
}

fn disturb(line: &Proxy, effect: Line) {
    match effect {
        Line::Cut(how) => line.cut(how),
        Line::Flow(way, flow) => line.set(way, flow),
    }
}

async fn burst(
    world: &World,
    sessions: &[Uuid],
    count: u32,
    seed: u64,
    number: usize,
) -> anyhow::Result<()> {
    let random = plan::stream(seed, 1_000_000 + number as u64);
    writer::burst(&world.database, sessions, count, random).await
}
