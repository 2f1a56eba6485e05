//! The statements that fetch the last rows of a table. The database makes them from its catalog, which takes it longer than fetching
//! the rows, so those who ask for the same share one: all who read a chat, and whoever comes back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::Condition;

use crate::catalog::{Table, TableId};

/// When there are more, all are forgotten.
const REMEMBERED: usize = 2048;
/// Larger ones are made for each subscriber: their conditions are clients' texts.
const LARGEST: usize = 2048;

#[derive(Default)]
pub(super) struct Statements {
    known: Mutex<HashMap<Wish, Known>>,
}

/// All that a statement depends on, beside the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub(super) table: TableId,
    pub(super) columns: Vec<String>,
    pub(super) conditions: Vec<Condition>,
    pub(super) order: Option<String>,
    pub(super) rows: u64,
}

struct Known {
    /// When the table is another by now, the statement does not count.
    table: Arc<Table>,
    statement: Arc<str>,
}

impl Statements {
    pub(super) fn recall(&self, wish: &Wish, table: &Arc<Table>) -> Option<Arc<str>> {
        let known = self.known();
        let known = known.get(wish)?;
        Arc::ptr_eq(&known.table, table).then(|| known.statement.clone())
    }

    pub(super) fn remember(&self, wish: Wish, table: &Arc<Table>, statement: &Arc<str>) {
        if statement.len() > LARGEST {
            return;
        }
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let statement = Known {
            table: table.clone(),
            statement: statement.clone(),
        };
        known.insert(wish, statement);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Wish, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_counts_for_the_same_wish_and_the_same_table() {
        let table = |oid| {
            Arc::new(Table {
                id: 1,
                oid,
                schema: "public".into(),
                name: "chat_messages".into(),
                inserts: true,
                updates: true,
                deletes: true,
                full_identity: false,
                attached: 0,
                filtered: None,
                columns: Vec::new(),
            })
        };
        let wish = |rows| Wish {
            table: 1,
            columns: vec!["id".to_owned()],
            conditions: Vec::new(),
            order: None,
            rows,
        };
        let (before, after) = (table(1), table(2));
        let statements = Statements::default();
        statements.remember(wish(5), &before, &"select 5".into());
        assert_eq!(
            statements.recall(&wish(5), &before).as_deref(),
            Some("select 5")
        );
        assert_eq!(statements.recall(&wish(6), &before), None);
        assert_eq!(statements.recall(&wish(5), &after), None);

        statements.remember(wish(7), &before, &"x".repeat(LARGEST + 1).into());
        assert_eq!(statements.recall(&wish(7), &before), None);
    }
}
