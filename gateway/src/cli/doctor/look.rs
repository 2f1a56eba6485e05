//! Asks the database. What the answers mean for a subscriber is decided as in [`crate::authorizer`].

use std::time::Duration;

use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Row, types::Json};

use super::report::{
    Dependency, Finding, Hidden, Report, Role, RowLevelSecurity, Scope, Server, Severity, Table,
};
use crate::catalog::Column;

macro_rules! statement {
    ($name:literal) => {
        include_str!(concat!("../../../../migrations/statements/", $name, ".sql"))
    };
}

pub(super) async fn look(
    connection: &mut PgConnection,
    roles: &[String],
    recheck: Duration,
) -> Result<Report, sqlx::Error> {
    let missing = sqlx::raw_sql(statement!("missing_rights"))
        .fetch_all(&mut *connection)
        .await?;
    let mut findings = Vec::new();
    for row in missing {
        findings.push(Finding {
            severity: Severity::Problem,
            table: None,
            text: row.try_get("problem")?,
            mend: row.try_get("mend")?,
        });
    }
    let ready: bool = sqlx::query_scalar(statement!("doctor_ready"))
        .fetch_one(&mut *connection)
        .await?;
    if !ready {
        if findings.is_empty() {
            findings.push(Finding {
                severity: Severity::Problem,
                table: None,
                text: "schema tidings is older than this program".to_owned(),
                mend: Some("tidings migrate".to_owned()),
            });
        }
        return Ok(Report {
            server: None,
            tables: Vec::new(),
            findings,
        });
    }

    let row = sqlx::query(statement!("doctor_server"))
        .fetch_one(&mut *connection)
        .await?;
    let server = server(&row, recheck)?;
    let mut tables = Vec::new();
    let rows = sqlx::query(statement!("doctor_tables"))
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        tables.push(table(connection, &row, roles).await?);
    }
    let messages = sqlx::query(statement!("doctor_messages"))
        .fetch_all(&mut *connection)
        .await?;
    for row in messages {
        findings.push(Finding {
            severity: Severity::Warning,
            table: None,
            text: row.try_get("problem")?,
            mend: row.try_get("mend")?,
        });
    }
    Ok(Report {
        server: Some(server),
        tables,
        findings,
    })
}

fn server(row: &PgRow, recheck: Duration) -> Result<Server, sqlx::Error> {
    Ok(Server {
        version: row.try_get("version")?,
        version_number: row.try_get("version_number")?,
        login: row.try_get("login")?,
        superuser: row.try_get("superuser")?,
        temporary: row.try_get("temporary")?,
        temporary_mend: row.try_get("temporary_mend")?,
        standby: row.try_get("standby")?,
        ddl_told: row.try_get("ddl_told")?,
        ddl_mend: row.try_get("ddl_mend")?,
        track_commit_timestamp: row.try_get("commit_times")?,
        bell_silenced: row.try_get("silenced")?,
        notify_queue: row.try_get("notify_queue")?,
        sessions: row.try_get("sessions")?,
        retention: row.try_get("retention")?,
        log_bytes: row.try_get("log_bytes")?,
        slots_in_use: row.try_get("slots_in_use")?,
        recheck_seconds: recheck.as_secs_f64(),
    })
}

async fn table(
    connection: &mut PgConnection,
    row: &PgRow,
    roles: &[String],
) -> Result<Table, sqlx::Error> {
    let relation: Oid = row.try_get("relation")?;
    let columns: Json<Vec<Column>> = row.try_get("columns")?;
    let secured = match (row.try_get("secured")?, row.try_get("forced")?) {
        (false, _) => RowLevelSecurity::Off,
        (true, false) => RowLevelSecurity::On,
        (true, true) => RowLevelSecurity::Forced,
    };
    let mut known_roles = Vec::with_capacity(roles.len());
    for name in roles {
        let row = sqlx::query(statement!("doctor_role"))
            .bind(relation)
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
        known_roles.push(role(&row, name, secured, &columns.0)?);
    }
    let rows = sqlx::query(statement!("doctor_dependencies"))
        .bind(relation)
        .fetch_all(connection)
        .await?;
    let mut rests_on = Vec::new();
    let mut hidden = Vec::new();
    for row in &rows {
        if let Some(table) = row.try_get("name")? {
            rests_on.push(Dependency {
                table,
                columns: row.try_get("columns")?,
                inserts: row.try_get("inserts")?,
                inherited: row.try_get("inherited")?,
                triggers: row.try_get("triggers")?,
                mends_itself: row.try_get("mends_itself")?,
                mend: row.try_get("mend")?,
            });
        }
        // Each row names all of them.
        if hidden.is_empty() {
            let parsable: Vec<String> = row.try_get("parsable")?;
            hidden = row
                .try_get::<Vec<String>, _>("hidden")?
                .into_iter()
                .map(|name| Hidden {
                    parsable: parsable.contains(&name),
                    name,
                })
                .collect();
        }
    }
    Ok(Table {
        name: row.try_get("name")?,
        origin: row.try_get("origin")?,
        row_level_security: secured,
        secure: row.try_get("secure")?,
        partitioned: row.try_get("partitioned")?,
        inherited: row.try_get("inherited")?,
        triggers: row.try_get("triggers")?,
        mend: row.try_get("mend")?,
        roles: known_roles,
        rests_on,
        hidden,
    })
}

