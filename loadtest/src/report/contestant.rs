//! The shape in which all scenarios tell their results: who was measured, and for each the numbers, the distributions of
//! times, and the values over time. The comparison of two runs and the page of plots know nothing else.

use std::borrow::Cow;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Key of a value, the same in all runs: `snake_case`.
pub(crate) type Key = Cow<'static, str>;

/// The contestant that does the least that is possible. The others are told as multiples of it.
pub(crate) const FLOOR: &str = "floor";

/// Points of a curve between two powers of ten of 1 - quantile.
const POINTS_PER_NINE: u32 = 10;

/// The curve ends at p99.99.
const NINES: u32 = 4;

/// Which way a number improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Lower,
    Higher,
    Neither,
}

/// One number of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: Key,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) unit: Key,
    pub(crate) value: f64,
    pub(crate) better: Better,
}

/// Times, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) name: Key,
    pub(crate) title: String,
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Quantile from 0 to 0.9999, and the time that this share did not exceed.
    #[serde(default)]
    pub(crate) curve: Vec<(f64, f64)>,
}

/// A value over the time of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: Key,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) unit: Key,
    /// Seconds since the start, and the value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// One of those that were measured in the same run: "tidings", "floor", a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) figures: Vec<Figure>,
    #[serde(default)]
    pub(crate) distributions: Vec<Distribution>,
    #[serde(default)]
    pub(crate) series: Vec<Series>,
}

impl Contestant {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            figures: Vec::new(),
            distributions: Vec::new(),
            series: Vec::new(),
        }
    }

    /// A value that is not a finite number (a division by nothing) is left out: JSON has no word for it.
    pub(crate) fn figure(
        mut self,
        name: impl Into<Key>,
        title: impl Into<String>,
        unit: impl Into<Key>,
        value: f64,
        better: Better,
    ) -> Self {
        if value.is_finite() {
            self.figures.push(Figure {
                name: name.into(),
                title: title.into(),
                unit: unit.into(),
                value,
                better,
            });
        }
        self
    }

    /// Of a histogram in microseconds. One in which nothing was recorded is left out: it would tell of a time of zero.
    pub(crate) fn distribution(
        mut self,
        name: impl Into<Key>,
        title: impl Into<String>,
        micros: &Histogram<u64>,
    ) -> Self {
        if !micros.is_empty() {
            self.distributions
                .push(Distribution::of(name.into(), title.into(), micros));
        }
        self
    }

    /// Points that are not finite are left out.
    pub(crate) fn series(
        mut self,
        name: impl Into<Key>,
        title: impl Into<String>,
        unit: impl Into<Key>,
        points: Vec<(f64, f64)>,
    ) -> Self {
        self.series.push(Series {
            name: name.into(),
            title: title.into(),
            unit: unit.into(),
            points: points
                .into_iter()
                .filter(|(at, value)| at.is_finite() && value.is_finite())
                .collect(),
        });
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    pub(crate) fn times(&self, name: &str) -> Option<&Distribution> {
        self.distributions.iter().find(|one| one.name == name)
    }
}

impl Distribution {
    fn of(name: Key, title: String, micros: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(micros.value_at_quantile(quantile));
        Self {
            name,
            title,
            count: micros.len(),
            mean: micros.mean().round() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: milliseconds(micros.max()),
            curve: quantiles(micros.len())
                .map(|quantile| (quantile, at(quantile)))
                .collect(),
        }
    }
}

/// Evenly spaced by the number of nines. Of 500 values none is the p99.99, so the curve ends where the values do.
fn quantiles(count: u64) -> impl Iterator<Item = f64> {
    (0..=NINES * POINTS_PER_NINE)
        .map(|point| 1.0 - 10_f64.powf(-f64::from(point) / f64::from(POINTS_PER_NINE)))
        // Short in JSON, and the same when it is read again.
        .map(|quantile| (quantile * 1e6).round() / 1e6)
        .take_while(move |quantile| *quantile <= 0.0 || (1.0 - quantile) * count as f64 >= 0.999)
}

pub(crate) fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// What a value is as a multiple of another.
pub(crate) fn ratio(value: f64, of: f64) -> Option<f64> {
    (of != 0.0)
        .then(|| value / of)
        .filter(|ratio| ratio.is_finite())
}

/// A figure as a multiple of the floor's. The floor itself has none, nor has a number that describes rather than judges.
pub(crate) fn ratio_to_floor(all: &[Contestant], one: &Contestant, figure: &Figure) -> Option<f64> {
    if one.name == FLOOR || figure.better == Better::Neither {
        return None;
    }
    let floor = all.iter().find(|other| other.name == FLOOR)?;
    ratio(figure.value, floor.get(&figure.name)?.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::histogram;

    fn times(values: impl Iterator<Item = u64>) -> Histogram<u64> {
        let mut micros = histogram();
        for value in values {
            micros.record(value).unwrap();
        }
        micros
    }

    #[test]
    fn json_keeps_everything() {
        let before = Contestant::new("tidings")
            .figure("rate", "messages a second", "/s", 1234.5, Better::Higher)
            .distribution("latency", "commit to receipt", &times(1..=20_000))
            .series("cores", "CPU", "cores", vec![(0.0, 0.5), (1.0, 1.5)]);
        let json = serde_json::to_string(&before).unwrap();
        assert!(json.contains(r#""better":"higher""#) && json.contains(r#""p99.9":"#));
        let after: Contestant = serde_json::from_str(&json).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let one = Contestant::new("tidings")
            .figure("a", "a", "", f64::NAN, Better::Lower)
            .figure("b", "b", "", 1.0 / 0.0, Better::Lower)
            .figure("c", "c", "", 0.0, Better::Lower)
            .distribution("none", "none", &histogram())
            .series("s", "s", "", vec![(0.0, f64::NAN), (1.0, 2.0)]);
        assert_eq!(one.figures.len(), 1);
        assert!(one.distributions.is_empty());
        assert_eq!(one.series[0].points, [(1.0, 2.0)]);
    }

    #[test]
    fn a_curve_goes_as_far_as_its_values() {
        let one = Contestant::new("x").distribution("t", "t", &times((1..=10_000).map(|n| n * 10)));
        let curve = &one.distributions[0].curve;
        assert_eq!(curve.len(), 41);
        assert!((curve[0].0, curve[40].0) == (0.0, 0.9999), "{curve:?}");
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        let few = Contestant::new("x").distribution("t", "t", &times(1..=100));
        assert_eq!(few.distributions[0].curve.len(), 21);
        let single = Contestant::new("x").distribution("t", "t", &times(5..=5));
        assert_eq!(single.distributions[0].curve, [(0.0, 0.005)]);
    }

    #[test]
    fn ratios_are_to_the_floor_and_never_by_zero() {
        let with = |name: &str, value| {
            Contestant::new(name)
                .figure("cpu", "CPU", "µs", value, Better::Lower)
                .figure("count", "count", "", value, Better::Neither)
        };
        let all = [with("tidings", 3.0), with(FLOOR, 2.0)];
        let of = |one: usize, name| ratio_to_floor(&all, &all[one], all[one].get(name).unwrap());
        assert_eq!(of(0, "cpu"), Some(1.5));
        assert_eq!((of(0, "count"), of(1, "cpu")), (None, None));
        let zero = [with("tidings", 3.0), with(FLOOR, 0.0)];
        assert_eq!(ratio_to_floor(&zero, &zero[0], &zero[0].figures[0]), None);
    }
}
