//! A binding's filter, as the hub evaluates it.

use std::sync::Arc;

use crate::feed::change::Record;

/// All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Filter {
    /// `eq` conditions on columns whose values are equal exactly when their bytes in the log are: column and JSON value.
    pub equals: Vec<(Box<str>, Box<str>)>,
    /// The statement by which PostgreSQL evaluates the whole filter, when there are other conditions as well.
    pub rest: Option<Arc<str>>,
}

impl Filter {
    /// Whether the conditions that need no database hold. A NULL equals nothing: no value is written as `null`.
    pub(super) fn equals_match(&self, image: &Record) -> bool {
        self.equals
            .iter()
            .all(|(column, value)| image.value(column) == Some(value))
    }
}
