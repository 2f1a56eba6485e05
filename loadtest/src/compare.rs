//! `compare`: what changed from one run of a scenario to another. Each figure and each percentile of those that both runs
//! measured, and whether it became better or worse by more than the noise.

mod change;
mod differences;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use self::change::{Change, Value, Verdict};
use self::differences::differences;
use crate::report::{Better, Contestant, Digits, FLOOR, Report, aligned, ratio};

/// A percentile with fewer values beyond it is a matter of chance, and is not judged.
const LEAST_BEYOND: f64 = 10.0;

/// Milliseconds. Times that differ by less are the same: this is what the scheduler makes of them.
const LEAST_TIME: f64 = 0.05;

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The file that a scenario wrote with --json before the change.
    before: PathBuf,

    /// The same, after the change.
    after: PathBuf,

    /// Percent by which a figure may change without being called better or worse.
    #[arg(long, default_value_t = 5.0)]
    noise: f64,

    /// Exit with 1 if something became worse by more than this percentage. The floor is left out: it is the machine's.
    #[arg(long)]
    fail_above: Option<f64>,

    /// Judge by the multiple of the floor of the same run, where both runs have one, and not by the figure itself.
    #[arg(long)]
    against_floor: bool,

    /// Look at this contestant only. May be given several times.
    #[arg(long = "contestant")]
    only: Vec<String>,
}

/// Returns whether nothing became worse by more than is allowed.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<bool> {
    ensure!(
        args.noise >= 0.0 && args.fail_above.is_none_or(|limit| limit >= 0.0),
        "--noise and --fail-above are percentages, and must be at least 0"
    );
    let (before, after) = (Report::read(&args.before)?, Report::read(&args.after)?);
    let comparison = Comparison::of(&before, &after, args)?;
    print!("before  {}after   {}", before.heading(), after.heading());
    for warning in differences(&before, &after).iter().chain(&comparison.gaps) {
        println!("warning: {warning}");
    }
    println!();
    print!("{}", comparison.table());
    println!("{}", comparison.summary());
    let Some(limit) = args.fail_above else {
        return Ok(true);
    };
    let failures = comparison.worse_than(limit);
    for row in &failures {
        println!(
            "worse by more than {limit} %: {}, {}: {}",
            row.contestant,
            row.title,
            row.change.text()
        );
    }
    Ok(failures.is_empty())
}

struct Comparison {
    rows: Vec<Row>,
    /// What only one of the runs has.
    gaps: Vec<String>,
}

struct Row {
    contestant: String,
    title: String,
    before: f64,
    after: f64,
    /// What before and after are as multiples of the floors of their runs.
    multiples: Option<(f64, f64)>,
    change: Change,
}

/// The values of a contestant that can be compared, with their keys.
type Values<'a> = Vec<((&'a str, &'static str), Value)>;

impl Comparison {
    fn of(before: &Report, after: &Report, args: &CompareArgs) -> anyhow::Result<Self> {
        let (old, new) = (before.contestants()?, after.contestants()?);
        let wanted = |one: &&Contestant| args.only.is_empty() || args.only.contains(&one.name);
        let floors = (floor(&old), floor(&new));
        let mut comparison = Self {
            rows: Vec::new(),
            gaps: Vec::new(),
        };
        for one in old.iter().filter(wanted) {
            match new.iter().find(|other| other.name == one.name) {
                Some(other) => comparison.add(one, other, floors, args),
                None => comparison
                    .gaps
                    .push(format!("{} was measured before only", one.name)),
            }
        }
        for one in new.iter().filter(wanted) {
            if !old.iter().any(|other| other.name == one.name) {
                comparison
                    .gaps
                    .push(format!("{} was measured after only", one.name));
            }
        }
        ensure!(
            !comparison.rows.is_empty(),
            "these runs have no figure of the same contestant in common: compare two runs of one scenario, \
             and name their contestants with --contestant"
        );
        Ok(comparison)
    }

    fn add(
        &mut self,
        old: &Contestant,
        new: &Contestant,
        floors: (Option<&Contestant>, Option<&Contestant>),
        args: &CompareArgs,
    ) {
        let news = values(new);
        let floors = (floors.0.map(values), floors.1.map(values));
        for (key, before) in values(old) {
            let Some(after) = find(&news, key) else {
                self.gap(old, key, &before, "before");
                continue;
            };
            let multiples = (old.name != FLOOR && before.better != Better::Neither)
                .then(|| {
                    let floor = |floor: &Option<Values>| Some(find(floor.as_ref()?, key)?.value);
                    let first = ratio(before.value, floor(&floors.0)?)?;
                    Some((first, ratio(after.value, floor(&floors.1)?)?))
                })
                .flatten();
            let change = match multiples {
                Some((first, second)) if args.against_floor => {
                    Change::judge(&before.with(first), &after.with(second), args.noise)
                }
                _ => Change::judge(&before, after, args.noise),
            };
            self.rows.push(Row {
                contestant: old.name.clone(),
                title: before.title,
                before: before.value,
                after: after.value,
                multiples,
                change,
            });
        }
        let olds = values(old);
        for (key, after) in &news {
            if find(&olds, *key).is_none() {
                self.gap(new, *key, after, "after");
            }
        }
    }

