//! What the catalog says of a role and a table.

use std::{collections::HashMap, sync::Arc};

use sqlx::{PgPool, Row, types::Json};

use super::lane::Asking;
use crate::{
    catalog::Table,
    database::{CATALOG_PATIENCE, in_time},
};

#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    pub table: Arc<Table>,
    pub role: Box<str>,
    pub role_exists: bool,
    /// Places of the columns that the role may SELECT; none means that it may not read the table.
    pub columns: Vec<usize>,
    /// Row-level security applies to the role.
    pub restricted: bool,
    pub reads: Arc<Reads>,
    /// Evaluates the policies. None where they do not apply, or where there is none that could allow.
    pub statement: Option<Arc<str>>,
    /// What the statement needs first, and what must be undone after it.
    pub definition: Option<Arc<str>>,
    /// For columns that refer to another table under row-level security: says whether the principal sees the row there.
    pub parents: HashMap<Box<str>, Arc<str>>,
}

/// What the policies read of a row.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum Reads {
    Columns(Vec<Box<str>>),
    WholeRow,
}

impl Access {
    /// How the policies are asked about a row.
    pub(super) fn asking(&self) -> Option<Asking> {
        let statement = self.statement.clone()?;
        Some(Asking {
            statement,
            definition: self.definition.clone(),
            scene: None,
        })
    }

    pub(super) async fn load(
        pool: &PgPool,
        table: &Arc<Table>,
        role: &str,
    ) -> Result<Access, sqlx::Error> {
        let access = sqlx::query("select * from tidings.access($1::oid::regclass, $2)")
            .bind(sqlx::postgres::types::Oid(table.oid))
            .bind(role);
        let row = in_time(CATALOG_PATIENCE, access.fetch_one(pool)).await?;
        let columns: Vec<String> = row.get("columns");
        let reads: Option<Vec<String>> = row.get("reads");
        let parents: Option<Json<HashMap<Box<str>, Arc<str>>>> = row.get("parents");
        Ok(Access {
            table: table.clone(),
            role: role.into(),
            role_exists: row.get("role_exists"),
            columns: columns
                .iter()
                .filter_map(|column| table.column(column))
                .collect(),
            restricted: row.get("restricted"),
            reads: Arc::new(reads.map_or(Reads::WholeRow, |reads| {
                Reads::Columns(reads.into_iter().map(Into::into).collect())
            })),
            statement: row.get::<Option<String>, _>("statement").map(Into::into),
            definition: row.get::<Option<String>, _>("definition").map(Into::into),
            parents: parents.map(|parents| parents.0).unwrap_or_default(),
        })
    }
}
