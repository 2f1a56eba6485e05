//! One binding of `config.postgres_changes`: what a client wants to hear of, its id, and its echo in the join reply.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::filter::{Condition, FilterError, parse_filter};
use crate::json;

/// The most bindings that one join may carry. A list with more is treated as wrong, as if it were no list.
pub const MAX_BINDINGS: usize = 1000;

/// PostgreSQL allows no table more columns.
const MAX_SELECT: usize = 1600;

/// Ids have 31 bits: integers for every client, and rarely equal by chance.
const MAX_ID: u64 = (1 << 31) - 1;

/// One binding, as sent.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The object exactly as sent, for the echo.
    pub raw: Box<RawValue>,
    pub event: EventKind,
    pub schema: Field,
    pub table: Field,
    pub filter: Field,
    pub select: Select,
    /// A key of our own: deliver first what was missed since this cursor.
    pub since: Field,
    /// A key of our own: deliver first the last so many rows.
    pub history: Option<u64>,
    /// A key of our own: the column by which `history` finds the last rows.
    pub order: Field,
    /// A key of our own: put the cursor into each record. True with `since` and `history`, which are of no use without,
    /// unless the client says no.
    pub cursor: bool,
}

/// A member that should be text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Field {
    /// Not there, or null.
    Absent,
    Text(String),
    /// Of another type.
    Invalid,
}

impl Field {
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Field::Text(text) => Some(text),
            Field::Absent | Field::Invalid => None,
        }
    }
}

/// The columns that a binding wants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Select {
    All,
    /// Never empty.
    Columns(Vec<String>),
    /// Not a list.
    Invalid,
}

/// The changes that a binding wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventKind {
    Insert,
    Update,
    Delete,
    All,
}

impl EventKind {
    /// As it is written in a binding.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Insert => "INSERT",
            EventKind::Update => "UPDATE",
            EventKind::Delete => "DELETE",
            EventKind::All => "*",
        }
    }

    fn parse(text: &str) -> Option<EventKind> {
        [
            EventKind::Insert,
            EventKind::Update,
            EventKind::Delete,
            EventKind::All,
        ]
        .into_iter()
        .find(|kind| kind.name().eq_ignore_ascii_case(text))
    }
}

/// What a well-formed binding asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    pub event: EventKind,
    /// `*` for any.
    pub schema: String,
    /// `*` for any.
    pub table: String,
    pub filters: Vec<Condition>,
    pub select: Option<Vec<String>>,
}

/// Why a binding is refused. `Display` is the message of the `system` error; the channel stays joined.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BindingRefusal {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(
        "Error parsing `select` params: expected a list of column name strings, e.g. select: [\"col1\", \"col2\"]"
    )]
    Select,
    #[error(
        "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name."
    )]
    SelectOnWildcard,
    /// `binding` is the client's own object.
    #[error(
        "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {binding}"
    )]
    NoParams { binding: String },
    /// No watched table matches. `params` is written by [`crate::describe_params`].
    #[error(
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [{params}]"
    )]
    NoTable { params: String },
    /// `error` has the form `ERROR <sqlstate> (<name>) <text>`.
    #[error(
        "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: [{params}]. Exception: {error}"
    )]
    Exception { params: String, error: String },
    /// Database trouble; tried again later.
    #[error("{{:error, \"Too many database timeouts\"}}")]
    DatabaseTimeouts,
}

