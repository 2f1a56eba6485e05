//! Two runs, as files, through the command: the marks, the warnings and the exit code.

use clap::Parser;
use serde_json::json;

use super::*;
use crate::meter::histogram;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: CompareArgs,
}

fn args(options: &[&str]) -> CompareArgs {
    let words = ["compare", "before.json", "after.json"]
        .iter()
        .chain(options);
    Command::try_parse_from(words).unwrap().args
}

fn run_of(contestants: &[Contestant]) -> Report {
    let mut report = Report::new("fanout", json!({"rate": 100, "readers": 1000}));
    report.results = json!({"contestants": contestants});
    report.passed = true;
    report
}

fn contestant(name: &str, cpu: f64, rate: f64) -> Contestant {
    Contestant::new(name)
        .figure("cpu", "CPU of a delivery", "µs", cpu, Better::Lower)
        .figure("rate", "deliveries", "/s", rate, Better::Higher)
        .figure("readers", "readers", "", 1000.0 * cpu, Better::Neither)
}

fn with_times(name: &str, count: u64, micros: u64) -> Contestant {
    let mut times = histogram();
    times.record_n(micros, count).unwrap();
    Contestant::new(name).distribution("latency", "latency", &times)
}

fn compared(before: &[Contestant], after: &[Contestant], options: &[&str]) -> Comparison {
    Comparison::of(&run_of(before), &run_of(after), &args(options)).unwrap()
}

fn verdicts(comparison: &Comparison) -> Vec<Verdict> {
    comparison
        .rows
        .iter()
        .map(|row| row.change.verdict)
        .collect()
}

#[test]
fn each_figure_is_marked() {
    let before = [contestant("tidings", 10.0, 100.0)];
    let after = [contestant("tidings", 12.0, 120.0)];
    let comparison = compared(&before, &after, &[]);
    assert_eq!(
        verdicts(&comparison),
        [Verdict::Worse, Verdict::Better, Verdict::NotJudged]
    );
    let table = comparison.table();
    let words: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words[0], ["tidings", "before", "after", "change"]);
    assert_eq!(
        words[1],
        [
            "CPU",
            "of",
            "a",
            "delivery,",
            "µs",
            "10",
            "12",
            "+20.0",
            "%",
            "worse"
        ]
    );
    assert_eq!(words[2].last(), Some(&"better"));
    assert_eq!(words[3].last(), Some(&"%"));
    assert!(
        comparison
            .summary()
            .contains("1 better, 1 worse, 0 the same")
    );
    let calm = compared(&before, &after, &["--noise", "20"]);
    assert_eq!(verdicts(&calm)[..2], [Verdict::Same, Verdict::Same]);
}

#[test]
fn the_floor_tells_of_the_machine() {
    let before = [
        contestant("tidings", 10.0, 100.0),
        contestant(FLOOR, 5.0, 200.0),
    ];
    let after = [
        contestant("tidings", 20.0, 50.0),
        contestant(FLOOR, 10.0, 100.0),
    ];
    let plain = compared(&before, &after, &[]);
    assert_eq!(plain.rows[0].multiples, Some((2.0, 2.0)));
    assert_eq!(plain.rows[0].change.verdict, Verdict::Worse);
    assert_eq!(plain.worse_than(50.0).len(), 1, "the CPU, not the floor's");
    assert!(plain.summary().contains("the floor itself changed in 2"));
    assert!(plain.table().contains("floors before"));
    let relative = compared(&before, &after, &["--against-floor"]);
    assert_eq!(verdicts(&relative)[..2], [Verdict::Same, Verdict::Same]);
    assert!(relative.worse_than(0.0).is_empty());
}

