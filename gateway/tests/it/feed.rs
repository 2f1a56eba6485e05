//! The feed under torture: what the subscribers got is what was committed, each change once and in order.

mod publication;
mod quiet;
mod values;
mod writers;

use std::collections::HashMap;

use serde_json::Value;

use crate::support::{
    Client, TestGateway,
    chat::{ADA, messages_of},
    token::authenticated,
};

/// What became of a row, in the order in which one writer did it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Event {
    kind: String,
    id: String,
    content: String,
}

fn event(change: &Value) -> Event {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = change.get("record").unwrap_or(&change["old_record"]);
    Event {
        kind: text(&change["type"]),
        id: text(&row["id"]),
        content: text(&row["content"]),
    }
}

/// Subscribes to a session; the task ends with everything up to the row whose content is `end`.
async fn listen(
    gateway: &TestGateway,
    version: protocol::Version,
    session: &str,
) -> tokio::task::JoinHandle<Vec<Event>> {
    let mut client = Client::connect(gateway, version, &authenticated(ADA)).await;
    let channel = client.subscribe(session, messages_of("*", session)).await;
    tokio::spawn(async move {
        let mut events = Vec::new();
        loop {
            let change = client.change(&channel).await;
            assert_eq!(change["errors"], Value::Null, "{:.300}", change.to_string());
            let event = event(&change);
            if event.content == "end" {
                return events;
            }
            events.push(event);
        }
    })
}

/// The same events, each as often.
fn assert_same(received: &[Event], committed: &[Event], what: &str) {
    let count = |events: &[Event]| {
        let mut counts: HashMap<Event, i64> = HashMap::new();
        for event in events {
            *counts.entry(event.clone()).or_default() += 1;
        }
        counts
    };
    let (got, wanted) = (count(received), count(committed));
    let differ: Vec<_> = wanted
        .iter()
        .filter(|(event, count)| got.get(event) != Some(count))
        .chain(got.iter().filter(|(event, _)| !wanted.contains_key(event)))
        .take(5)
        .map(|(event, _)| {
            (
                &event.kind,
                &event.id,
                event.content.chars().take(60).collect::<String>(),
            )
        })
        .collect();
    assert!(
        differ.is_empty(),
        "{what}: {} received, {} committed; lost, doubled or invented: {differ:?}",
        received.len(),
        committed.len()
    );
}
