//! A hub with people in it, and what they are told: the table, the rows and the claims that all cases share.

use std::sync::Arc;

use gateway::{
    admission::Wanted,
    auth::Principal,
    authorizer::{Reads, Scope},
    catalog::{Spread, Table, TableId, Tables},
    config::OldRecord,
    feed::{
        Read,
        change::{Change, Operation, Record},
        mark::Mark,
        snapshot::Snapshot,
        source::Source,
    },
    hub::{
        Before, BoundBinding, Events, Greeting, Hub, Subscription, SubscriptionId, Verdicts,
        columns::ColumnSet,
        filter::{Check, Filter, Test},
    },
};
use protocol::Version;

use super::network::Network;

pub(super) const MESSAGES: TableId = 1;
pub(super) const COMMITTED_AT: &str = "2026-11-20T19:59:24.682Z";
pub(super) const CREATED_AT: &str = "2026-11-20T19:59:24.680312+00:00";
/// Nobody connects to it.
pub(super) const DATABASE: (&str, &str) = ("database_url", "postgres://nobody@127.0.0.1:1/none");
pub(super) const COLUMNS: [(&str, &str); 8] = [
    ("id", "uuid"),
    ("session_id", "uuid"),
    ("role", "text"),
    ("content", "text"),
    ("model", "text"),
    ("position", "int4"),
    ("metadata", "jsonb"),
    ("created_at", "timestamptz"),
];
/// About as long as people's messages, and as a sentence of an answer.
pub(super) const CONTENT: &str = "Enough to sail, not enough to worry: four Beaufort from the west, easing off towards the evening. Take the \\\"small\\\" jib, and be back before the tide turns at half past six.";

pub(super) fn table() -> Arc<Table> {
    let columns = COLUMNS
        .iter()
        .map(|(name, kind)| {
            serde_json::from_value(serde_json::json!({
                "name": name, "type": kind, "base": kind, "kind": "b", "category": "X", "domain": false,
                "key": *name == "id", "sent": true, "deterministic": true,
            }))
            .expect("a column")
        })
        .collect();
    Arc::new(Table {
        id: MESSAGES,
        oid: 1,
        schema: "public".into(),
        name: "chat_messages".into(),
        inserts: true,
        updates: true,
        deletes: true,
        full_identity: false,
        attached: 1,
        filtered: None,
        columns,
    })
}

/// The value of a session's column, as the log has it.
pub(super) fn quoted(session: usize) -> String {
    format!("\"00000000-0000-4000-8000-{session:012x}\"")
}

/// A row as the log has it.
pub(super) fn row(session: usize, content: &str) -> String {
    let session_id = quoted(session);
    format!(
        r#"{{"id":"82773061-fa8e-4bdb-a238-8e62956a6d61","session_id":{session_id},"role":"assistant","content":"{content}","model":"a-model","position":42,"metadata":{{"tokens":57,"finish":"stop"}},"created_at":"{CREATED_AT}"}}"#
    )
}

pub(super) fn insert(session: usize) -> Arc<Change> {
    change(Operation::Insert, session, None)
}

pub(super) fn update(session: usize) -> Arc<Change> {
    change(Operation::Update, session, Some("An answer beg"))
}

fn change(operation: Operation, session: usize, old: Option<&str>) -> Arc<Change> {
    let record = |content: &str| Record::parse(row(session, content).into()).expect("a record");
    Arc::new(Change {
        sequence: 1000,
        xid: 1_000_050,
        table: MESSAGES,
        operation,
        committed_at: COMMITTED_AT.into(),
        age: 0.001,
        new: Some(record(CONTENT)),
        old: old.map(record),
    })
}

/// A snapshot while a few transactions run.
pub(super) fn snapshot_text(from: u64) -> String {
    let running: Vec<_> = (0..8).map(|n| (from + n * 3).to_string()).collect();
    format!("{from}:{}:{}", from + 30, running.join(","))
}

pub(super) fn source() -> Arc<Source> {
    Arc::new(Source::new("here", b"key", 1, Vec::new(), Vec::new()))
}

pub(super) fn read() -> Arc<Read> {
    let snapshot = |from| Arc::new(Snapshot::parse(&snapshot_text(from)).expect("a snapshot"));
    let before = Mark::at(snapshot(1_000_000));
    Arc::new(Read::new(source(), before, snapshot(1_000_100), 1 << 30, 0))
}

