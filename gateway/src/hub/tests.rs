//! The hub by itself: who gets which frame, in which order, how often.

use std::sync::Arc;

use super::{
    filter::{Check, Test},
    outbox::{Item, Limits},
    *,
};
use crate::{
    catalog::{Column, Spread, Table},
    feed::{change::Record, mark::Mark, snapshot::Snapshot, source::Source},
};

const MESSAGES: TableId = 1;

fn table(names: &[(&str, &str, bool)]) -> Table {
    let columns = names
        .iter()
        .map(|(name, ty, key)| {
            serde_json::from_value::<Column>(serde_json::json!({
                "name": name, "type": ty, "base": ty, "kind": "b", "category": "X", "domain": false, "key": key, "sent": true, "deterministic": true,
            }))
            .unwrap()
        })
        .collect();
    Table {
        id: MESSAGES,
        oid: 1,
        schema: "public".into(),
        name: "messages".into(),
        inserts: true,
        updates: true,
        deletes: true,
        full_identity: false,
        attached: 1,
        filtered: None,
        columns,
    }
}

fn messages() -> Table {
    table(&[
        ("id", "int8", true),
        ("room", "text", false),
        ("body", "text", false),
    ])
}

fn wanted() -> Wanted {
    Wanted {
        config: Arc::default(),
        ids: [].into(),
    }
}

struct Bench {
    hub: Hub,
    tables: Tables,
    table: Arc<Table>,
}

impl Bench {
    fn new(old_record: OldRecord) -> Bench {
        Bench::of(old_record, messages())
    }

    fn of(old_record: OldRecord, table: Table) -> Bench {
        let table = Arc::new(table);
        let tables = Tables::of([table.clone()]);
        Bench {
            hub: Hub::new(old_record, 1 << 20, 1 << 20),
            tables,
            table,
        }
    }

    fn binding(&self, id: u64, room: Option<&str>, scope: Scope) -> BoundBinding {
        let all: Vec<usize> = (0..self.table.columns.len()).collect();
        let tests = room
            .map(|room| Test {
                column: "room".into(),
                spread: Spread::Usual,
                check: Check::OneOf {
                    values: vec![format!("\"{room}\"").into()],
                    or_null: false,
                },
                negate: false,
            })
            .into_iter()
            .collect();
        BoundBinding {
            id,
            table: MESSAGES,
            events: Events {
                insert: true,
                update: true,
                delete: true,
            },
            filter: Arc::new(Filter { tests, rest: None }),
            columns: Arc::new(ColumnSet::new(&self.table, &all, false)),
            scope,
            reads: Arc::new(Reads::Columns(vec!["room".into()])),
        }
    }

    fn subscribe(
        &self,
        topic: &str,
        bindings: Vec<BoundBinding>,
        who: &str,
    ) -> (SubscriptionId, Arc<Outbox>) {
        let limits = Limits {
            frames: 100,
            bytes: 1 << 20,
        };
        let outbox = Outbox::new(limits, None);
        let id = SubscriptionId::next();
        let subscription = Subscription {
            id,
            topic: topic.into(),
            version: Version::V2,
            bindings,
            principal: Arc::new(Principal::of_role(who)),
            outbox: outbox.clone(),
            wanted: wanted(),
            verified: self.hub.moment(),
        };
        let greeting = Greeting::default();
        assert!(
            self.hub
                .subscribe(subscription, None, &greeting, None)
                .is_ok()
        );
        (id, outbox)
    }

    fn deliver(&self, change: &Arc<Change>, verdicts: &Verdicts) {
        let before = Before::default();
        self.hub
            .deliver(&self.tables, &read(), change, 0, verdicts, &before);
    }
}

/// A read that sees everything.
fn read() -> Arc<Read> {
    let snapshot = Arc::new(Snapshot::parse("100:100:").unwrap());
    let source = Arc::new(Source::new("here", b"key", 1, Vec::new(), Vec::new()));
    let before = Mark::at(Arc::new(Snapshot::parse("1:1:").unwrap()));
    Arc::new(Read::new(source, before, snapshot, 1, 0))
}

