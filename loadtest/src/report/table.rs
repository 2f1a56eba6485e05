//! Results in a terminal: figures as rows, contestants as columns; below them the times.

use std::fmt::Write as _;

use super::contestant::{Contestant, Figure, ratio_to_floor};

/// Figures in the order in which the contestants have them; then one block for each distribution.
pub(crate) fn contestants_table(contestants: &[Contestant]) -> String {
    let mut table = figures(contestants);
    let times = times(contestants);
    if !table.is_empty() && !times.is_empty() {
        table.push('\n');
    }
    table + &times
}

fn figures(contestants: &[Contestant]) -> String {
    let names = in_order(contestants.iter().flat_map(|one| &one.figures), |figure| {
        &figure.name
    });
    if names.is_empty() {
        return String::new();
    }
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(contestants.iter().map(|one| one.name.clone()));
    for first in names {
        let mut row = vec![titled(first)];
        row.extend(contestants.iter().map(|one| {
            one.get(&first.name)
                .map_or_else(|| "-".to_owned(), |figure| cell(contestants, one, figure))
        }));
        rows.push(row);
    }
    aligned(&rows)
}

fn titled(figure: &Figure) -> String {
    match &*figure.unit {
        "" => figure.title.clone(),
        unit => format!("{}, {unit}", figure.title),
    }
}

fn cell(all: &[Contestant], one: &Contestant, figure: &Figure) -> String {
    match ratio_to_floor(all, one, figure) {
        Some(ratio) => format!("{} ({ratio:.2}×)", number(figure.value)),
        None => number(figure.value),
    }
}

fn times(contestants: &[Contestant]) -> String {
    let names = in_order(
        contestants.iter().flat_map(|one| &one.distributions),
        |one| &one.name,
    );
    if names.is_empty() {
        return String::new();
    }
    let heading = ["milliseconds", "p50", "p90", "p99", "p99.9", "max", "count"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for first in names {
        let alone = contestants.len() == 1;
        if !alone {
            rows.push(vec![first.title.clone()]);
        }
        for one in contestants {
            let Some(times) = one.times(&first.name) else {
                continue;
            };
            let mut row = vec![if alone {
                times.title.clone()
            } else {
                format!("  {}", one.name)
            }];
            row.extend(
                [times.p50, times.p90, times.p99, times.p999, times.max]
                    .map(|time| format!("{time:.2}")),
            );
            row.push(number(times.count as f64));
            rows.push(row);
        }
    }
    aligned(&rows)
}

/// The first of each name. There are a handful, so a search is enough.
pub(crate) fn in_order<'a, T>(
    all: impl Iterator<Item = &'a T>,
    name: fn(&T) -> &str,
) -> Vec<&'a T> {
    let mut first: Vec<&T> = Vec::new();
    for one in all {
        if !first.iter().any(|other| name(other) == name(one)) {
            first.push(one);
        }
    }
    first
}

/// The first column to the left, numbers to the right. A row may be shorter than others.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let least = if column == 0 { 34 } else { 8 };
            cells
                .map(|cell| cell.chars().count())
                .fold(least, usize::max)
        })
        .collect();
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = if column == 0 {
                write!(line, "{cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// About four digits that matter, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if !value.is_finite() => return "-".to_owned(),
        _ if value.fract() == 0.0 || size >= 1000.0 => 0,
        _ if size >= 100.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.001 => 4,
        _ => return format!("{value:.2e}"),
    };
    let text = format!("{size:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut number = String::new();
    if value < 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        number.push('-');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            number.push(',');
        }
        number.push(digit);
    }
    if !rest.is_empty() {
        number.push('.');
        number.push_str(rest);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::histogram;
    use crate::report::Better;

    #[test]
    fn numbers_have_as_many_digits_as_matter() {
        let told = [
            0.0,
            7.0,
            1234567.0,
            1234.5,
            123.45,
            12.345,
            0.12345,
            0.000_012_3,
            -2500.0,
            -0.5,
        ]
        .map(number);
        assert_eq!(
            told,
            [
                "0",
                "7",
                "1,234,567",
                "1,234",
                "123.5",
                "12.35",
                "0.1235",
                "1.23e-5",
                "-2,500",
                "-0.5000"
            ]
        );
        assert_eq!(number(f64::NAN), "-");
        assert_eq!(number(-0.0), "0");
    }

    #[test]
    fn contestants_stand_side_by_side() {
        let mut micros = histogram();
        micros.record(1500).unwrap();
        let all = [
            Contestant::new("tidings")
                .figure("cpu", "CPU of a delivery", "µs", 3.0, Better::Lower)
                .figure("extra", "extra", "", 1.0, Better::Neither)
                .distribution("latency", "commit to receipt", &micros),
            Contestant::new("floor").figure("cpu", "CPU of a delivery", "µs", 2.0, Better::Lower),
        ];
        let table = contestants_table(&all);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["tidings", "floor"]);
        assert_eq!(
            lines[1],
            ["CPU", "of", "a", "delivery,", "µs", "3", "(1.50×)", "2"]
        );
        assert_eq!(lines[2], ["extra", "1", "-"]);
        assert_eq!(lines[5], ["commit", "to", "receipt"]);
        assert_eq!(lines[6][..3], ["tidings", "1.50", "1.50"]);
        assert_eq!(lines.len(), 7);
        // Numbers end in the same column.
        let ends: Vec<usize> = table
            .lines()
            .take(3)
            .map(|line| line.chars().count())
            .collect();
        assert!(ends.windows(2).all(|two| two[0] == two[1]), "{table}");
    }

    #[test]
    fn nobody_makes_an_empty_table() {
        assert_eq!(contestants_table(&[]), "");
        assert_eq!(contestants_table(&[Contestant::new("tidings")]), "");
    }
}
