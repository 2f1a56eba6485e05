//! Row-level security, compared with PostgreSQL itself.
//!
//! Random schemas, policies, rows, claims and changes. After each change (and before it, for the old row) every person's
//! plain SELECT says who sees the row and which columns of it; exactly that must have been delivered.
//!
//! `TIDINGS_ORACLE_SEED` and `TIDINGS_ORACLE_CASES` (a change and a person are a case) ask for others, and for more;
//! `TIDINGS_ORACLE_SHARD` begins with the shard that failed.

mod chance;
mod fault;
mod judge;
mod listener;
mod people;
mod world;

use std::{collections::BTreeMap, time::Instant};

use serde_json::Value;

use self::{
    chance::Chance,
    fault::Fault,
    judge::{Judge, Judged},
    listener::{Listener, State},
    people::Roles,
    world::{FILTERS, Step, World},
};
use crate::support::{TestDatabase, TestGateway, wait::wait_for};

const SEED: u64 = 20_261_120;
const CASES: usize = 9_000;
/// Of a shard, which is a database with a gateway.
const WORLDS: usize = 8;
const ROUNDS: usize = 6;
const STEPS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_exactly_what_a_select_would_show() {
    let variable = |name: &str, default: u64| match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value}")),
        Err(_) => default,
    };
    let seed = variable("TIDINGS_ORACLE_SEED", SEED);
    let wanted = variable("TIDINGS_ORACLE_CASES", CASES as u64) as usize;
    let began = Instant::now();
    let mut tally = Tally::default();
    for shard in variable("TIDINGS_ORACLE_SHARD", 0).. {
        if tally.cases >= wanted {
            break;
        }
        if let Err(difference) = Box::pin(shard_of(seed, shard, None, &mut tally)).await {
            panic!("{difference}");
        }
    }
    println!("oracle: seed {seed}, {tally:?}, {:.1?}", began.elapsed());
    // A generator that shows nothing, or hides nothing, would prove nothing.
    assert!(tally.visible * 10 > tally.cases && tally.visible * 10 < tally.cases * 9);
    assert!(tally.delivered > tally.visible && tally.denied > 0 && tally.errors > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_are_noticed() {
    for fault in Fault::ALL {
        let mut tally = Tally::default();
        let noticed = Box::pin(shard_of(SEED, 0, Some(fault), &mut tally)).await;
        let Err(difference) = noticed else {
            panic!("{fault:?} goes unnoticed");
        };
        let what = difference
            .lines()
            .find(|line| line.starts_with("for {"))
            .and_then(|line| line.rsplit_once("}: "))
            .map_or("", |(_, what)| what);
        println!("{fault:?}, within {} cases: {what:.120}", tally.cases);
    }
}

#[derive(Debug, Default)]
struct Tally {
    /// Changes times persons.
    cases: usize,
    /// Of these: the SELECT showed the row, the SELECT failed.
    visible: usize,
    errors: usize,
    /// Frames of rows whose SELECT fails in the planner, while the policies allow them.
    beyond_the_planner: usize,
    /// Frames compared.
    delivered: usize,
    /// Subscriptions refused or ended, each in each round in which it was.
    denied: usize,
    /// Updates that took a row out of somebody's sight, and into it.
    left: usize,
    entered: usize,
}

/// A change, and how the row looked to everybody before and after it.
struct Done {
    world: usize,
    sql: String,
    before: Option<Judged>,
    after: Option<Judged>,
}

/// Returns what differs, if anything does.
async fn shard_of(
    seed: u64,
    shard: u64,
    fault: Option<Fault>,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut chance = Chance::new(seed.wrapping_mul(1_000_003).wrapping_add(shard));
    // Every second shard hides tables behind functions and changes policies; the other finds all by the triggers.
    let hiding = shard % 2 == 1;
    let database = TestDatabase::new(None).await;
    let roles = Roles::create(&database).await;
    let people = roles.people();
    database
        .execute("create table markers (marker int primary key); grant select on markers to public; select tidings.watch('markers')")
        .await;
    let mut worlds = Vec::new();
    for number in 0..WORLDS {
        let world = World::create(format!("w{number}"), hiding, &roles, &mut chance);
        database.execute(&world.history[0]).await;
        worlds.push(world);
    }
    if let Some(fault) = fault {
        fault.plant(&database).await;
    }
    let mut judge = Judge::new(&database, &people).await;
    let old_record = chance.pick(&["full", "full", "identity"]);
    // Nothing may rest on the periodic re-check here.
    let settings = [("recheck_interval", "10m"), ("old_record", old_record)];
    let gateway = TestGateway::start_with(&database, &settings).await;
    let mut listeners = Vec::new();
    for person in &people {
        listeners.push(Listener::connect(&gateway, person, WORLDS, &mut chance).await);
    }

    let mut marker = 0;
    for round in 0..ROUNDS {
        if round > 0 {
            for world in &mut worlds {
                for statement in world.turn(&roles, &mut chance) {
                    database.execute(&statement).await;
                }
            }
            mark(&database, &mut listeners, &mut marker).await;
            wait_for("doubtful subscriptions", || async {
                match gateway.app.hub.stale(usize::MAX).len() {
                    0 => Ok(()),
                    more => Err(format!("{more} of them")),
                }
            })
            .await;
            mark(&database, &mut listeners, &mut marker).await;
        }
        for listener in &mut listeners {
            listener.join(&worlds).await;
        }
        let mut done = Vec::new();
        for _ in 0..STEPS {
            for (place, world) in worlds.iter_mut().enumerate() {
                let Step { sql, before, after } = world.step(&mut chance);
                let before = match before {
                    Some(key) => Some(judge.row(&world.name, key).await),
                    None => None,
                };
                database.execute(&sql).await;
                let after = match after {
                    Some(key) => Some(judge.row(&world.name, key).await),
                    None => None,
                };
                done.push(Done {
                    world: place,
                    sql,
                    before,
                    after,
                });
            }
        }
        mark(&database, &mut listeners, &mut marker).await;
        count(&done, people.len(), tally);
        for (place, (person, listener)) in people.iter().zip(&mut listeners).enumerate() {
            if let Err(difference) = compare(place, listener, &done, old_record, tally) {
                let Difference { world, what } = difference;
                let person = person.as_json();
                let history = worlds[world].history.join("\n");
                gateway.stop().await;
                return Err(format!(
                    "seed {seed}, shard {shard}, round {round}, world w{world}, old_record={old_record}\n{history}\nfor {person}: {what}"
                ));
            }
        }
    }
    gateway.stop().await;
    Ok(())
}

/// Waits until everybody has what was committed up to now.
async fn mark(database: &TestDatabase, listeners: &mut [Listener], marker: &mut i32) {
    *marker += 1;
    database
        .execute(&format!("insert into markers values ({marker})"))
        .await;
    for listener in listeners {
        listener.until(*marker).await;
    }
}

fn count(done: &[Done], people: usize, tally: &mut Tally) {
    tally.cases += done.len() * people;
    let sees = |judged: &Option<Judged>, person: usize| {
        judged
            .as_ref()
            .is_some_and(|judged| judged.views[person].seen.is_some())
    };
    for change in done {
        for person in 0..people {
            let judged = change.after.as_ref().or(change.before.as_ref());
            let view = judged.map(|judged| &judged.views[person]);
            tally.visible += usize::from(view.is_some_and(|view| view.seen.is_some()));
            tally.errors += usize::from(view.is_some_and(|view| view.failure.is_some()));
            if change.before.is_some() && change.after.is_some() {
                match (sees(&change.before, person), sees(&change.after, person)) {
                    (true, false) => tally.left += 1,
                    (false, true) => tally.entered += 1,
                    _ => {}
                }
            }
        }
    }
}

struct Difference {
    world: usize,
    what: String,
}

fn compare(
    person: usize,
    listener: &mut Listener,
    done: &[Done],
    old_record: &str,
    tally: &mut Tally,
) -> Result<(), Difference> {
    for listening in &mut listener.listening {
        let filter = FILTERS[listening.filter].0;
        let differ = |what: String| Difference {
            world: listening.world,
            what: format!("filter {filter:?}, select {:?}: {what}", listening.select),
        };
        let mut got = std::mem::take(&mut listening.got).into_iter().peekable();
        let changes = done.iter().filter(|done| done.world == listening.world);
        for change in changes {
            let Some(image) = change.after.as_ref().or(change.before.as_ref()) else {
                continue;
            };
            let view = &image.views[person];
            let expected = view.seen.is_some() && image.matches[listening.filter];
            let describe = |what: &str| {
                differ(format!(
                    "{what}\n  change: {}\n  old row: {}\n  new row: {}\n  its SELECT: {:?}, failure {:?}",
                    change.sql,
                    change
                        .before
                        .as_ref()
                        .map_or(&Value::Null, |judged| &judged.row),
                    change
                        .after
                        .as_ref()
                        .map_or(&Value::Null, |judged| &judged.row),
                    view.seen,
                    view.failure,
                ))
            };
            match &listening.state {
                State::Live => {}
                // A binding that names a column which the person may not read is no good, whatever the rows.
                State::Wrong(_) if listening.names().any(|name| !view.may_read(name)) => continue,
                state if expected => {
                    return Err(describe(&format!(
                        "a row that it may see, but it is {state:?}"
                    )));
                }
                _ => continue,
            }
            let about = |frame: &Value| {
                let row = frame.get("record").unwrap_or(&frame["old_record"]);
                row["id"] == image.row["id"]
            };
            if !expected {
                // To show such a row is as right as not to.
                let executed = view.executed.as_deref() == Some("true");
                if executed && image.matches[listening.filter] && got.next_if(about).is_some() {
                    tally.beyond_the_planner += 1;
                }
                continue;
            }
            tally.delivered += 1;
            let Some(frame) = got.next() else {
                return Err(describe("not delivered"));
            };
            check(
                &frame,
                change,
                person,
                listening.select.as_deref(),
                old_record,
            )
            .map_err(|what| describe(&format!("{what}\n  delivered: {frame}")))?;
        }
        if let Some(frame) = got.next() {
            let row = frame.get("record").unwrap_or(&frame["old_record"]);
            let views: Vec<_> = done
                .iter()
                .filter(|done| done.world == listening.world)
                .flat_map(|done| {
                    done.after
                        .as_ref()
                        .or(done.before.as_ref())
                        .map(|image| (done, image))
                })
                .filter(|(_, image)| image.row["id"] == row["id"])
                .map(|(done, image)| format!("{}: {:?}", done.sql, image.views[person]))
                .collect();
            return Err(differ(format!(
                "delivered beyond what it may see, as {:?}: {frame}\nwhat was done to that row, and its SELECT:\n{}",
                listening.state,
                views.join("\n")
            )));
        }
        tally.denied += usize::from(matches!(listening.state, State::Denied(_)));
    }
    Ok(())
}

/// Whether a frame says of the change what the person may know, and all of it.
fn check(
    frame: &Value,
    change: &Done,
    person: usize,
    select: Option<&[&str]>,
    old_record: &str,
) -> Result<(), String> {
    let kind = match (&change.before, &change.after) {
        (None, _) => "INSERT",
        (_, Some(_)) => "UPDATE",
        (_, None) => "DELETE",
    };
    if frame["type"] != kind {
        return Err(format!("it should be an {kind}"));
    }
    let wanted =
        |column: &str| column == "id" || select.is_none_or(|select| select.contains(&column));
    let cut = |seen: &Value| -> BTreeMap<String, Value> {
        let columns = seen.as_object().into_iter().flatten();
        columns
            .filter(|(column, _)| wanted(column))
            .map(|(column, value)| (column.clone(), value.clone()))
            .collect()
    };
    let object = |name: &str| -> BTreeMap<String, Value> { cut_all(&frame[name]) };
    let seen = |judged: &Option<Judged>| {
        judged
            .as_ref()
            .and_then(|judged| judged.views[person].seen.as_ref())
            .map(&cut)
    };

    let (before, after) = (seen(&change.before), seen(&change.after));
    let named: Vec<&str> = frame["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|column| column["name"].as_str())
        .collect();
    let shown = after.as_ref().or(before.as_ref());
    if !shown.is_some_and(|shown| {
        shown.len() == named.len() && named.iter().all(|name| shown.contains_key(*name))
    }) {
        return Err(format!("columns are not {shown:?}"));
    }
    if kind != "DELETE" && after.as_ref() != Some(&object("record")) {
        return Err(format!("record is not {after:?}"));
    }
    let old = object("old_record");
    let key = |row: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
        let id = row.get_key_value("id");
        id.into_iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let full = old_record == "full" || old.len() > 1;
    let right = match (kind, &before) {
        ("INSERT", _) => old.is_empty(),
        ("DELETE", Some(before)) if full => old == *before,
        ("DELETE", Some(before)) => old == key(before),
        // No more of an old row that was out of sight than the new one says as well.
        (_, None) => old.is_empty() || after.as_ref().is_some_and(|after| old == key(after)),
        // It may be judged too costly to tell; what is told is true.
        (_, Some(before)) => old == *before || old == key(before) || old.is_empty(),
    };
    match right {
        true => Ok(()),
        false => Err(format!("old_record is not of {before:?}")),
    }
}

fn cut_all(value: &Value) -> BTreeMap<String, Value> {
    let members = value.as_object().into_iter().flatten();
    members
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
