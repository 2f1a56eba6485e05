//! Turns what a channel asks for into bindings that the hub takes: checked against the catalog, and authorized.
//!
//! A join is admitted here, and so is every subscription again whose rights may have changed.

mod complaint;
mod filters;

use std::sync::Arc;

use protocol::{BindingRefusal, EventKind, Target, describe_params, resume::ResumeError};
use sqlx::PgPool;

pub use self::filters::Checks;
pub(crate) use self::filters::as_json;

use crate::{
    auth::Principal,
    authorizer::{Access, Authorizer, Denial, Error},
    catalog::{Catalog, Table},
    hub::{BoundBinding, Events, Moment, columns::ColumnSets},
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
    pub checks: Checks,
    pub columns: ColumnSets,
}

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
        let readable = readable(&access);
        if readable.is_empty() {
            denied = true;
            if named { break } else { continue }
        }
        let columns = select(&table, readable, target)?;
        let filter = filters::resolve(admission, &access, target).await?;
        let fixed = filter
            .fixed()
            .map(|(column, value)| (column.clone(), value.clone()))
            .collect();
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
                columns: admission.columns.get(&table, &columns, cursor),
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

/// Columns of which the subscriber may hear: those that its role may SELECT, and that the publication sends.
fn readable(access: &Access) -> Vec<usize> {
    let sent = |place: &usize| access.table.columns[*place].sent;
    access.columns.iter().copied().filter(sent).collect()
}

/// The columns that the subscriber gets: of those of which it may hear what it asked for, and the primary key.
fn select(table: &Table, mut readable: Vec<usize>, target: &Target) -> Result<Vec<usize>, Stop> {
    let Some(wanted) = &target.select else {
        return Ok(readable);
    };
    for name in wanted {
        if !table
            .column(name)
            .is_some_and(|place| readable.contains(&place))
        {
            let error = format!("ERROR P0001 (raise_exception) invalid column for select {name}");
            return Err(Stop::Wrong(BindingRefusal::Exception {
                params: params(target),
                error,
            }));
        }
    }
    readable.retain(|place| {
        let column = &table.columns[*place];
        column.key || wanted.iter().any(|name| *name == *column.name)
    });
    Ok(readable)
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
