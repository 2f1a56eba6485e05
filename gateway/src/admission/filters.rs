//! Makes of a binding's filter what the hub evaluates: tests on the texts of the log where that is exactly what PostgreSQL would
//! say, and a statement for the rest.

use std::sync::Arc;

use protocol::{BindingRefusal, Condition, Operator, Target};
use serde_json::value::RawValue;
use sqlx::{Row, types::Json};
use tokio::sync::Semaphore;

use super::{Admission, Stop, complaint::describe, params, readable};
use crate::{
    authorizer::Access,
    catalog::{Column, TableId},
    database::{CATALOG_PATIENCE, in_time},
    hub::filter::{Check, Filter, Order, Test},
    memo::Memo,
};

/// The values of a condition as the log writes them; None for NULL.
type Values = Vec<Option<Box<str>>>;

/// PostgreSQL allows no more in the list of `in`, by the protocol.
const MOST_VALUES: usize = 100;

/// How many filters are checked at once: they are clients' texts, and must leave connections of the pool to the catalog.
const CHECKS: usize = 2;
/// How long PostgreSQL may take for one: others wait for their turn.
const CHECK_TIMEOUT: &str = "3s";
/// Checked filters that are remembered.
const REMEMBERED: usize = 1024;
/// Larger ones are checked for each subscriber.
const LARGEST: usize = 4096;

/// Filters that PostgreSQL has checked: many subscribers have the same, and each is admitted again and again.
pub struct Checks {
    turns: Semaphore,
    /// By what was known of the table and the role.
    known: Memo<Key, Access, Filter>,
}

type Key = (TableId, Box<str>, Vec<Condition>);

impl Checks {
    pub(crate) fn new() -> Checks {
        Checks {
            turns: Semaphore::new(CHECKS),
            known: Memo::new(REMEMBERED),
        }
    }