    /// The first percentile speaks for the others.
    fn gap(&mut self, one: &Contestant, key: (&str, &str), value: &Value, when: &str) {
        if matches!(key.1, "" | "p50") {
            self.gaps.push(format!(
                "{}: {} was measured {when} only",
                one.name, value.title
            ));
        }
    }

    fn table(&self) -> String {
        let has_floor = self.rows.iter().any(|row| row.multiples.is_some());
        let mut lines: Vec<Vec<String>> = Vec::new();
        let mut last = "";
        for row in &self.rows {
            if row.contestant != last {
                if !last.is_empty() {
                    lines.push(Vec::new());
                }
                last = &row.contestant;
                let mut heading = vec![last, "before", "after", "change", ""];
                if has_floor && last != FLOOR {
                    heading.extend(["floors before", "after"]);
                }
                lines.push(heading.into_iter().map(str::to_owned).collect());
            }
            let digits = Digits::of([row.before, row.after]);
            let mut line = vec![
                row.title.clone(),
                digits.text(row.before),
                digits.text(row.after),
                row.change.text(),
                row.change.verdict.word().to_owned(),
            ];
            if let Some((before, after)) = row.multiples {
                line.extend([before, after].map(|multiple| format!("{multiple:.2}×")));
            }
            lines.push(line);
        }
        aligned(&lines)
    }

    fn summary(&self) -> String {
        let count = |verdict| {
            let rows = self.rows.iter().filter(|row| row.contestant != FLOOR);
            rows.filter(|row| row.change.verdict == verdict).count()
        };
        let mut text = format!(
            "\n{} better, {} worse, {} the same",
            count(Verdict::Better),
            count(Verdict::Worse),
            count(Verdict::Same)
        );
        let moved = |row: &&Row| {
            row.contestant == FLOOR
                && matches!(row.change.verdict, Verdict::Better | Verdict::Worse)
        };
        match self.rows.iter().filter(moved).count() {
            0 => {}
            count => {
                text += &format!(
                    "\nthe floor itself changed in {count} of its figures, so the machine was not the same: \
                 look at the multiples, or use --against-floor"
                )
            }
        }
        text
    }

    fn worse_than(&self, percent: f64) -> Vec<&Row> {
        self.rows
            .iter()
            .filter(|row| row.contestant != FLOOR)
            .filter(|row| row.change.verdict == Verdict::Worse && row.change.worse_by > percent)
            .collect()
    }
}

fn floor(all: &[Contestant]) -> Option<&Contestant> {
    all.iter().find(|one| one.name == FLOOR)
}

fn find<'a>(values: &'a Values, key: (&str, &str)) -> Option<&'a Value> {
    values
        .iter()
        .find(|(other, _)| *other == key)
        .map(|(_, value)| value)
}

/// Figures as they are; of each distribution the percentiles.
fn values(one: &Contestant) -> Values<'_> {
    let figures = one.figures.iter().map(|figure| {
        let title = match &*figure.unit {
            "" => figure.title.trim().to_owned(),
            unit => format!("{}, {unit}", figure.title.trim()),
        };
        let value = Value {
            title,
            value: figure.value,
            better: figure.better,
            least: 0.0,
        };
        ((&*figure.name, ""), value)
    });
    let times = one.distributions.iter().flat_map(|times| {
        let percentiles = [
            ("p50", 0.5, times.p50),
            ("p90", 0.9, times.p90),
            ("p99", 0.99, times.p99),
            ("p99.9", 0.999, times.p999),
        ];
        percentiles.map(|(name, quantile, value)| {
            // A thousandth more, since 1 - 0.9 is a little less than a tenth.
            let beyond = (1.001 - quantile) * times.count as f64;
            let value = Value {
                title: format!("{}, {name}, ms", times.title.trim()),
                value,
                better: if beyond < LEAST_BEYOND {
                    Better::Neither
                } else {
                    Better::Lower
                },
                least: LEAST_TIME,
            };
            ((&*times.name, name), value)
        })
    });
    figures.chain(times).collect()
}

#[cfg(test)]
mod tests;
