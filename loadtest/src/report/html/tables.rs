//! Everything, as numbers.

use super::markup::{Element, Markup, element};
use crate::report::{Contestant, Digits, in_order, number, ratio_to_floor};

/// Figures as rows, contestants as columns.
pub(super) fn figures(contestants: &[Contestant]) -> Markup {
    let names = in_order(contestants.iter().flat_map(|one| &one.figures), |figure| {
        &figure.name
    });
    if names.is_empty() {
        return Markup::default();
    }
    // Multiples of the floor have a column of their own, so that the values stand in line.
    let multiples: Vec<bool> = contestants
        .iter()
        .map(|one| {
            let ratio = |figure| ratio_to_floor(contestants, one, figure);
            one.figures.iter().any(|figure| ratio(figure).is_some())
        })
        .collect();
    let heading = ["", "unit"].map(column).into_iter();
    let names_of = contestants.iter().zip(&multiples);
    let heading = heading.chain(names_of.map(|(one, wide)| match wide {
        true => column(&one.name).attribute("colspan", 2),
        false => column(&one.name),
    }));
    let rows = names.into_iter().map(|first| {
        let found = contestants.iter().filter_map(|one| one.get(&first.name));
        let digits = Digits::of(found.map(|figure| figure.value));
        let cells = contestants
            .iter()
            .zip(&multiples)
            .flat_map(move |(one, wide)| {
                let figure = one.get(&first.name);
                let value =
                    figure.map_or_else(|| "–".to_owned(), |figure| digits.text(figure.value));
                let ratio = wide.then(|| {
                    let ratio = figure.and_then(|figure| ratio_to_floor(contestants, one, figure));
                    let text = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}×"));
                    element("td").class("ratio").text(text)
                });
                [Some(element("td").text(value)), ratio]
                    .into_iter()
                    .flatten()
            });
        element("tr")
            .child(row_heading(&first.title))
            .child(element("td").class("unit").text(&first.unit))
            .children(cells)
    });
    table(heading, rows)
}

/// Percentiles as columns; one row for each distribution of each contestant.
pub(super) fn times(contestants: &[Contestant]) -> Markup {
    let names = in_order(
        contestants.iter().flat_map(|one| &one.distributions),
        |one| &one.name,
    );
    if names.is_empty() {
        return Markup::default();
    }
    let heading = [
        "milliseconds",
        "",
        "mean",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "count",
    ];
    let rows = names.into_iter().flat_map(|first| {
        let found = contestants
            .iter()
            .filter_map(|one| Some((one, one.times(&first.name)?)));
        found.map(|(one, times)| {
            let values = [
                times.mean, times.p50, times.p90, times.p99, times.p999, times.max,
            ];
            element("tr")
                .child(row_heading(&times.title))
                .child(element("td").class("unit").text(&one.name))
                .children(values.map(|time| element("td").text(milliseconds(time))))
                .child(element("td").text(number(times.count as f64)))
        })
    });
    table(heading.into_iter().map(column), rows)
}

fn milliseconds(time: f64) -> String {
    if time.is_finite() && time < 1000.0 {
        format!("{time:.2}")
    } else {
        number(time)
    }
}

fn row_heading(title: &str) -> Element {
    element("th").attribute("scope", "row").text(title)
}

fn column(title: &str) -> Element {
    element("th").attribute("scope", "col").text(title)
}

fn table(heading: impl Iterator<Item = Element>, rows: impl Iterator<Item = Element>) -> Markup {
    element("div")
        .class("wide")
        .child(
            element("table")
                .child(element("thead").child(element("tr").children(heading)))
                .child(element("tbody").children(rows)),
        )
        .into()
}
