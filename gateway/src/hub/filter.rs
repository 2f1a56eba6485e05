//! A binding's filter, as the hub evaluates it.
//!
//! Most conditions compare a value with others by equality, or integers by their order. These need no database: the texts of the
//! log tell. All else is evaluated by PostgreSQL, once for each distinct filter and change.

use std::sync::Arc;

use crate::{catalog::Spread, feed::change::Record};

/// All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Filter {
    /// Conditions that are evaluated here.
    pub tests: Vec<Test>,
    /// The statement by which PostgreSQL evaluates the others.
    pub rest: Option<Arc<str>>,
}

/// A condition on one column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Test {
    pub column: Box<str>,
    /// How many rows may have one value of that column.
    pub spread: Spread,
    pub check: Check,
    /// It must not hold. What is unknown does not hold this way, either.
    pub negate: bool,
}

/// Values are JSON texts as the log has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Check {
    /// Equals one of these, each of which is there once. A NULL among them makes it unknown whether any other value does.
    OneOf {
        values: Vec<Box<str>>,
        or_null: bool,
    },
    /// `IS DISTINCT FROM`.
    Distinct(Box<str>),
    /// `IS NULL`, `IS TRUE`, `IS FALSE`.
    Is(&'static str),
    /// Of integers.
    Order(Order, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// Whether the conditions hold that need no database.
    pub fn holds(&self, image: &Record) -> bool {
        self.tests.iter().all(|test| test.holds(image))
    }

    /// Columns that have one value in every row that matches, each with that value.
    pub fn fixed(&self) -> impl Iterator<Item = (&Box<str>, &Box<str>)> {
        self.looked_up().filter_map(|(test, values)| match values {
            [value] => Some((&test.column, value)),
            _ => None,
        })
    }

    /// Conditions that a row can meet only with one of some values, by which it can be looked up.
    pub(super) fn looked_up(&self) -> impl Iterator<Item = (&Test, &[Box<str>])> {
        self.tests.iter().filter_map(|test| match &test.check {
            Check::OneOf { values, .. } if !test.negate => Some((test, values.as_slice())),
            Check::Distinct(value) if test.negate => Some((test, std::slice::from_ref(value))),
            _ => None,
        })
    }
}

impl Test {
    fn holds(&self, image: &Record) -> bool {
        // A row from before the column was added has no value, either.
        let value = image.value(&self.column).filter(|value| *value != "null");
        self.check.on(value).is_some_and(|held| held != self.negate)
    }
}

impl Check {
    /// None: unknown.
    fn on(&self, value: Option<&str>) -> Option<bool> {
        match self {
            // Not even NULL is among none.
            Check::OneOf { values, or_null } if values.is_empty() && !or_null => Some(false),
            Check::OneOf { values, or_null } => {
                let value = value?;
                let found = values.iter().any(|one| **one == *value);
                (found || !or_null).then_some(found)
            }
            Check::Distinct(other) => Some(value != Some(other)),
            Check::Is(truth) => Some(value.unwrap_or("null") == *truth),
            Check::Order(order, bound) => {
                let value: i64 = value?.parse().ok()?;
                Some(match order {
                    Order::Less => value < *bound,
                    Order::LessOrEqual => value <= *bound,
                    Order::Greater => value > *bound,
                    Order::GreaterOrEqual => value >= *bound,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of(values: &[&str], or_null: bool) -> Check {
        Check::OneOf {
            values: values.iter().map(|value| Box::from(*value)).collect(),
            or_null,
        }
    }

    /// Which of NULL, 1, 2 and 3 pass, and which do under `not`.
    fn check(check: Check, passes: &[&str], negated: &[&str]) {
        for (negate, expected) in [(false, passes), (true, negated)] {
            let test = Test {
                column: "n".into(),
                spread: Spread::Usual,
                check: check.clone(),
                negate,
            };
            let passed: Vec<_> = ["null", "1", "2", "3"]
                .into_iter()
                .filter(|value| {
                    let record = Record::parse(format!("{{\"n\":{value}}}").into());
                    test.holds(&record.expect("a record"))
                })
                .collect();
            assert_eq!(passed, expected, "{check:?}, negated: {negate}");
        }
    }

    #[test]
    fn null_counts_as_no_also_when_it_is_negated() {
        check(one_of(&["1"], false), &["1"], &["2", "3"]);
        check(one_of(&["1", "2"], false), &["1", "2"], &["3"]);
        check(one_of(&["1"], true), &["1"], &[]);
        check(one_of(&[], true), &[], &[]);
        // As in PostgreSQL: NOT (NULL = ANY ('{}')) is true.
        check(one_of(&[], false), &[], &["null", "1", "2", "3"]);
        check(Check::Distinct("1".into()), &["null", "2", "3"], &["1"]);
        check(Check::Is("null"), &["null"], &["1", "2", "3"]);
        check(Check::Order(Order::Less, 2), &["1"], &["2", "3"]);
        check(Check::Order(Order::LessOrEqual, 2), &["1", "2"], &["3"]);
        check(Check::Order(Order::Greater, 2), &["3"], &["1", "2"]);
        check(Check::Order(Order::GreaterOrEqual, 2), &["2", "3"], &["1"]);
    }
}
