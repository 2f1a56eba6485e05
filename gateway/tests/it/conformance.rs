//! The pages in `docs/conformance` name a test for each statement of the protocol. What they name is there, what they count is
//! right; the tests that were written for them are in the modules below.

mod a_channels;
mod a_clients;
mod a_connection;
mod a_framing;
mod a_joining;
mod b_broadcast;
mod b_changes;
mod b_limits;
mod b_presence;
mod b_private;
mod b_sql;
mod b_tables;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What becomes of a statement, by the words with which its last cell begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Tested,
    OnPurpose,
    NotServed,
}

struct Row {
    /// The page, without `.md`.
    page: String,
    section: String,
    statement: String,
    fate: Fate,
    /// The paths of tests, in code marks.
    tests: Vec<String>,
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace").to_owned()
}

/// The rows of all pages, in their order.
fn rows() -> Vec<Row> {
    let folder = root().join("docs/conformance");
    let mut pages: Vec<_> = fs::read_dir(folder)
        .expect("the pages")
        .map(|entry| entry.expect("a page").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .filter(|path| !path.ends_with("README.md"))
        .collect();
    pages.sort();
    let mut rows = Vec::new();
    for path in pages {
        let page = path.file_stem().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("a text");
        let table = text.lines().filter(|line| line.starts_with('|'));
        let before = rows.len();
        rows.extend(table.filter_map(|line| row(&page, line)));
        assert!(rows.len() > before, "{page} has no rows");
    }
    rows
}

/// Nothing for the names of the columns and the line below them.
fn row(page: &str, line: &str) -> Option<Row> {
    let line_of_cells = line.replace("\\|", "\u{1}");
    let cells: Vec<_> = line_of_cells
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect();
    let [section, statement, test] = cells[..] else {
        panic!("{page}: not three cells: {line}");
    };
    if section == "§" || section.starts_with("--") {
        return None;
    }
    let fate = match test {
        _ if test.starts_with("on purpose: ") => Fate::OnPurpose,
        _ if test.starts_with("not served: ") => Fate::NotServed,
        _ => Fate::Tested,
    };
    let code = test.split('`').skip(1).step_by(2);
    let tests = code.filter(|name| ROOTS.iter().any(|(start, _)| name.starts_with(start)));
    Some(Row {
        page: page.to_owned(),
        section: section.to_owned(),
        statement: statement.to_owned(),
        fate,
        tests: tests.map(str::to_owned).collect(),
    })
}

/// How the path of a test begins, and the folder in which its modules are.
const ROOTS: [(&str, &str); 4] = [
    ("it::", "gateway/tests/it"),
    ("protocol::", "protocol/tests/it"),
    ("lib::", "gateway/src"),
    ("protocol_lib::", "protocol/src"),
];

/// Whether there is a test of this path in the sources.
fn exists(test: &str) -> bool {
    let Some((start, folder)) = ROOTS.iter().find(|(start, _)| test.starts_with(start)) else {
        return false;
    };
    let Some((modules, name)) = test[start.len()..].rsplit_once("::") else {
        return false;
    };
    let file = |modules: &str| {
        let path = format!("{folder}/{}.rs", modules.replace("::", "/"));
        fs::read_to_string(root().join(path)).ok()
    };
    // Short tests of a module stand at its end.
    let inside = || {
        let text = file(modules.strip_suffix("::tests")?)?;
        let (_, tests) = text.split_once("\nmod tests {")?;
        Some(tests.to_owned())
    };
    file(modules)
        .or_else(inside)
        .is_some_and(|text| has_test(&text, name))
}

fn has_test(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let Some(place) = lines.iter().position(|line| line.contains(&head)) else {
        return false;
    };
    let mut marks = lines[..place]
        .iter()
        .rev()
        .take_while(|line| !line.is_empty());
    marks.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

#[test]
fn every_test_that_is_named_exists() {
    let mut wrong = Vec::new();
    for row in rows() {
        if row.fate == Fate::Tested && row.tests.is_empty() {
            let Row {
                page,
                section,
                statement,
                ..
            } = &row;
            wrong.push(format!("{page} {section}: nothing tests: {statement}"));
        }
        for test in row.tests.iter().filter(|test| !exists(test)) {
            wrong.push(format!("{} {}: no test {test}", row.page, row.section));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And what does not exist is noticed.
    for none in [
        "it::wire::no_such_test",
        "it::wire::gateway",
        "it::nothing::pings_are_answered_and_a_close_is_returned",
        "lib::connection::machine::tests::machine",
    ] {
        assert!(!exists(none), "{none}");
    }
}

#[test]
fn every_statement_stands_there_once_and_in_a_section() {
    let mut known = BTreeSet::new();
    for Row {
        page,
        section,
        statement,
        ..
    } in rows()
    {
        let numbers = section.split('.').all(|part| part.parse::<u8>().is_ok());
        assert!(numbers, "{page}: {section} is no section: {statement}");
        assert!(!statement.is_empty(), "{page} {section}");
        let statement = format!("{section} {statement}");
        assert!(
            known.insert(statement.clone()),
            "{page} says it twice: {statement}"
        );
    }
}

#[test]
fn the_totals_are_right() {
    let rows = rows();
    let count = |wanted: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count();
    let line = |name: &str, wanted: &dyn Fn(&Row) -> bool| {
        let of = |fate| count(&|row: &Row| wanted(row) && row.fate == fate);
        format!(
            "| {name} | {} | {} | {} | {} |",
            count(wanted),
            of(Fate::Tested),
            of(Fate::OnPurpose),
            of(Fate::NotServed)
        )
    };
    let mut pages: Vec<_> = rows.iter().map(|row| row.page.as_str()).collect();
    pages.dedup();
    let mut table: Vec<_> = pages
        .iter()
        .map(|page| line(&format!("[{page}.md]({page}.md)"), &|row| row.page == *page))
        .collect();
    table.push(line("all", &|_| true));
    let readme = fs::read_to_string(root().join("docs/conformance/README.md")).expect("a text");
    let listed: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with("| [") || line.starts_with("| all "))
        .collect();
    assert_eq!(listed, table, "the table should be:\n{}", table.join("\n"));
}
