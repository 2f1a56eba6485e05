//! From values to places on an axis, and where its lines stand.

use crate::report::number;

const SMALLEST: f64 = 1e-12;
const LARGEST: f64 = 1e15;

/// A place on an axis, from 0 to 1, and what stands there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// From 0 to a round number.
pub(super) struct Linear {
    top: f64,
    step: f64,
}

/// Between two round numbers, each decade as long as the other.
pub(super) struct Log {
    bottom: f64,
    top: f64,
}

impl Linear {
    /// About so many steps up to the largest value. Values below 0 are drawn at 0.
    pub(super) fn to(largest: f64, steps: f64) -> Self {
        let largest = drawable(largest);
        let step = round_up(largest / steps);
        Self {
            top: step * (largest / step - 1e-9).ceil(),
            step,
        }
    }

    /// An axis of time ends where the time ends.
    pub(super) fn ending_at(largest: f64, steps: f64) -> Self {
        Self {
            top: drawable(largest),
            ..Self::to(largest, steps)
        }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        (value / self.top).clamp(0.0, 1.0)
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        let count = (self.top / self.step + 1e-9).floor() as u32;
        (0..=count)
            .map(|index| {
                let value = self.step * f64::from(index);
                Tick {
                    at: self.place(value),
                    label: short(value),
                }
            })
            .collect()
    }
}

impl Log {
    /// Around these values. What is not above 0 is drawn at the bottom.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| (SMALLEST..=LARGEST).contains(value));
        let (least, most) = positive.fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        if most <= 0.0 {
            return Self {
                bottom: 0.01,
                top: 1.0,
            };
        }
        let bottom = round_down(least);
        let mut top = round_up(most);
        if top < bottom * 2.0 {
            top = round_up(bottom * 2.0);
        }
        Self { bottom, top }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        if value <= self.bottom {
            return 0.0;
        }
        ((value / self.bottom).log10() / (self.top / self.bottom).log10()).clamp(0.0, 1.0)
    }

    /// At each decade; if there are few, also at 2 and 5.
    pub(super) fn ticks(&self, label: fn(f64) -> String) -> Vec<Tick> {
        let decades = (self.top / self.bottom).log10();
        let steps: &[f64] = if decades <= 2.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let first = self.bottom.log10().floor() as i32;
        let last = self.top.log10().ceil() as i32;
        let every = if decades > 6.0 { 2 } else { 1 };
        (first..=last)
            .filter(|decade| (decade - first) % every == 0)
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .filter(|value| *value >= self.bottom * 0.999 && *value <= self.top * 1.001)
            .map(|value| Tick {
                at: self.place(value),
                label: label(value),
            })
            .collect()
    }
}

/// What no measurement reaches is left to the edge of the plot.
fn drawable(largest: f64) -> f64 {
    if largest > SMALLEST {
        largest.min(LARGEST)
    } else {
        1.0
    }
}

/// The next of 1, 2, 5, 10, …
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps
        .into_iter()
        .find(|step| step * decade >= value * (1.0 - 1e-9));
    step.unwrap_or(10.0) * decade
}

fn round_down(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [10.0, 5.0, 2.0, 1.0];
    let step = steps
        .into_iter()
        .find(|step| step * decade <= value * (1.0 + 1e-9));
    step.unwrap_or(1.0) * decade
}

/// For an axis, where there is little room.
fn short(value: f64) -> String {
    for (size, letter) in [(1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if value >= size {
            let unit = if letter == "k" { 1e3 } else { size };
            return trimmed(value / unit) + letter;
        }
    }
    trimmed(value)
}

/// A time in milliseconds with the unit that suits it.
pub(super) fn duration(milliseconds: f64) -> String {
    match milliseconds {
        time if time >= 1000.0 => trimmed(time / 1000.0) + " s",
        time if time >= 1.0 => trimmed(time) + " ms",
        time => trimmed(time * 1000.0) + " µs",
    }
}

/// Three digits that matter, and no zeros at the end.
fn trimmed(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return number(value.round());
    }
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|tick| &*tick.label).collect()
    }

    #[test]
    fn linear_axes_end_at_round_numbers() {
        let scale = Linear::to(83.0, 4.0);
        assert_eq!(labels(&scale.ticks()), ["0", "50", "100"]);
        assert!((scale.place(50.0) - 0.5).abs() < 1e-9);
        assert_eq!((scale.place(-3.0), scale.place(1e9)), (0.0, 1.0));
        assert_eq!(
            labels(&Linear::to(40_000.0, 4.0).ticks()),
            ["0", "10k", "20k", "30k", "40k"]
        );
        assert_eq!(
            labels(&Linear::to(0.3, 3.0).ticks()),
            ["0", "0.1", "0.2", "0.3"]
        );
        let time = Linear::ending_at(29.7, 6.0);
        assert_eq!(labels(&time.ticks()), ["0", "5", "10", "15", "20", "25"]);
        assert_eq!(time.place(29.7), 1.0);
    }

    #[test]
    fn log_axes_have_decades_of_one_length() {
        let scale = Log::around([0.3, 0.0, 730.0].into_iter());
        assert_eq!(
            labels(&scale.ticks(duration)),
            ["1 ms", "10 ms", "100 ms", "1 s"]
        );
        let step = scale.place(10.0) - scale.place(1.0);
        assert!((scale.place(100.0) - scale.place(10.0) - step).abs() < 1e-9);
        assert_eq!((scale.place(0.0), scale.place(1e9)), (0.0, 1.0));
        let narrow = Log::around([3.0, 4.0].into_iter());
        assert_eq!(labels(&narrow.ticks(duration)), ["2 ms", "5 ms"]);
    }

    #[test]
    fn nothing_to_show_is_no_trouble() {
        for scale in [
            Linear::to(0.0, 4.0),
            Linear::to(f64::NAN, 4.0),
            Linear::ending_at(0.0, 6.0),
        ] {
            assert!((2..=12).contains(&scale.ticks().len()));
            assert!(scale.ticks().iter().all(|tick| tick.at.is_finite()));
            assert!(scale.place(0.0) == 0.0);
        }
        for values in [
            vec![],
            vec![0.0],
            vec![5.0],
            vec![1e-9, 1e9],
            vec![f64::MIN_POSITIVE, f64::MAX],
        ] {
            let scale = Log::around(values.into_iter());
            let ticks = scale.ticks(duration);
            assert!((2..=12).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks.iter().all(|tick| (0.0..=1.0).contains(&tick.at)));
        }
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let told = [0.005, 0.1, 1.0, 12.34, 123.4, 1500.0, 0.0].map(duration);
        assert_eq!(
            told,
            [
                "5 µs", "100 µs", "1 ms", "12.3 ms", "123 ms", "1.5 s", "0 µs"
            ]
        );
    }
}
