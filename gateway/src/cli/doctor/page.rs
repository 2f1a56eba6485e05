//! The report for a person.

use std::fmt::{self, Write};

use super::count;
use super::report::{Finding, Report, Role, RowLevelSecurity, Server, Severity, Table};

pub(super) fn page(report: &Report) -> String {
    let mut page = String::new();
    // Writing into a text does not fail.
    let _ = write(&mut page, report);
    page
}

fn write(page: &mut String, report: &Report) -> fmt::Result {
    if let Some(server) = &report.server {
        write_server(page, server)?;
    }
    for table in &report.tables {
        writeln!(page)?;
        write_table(page, table, report.server.as_ref())?;
    }
    if report.server.is_some() {
        writeln!(page)?;
    }
    for finding in &report.findings {
        write_finding(page, finding)?;
    }
    writeln!(
        page,
        "{}, {}",
        count(report.count(Severity::Problem), "problem"),
        count(report.count(Severity::Warning), "warning")
    )
}

fn write_server(page: &mut String, server: &Server) -> fmt::Result {
    writeln!(page, "PostgreSQL   {}", server.version)?;
    writeln!(page, "login        {}", server.login)?;
    writeln!(
        page,
        "DDL          {}",
        match server.ddl_told {
            true => "told at once, by the event trigger tidings_ddl",
            false => "found by comparison, every 2 s",
        }
    )?;
    writeln!(
        page,
        "commit time  {}",
        match server.track_commit_timestamp {
            true => "that of the commit (track_commit_timestamp is on)",
            false => "that of the change (track_commit_timestamp is off)",
        }
    )?;
    writeln!(
        page,
        "bell         {}; the server's queue of notifications is {:.0} % full",
        match server.bell_silenced {
            true => "silent, since a gateway reads all the time",
            false => "rings for every transaction that changes a watched table",
        },
        server.notify_queue * 100.0
    )?;
    writeln!(
        page,
        "gateways     {}",
        match server.sessions {
            0 => "none is connected".to_owned(),
            sessions => format!("connected, with {sessions} sessions"),
        }
    )?;
    writeln!(
        page,
        "change log   kept for {}, {} in {} of 10 slots",
        server.retention,
        size(server.log_bytes),
        server.slots_in_use
    )?;
    writeln!(page, "re-check     every {} s", server.recheck_seconds)
}

fn write_table(page: &mut String, table: &Table, server: Option<&Server>) -> fmt::Result {
    write!(
        page,
        "{}  (watched: {}; row-level security {}",
        table.name,
        table.origin,
        match table.row_level_security {
            RowLevelSecurity::Off => "off",
            RowLevelSecurity::On => "on",
            RowLevelSecurity::Forced => "on, also for the owner",
        }
    )?;
    writeln!(
        page,
        "{})",
        if table.partitioned {
            "; partitioned"
        } else {
            ""
        }
    )?;
    let width = table
        .roles
        .iter()
        .map(|role| role.name.chars().count())
        .max()
        .unwrap_or(0);
    for role in &table.roles {
        write_role(page, role, width)?;
    }
    for dependency in &table.rests_on {
        writeln!(
            page,
            "  rests on {} ({}): triggers {}; an INSERT there {}",
            dependency.table,
            dependency.columns.join(", "),
            dependency.triggers,
            match dependency.inserts {
                true => "can take rights away",
                false => "takes no right away",
            }
        )?;
    }
    for hidden in &table.hidden {
        write!(
            page,
            "  hidden: what {} reads; only the re-check covers it",
            hidden.name
        )?;
        match server {
            Some(server) => writeln!(page, ", every {} s", server.recheck_seconds)?,
            None => writeln!(page)?,
        }
    }
    Ok(())
}

fn write_role(page: &mut String, role: &Role, width: usize) -> fmt::Result {
    writeln!(page, "  {:width$}  {}", role.name, role.why)?;
    if role.readable.is_empty() {
        return Ok(());
    }
    let columns = match role.unreadable.as_slice() {
        [] => "all".to_owned(),
        unreadable => format!("all but {}", unreadable.join(", ")),
    };
    writeln!(page, "  {:width$}    columns: {columns}", "")?;
    let silent: Vec<&str> = match &role.reads {
        Some(reads) if !reads.is_empty() => role
            .parents
            .iter()
            .filter(|column| !reads.contains(column))
            .map(String::as_str)
            .collect(),
        _ => Vec::new(),
    };
    for column in silent {
        writeln!(
            page,
            "  {:width$}    a filter on {column} without any of them: refused unless the user sees the row that it refers to",
            ""
        )?;
    }
    if !role.policies.is_empty() {
        let policies = role.policies.join("; ");
        writeln!(page, "  {:width$}    policies: {policies}", "")?;
    }
    Ok(())
}

fn write_finding(page: &mut String, finding: &Finding) -> fmt::Result {
    let severity = match finding.severity {
        Severity::Problem => "problem",
        Severity::Warning => "warning",
    };
    match &finding.table {
        Some(table) => writeln!(page, "{severity}: {table}: {}", finding.text)?,
        None => writeln!(page, "{severity}: {}", finding.text)?,
    }
    if let Some(mend) = &finding.mend {
        writeln!(page, "  mend it with: {mend}")?;
    }
    Ok(())
}

fn size(bytes: i64) -> String {
    const MIB: i64 = 1 << 20;
    if bytes < MIB {
        format!("{} KiB", bytes / 1024)
    } else if bytes < 1024 * MIB {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{:.1} GiB", bytes as f64 / (1024 * MIB) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_without_a_server_too() {
        let finding = |severity| Finding {
            severity,
            table: None,
            text: "schema tidings is missing".to_owned(),
            mend: Some("tidings migrate".to_owned()),
        };
        let report = Report {
            server: None,
            tables: Vec::new(),
            findings: vec![finding(Severity::Problem), finding(Severity::Warning)],
        };
        assert_eq!(
            page(&report).lines().collect::<Vec<_>>(),
            [
                "problem: schema tidings is missing",
                "  mend it with: tidings migrate",
                "warning: schema tidings is missing",
                "  mend it with: tidings migrate",
                "1 problem, 1 warning",
            ]
        );
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(90_112), "88 KiB");
        assert_eq!(size(5 << 20), "5 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
    }
}
