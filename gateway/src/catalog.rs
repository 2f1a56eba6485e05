//! The watched tables, as PostgreSQL's catalog describes them. Kept in memory, and refreshed by one task.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use serde::Deserialize;
use sqlx::{PgPool, Row, types::Json};
use tokio::sync::watch;

use crate::database::{CATALOG_PATIENCE, in_time};

/// Identifies a watched table in the change log: `tidings.watched.id`.
pub type TableId = i32;

#[derive(Debug, thiserror::Error)]
#[error("cannot read the catalog of watched tables")]
pub struct Error(#[from] sqlx::Error);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub id: TableId,
    pub oid: u32,
    pub schema: Box<str>,
    pub name: Box<str>,
    pub inserts: bool,
    pub updates: bool,
    pub deletes: bool,
    /// `REPLICA IDENTITY FULL`.
    pub full_identity: bool,
    /// The transaction since which it is watched.
    pub attached: u64,
    /// The publication sends only some of its rows.
    pub filtered: Option<Box<str>>,
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Column {
    pub name: Box<str>,
    /// `pg_type.typname`, as clients get it.
    #[serde(rename = "type")]
    pub type_name: Box<str>,
    /// The type's base, for a domain; otherwise the same. With its schema if it is not one of PostgreSQL's own.
    pub base: Box<str>,
    /// Of the base.
    kind: String,
    category: String,
    domain: bool,
    /// Part of the primary key.
    pub key: bool,
    /// The publication sends it.
    pub sent: bool,
    deterministic: bool,
}

/// What becomes of a value on its way from the log to the wire (protocol §5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rendering {
    AsIs,
    /// NaN and the infinities have no JSON number: they become null.
    Float,
    /// The same in a list.
    Floats,
    /// Hex without the leading `\x`.
    Bytea,
}

/// How many values a column may have, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spread {
    Wide,
    Usual,
    Small,
}

impl Column {
    pub fn rendering(&self) -> Rendering {
        match &*self.base {
            "float4" | "float8" | "numeric" => Rendering::Float,
            "_float4" | "_float8" | "_numeric" => Rendering::Floats,
            "bytea" => Rendering::Bytea,
            _ => Rendering::AsIs,
        }
    }

    /// Whether two values of this column are equal exactly when the log writes them with the same bytes. Only then can
    /// an `eq` filter be looked up; `1.0 = 1.00`, but the texts differ.
    pub fn equal_as_text(&self) -> bool {
        let exact = matches!(
            &*self.base,
            "bool"
                | "int2"
                | "int4"
                | "int8"
                | "oid"
                | "uuid"
                | "text"
                | "varchar"
                | "name"
                | "date"
                | "timestamp"
                | "timestamptz"
                | "time"
                | "bytea"
                | "bit"
                | "varbit"
                | "inet"
                | "cidr"
                | "macaddr"
                | "macaddr8"
                | "pg_lsn"
        );
        self.kind == "e" || (exact && (self.category != "S" || self.deterministic))
    }

    pub fn is_integer(&self) -> bool {
        matches!(&*self.base, "int2" | "int4" | "int8")
    }

    pub fn is_boolean(&self) -> bool {
        &*self.base == "bool"
    }

    pub fn is_domain(&self) -> bool {
        self.domain
    }

    /// Whose NULL is told from nulls within it.
    pub fn is_composite(&self) -> bool {
        self.kind == "c"
    }

    /// What the type says of how many rows have the same value.
    pub fn spread(&self) -> Spread {
        match &*self.base {
            "uuid" => Spread::Wide,
            "bool" => Spread::Small,
            _ if self.kind == "e" => Spread::Small,
            _ => Spread::Usual,
        }
    }
}

impl Table {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }

    pub fn key_columns(&self) -> impl Iterator<Item = usize> {
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.key)
            .map(|(index, _)| index)
    }
}

/// One consistent view of all watched tables.
#[derive(Debug, Default)]
pub struct Tables {
    by_id: HashMap<TableId, Arc<Table>>,
    /// For each table with a dependency trigger (`tidings.depended`) the watched tables whose verdicts rest on it.
    depending: HashMap<TableId, Vec<TableId>>,
    /// `realtime.messages`: its rows are broadcasts, and not changes that can be subscribed to.
    messages: Option<TableId>,
}

impl Tables {
    /// Tables that no catalog has described: for tests and benches.
    pub fn of(tables: impl IntoIterator<Item = Arc<Table>>) -> Tables {
        Tables {
            by_id: tables.into_iter().map(|table| (table.id, table)).collect(),
            ..Tables::default()
        }
    }

    pub fn get(&self, id: TableId) -> Option<&Arc<Table>> {
        self.by_id.get(&id)
    }

    pub fn named(&self, schema: &str, name: &str) -> Option<&Arc<Table>> {
        // A few tables: a scan is cheaper than two allocations for the key.
        self.by_id.values().find(|table| {
            &*table.schema == schema && &*table.name == name && Some(table.id) != self.messages
        })
    }

    pub fn messages(&self) -> Option<TableId> {
        self.messages
    }

    /// The watched tables whose verdicts rest on a table that has a dependency trigger. None if it is not known.
    pub fn depending_on(&self, depended: TableId) -> Option<&[TableId]> {
        self.depending.get(&depended).map(Vec::as_slice)
    }

