//! Turns what a channel asks for into bindings that the hub takes: checked against the catalog, and authorized.
//!
//! A join is admitted here, and so is every subscription again whose rights may have changed.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    BindingRefusal, Condition, EventKind, Operator, Target, describe_params, resume::ResumeError,
};
use sqlx::{PgPool, Row};
use tokio::sync::Semaphore;

use crate::{
    auth::Principal,
    authorizer::{Access, Authorizer, Denial, Error},
    catalog::{Catalog, Table},
    hub::{BoundBinding, Events, Moment, columns::ColumnSet, filter::Filter},
};

/// What a channel asks for: its bindings, each with the id by which the client knows it.
#[derive(Clone)]
pub struct Wanted {
    pub config: Arc<protocol::Config>,
    pub ids: Arc<[u64]>,
}

/// What became of the bindings of a join.
pub enum Outcome {
    Bound(Vec<BoundBinding>),
    /// A binding is wrong: the channel lives on without any, and is told this.
    Wrong(BindingRefusal),
    Denied,
    /// It cannot go on from where it wants to.
    Refused(ResumeError),
    Unavailable,
}

pub struct Admission {
    pub catalog: Arc<Catalog>,
    pub authorizer: Arc<Authorizer>,
    pub pool: PgPool,
    /// For filters that PostgreSQL has to check: they are clients' texts, and must leave connections of the pool to the catalog.
    pub checks: Semaphore,
}

/// How many filters are checked at once.
pub const CHECKS: usize = 2;

impl Admission {
    /// Checks and authorizes all bindings of one channel, at a moment that has been noted before. If one is wrong or denied, none is live.
    pub async fn admit(
        &self,
        principal: &Arc<Principal>,
        wanted: &Wanted,
        moment: Moment,
    ) -> Outcome {
        let bindings = &wanted.config.bindings;
        let mut bound = Vec::with_capacity(bindings.len());
        for (binding, id) in bindings.iter().zip(wanted.ids.iter()) {
            let target = match binding.target() {
                Ok(target) => target,
                Err(refusal) => return Outcome::Wrong(refusal),
            };
            match bind(self, principal, &target, *id, binding.cursor, moment).await {
                Ok(more) => bound.extend(more),
                Err(Stop::Wrong(refusal)) => return Outcome::Wrong(refusal),
                Err(Stop::Denied) => return Outcome::Denied,
                Err(Stop::Unavailable(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a subscription cannot be authorized now"
                    );
                    return Outcome::Unavailable;
                }
            }
        }
        Outcome::Bound(bound)
    }
}