#[test]
fn a_percentile_of_too_few_values_is_not_judged() {
    let comparison = compared(
        &[with_times("t", 1000, 1000)],
        &[with_times("t", 1000, 2000)],
        &[],
    );
    assert_eq!(
        verdicts(&comparison),
        [
            Verdict::Worse,
            Verdict::Worse,
            Verdict::Worse,
            Verdict::NotJudged
        ]
    );
    assert_eq!(comparison.rows[3].title, "latency, p99.9, ms");
    let small = compared(
        &[with_times("t", 1000, 10)],
        &[with_times("t", 1000, 40)],
        &[],
    );
    assert_eq!(verdicts(&small)[..3], [Verdict::Same; 3]);
}

#[test]
fn what_only_one_run_has_is_said() {
    let before = [
        contestant("tidings", 1.0, 1.0).figure("old", "old figure", "", 1.0, Better::Lower),
        contestant("gone", 1.0, 1.0),
    ];
    let after = [
        contestant("tidings", 1.0, 1.0).figure("new", "new figure", "", 1.0, Better::Lower),
        contestant("come", 1.0, 1.0),
    ];
    let gaps = compared(&before, &after, &[]).gaps.join("\n");
    for gap in [
        "tidings: old figure was measured before only",
        "tidings: new figure was measured after only",
        "gone was measured before only",
        "come was measured after only",
    ] {
        assert!(gaps.contains(gap), "{gap} is not in {gaps}");
    }
    assert!(
        compared(&before, &after, &["--contestant", "tidings"])
            .rows
            .len()
            == 3
    );
}

#[test]
fn runs_without_anything_in_common_are_refused() {
    let error = |before: &[Contestant], after: &[Contestant]| {
        let result = Comparison::of(&run_of(before), &run_of(after), &args(&[]));
        result.err().unwrap().to_string()
    };
    assert!(error(&[], &[]).contains("no figure"));
    let one = [contestant("a", 1.0, 1.0)];
    assert!(error(&one, &[contestant("b", 1.0, 1.0)]).contains("--contestant"));
}

#[test]
fn other_circumstances_are_said() {
    let before = run_of(&[]);
    let mut after = run_of(&[]);
    assert!(differences(&before, &after).is_empty());
    after.scenario = "join".into();
    after.parameters = json!({"rate": 200, "clients": 7});
    after.passed = false;
    let warnings = differences(&before, &after).join("\n");
    for part in [
        "fanout and join",
        "rate: 100 and 200",
        "readers: 1000 and nothing",
        "clients: nothing and 7",
        "not everything arrived",
    ] {
        assert!(warnings.contains(part), "{part} is not in {warnings}");
    }
    let mut elsewhere = serde_json::to_value(run_of(&[])).unwrap();
    elsewhere["machine"]["cores"] = json!(999);
    let elsewhere: Report = serde_json::from_value(elsewhere).unwrap();
    assert!(differences(&before, &elsewhere)[0].starts_with("the machines differ in cores"));
}

#[test]
fn the_exit_code_says_whether_something_became_worse() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, cpu| {
        let path = dir.path().join(name);
        run_of(&[contestant("tidings", cpu, 100.0)])
            .write(&path)
            .unwrap();
        path
    };
    let (before, after) = (write("before.json", 10.0), write("after.json", 12.0));
    let outcome = |before: &PathBuf, after: &PathBuf, fail_above| {
        run(&CompareArgs {
            before: before.clone(),
            after: after.clone(),
            noise: 5.0,
            fail_above,
            against_floor: false,
            only: Vec::new(),
        })
    };
    assert!(outcome(&before, &after, None).unwrap());
    assert!(outcome(&before, &after, Some(25.0)).unwrap());
    assert!(!outcome(&before, &after, Some(10.0)).unwrap());
    assert!(outcome(&after, &before, Some(10.0)).unwrap());
    assert!(outcome(&before, &after, Some(-1.0)).is_err());
    let missing = outcome(&before, &dir.path().join("none.json"), None).unwrap_err();
    assert!(missing.to_string().contains("cannot read"));
    let other = dir.path().join("other.json");
    std::fs::write(&other, "{}").unwrap();
    let error = outcome(&before, &other, None).unwrap_err().to_string();
    assert!(error.contains("--json"), "{error}");
}