fn change(operation: Operation, old: Option<&str>, new: Option<&str>) -> Arc<Change> {
    let record = |text: &str| Record::parse(text.into()).unwrap();
    Arc::new(Change {
        sequence: 1,
        xid: 1,
        table: MESSAGES,
        operation,
        committed_at: "2026-01-01T00:00:00.000Z".into(),
        age: 0.0,
        new: new.map(record),
        old: old.map(record),
    })
}

fn insert(room: &str) -> Arc<Change> {
    change(
        Operation::Insert,
        None,
        Some(&format!(r#"{{"id":1,"room":"{room}","body":"hi"}}"#)),
    )
}

/// The payloads that wait in an outbox.
fn received(outbox: &Outbox) -> Vec<serde_json::Value> {
    let payload = |item: &Item| match item {
        Item::Frame(frame) => {
            let text = frame.as_text().expect("a change in a text frame");
            serde_json::from_str::<Vec<serde_json::Value>>(text)
                .unwrap()
                .swap_remove(4)
        }
        Item::Signal(signal) => panic!("{signal:?}"),
    };
    outbox.take().iter().map(payload).collect()
}

#[test]
fn a_row_goes_to_those_whose_filter_it_matches() {
    let bench = Bench::new(OldRecord::Full);
    let (_, a) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(7, Some("a"), Scope::Decided)],
        "x",
    );
    let (_, b) = bench.subscribe(
        "realtime:b",
        vec![bench.binding(7, Some("b"), Scope::Decided)],
        "x",
    );
    let (_, all) = bench.subscribe(
        "realtime:all",
        vec![bench.binding(7, None, Scope::Decided)],
        "x",
    );
    bench.deliver(&insert("a"), &Verdicts::default());
    assert_eq!(received(&a)[0]["data"]["record"]["room"], "a");
    assert_eq!(received(&a).len(), 0);
    assert_eq!(received(&b).len(), 0);
    assert_eq!(received(&all).len(), 1);
}

#[test]
fn one_message_names_every_binding_that_matches() {
    let bench = Bench::new(OldRecord::Full);
    let bindings = vec![
        bench.binding(1, Some("a"), Scope::Decided),
        bench.binding(2, None, Scope::Decided),
        bench.binding(3, Some("b"), Scope::Decided),
    ];
    let (_, outbox) = bench.subscribe("realtime:a", bindings, "x");
    bench.deliver(&insert("a"), &Verdicts::default());
    let received = received(&outbox);
    assert_eq!(received.len(), 1);
    let mut ids: Vec<_> = received[0]["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn a_row_that_is_judged_goes_to_those_who_may_see_it() {
    let bench = Bench::new(OldRecord::Full);
    let (_, may) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::PerRow)],
        "may",
    );
    let (_, may_not) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::PerRow)],
        "may_not",
    );
    let batch = [insert("a")];
    let survey = bench.hub.survey(&batch, &Before::default());
    assert_eq!(survey.questions.len(), 2);
    let answers = Answers::from([((MESSAGES, Arc::new(Principal::of_role("may"))), vec![0])]);
    bench.deliver(&batch[0], &Verdicts::new(answers, HashMap::new()));
    assert_eq!(received(&may).len(), 1);
    assert_eq!(received(&may_not).len(), 0);
}

#[test]
fn nothing_is_asked_about_rows_that_nobody_waits_for() {
    let bench = Bench::new(OldRecord::Full);
    let (id, _) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::PerRow)],
        "may",
    );
    assert!(
        bench
            .hub
            .survey(&[insert("b")], &Before::default())
            .is_empty()
    );
    assert!(
        !bench
            .hub
            .survey(&[insert("a")], &Before::default())
            .is_empty()
    );
    bench.hub.unsubscribe(id);
    assert!(
        bench
            .hub
            .survey(&[insert("a")], &Before::default())
            .is_empty()
    );
}

#[test]
fn who_has_left_gets_nothing_and_nothing_is_left_behind() {
    let bench = Bench::new(OldRecord::Full);
    let (first, a) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    let (second, b) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    bench.hub.unsubscribe(first);
    bench.hub.unsubscribe(first);
    bench.deliver(&insert("a"), &Verdicts::default());
    assert_eq!((received(&a).len(), received(&b).len()), (0, 1));
    bench.hub.unsubscribe(second);
    let state = bench.hub.state();
    assert!(state.groups.is_empty() && state.by_key.is_empty() && state.subscriptions.is_empty());
}

