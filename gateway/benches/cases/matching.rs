//! Filters on a row, as far as the gateway evaluates them itself: equality by the texts of the log, integers by their order.
//! `like`, `match` and the order of all other types are PostgreSQL's affair, and are not here.

use std::hint::black_box;

use gateway::{
    catalog::Spread,
    feed::change::Record,
    hub::filter::{Check, Filter, Order, Test},
};

use super::{Amount, Prepared, world};

pub(super) fn eq() -> Prepared {
    matches(vec![world::session_is(1)])
}

pub(super) fn timestamp() -> Prepared {
    matches(vec![test(
        "created_at",
        one_of(vec![format!("\"{}\"", world::CREATED_AT)]),
    )])
}

/// The longest list that PostgreSQL allows, with the row's value as its last.
pub(super) fn one_of_100() -> Prepared {
    let mut sessions: Vec<_> = (2..101).map(world::quoted).collect();
    sessions.push(world::quoted(1));
    matches(vec![test("session_id", one_of(sessions))])
}

pub(super) fn less() -> Prepared {
    matches(vec![test("position", Check::Order(Order::Less, 100))])
}

pub(super) fn is_null() -> Prepared {
    matches(vec![test("model", Check::Is("null"))])
}

pub(super) fn three() -> Prepared {
    matches(vec![
        world::session_is(1),
        test("position", Check::Order(Order::GreaterOrEqual, 10)),
        test(
            "role",
            one_of(vec!["\"assistant\"".into(), "\"user\"".into()]),
        ),
    ])
}

pub(super) fn one_of(values: Vec<String>) -> Check {
    Check::OneOf {
        values: values.into_iter().map(String::into_boxed_str).collect(),
        or_null: false,
    }
}

pub(super) fn test(column: &str, check: Check) -> Test {
    Test {
        column: column.into(),
        spread: Spread::Usual,
        check,
        negate: false,
    }
}

fn matches(tests: Vec<Test>) -> Prepared {
    let filter = Filter { tests, rest: None };
    let row = world::row(1, "Hello").replace("\"a-model\"", "null");
    let record = Record::parse(row.into()).expect("a record");
    assert!(filter.holds(&record));
    Prepared::new(Amount::Elements(1), move || {
        black_box(black_box(&filter).holds(black_box(&record)));
    })
}
