//! What of a report should be mended. Only what is certain is said here; the rest is for the reader of the report.

use std::collections::BTreeMap;

use super::report::{
    Dependency, Finding, Report, RowLevelSecurity, Scope, Server, Severity, Table,
};

const OLDEST_VERSION: i32 = 140_000;
/// A fuller queue of notifications is said to be a problem: when it is full, commits fail.
const QUEUE_FULL: f64 = 0.5;

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let Some(server) = &report.server else {
        return Vec::new();
    };
    let mut found = Vec::new();
    of_server(server, &mut found);
    of_roles(report, server, &mut found);
    if report.tables.is_empty() {
        found.push(warning(
            None,
            "no table is watched: docs/operating.md says how to watch one".to_owned(),
            None,
        ));
    }
    for table in &report.tables {
        of_table(table, server, &mut found);
    }
    of_dependencies(report, server, &mut found);
    of_hidden(report, server, &mut found);
    found
}

fn of_server(server: &Server, found: &mut Vec<Finding>) {
    if server.version_number < OLDEST_VERSION {
        found.push(problem(
            None,
            format!(
                "PostgreSQL {} is too old: 14 or newer is needed",
                server.version
            ),
            None,
        ));
    }
    if server.standby {
        found.push(problem(
            None,
            "this server is a standby, on which LISTEN is refused: DATABASE_URL must name the primary".to_owned(),
            None,
        ));
    }
    if server.notify_queue >= QUEUE_FULL {
        found.push(problem(
            None,
            format!(
                "the server's queue of notifications is {:.0} % full, and commits fail when it is full: \
                 a session that listens stays in one transaction",
                server.notify_queue * 100.0
            ),
            None,
        ));
    }
    if server.superuser {
        found.push(warning(
            None,
            format!(
                "the login {} is a superuser, and so is what a policy's function can become in its session: \
                 docs/operating.md says which rights are enough",
                server.login
            ),
            None,
        ));
    }
    if !server.ddl_told {
        found.push(warning(
            None,
            format!(
                "nothing tells of DDL: changed policies and grants of watched tables are found by comparison every 2 s, \
                 new bodies of functions and the policies of other tables by the re-check every {} s",
                server.recheck_seconds
            ),
            Some(server.ddl_mend.clone()),
        ));
    }
}

/// What a role lacks everywhere is said once.
fn of_roles(report: &Report, server: &Server, found: &mut Vec<Finding>) {
    for role in report.tables.first().map_or(&[][..], |table| &table.roles) {
        // Of the others, `missing_rights.sql` has told already.
        if super::ROLES.contains(&role.name.as_str()) {
            continue;
        }
        if !role.exists {
            let text = format!("there is no role {}", role.name);
            found.push(problem(None, text, None));
        } else if !role.may_become {
            found.push(problem(
                None,
                format!("login {} may not become {}", server.login, role.name),
                Some(role.mend.clone()),
            ));
        }
    }
}

fn of_table(table: &Table, server: &Server, found: &mut Vec<Finding>) {
    let name = || Some(table.name.clone());
    match table.triggers.as_str() {
        "present" => {}
        "disabled" => found.push(problem(
            name(),
            "its trigger is disabled: changes are not noticed".to_owned(),
            table.mend.clone(),
        )),
        state => found.push(problem(
            name(),
            format!("its trigger is {state}: changes are not noticed"),
            table.mend.clone(),
        )),
    }
    if table.inherited {
        found.push(warning(
            name(),
            "other tables inherit from it: changes of their rows are not noticed here".to_owned(),
            None,
        ));
    }
    let open: Vec<&str> = table
        .roles
        .iter()
        .filter(|role| role.scope == Scope::Everything && !role.bypasses_row_level_security)
        .map(|role| role.name.as_str())
        .collect();
    if table.row_level_security == RowLevelSecurity::Off && !open.is_empty() {
        found.push(warning(
            name(),
            format!(
                "row-level security is off: every row goes to {}",
                open.join(" and ")
            ),
            Some(table.secure.clone()),
        ));
    }
    if !server.temporary && table.roles.iter().any(|role| role.needs_function) {
        found.push(problem(
            name(),
            format!(
                "its policies use a schema into which the role may not look, so that they are evaluated in a temporary function, \
                 and login {} may not make one",
                server.login
            ),
            Some(server.temporary_mend.clone()),
        ));
    }
}

/// Several watched tables may rest on the same table: it is mended once.
fn of_dependencies(report: &Report, server: &Server, found: &mut Vec<Finding>) {
    let mut depended: BTreeMap<&str, &Dependency> = BTreeMap::new();
    for dependency in report.tables.iter().flat_map(|table| &table.rests_on) {
        let known = depended.entry(&dependency.table).or_insert(dependency);
        if known.triggers == "present" {
            *known = dependency;
        }
    }
    for (name, dependency) in depended {
        if dependency.triggers != "present" {
            let text = format!(
                "verdicts rest on it, and its triggers are {}: rights that it takes away end with the re-check, within {} s{}",
                dependency.triggers,
                server.recheck_seconds,
                match dependency.mends_itself {
                    true => "; a running gateway mends that by itself",
                    false => "",
                }
            );
            let finding = match dependency.mends_itself {
                true => warning,
                false => problem,
            };
            found.push(finding(
                Some(name.to_owned()),
                text,
                dependency.mend.clone(),
            ));
        }
        if dependency.inherited {
            found.push(warning(
                Some(name.to_owned()),
                format!(
                    "verdicts rest on it, and other tables inherit from it: what changes there is covered by the re-check alone, every {} s",
                    server.recheck_seconds
                ),
                None,
            ));
        }
    }
}

fn of_hidden(report: &Report, server: &Server, found: &mut Vec<Finding>) {
    for table in &report.tables {
        if table.hidden.is_empty() {
            continue;
        }
        let names = |parsable: Option<bool>| {
            let names: Vec<&str> = table
                .hidden
                .iter()
                .filter(|hidden| parsable.is_none_or(|wanted| hidden.parsable == wanted))
                .map(|hidden| hidden.name.as_str())
                .collect();
            names.join(", ")
        };
        let mut text = format!(
            "its policies use {}, which the catalog cannot look through: when what is read there changes, the re-check alone takes rights away, every {} s",
            names(None),
            server.recheck_seconds
        );
        let parsable = names(Some(true));
        if !parsable.is_empty() {
            text.push_str(&format!(
                "; written with BEGIN ATOMIC … END instead of a text, {parsable} would hide nothing"
            ));
        }
        found.push(warning(Some(table.name.clone()), text, None));
    }
}

fn problem(table: Option<String>, text: String, mend: Option<String>) -> Finding {
    Finding {
        severity: Severity::Problem,
        table,
        text,
        mend,
    }
}

fn warning(table: Option<String>, text: String, mend: Option<String>) -> Finding {
    Finding {
        severity: Severity::Warning,
        ..problem(table, text, mend)
    }
}
