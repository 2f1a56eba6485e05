//! Times by percentile: each nine takes the same room, so that the slowest few can be seen.

use super::markup::Markup;
use super::palette::Palette;
use super::plot::{Line, Plot, Spot};
use super::scale::{Log, Tick, duration};
use crate::report::{Contestant, Distribution, in_order};

/// The axis goes to p99 at least.
const FEWEST_NINES: f64 = 2.0;
const MOST_NINES: f64 = 5.0;

pub(super) fn curves(contestants: &[Contestant], palette: &Palette) -> Vec<Markup> {
    let all = contestants.iter().flat_map(|one| &one.distributions);
    in_order(all, |one| &one.name)
        .into_iter()
        .filter_map(|first| curve(contestants, first, palette))
        .collect()
}

fn curve(contestants: &[Contestant], first: &Distribution, palette: &Palette) -> Option<Markup> {
    let found: Vec<(&Contestant, &Distribution)> = contestants
        .iter()
        .filter_map(|one| Some((one, one.times(&first.name)?)))
        .filter(|(_, times)| times.points().next().is_some())
        .collect();
    if found.is_empty() {
        return None;
    }
    let points = || found.iter().flat_map(|(_, times)| times.points());
    let end = points()
        .map(|(quantile, _)| nines(quantile))
        .fold(FEWEST_NINES, f64::max);
    let scale = Log::around(points().map(|(_, time)| time));
    let lines = found.iter().map(|(one, times)| Line {
        name: one.name.clone(),
        class: palette.class(&one.name),
        note: format!("p50 {} · p99 {}", duration(times.p50), duration(times.p99)),
        spots: times
            .points()
            .map(|(quantile, time)| Spot {
                x: nines(quantile) / end,
                y: scale.place(time),
                tip: format!(
                    "{}, p{}: {}",
                    one.name,
                    percentile(quantile),
                    duration(time)
                ),
            })
            .collect(),
    });
    let plot = Plot {
        // In a terminal, some titles are indented.
        title: first.title.trim().to_owned(),
        x_label: "percentile".to_owned(),
        y_label: String::new(),
        x_ticks: ticks(end),
        y_ticks: scale.ticks(duration),
        lines: lines.collect(),
    };
    Some(plot.draw())
}

impl Distribution {
    /// What can be drawn. A file may hold anything.
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let fits =
            |(quantile, time): &(f64, f64)| (0.0..1.0).contains(quantile) && time.is_finite();
        self.curve.iter().copied().filter(fits)
    }
}

/// How many nines a quantile has: 1 for 0.9, 2 for 0.99.
fn nines(quantile: f64) -> f64 {
    (-(1.0 - quantile).log10()).clamp(0.0, MOST_NINES)
}

fn ticks(end: f64) -> Vec<Tick> {
    [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]
        .into_iter()
        .filter(|quantile| nines(*quantile) <= end + 1e-6)
        .map(|quantile| Tick {
            at: nines(quantile) / end,
            label: percentile(quantile),
        })
        .collect()
}

fn percentile(quantile: f64) -> String {
    let text = format!("{:.3}", quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nine_takes_the_same_room() {
        for (quantile, expected) in [
            (0.0, 0.0),
            (0.9, 1.0),
            (0.99, 2.0),
            (0.9999, 4.0),
            (1.0 - 1e-12, 5.0),
        ] {
            assert!((nines(quantile) - expected).abs() < 1e-6, "{quantile}");
        }
        let labels: Vec<String> = ticks(4.0).into_iter().map(|tick| tick.label).collect();
        assert_eq!(labels, ["0", "50", "90", "99", "99.9", "99.99"]);
    }
}