#[test]
fn an_update_shows_no_more_of_the_old_row_than_was_judged() {
    let (here, there) = (
        r#"{"id":1,"room":"a","body":"old"}"#,
        r#"{"id":1,"room":"b","body":"old"}"#,
    );
    let new = r#"{"id":1,"room":"a","body":"new"}"#;
    for (old_record, old, expected) in [
        (
            OldRecord::Full,
            here,
            serde_json::json!({"id": 1, "room": "a", "body": "old"}),
        ),
        // It comes from a room that this subscriber may not see.
        (OldRecord::Full, there, serde_json::json!({"id": 1})),
        (
            OldRecord::Full,
            r#"{"id":2,"room":"b","body":"old"}"#,
            serde_json::json!({}),
        ),
        (OldRecord::Identity, here, serde_json::json!({"id": 1})),
    ] {
        let bench = Bench::new(old_record);
        let (_, outbox) = bench.subscribe(
            "realtime:a",
            vec![bench.binding(1, Some("a"), Scope::Decided)],
            "x",
        );
        bench.deliver(
            &change(Operation::Update, Some(old), Some(new)),
            &Verdicts::default(),
        );
        assert_eq!(
            received(&outbox)[0]["data"]["old_record"],
            expected,
            "{old}"
        );
    }
}

#[test]
fn a_delete_is_found_by_the_old_row() {
    let bench = Bench::new(OldRecord::Full);
    let (_, a) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    bench.deliver(
        &change(
            Operation::Delete,
            Some(r#"{"id":1,"room":"a","body":"x"}"#),
            None,
        ),
        &Verdicts::default(),
    );
    let received = received(&a);
    assert_eq!(received[0]["data"]["type"], "DELETE");
    assert_eq!(received[0]["data"]["old_record"]["room"], "a");
    assert!(received[0]["data"].get("record").is_none());
}

#[test]
fn values_without_json_of_their_own_are_written_as_the_protocol_says() {
    let table = table(&[
        ("id", "int8", true),
        ("room", "text", false),
        ("f", "float8", false),
        ("b", "bytea", false),
    ]);
    let bench = Bench::of(OldRecord::Full, table);
    let (_, outbox) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, None, Scope::Decided)],
        "x",
    );
    let row = r#"{"id":1,"room":"NaN","f":"NaN","b":"\\x00ff"}"#;
    bench.deliver(
        &change(Operation::Insert, None, Some(row)),
        &Verdicts::default(),
    );
    let expected = serde_json::json!({"id": 1, "room": "NaN", "f": null, "b": "00ff"});
    assert_eq!(received(&outbox)[0]["data"]["record"], expected);
}

#[test]
fn a_change_that_is_too_large_is_sent_without_its_long_values() {
    let mut bench = Bench::new(OldRecord::Full);
    bench.hub.encoder.max_change_bytes = 1000;
    let (_, outbox) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    let row = format!(r#"{{"id":1,"room":"a","body":"{}"}}"#, "x".repeat(1000));
    bench.deliver(
        &change(Operation::Insert, None, Some(&row)),
        &Verdicts::default(),
    );
    let received = received(&outbox);
    assert_eq!(
        received[0]["data"]["errors"],
        serde_json::json!(["Error 413: Payload Too Large"])
    );
    assert_eq!(
        received[0]["data"]["record"],
        serde_json::json!({"id": 1, "room": "a"})
    );
}

#[test]
fn a_subscription_that_is_made_anew_gets_each_change_once() {
    let bench = Bench::new(OldRecord::Full);
    let (old, outbox) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    bench.deliver(&insert("a"), &Verdicts::default());
    let renewed = Subscription {
        id: SubscriptionId::next(),
        topic: "realtime:a".into(),
        version: Version::V2,
        bindings: vec![bench.binding(1, Some("a"), Scope::Decided)],
        principal: Arc::new(Principal::of_role("x")),
        outbox: outbox.clone(),
        wanted: wanted(),
        verified: bench.hub.moment(),
    };
    assert!(
        bench
            .hub
            .subscribe(renewed, Some(old), &Greeting::default(), None)
            .is_ok()
    );
    bench.deliver(&insert("a"), &Verdicts::default());
    assert_eq!(received(&outbox).len(), 2);
}

mod rights;