    pub fn ids(&self) -> impl Iterator<Item = TableId> + '_ {
        self.by_id.keys().copied()
    }

    /// The tables that a binding covers: `*` stands for any schema or any name. In a fixed order.
    pub fn covered(&self, schema: &str, name: &str) -> Vec<Arc<Table>> {
        let mut covered: Vec<_> = self
            .by_id
            .values()
            .filter(|table| {
                (schema == "*" || &*table.schema == schema)
                    && (name == "*" || &*table.name == name)
                    && Some(table.id) != self.messages
            })
            .cloned()
            .collect();
        covered.sort_by_key(|table| table.id);
        covered
    }
}

pub struct Catalog {
    pool: PgPool,
    watch: Vec<String>,
    tables: RwLock<Arc<Tables>>,
    changes: watch::Sender<()>,
    /// When it was last synchronized because a client named an unknown table.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// Clients that name tables which do not exist must not turn into queries.
const SYNC_PAUSE: Duration = Duration::from_millis(200);

impl Catalog {
    /// `watch`: tables to watch wherever they exist, besides those in the publication.
    pub fn new(pool: PgPool, watch: Vec<String>) -> Catalog {
        Catalog {
            pool,
            watch,
            tables: RwLock::default(),
            changes: watch::Sender::default(),
            asked: tokio::sync::Mutex::default(),
        }
    }

    pub fn tables(&self) -> Arc<Tables> {
        self.tables
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Changes whenever the tables do.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub fn table(&self, schema: &str, name: &str) -> Option<Arc<Table>> {
        self.tables().named(schema, name).cloned()
    }

    /// Watches what the publication and the settings name, and reads the catalog anew. Returns whether anything has changed.
    pub async fn sync(&self) -> Result<bool, Error> {
        let watch =
            sqlx::query("select relation, action, problem, mend from tidings.sync_watched($1)")
                .bind(&self.watch);
        let actions = in_time(CATALOG_PATIENCE, watch.fetch_all(&self.pool)).await?;
        // At once, so that nobody binds to a table that is watched no more.
        let before = self.tables();
        if !actions.is_empty() {
            self.reload().await?;
        }
        report(actions);
        // The triggers that tell of lost rights follow the policies.
        let follow =
            sqlx::query("select relation, action, problem, mend from tidings.sync_depended()");
        report(in_time(CATALOG_PATIENCE, follow.fetch_all(&self.pool)).await?);
        self.reload().await?;
        Ok(!Arc::ptr_eq(&before, &self.tables()))
    }

    /// [`Self::sync`] because a client named an unknown table. Those who come while it runs share the next one.
    pub async fn sync_soon(&self) -> Result<(), Error> {
        let came = Instant::now();
        let mut last = self.asked.lock().await;
        if let Some(last) = *last {
            if last > came {
                return Ok(());
            }
            tokio::time::sleep_until((last + SYNC_PAUSE).into()).await;
        }
        *last = Some(Instant::now());
        self.sync().await?;
        Ok(())
    }

    /// Reads the catalog anew. Returns whether anything has changed.
    pub async fn reload(&self) -> Result<bool, Error> {
        let catalog = sqlx::query("select * from tidings.catalog()");
        let rows = in_time(CATALOG_PATIENCE, catalog.fetch_all(&self.pool)).await?;
        let mut tables = Tables::default();
        let depending = sqlx::query("select depended_id, watch_id from tidings.depending()");
        let depending = in_time(CATALOG_PATIENCE, depending.fetch_all(&self.pool)).await?;
        for row in depending {
            tables
                .depending
                .entry(row.get("depended_id"))
                .or_default()
                .push(row.get("watch_id"));
        }
        for row in rows {
            let table = Table {
                id: row.get("watch_id"),
                oid: row.get::<sqlx::postgres::types::Oid, _>("relation").0,
                schema: row.get::<String, _>("schema_name").into(),
                name: row.get::<String, _>("table_name").into(),
                inserts: row.get("inserts"),
                updates: row.get("updates"),
                deletes: row.get("deletes"),
                full_identity: row.get("full_identity"),
                // Written by the database itself.
                attached: row.get::<String, _>("attached").parse().unwrap_or(u64::MAX),
                filtered: row.get::<Option<String>, _>("row_filter").map(Into::into),
                columns: row.get::<Json<Vec<Column>>, _>("columns").0,
            };
            if (&*table.schema, &*table.name) == ("realtime", "messages") {
                tables.messages = Some(table.id);
            }
            tables.by_id.insert(table.id, Arc::new(table));
        }

        let mut current = self
            .tables
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Unchanged tables keep their identity.
        for (id, table) in &mut tables.by_id {
            if let Some(known) = current.by_id.get(id)
                && **known == **table
            {
                *table = known.clone();
            }
        }
        let same = current.by_id.len() == tables.by_id.len()
            && current.by_id.iter().all(|(id, table)| {
                tables
                    .by_id
                    .get(id)
                    .is_some_and(|other| Arc::ptr_eq(table, other))
            });
        let same = same && current.depending == tables.depending;
        if !same {
            *current = Arc::new(tables);
            self.changes.send_replace(());
        }
        Ok(!same)
    }
}

fn report(actions: Vec<sqlx::postgres::PgRow>) {
    for row in actions {
        let (table, action): (String, String) = (row.get("relation"), row.get("action"));
        match (
            row.get::<Option<String>, _>("problem"),
            row.get::<Option<String>, _>("mend"),
        ) {
            (None, _) => tracing::info!(table, action, "watched tables changed"),
            (Some(problem), mend) => {
                tracing::warn!(
                    table,
                    action,
                    problem,
                    mend,
                    "cannot change the triggers of a table; will try again"
                );
            }
        }
    }
}