/// Claims as large as those of the tokens that Supabase issues.
pub(super) fn claims(who: &str) -> String {
    format!(
        r#"{{"aal":"aal1","amr":[{{"method":"password","timestamp":1795000000}}],"app_metadata":{{"provider":"email","providers":["email"]}},"aud":"authenticated","email":"{who}@example.org","exp":4102444800,"iat":1795000000,"is_anonymous":false,"iss":"https://example.org/auth/v1","phone":"","role":"authenticated","session_id":"5f6dd6a6-19d9-4d1e-bf1d-9b7a4f0f9d7e","sub":"{who}","user_metadata":{{"email_verified":true}}}}"#
    )
}

pub(super) fn principal(who: &str) -> Arc<Principal> {
    Arc::new(Principal {
        role: "authenticated".into(),
        claims: claims(who).into(),
        subject: who.into(),
    })
}

pub(super) fn session_is(session: usize) -> Test {
    Test {
        column: "session_id".into(),
        spread: Spread::Wide,
        check: Check::OneOf {
            values: vec![quoted(session).into()],
            or_null: false,
        },
        negate: false,
    }
}

/// Whoever listens.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) topic: String,
    pub(super) version: Version,
    pub(super) tests: Vec<Test>,
    pub(super) cursor: bool,
    /// Only some columns.
    pub(super) columns: Option<Vec<usize>>,
    pub(super) scope: Scope,
    pub(super) principal: Arc<Principal>,
}

impl Listener {
    /// To a session, on its topic, as most do.
    pub(super) fn to(session: usize) -> Listener {
        Listener {
            topic: format!("realtime:messages:{session}"),
            version: Version::V2,
            tests: vec![session_is(session)],
            cursor: false,
            columns: None,
            scope: Scope::Decided,
            principal: principal("somebody"),
        }
    }
}

pub(super) struct World {
    pub(super) hub: Hub,
    pub(super) network: Network,
    pub(super) table: Arc<Table>,
    tables: Tables,
    read: Arc<Read>,
    before: Before,
}

impl World {
    pub(super) fn new() -> World {
        let table = table();
        let world = World {
            // So little is kept of the latest changes that each new one makes an old one go, as in a gateway that has run for a while.
            hub: Hub::new(OldRecord::Full, 1 << 20, 64 << 10),
            network: Network::new(),
            tables: Tables::of([table.clone()]),
            table,
            read: read(),
            before: Before::default(),
        };
        let change = insert(0);
        for _ in 0..200 {
            world.deliver(&change, &Verdicts::default());
        }
        world
    }

    /// What a join asks of the hub, all of it made for this one, as admission makes it.
    pub(super) fn subscription(&self, listener: &Listener) -> Subscription {
        let all: Vec<usize> = (0..self.table.columns.len()).collect();
        let columns = listener.columns.as_deref().unwrap_or(&all);
        let binding = BoundBinding {
            id: 1_260_347_661,
            table: MESSAGES,
            events: Events {
                insert: true,
                update: true,
                delete: true,
            },
            filter: Arc::new(Filter {
                tests: listener.tests.clone(),
                rest: None,
            }),
            columns: Arc::new(ColumnSet::new(&self.table, columns, listener.cursor)),
            scope: listener.scope,
            reads: Arc::new(Reads::Columns(vec!["session_id".into()])),
        };
        Subscription {
            id: SubscriptionId::next(),
            topic: listener.topic.as_str().into(),
            version: listener.version,
            bindings: vec![binding],
            principal: listener.principal.clone(),
            outbox: self.network.outbox(),
            wanted: Wanted {
                config: Arc::default(),
                ids: [].into(),
            },
            verified: self.hub.moment(),
        }
    }

    pub(super) fn subscribe(&self, subscription: Subscription) {
        let greeting = Greeting::default();
        let subscribed = self.hub.subscribe(subscription, None, &greeting, None);
        assert!(subscribed.is_ok());
    }

    pub(super) fn join(&self, listener: &Listener) {
        self.subscribe(self.subscription(listener));
    }

    pub(super) fn deliver(&self, change: &Arc<Change>, verdicts: &Verdicts) {
        let before = &self.before;
        let pushed = self
            .hub
            .deliver(&self.tables, &self.read, change, 0, verdicts, before);
        assert!(pushed.crowded.is_empty());
    }

    pub(super) fn survey(&self, batch: &[Arc<Change>]) -> gateway::hub::Survey {
        self.hub.survey(batch, &self.before)
    }
}
