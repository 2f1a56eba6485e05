//! Results in a terminal: figures as rows, contestants as columns; below them the times.

use std::fmt::Write as _;

use super::contestant::{Contestant, Figure, ratio_to_floor};
use super::digits::{Digits, number};

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
        let found = contestants.iter().filter_map(|one| one.get(&first.name));
        let digits = Digits::of(found.map(|figure| figure.value));
        let mut row = vec![titled(first)];
        row.extend(contestants.iter().map(|one| {
            one.get(&first.name).map_or_else(
                || "-".to_owned(),
                |figure| cell(contestants, one, figure, &digits),
            )
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

fn cell(all: &[Contestant], one: &Contestant, figure: &Figure, digits: &Digits) -> String {
    let value = digits.text(figure.value);
    match ratio_to_floor(all, one, figure) {
        Some(ratio) => format!("{value} ({ratio:.2}×)"),
        None => value,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::histogram;
    use crate::report::Better;

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
