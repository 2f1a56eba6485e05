//! Values over the time of the run.

use super::markup::Markup;
use super::palette::Palette;
use super::plot::{Line, Plot, Spot};
use super::scale::Linear;
use crate::report::{Contestant, Series, in_order, number};

/// Of a line with more points, the highest and the lowest of each stretch are drawn: no peak is lost.
const STRETCHES: usize = 100;

pub(super) fn over_time(contestants: &[Contestant], palette: &Palette) -> Vec<Markup> {
    let all = contestants.iter().flat_map(|one| &one.series);
    in_order(all, |one| &one.name)
        .into_iter()
        .filter_map(|first| series(contestants, first, palette))
        .collect()
}

fn series(contestants: &[Contestant], first: &Series, palette: &Palette) -> Option<Markup> {
    let found: Vec<(&Contestant, Vec<(f64, f64)>)> = contestants
        .iter()
        .filter_map(|one| {
            let series = one.series.iter().find(|other| other.name == first.name)?;
            Some((one, drawable(&series.points)))
        })
        .filter(|(_, points)| !points.is_empty())
        .collect();
    if found.is_empty() {
        return None;
    }
    let largest = |of: fn(&(f64, f64)) -> f64| {
        let all = found.iter().flat_map(|(_, points)| points);
        all.map(of).fold(0.0, f64::max)
    };
    let (x, y) = (
        Linear::ending_at(largest(|point| point.0), 6.0),
        Linear::to(largest(|point| point.1), 4.0),
    );
    let unit = match &*first.unit {
        "" => String::new(),
        unit => format!(" {unit}"),
    };
    let lines = found.iter().map(|(one, points)| Line {
        name: one.name.clone(),
        class: palette.class(&one.name),
        note: note(points, &unit),
        spots: thinned(points)
            .into_iter()
            .map(|(at, value)| Spot {
                x: x.place(at),
                y: y.place(value),
                tip: format!("{}, {at:.1} s: {}{unit}", one.name, number(value)),
            })
            .collect(),
    });
    let plot = Plot {
        title: first.title.clone(),
        x_label: "seconds".to_owned(),
        y_label: first.unit.to_string(),
        x_ticks: x.ticks(),
        y_ticks: y.ticks(),
        lines: lines.collect(),
    };
    Some(plot.draw())
}

fn drawable(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = points
        .iter()
        .copied()
        .filter(|(at, value)| at.is_finite() && value.is_finite())
        .collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

fn note(points: &[(f64, f64)], unit: &str) -> String {
    let values = || points.iter().map(|point| point.1);
    let mean = values().sum::<f64>() / points.len().max(1) as f64;
    let most = values().fold(f64::NEG_INFINITY, f64::max);
    format!("mean {} · most {}{unit}", number(mean), number(most))
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= STRETCHES * 2 {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(STRETCHES);
    points
        .chunks(stretch)
        .flat_map(|chunk| {
            let places = 0..chunk.len();
            let by_value = |one: &usize, other: &usize| chunk[*one].1.total_cmp(&chunk[*other].1);
            let (low, high) = (places.clone().min_by(by_value), places.max_by(by_value));
            let (first, second) = (low.min(high), low.max(high));
            let second = second.filter(|_| first != second);
            first.into_iter().chain(second).map(|index| chunk[index])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_peaks() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), 1.0)).collect();
        points[1234].1 = 99.0;
        points[8765].1 = -5.0;
        let thin = thinned(&points);
        assert!(thin.len() <= STRETCHES * 2, "{}", thin.len());
        assert!(thin.contains(&(1234.0, 99.0)) && thin.contains(&(8765.0, -5.0)));
        assert!(thin.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!(thinned(&points[..150]), points[..150]);
    }
}
