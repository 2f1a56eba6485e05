//! The tables of docs/errors.md.

pub(super) const PAGE: &str = include_str!("../../../../docs/errors.md");

/// A row of a table: what its cells say, without the marks of code.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
}

impl Row {
    /// Whether this is what the row says, but for the parts that vary.
    pub(super) fn fits(&self, column: usize, told: &str) -> bool {
        fits(&self.cells[column], told)
    }
}

/// The rows of the table below this heading.
pub(super) fn rows(heading: &str) -> Vec<Row> {
    let lines: Vec<_> = PAGE
        .lines()
        .skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'))
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|'))
        // The names of the columns, and the line below them.
        .skip(2)
        .collect();
    assert!(!lines.is_empty(), "no table below {heading:?}");
    let mut rows = Vec::new();
    for line in lines {
        let inside = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'));
        let cells = inside.unwrap_or_else(|| panic!("no row: {line}"));
        let cells = cells.split('|').map(|cell| bare(cell.trim())).collect();
        rows.push(Row { cells });
    }
    rows
}

/// A cell that is one piece of code, without its marks; any other as it is.
fn bare(cell: &str) -> String {
    if cell == "(empty)" {
        return String::new();
    }
    let marks = cell.len() - cell.trim_start_matches('`').len();
    let (open, rest) = cell.split_at(marks);
    let code = rest.strip_suffix(open).filter(|code| {
        let ends_here = !code.contains(open) && !code.ends_with('`');
        marks > 0 && ends_here
    });
    let Some(code) = code else {
        return cell.to_owned();
    };
    let padded = code
        .strip_prefix(' ')
        .and_then(|code| code.strip_suffix(' '));
    padded.unwrap_or(code).to_owned()
}

/// Whether a text is what a pattern says, in which `…` is anything.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// Provokes each row of a table; what is told must be what stands in these columns.
pub(super) async fn walk<const N: usize>(
    heading: &str,
    columns: [usize; N],
    provoke: impl AsyncFn([&str; N]) -> [String; N],
) {
    let mut wrong = Vec::new();
    for row in rows(heading) {
        let told = Box::pin(provoke(columns.map(|column| &*row.cells[column]))).await;
        let fits = columns
            .iter()
            .zip(&told)
            .all(|(column, told)| row.fits(*column, told));
        if !fits {
            wrong.push(format!("{:?}: {told:?}", row.cells));
        }
    }
    assert!(wrong.is_empty(), "{heading}: {wrong:#?}");
}

#[test]
fn variable_parts_are_anything_and_all_else_is_exact() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a … c", "a b c", true),
        ("a … c", "a c", false),
        ("…", "", true),
        ("x…y…z", "x1y2z", true),
        ("x…y…z", "x1z", false),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
    }
    for (cell, expected) in [
        ("`a`", "a"),
        ("`` `a` b ``", "`a` b"),
        ("``a `b` ``", "a `b` "),
        ("`a` or `b`", "`a` or `b`"),
        ("(empty)", ""),
    ] {
        assert_eq!(bare(cell), expected);
    }
}
