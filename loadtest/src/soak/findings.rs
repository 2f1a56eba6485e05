//! The differences of a run, and the first of them with everything that helps to understand it.

use std::time::Duration;

use super::check::{self, Difference, seconds, tell};
use super::faults::Incident;
use super::reader::Outcome;
use super::stand::Fate;
use super::story::{Entry, Habit, Story};
use super::truth::Truth;

/// Faults that were on within this time before a difference, in milliseconds, are shown with it.
const RECENT: u32 = 5_000;

/// Deliveries that are shown before and after a difference.
const AROUND: usize = 6;

/// After the first one, so many are told in one line each.
const MORE: usize = 20;

pub(crate) struct Findings {
    pub(crate) deliveries: u64,
    pub(crate) histories: u64,
    /// By time. Which reader, in which of its lives.
    differences: Vec<(usize, Option<usize>, Difference)>,
    /// What is wrong with the gateway itself.
    gateway: Vec<String>,
}

impl Findings {
    pub(crate) fn of(
        truth: &Truth,
        outcomes: &[Outcome],
        complaints: &[String],
        fate: &Fate,
    ) -> anyhow::Result<Self> {
        let mut findings = Self {
            deliveries: 0,
            histories: 0,
            differences: Vec::new(),
            gateway: fate.deaths.clone(),
        };
        if fate.panics > 0 {
            findings
                .gateway
                .push(format!("{} panics are in the gateway's log", fate.panics));
        }
        findings.gateway.extend(complaints.iter().cloned());
        for (place, outcome) in outcomes.iter().enumerate() {
            let story = &outcome.story;
            for (at, what) in &story.wrong {
                let difference = Difference {
                    at: *at,
                    connection: story
                        .connections
                        .len()
                        .checked_sub(1)
                        .map(|last| last as u32),
                    what: what.clone(),
                    change: None,
                };
                findings.differences.push((place, None, difference));
            }
            for (number, life) in story.lives.iter().enumerate() {
                let verdict = check::check(truth, &story.interest, life)?;
                findings.deliveries += verdict.deliveries;
                findings.histories += verdict.histories;
                let found = verdict.differences.into_iter();
                findings
                    .differences
                    .extend(found.map(|difference| (place, Some(number), difference)));
            }
        }
        findings
            .differences
            .sort_by_key(|(_, _, difference)| difference.at);
        Ok(findings)
    }

    pub(crate) fn passed(&self) -> bool {
        self.count() == 0
    }

    pub(crate) fn count(&self) -> usize {
        self.differences.len() + self.gateway.len()
    }

    pub(crate) fn print(&self, truth: &Truth, outcomes: &[Outcome], incidents: &[Incident]) {
        println!("differences:     {}", self.count());
        for what in &self.gateway {
            println!("\n{what}");
        }
        let Some((place, life, first)) = self.differences.first() else {
            return;
        };
        let story = &outcomes[*place].story;
        println!("\nThe first difference, at {:.3} s:", seconds(first.at));
        println!("  {}", one_line(truth, story, first));
        print_connection(story, first);
        for incident in incidents.iter().filter(|one| is_near(one, first.at)) {
            println!("  fault  {}", describe(incident));
        }
        if let Some(life) = life {
            print_deliveries(truth, story, *life, first);
        }
        let more = &self.differences[1..];
        if !more.is_empty() {
            println!("\nMore:");
        }
        for (place, _, difference) in more.iter().take(MORE) {
            let line = one_line(truth, &outcomes[*place].story, difference);
            println!("  {:>9.3} s  {line}", seconds(difference.at));
        }
        if more.len() > MORE {
            println!("  and {} more", more.len() - MORE);
        }
    }
}

/// Who was the last to have everything, if that took long, and what kept it.
pub(crate) fn print_last(outcomes: &[Outcome], calm_at: Duration) {
    let followers = outcomes
        .iter()
        .filter(|one| one.story.habit != Habit::Plain);
    let Some(last) = followers.max_by_key(|outcome| outcome.done_at) else {
        return;
    };
    let (story, calm_at) = (&last.story, calm_at.as_millis() as u32);
    if last.done_at < calm_at + RECENT {
        return;
    }
    println!(
        "                 the last was reader {} ({:?}) at {:.3} s; everything worked from {:.3} s on",
        story.reader,
        story.habit,
        seconds(last.done_at),
        seconds(calm_at),
    );
    for connection in story.connections.iter().filter(|one| one.until >= calm_at) {
        println!(
            "                 {:.3} s to {:.3} s: {}",
            seconds(connection.from),
            seconds(connection.until),
            connection.end
        );
    }
}

fn one_line(truth: &Truth, story: &Story, difference: &Difference) -> String {
    let change = difference
        .change
        .map(|change| &truth.changes[change])
        .map(|change| format!("{}, made at {:.3} s, ", tell(change), seconds(change.at)));
    format!(
        "reader {} ({:?}, {}): {}{}",
        story.reader,
        story.habit,
        story.serializer,
        change.unwrap_or_default(),
        difference.what
    )
}

fn print_connection(story: &Story, difference: &Difference) {
    println!("  sessions {:?}", story.interest.sessions);
    let Some(number) = difference.connection.map(|number| number as usize) else {
        return;
    };
    let first = number.saturating_sub(2);
    for (number, connection) in story.connections.iter().enumerate().skip(first).take(4) {
        println!(
            "  connection {number}: {:.3} s to {:.3} s, {}, since {}",
            seconds(connection.from),
            seconds(connection.until),
            connection.end,
            connection.since.as_deref().unwrap_or("nothing"),
        );
    }
}

fn is_near(incident: &Incident, at: u32) -> bool {
    incident.from <= at.saturating_add(RECENT / 5)
        && incident
            .until
            .is_none_or(|until| until.saturating_add(RECENT) >= at)
}

fn describe(incident: &Incident) -> String {
    let until = incident.until.map_or(f64::INFINITY, seconds);
    let failed = incident.failed.as_deref();
    format!(
        "{:.3} s to {until:.3} s: {:?}{}",
        seconds(incident.from),
        incident.effect,
        failed.map_or_else(String::new, |why| format!(" (not carried out: {why})")),
    )
}

/// What this reader got just before and after.
fn print_deliveries(truth: &Truth, story: &Story, life: usize, difference: &Difference) {
    let entries = &story.lives[life].entries;
    let middle = entries.iter().position(|entry| match entry {
        Entry::Got {
            key,
            at,
            connection,
        } => {
            *at >= difference.at
                && difference
                    .connection
                    .is_none_or(|number| number == *connection)
                && difference.change.is_none_or(|change| {
                    // Of those that came in the same millisecond, the one in question.
                    *at > difference.at
                        || truth.find(*key) == Some(change)
                        || difference.what.contains("missing")
                })
        }
        Entry::Back { .. } => false,
    });
    let middle = middle.unwrap_or(entries.len());
    let from = middle.saturating_sub(AROUND);
    for entry in &entries[from..entries.len().min(middle + AROUND)] {
        match entry {
            Entry::Got {
                key,
                at,
                connection,
            } => {
                let change = truth.find(*key).map(|change| tell(&truth.changes[change]));
                println!(
                    "  got    {:>9.3} s over connection {connection}: {}",
                    seconds(*at),
                    change.unwrap_or_else(|| format!("{key:?}")),
                );
            }
            Entry::Back { keep } => println!("  went back to its first {keep}"),
        }
    }
}