    fn remember(&self, key: Key, access: &Arc<Access>, filter: &Arc<Filter>) {
        let conditions = key.2.iter();
        let size: usize = conditions
            .map(|one| one.column.len() + one.value.len())
            .sum();
        if size <= LARGEST {
            self.known.remember(key, access, filter);
        }
    }
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

pub(super) async fn resolve(
    admission: &Admission,
    access: &Arc<Access>,
    target: &Target,
) -> Result<Arc<Filter>, Stop> {
    let table = &access.table;
    let conditions = &target.filters;
    if conditions.is_empty() && table.filtered.is_none() {
        return Ok(Arc::default());
    }
    let readable = readable(access);
    let column = |condition: &Condition| {
        let place = table.column(&condition.column)?;
        readable.contains(&place).then(|| &table.columns[place])
    };

    // Most filters are `session_id=eq.<uuid>`: values that are written as PostgreSQL writes them need no question.
    let plain = |condition: &Condition| {
        let column = column(condition)?;
        test(column, condition, plain_values(column, condition)?)
    };
    if table.filtered.is_none()
        && let Some(tests) = conditions.iter().map(plain).collect()
    {
        return Ok(Arc::new(Filter { tests, rest: None }));
    }

    let key = (table.id, access.role.clone(), conditions.clone());
    if let Some(filter) = admission.checks.known.recall(&key, access) {
        return Ok(filter);
    }
    // The semaphore is never closed.
    let _turn = admission.checks.turns.acquire().await;
    // Others may have asked the same while it was full.
    if let Some(filter) = admission.checks.known.recall(&key, access) {
        return Ok(filter);
    }
    let asked: Vec<_> = conditions
        .iter()
        .map(|condition| {
            let here = column(condition).is_some_and(|column| is_tested(column, condition));
            let mut asked = as_json(condition);
            asked["here"] = here.into();
            asked
        })
        .collect();
    let checked = async {
        let mut transaction = admission.pool.begin().await?;
        sqlx::query("select pg_catalog.set_config('statement_timeout', $1, true)")
            .bind(CHECK_TIMEOUT)
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query(
            "select statement, known from tidings.check_filter($1::oid::regclass, $2, $3::jsonb::json)",
        )
        .bind(sqlx::postgres::types::Oid(table.oid))
        .bind(&*access.role)
        .bind(Json(asked))
        .fetch_one(&mut *transaction)
        .await?;
        // It has written nothing.
        transaction.rollback().await?;
        Ok(row)
    };
    let row = in_time(CATALOG_PATIENCE, checked)
        .await
        .map_err(|error| match describe(&error) {
            Some(error) => Stop::Wrong(BindingRefusal::Exception {
                params: params(target),
                error,
            }),
            None => error.into(),
        })?;
    let statement: Option<String> = row.try_get("statement")?;
    let Json(known): Json<Vec<Option<Vec<Box<RawValue>>>>> = row.try_get("known")?;
    let tests = conditions
        .iter()
        .zip(known)
        .filter_map(|(condition, values)| {
            let column = column(condition).filter(|column| is_tested(column, condition))?;
            let values = values.unwrap_or_default().into_iter().map(|value| {
                let text: Box<str> = value.get().into();
                (&*text != "null").then_some(text)
            });
            test(column, condition, values.collect())
        })
        .collect();
    let filter = Arc::new(Filter {
        tests,
        rest: statement.map(Into::into),
    });
    admission.checks.remember(key, access, &filter);
    Ok(filter)
}

/// Whether the texts of the log tell what PostgreSQL would say.
fn is_tested(column: &Column, condition: &Condition) -> bool {
    match condition.operator {
        Operator::Eq | Operator::Neq | Operator::In | Operator::IsDistinct => {
            column.equal_as_text()
        }
        Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => column.is_integer(),
        Operator::Is => truth(column, &condition.value).is_some(),
        Operator::Like | Operator::Ilike | Operator::Match | Operator::Imatch => false,
    }
}

/// A condition that [is tested here](is_tested).
fn test(column: &Column, condition: &Condition, mut values: Values) -> Option<Test> {
    if !is_tested(column, condition) {
        return None;
    }
    let mut single = || values.pop().flatten();
    let order = |order, bound: Option<Box<str>>| Some(Check::Order(order, bound?.parse().ok()?));
    let check = match condition.operator {
        Operator::Eq | Operator::Neq | Operator::In => {
            let or_null = values.iter().any(Option::is_none);
            let mut values: Vec<_> = values.into_iter().flatten().collect();
            values.sort_unstable();
            values.dedup();
            Check::OneOf { values, or_null }
        }
        Operator::IsDistinct => Check::Distinct(single()?),
        Operator::Is => Check::Is(truth(column, &condition.value)?),
        Operator::Lt => order(Order::Less, single())?,
        Operator::Lte => order(Order::LessOrEqual, single())?,
        Operator::Gt => order(Order::Greater, single())?,
        Operator::Gte => order(Order::GreaterOrEqual, single())?,
        Operator::Like | Operator::Ilike | Operator::Match | Operator::Imatch => return None,
    };
    Some(Test {
        column: column.name.clone(),
        spread: column.spread(),
        check,
        negate: condition.negate != (condition.operator == Operator::Neq),
    })
}

/// What an `is` condition compares with, as the log writes it.
fn truth(column: &Column, value: &str) -> Option<&'static str> {
    match value {
        "null" if !column.is_composite() => Some("null"),
        "true" if column.is_boolean() => Some("true"),
        "false" if column.is_boolean() => Some("false"),
        "unknown" if column.is_boolean() => Some("null"),
        _ => None,
    }
}

/// The values of a condition, where they can be told without asking PostgreSQL.
fn plain_values(column: &Column, condition: &Condition) -> Option<Values> {
    // A domain may refuse a value.
    if column.is_domain() {
        return None;
    }
    let canonical = |value: &str| canonical(&column.base, value).map(Some);
    match condition.operator {
        Operator::Is => Some(Vec::new()),
        Operator::In => {
            let list = condition.value.strip_prefix('{')?.strip_suffix('}')?;
            let items: Vec<_> = list.split(',').collect();
            let is_plain = |item: &&str| {
                !item.is_empty()
                    && !item.eq_ignore_ascii_case("null")
                    && item
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            };
            (items.len() <= MOST_VALUES && items.iter().all(is_plain))
                .then(|| items.into_iter().map(canonical).collect())
                .flatten()
        }
        _ => Some(vec![canonical(&condition.value)?]),
    }
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