enum Stop {
    Wrong(BindingRefusal),
    Denied,
    Unavailable(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Unavailable(error)
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Stop {
        Stop::Unavailable(Error::Unavailable(Some(error.into())))
    }
}

async fn bind(
    admission: &Admission,
    principal: &Arc<Principal>,
    target: &Target,
    id: u64,
    cursor: bool,
    moment: Moment,
) -> Result<Vec<BoundBinding>, Stop> {
    let mut tables = admission
        .catalog
        .tables()
        .covered(&target.schema, &target.table);
    if tables.is_empty() {
        // It may have been published a moment ago.
        admission
            .catalog
            .sync_soon()
            .await
            .map_err(|error| Stop::Unavailable(Error::Unavailable(Some(error.into()))))?;
        tables = admission
            .catalog
            .tables()
            .covered(&target.schema, &target.table);
    }
    let wants = |table: &Table| Events {
        insert: table.inserts && matches!(target.event, EventKind::Insert | EventKind::All),
        update: table.updates && matches!(target.event, EventKind::Update | EventKind::All),
        delete: table.deletes && matches!(target.event, EventKind::Delete | EventKind::All),
    };
    tables.retain(|table| {
        let events = wants(table);
        events.insert || events.update || events.delete
    });
    if tables.is_empty() {
        return Err(Stop::Wrong(BindingRefusal::NoTable {
            params: params(target),
        }));
    }

    let named = target.schema != "*" && target.table != "*";
    let mut bound = Vec::with_capacity(tables.len());
    let mut denied = false;
    for table in tables {
        let access = admission.authorizer.access(&table, &principal.role).await?;
        if !access.role_exists {
            let error = format!(
                "ERROR 42704 (undefined_object) role \"{}\" does not exist",
                principal.role
            );
            return Err(Stop::Wrong(BindingRefusal::Exception {
                params: params(target),
                error,
            }));
        }
        if access.columns.is_empty() {
            denied = true;
            if named { break } else { continue }
        }
        let columns = select(&access, target)?;
        let (filter, fixed) = filter(admission, &access, target).await?;
        match admission
            .authorizer
            .admit(&access, principal, &fixed, moment.tick())
            .await?
        {
            Ok(scope) => bound.push(BoundBinding {
                id,
                table: table.id,
                events: wants(&table),
                filter,
                columns: Arc::new(ColumnSet::new(&table, &columns, cursor)),
                scope,
                reads: access.reads.clone(),
            }),
            Err(Denial::NoSelectPrivilege | Denial::Policy | Denial::UnseenParent) => denied = true,
        }
    }
    // A wildcard covers what the principal may read of it.
    if bound.is_empty() && denied {
        Err(Stop::Denied)
    } else {
        Ok(bound)
    }
}

/// The columns that the subscriber gets: those that its role may SELECT, and of these what it asked for and the primary key.
fn select(access: &Access, target: &Target) -> Result<Vec<usize>, Stop> {
    let Some(wanted) = &target.select else {
        return Ok(access.columns.clone());
    };
    for name in wanted {
        let known = access
            .table
            .column(name)
            .is_some_and(|place| access.columns.contains(&place));
        if !known {
            let error = format!("ERROR P0001 (raise_exception) invalid column for select {name}");
            return Err(Stop::Wrong(BindingRefusal::Exception {
                params: params(target),
                error,
            }));
        }
    }
    Ok(access
        .columns
        .iter()
        .copied()
        .filter(|place| {
            let column = &access.table.columns[*place];
            column.key || wanted.iter().any(|name| *name == *column.name)
        })
        .collect())
}

type Fixed = BTreeMap<Box<str>, Box<str>>;

/// The filter as the hub evaluates it, and the values that it fixes.
async fn filter(
    admission: &Admission,
    access: &Access,
    target: &Target,
) -> Result<(Arc<Filter>, Fixed), Stop> {
    if target.filters.is_empty() {
        return Ok((Arc::default(), Fixed::new()));
    }
    let table = &access.table;
    let looked_up = |column: &str| {
        table
            .column(column)
            .is_some_and(|place| table.columns[place].equal_as_text())
    };
    let plain = target.filters.iter().all(|condition| {
        condition.operator == Operator::Eq && !condition.negate && looked_up(&condition.column)
    });

    // Most filters are `session_id=eq.<uuid>`: a value that is written as PostgreSQL writes it needs no question.
    let known: Option<Vec<(Box<str>, Box<str>)>> = plain
        .then(|| {
            target
                .filters
                .iter()
                .map(|condition| {
                    let place = table.column(&condition.column)?;
                    let value = canonical(&table.columns[place].base, &condition.value)?;
                    access
                        .columns
                        .contains(&place)
                        .then(|| (condition.column.as_str().into(), value))
                })
                .collect()
        })
        .flatten();
    if let Some(equals) = known {
        return Ok(keyed(equals, None));
    }

    let conditions: Vec<_> = target.filters.iter().map(as_json).collect();
    // The semaphore is never closed.
    let _turn = admission.checks.acquire().await;
    let checked = sqlx::query("select statement, equals from tidings.check_filter($1::oid::regclass, $2, $3::jsonb::json)")
        .bind(sqlx::postgres::types::Oid(table.oid))
        .bind(&*access.role)
        .bind(sqlx::types::Json(conditions))
        .fetch_one(&admission.pool)
        .await;
    let row = match checked {
        Ok(row) => row,
        Err(error) => {
            return Err(match describe(&error) {
                Some(error) => Stop::Wrong(BindingRefusal::Exception {
                    params: params(target),
                    error,
                }),
                None => error.into(),
            });
        }
    };
    #[derive(serde::Deserialize)]
    struct Equal {
        column: Box<str>,
        value: Box<serde_json::value::RawValue>,
    }
    let equals: Option<sqlx::types::Json<Vec<Equal>>> = row.try_get("equals")?;
    let equals: Vec<(Box<str>, Box<str>)> = equals
        .map(|equals| equals.0)
        .unwrap_or_default()
        .into_iter()
        .filter(|equal| looked_up(&equal.column))
        .map(|equal| (equal.column, equal.value.get().into()))
        .collect();
    let statement: String = row.try_get("statement")?;
    Ok(keyed(equals, (!plain).then(|| statement.into())))
}

/// As the functions of the database take a condition.
pub(crate) fn as_json(condition: &Condition) -> serde_json::Value {
    serde_json::json!({
        "column": condition.column,
        "operator": condition.operator.name(),
        "value": condition.value,
        "negate": condition.negate,
    })
}

fn keyed(equals: Vec<(Box<str>, Box<str>)>, rest: Option<Arc<str>>) -> (Arc<Filter>, Fixed) {
    let fixed = equals.iter().cloned().collect();
    (Arc::new(Filter { equals, rest }), fixed)
}

/// The JSON that the log holds for a value, where that can be told without asking PostgreSQL.
fn canonical(base: &str, value: &str) -> Option<Box<str>> {
    match base {
        "uuid" => {
            let uuid = uuid::Uuid::try_parse(value).ok()?;
            let text = uuid.as_hyphenated().to_string();
            (value.eq_ignore_ascii_case(&text)).then(|| format!("\"{text}\"").into())
        }
        "int2" | "int4" | "int8" => {
            let number: i64 = value.parse().ok()?;
            let fits = match base {
                "int2" => i16::try_from(number).is_ok(),
                "int4" => i32::try_from(number).is_ok(),
                _ => true,
            };
            (fits && number.to_string() == value).then(|| value.into())
        }
        "text"
            if value.is_ascii()
                && !value
                    .bytes()
                    .any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f)) =>
        {
            Some(format!("\"{value}\"").into())
        }
        _ => None,
    }
}

fn params(target: &Target) -> String {
    describe_params(
        target.event,
        Some(&target.schema),
        Some(&target.table),
        &target.filters,
        target.select.as_deref(),
    )
}

/// PostgreSQL's complaint about a binding, as the protocol writes it; None if it is not about the binding.
fn describe(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let code = error.code()?;
    let name = match &*code {
        "P0001" => "raise_exception",
        "22P02" => "invalid_text_representation",
        "22003" => "numeric_value_out_of_range",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "22021" => "character_not_in_repertoire",
        "2201B" => "invalid_regular_expression",
        "22P03" => "invalid_binary_representation",
        "42704" => "undefined_object",
        "42883" => "undefined_function",
        "42804" => "datatype_mismatch",
        "42809" => "wrong_object_type",
        other if other.starts_with("22") => "data_exception",
        other if other.starts_with("23") => "integrity_constraint_violation",
        // These say more of the server's state than of the binding.
        other if ["08", "40", "53", "55", "57"].contains(&&other[..2]) => return None,
        _ => "error",
    };
    Some(format!("ERROR {code} ({name}) {}", error.message()))
}
