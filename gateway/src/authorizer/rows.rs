//! What is sent of a row to those who evaluate a filter.

use crate::feed::change::Record;

/// The rows with just the columns that a filter reads: the others may be large, and one may hold what PostgreSQL stores as `json`
/// and cannot read (`\u0000`).
pub(super) fn only_read(statement: &str, rows: Vec<Box<str>>) -> Vec<Box<str>> {
    let Some(columns) = columns_read(statement) else {
        return rows;
    };
    let project = |row: Box<str>| match Record::parse(row.clone()) {
        Ok(record) => record.project(columns.iter().map(String::as_str)).into(),
        Err(_) => row,
    };
    rows.into_iter().map(project).collect()
}

/// They stand in the statement's last line: `tidings.check_filter`.
fn columns_read(statement: &str) -> Option<Vec<String>> {
    let (_, columns) = statement.rsplit_once("\n-- ")?;
    serde_json::from_str(columns).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_cut_to_the_columns_of_the_last_line() {
        let statement = "select '\n-- [\"x\"]'\n-- [\"a\", \"b\\n-- \"]";
        let row = r#"{"x":1,"a":[1.50],"b\n-- ":null}"#;
        let cut = only_read(statement, vec![row.into()]);
        assert_eq!(*cut[0], *r#"{"a":[1.50],"b\n-- ":null}"#);
        let whole = only_read("select 1", vec![row.into()]);
        assert_eq!(*whole[0], *row);
    }
}