impl Binding {
    /// Reads one item of the list; `wrong` is told the names of members of a wrong type. None if it is no object.
    pub(crate) fn parse(item: &RawValue, mut wrong: impl FnMut(&'static str)) -> Option<Binding> {
        let [
            event,
            events,
            schema,
            table,
            filter,
            select,
            since,
            history,
            order,
            cursor,
        ] = json::pick(
            item.get(),
            [
                "event", "events", "schema", "table", "filter", "select", "since", "history",
                "order", "cursor",
            ],
        )
        .ok()?;
        let event = match event
            .or(events)
            .map(|event| (json::is_null(event), json::text(event)))
        {
            None | Some((true, _)) => EventKind::All,
            Some((_, text)) => text
                .and_then(|text| EventKind::parse(&text))
                .unwrap_or_else(|| {
                    wrong("config.postgres_changes[].event");
                    EventKind::All
                }),
        };
        let mut field = |value: Option<&RawValue>, name| match value {
            None => Field::Absent,
            Some(value) if json::is_null(value) => Field::Absent,
            Some(value) => json::text(value).map_or_else(
                || {
                    wrong(name);
                    Field::Invalid
                },
                Field::Text,
            ),
        };
        let schema = field(schema, "config.postgres_changes[].schema");
        let table = field(table, "config.postgres_changes[].table");
        let filter = field(filter, "config.postgres_changes[].filter");
        let since = field(since, "config.postgres_changes[].since");
        let order = field(order, "config.postgres_changes[].order");
        let select = parse_select(select);
        if select == Select::Invalid {
            wrong("config.postgres_changes[].select");
        }
        let history = history
            .filter(|value| !json::is_null(value))
            .and_then(|value| {
                let rows = value.get().parse().ok();
                if rows.is_none() {
                    wrong("config.postgres_changes[].history");
                }
                rows
            });
        let cursor = match cursor.map(RawValue::get) {
            Some("true") => true,
            Some("false") => false,
            other => {
                if !matches!(other, None | Some("null")) {
                    wrong("config.postgres_changes[].cursor");
                }
                since != Field::Absent || history.is_some()
            }
        };
        Some(Binding {
            raw: item.to_owned(),
            event,
            schema,
            table,
            filter,
            select,
            since,
            history,
            order,
            cursor,
        })
    }

    /// A number that stands for what this binding asks for: the same at every reconnect and for every client that asks for
    /// the same, never 0. The order of keys does not matter, nor from where the client resumes.
    pub fn id(&self) -> u64 {
        let mut entries = json::entries(self.raw.get()).unwrap_or_default();
        entries.retain(|(key, _)| !matches!(key.as_ref(), "id" | "since" | "history" | "order"));
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        // FNV-1a, folded. It need not resist attacks: ids only have to differ within one channel, which
        // [`assign_ids`] sees to.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut feed = |bytes: &[u8]| {
            // The separator occurs in no JSON text.
            for byte in bytes.iter().chain(&[0xff]) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (key, value) in entries {
            feed(key.as_bytes());
            feed(value.get().as_bytes());
        }
        ((hash >> 33) ^ (hash & MAX_ID)).max(1)
    }

    /// The item of the join reply: the object as sent, its values and order unchanged, with `id` added. An `id` that the
    /// client had sent is replaced.
    pub fn echo(&self, id: u64) -> String {
        let raw = self.raw.get();
        match json::pick(raw, ["id"]) {
            Ok([None]) => {
                let body = raw.strip_suffix('}').unwrap_or(raw).trim_ascii_end();
                let comma = if body == "{" { "" } else { "," };
                format!("{body}{comma}\"id\":{id}}}")
            }
            _ => {
                let mut out = String::with_capacity(raw.len() + 20);
                out.push('{');
                for (key, value) in json::entries(raw).unwrap_or_default() {
                    if key != "id" {
                        json::push_string(&mut out, &key);
                        out.push(':');
                        out.push_str(value.get());
                        out.push(',');
                    }
                }
                out.push_str(&format!("\"id\":{id}}}"));
                out
            }
        }
    }

    /// What the binding asks for, or what is wrong with it.
    pub fn target(&self) -> Result<Target, BindingRefusal> {
        let select = match &self.select {
            Select::All => None,
            Select::Columns(columns) => Some(columns.clone()),
            Select::Invalid => return Err(BindingRefusal::Select),
        };
        // An empty filter filters nothing, so it needs no table.
        let unfiltered = match &self.filter {
            Field::Absent => true,
            Field::Text(text) => text.trim().is_empty(),
            Field::Invalid => false,
        };
        let (schema, table) = match (&self.schema, &self.table, &self.filter) {
            (Field::Text(schema), Field::Text(table), Field::Absent | Field::Text(_)) => {
                (schema.as_str(), table.as_str())
            }
            (Field::Text(schema), Field::Absent, _) if unfiltered => (schema.as_str(), "*"),
            (Field::Absent, Field::Text(table), _) if unfiltered => ("public", table.as_str()),
            _ => {
                let binding = self.raw.get().to_owned();
                return Err(BindingRefusal::NoParams { binding });
            }
        };
        let explicit = self.schema.as_text().is_some() && schema != "*" && table != "*";
        if select.is_some() && !explicit {
            return Err(BindingRefusal::SelectOnWildcard);
        }
        Ok(Target {
            event: self.event,
            schema: schema.to_owned(),
            table: table.to_owned(),
            filters: parse_filter(self.filter.as_text().unwrap_or_default())?,
            select,
        })
    }
}

/// The id of each binding of one channel: [`Binding::id`], moved on where two would be equal.
pub fn assign_ids(bindings: &[Binding]) -> Vec<u64> {
    let mut taken = HashSet::with_capacity(bindings.len());
    bindings
        .iter()
        .map(|binding| {
            let mut id = binding.id();
            while !taken.insert(id) {
                id = id % MAX_ID + 1;
            }
            id
        })
        .collect()
}

fn parse_select(value: Option<&RawValue>) -> Select {
    match value {
        None => Select::All,
        Some(value) if json::is_null(value) => Select::All,
        Some(value) => match json::items(value.get(), MAX_SELECT) {
            None => Select::Invalid,
            Some(items) => {
                let columns: Vec<String> = items.into_iter().filter_map(json::text).collect();
                if columns.is_empty() {
                    Select::All
                } else {
                    Select::Columns(columns)
                }
            }
        },
    }
}