fn role(
    row: &PgRow,
    name: &str,
    secured: RowLevelSecurity,
    columns: &[Column],
) -> Result<Role, sqlx::Error> {
    let exists: bool = row.try_get("role_exists")?;
    let restricted: bool = row.try_get("restricted")?;
    let readable: Vec<String> = row.try_get("readable")?;
    let may_use_schema: bool = row.try_get("may_use_schema")?;
    let bypasses: bool = row.try_get("bypasses")?;
    let superuser: bool = row.try_get("superuser")?;
    let judged: bool = row.try_get("judged")?;
    let reads: Option<Vec<String>> = row.try_get("reads")?;
    let fixable = |name: &String| {
        columns
            .iter()
            .any(|column| *column.name == **name && column.equal_as_text())
    };

    let (scope, why) = if !exists {
        (Scope::Refused, "there is no such role".to_owned())
    } else if superuser {
        (
            Scope::Refused,
            "it is a superuser, which no token may name".to_owned(),
        )
    } else if !may_use_schema {
        (Scope::Refused, "may not look into the schema".to_owned())
    } else if readable.is_empty() {
        (
            Scope::Refused,
            "may not read it: no right to SELECT".to_owned(),
        )
    } else if !restricted {
        let why = match (secured, bypasses) {
            (RowLevelSecurity::Off, _) => "row-level security is off",
            (_, true) => "it has BYPASSRLS",
            _ => "it has the owner's rights, and row-level security is not forced",
        };
        (Scope::Everything, format!("sees every row: {why}"))
    } else if !judged {
        (
            Scope::Refused,
            "sees no row: no policy for SELECT allows it any".to_owned(),
        )
    } else {
        scope(reads.as_deref(), fixable)
    };
    Ok(Role {
        name: name.to_owned(),
        exists,
        may_become: row.try_get("may_become")?,
        mend: row.try_get("mend")?,
        bypasses_row_level_security: bypasses,
        scope,
        why,
        readable,
        unreadable: row.try_get("unreadable")?,
        policies: row.try_get("policies")?,
        reads,
        parents: row.try_get("parents")?,
        needs_function: row.try_get("needs_function")?,
    })
}

/// How often policies must be evaluated that read these columns. A value of a column that is `fixable` can be named by a filter
/// such that the row's equals it in every respect.
fn scope(reads: Option<&[String]>, fixable: impl Fn(&String) -> bool) -> (Scope, String) {
    let Some(reads) = reads else {
        return (
            Scope::Row,
            "row-scoped: the policies read the whole row".to_owned(),
        );
    };
    let unfixable: Vec<&str> = reads
        .iter()
        .filter(|column| !fixable(column))
        .map(String::as_str)
        .collect();
    match reads {
        [] => (
            Scope::Subscription,
            "decided once for each subscription: the policies read no column of the row".to_owned(),
        ),
        _ if !unfixable.is_empty() => (
            Scope::Row,
            format!(
                "row-scoped: the policies read {}, and no filter can fix {}",
                reads.join(", "),
                unfixable.join(", ")
            ),
        ),
        [column] => (
            Scope::Session,
            format!(
                "session-scoped on {column}: decided once where the filter is {column}=eq.…, else row by row"
            ),
        ),
        _ => (
            Scope::Row,
            format!(
                "row-scoped: the policies read {}; decided once only where a filter fixes all of them by eq",
                reads.join(", ")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reads: Option<&[&str]>) -> (Scope, String) {
        let reads: Option<Vec<String>> =
            reads.map(|reads| reads.iter().map(|name| (*name).to_owned()).collect());
        scope(reads.as_deref(), |column| column != "data")
    }

    #[test]
    fn the_scope_follows_what_the_policies_read() {
        assert_eq!(of(None).0, Scope::Row);
        assert_eq!(of(Some(&[])).0, Scope::Subscription);
        assert_eq!(of(Some(&["session_id"])).0, Scope::Session);
        let (scope, why) = of(Some(&["a", "b"]));
        assert_eq!(scope, Scope::Row);
        assert!(why.contains("read a, b"), "{why}");
        let (scope, why) = of(Some(&["a", "data"]));
        assert_eq!(scope, Scope::Row);
        assert!(why.ends_with("no filter can fix data"), "{why}");
    }
}
