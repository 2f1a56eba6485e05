//! The page as a whole: its structure, that every element is closed, and that it says what a file says as text only.

use serde_json::{Value, json};

use super::page::page;
use super::*;
use crate::meter::histogram;
use crate::report::Better;

const EVIL: &str = "</title><script>alert(\"x\")</script>";

fn told(scenario: &str, parameters: Value, contestants: &[Contestant]) -> Told {
    let report = json!({
        "scenario": scenario, "started_at": 1_795_884_000, "commit": "abc1234", "parameters": parameters,
        "machine": {"cores": 2, "processor": "a processor", "memory_bytes": 8_u64 << 30, "system": "linux"},
        "results": {"contestants": contestants}, "passed": true,
    });
    Told::of(serde_json::from_value(report).unwrap()).unwrap()
}

fn contestant(name: &str, factor: u64) -> Contestant {
    let mut times = histogram();
    for micros in 1..=1000 {
        times.record(micros * factor).unwrap();
    }
    let value = factor as f64;
    Contestant::new(name)
        .figure("cpu", "CPU of a delivery", "µs", 2.0 * value, Better::Lower)
        .figure("readers", "readers", "", 1000.0, Better::Neither)
        .distribution("latency", "commit to receipt", &times)
        .series(
            "cores",
            "server's CPU",
            "cores",
            vec![(0.0, 0.0), (1.0, value)],
        )
}

/// The elements in their order with their depth and class. Panics if one is not closed, or closed by another.
fn outline(page: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut outline = Vec::new();
    let page = page.strip_prefix("<!doctype html>").expect("a doctype");
    for part in page.split('<').skip(1) {
        let (tag, _) = part
            .split_once('>')
            .unwrap_or_else(|| panic!("not closed: <{part}"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed by another");
            continue;
        }
        let name = tag.split(' ').next().unwrap();
        let class = tag
            .split_once(" class=\"")
            .map(|(_, rest)| rest.split('"').next().unwrap());
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let class = class
            .map(|class| format!(".{}", class.replace(' ', ".")))
            .unwrap_or_default();
        outline.push(format!("{}{name}{class}", "  ".repeat(open.len())));
        if name != "meta" && name != "br" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    outline
}

#[test]
fn a_page_has_its_parts_in_order() {
    let page = page(&[told(
        "fanout",
        json!({"rate": 100, "wire_format": "2.0.0", "nothing": null}),
        &[contestant("tidings", 3), contestant("floor", 2)],
    )]);
    let outline: Vec<String> = outline(&page)
        .into_iter()
        // What is in a drawing is the business of other tests.
        .filter(|line| {
            !["line", "text", "circle", "title", "path", "g.", "rect"]
                .iter()
                .any(|inner| line.trim_start().starts_with(inner))
        })
        .collect();
    let expected = include_str!("tests/outline.txt");
    assert_eq!(outline.join("\n"), expected.trim_end());
    for text in [
        "<h1>Load test: fanout</h1>",
        "28 November 2026, 16:40 UTC · commit\u{a0}abc1234",
        "<dt>wire format</dt><dd>2.0.0</dd>",
        "1.50× floor",
        "p50 1.5 ms · p99 2.97 ms",
        "<title>tidings, p99: 2.97 ms</title>",
        "<title>floor, 1.0 s: 2 cores</title>",
        "8.0 GiB",
    ] {
        assert!(page.contains(text), "{text} is not in the page");
    }
    assert!(!page.contains("nothing"));
    // Less is better, so the floor's bar is above and shorter.
    let (floor, tidings) = (
        page.find("bar floor").unwrap(),
        page.find("bar k0").unwrap(),
    );
    assert!(floor < tidings && page[floor..tidings].contains("width=\"66.67%\""));
}

#[test]
fn what_a_file_says_is_never_markup() {
    let contestant = Contestant::new(EVIL)
        .figure(EVIL, EVIL, EVIL, 1.0, Better::Lower)
        .figure("both", EVIL, EVIL, 1.0, Better::Lower)
        .series(EVIL, EVIL, EVIL, vec![(0.0, 1.0), (1.0, 1.0)]);
    let mut value = serde_json::to_value(contestant).unwrap();
    value["distributions"] = json!([{
        "name": EVIL, "title": EVIL, "count": 1, "mean": 1.0, "p50": 1.0, "p90": 1.0, "p99": 1.0, "p99.9": 1.0, "max": 1.0,
        "curve": [[0.0, 1.0], [0.5, 1.0]],
    }]);
    let evil: Contestant = serde_json::from_value(value).unwrap();
    let other = contestant_with(&evil, "another");
    let mut run = told(EVIL, json!({EVIL: EVIL, "list": [EVIL]}), &[evil, other]);
    run.report.commit = Some(EVIL.to_owned());
    run.report.results = json!({EVIL: EVIL});
    run.report.machine.processor = Some(EVIL.to_owned());
    let page = page(&[run]);
    assert!(!page.contains("<script") && !page.contains("alert(\"x\")"));
    assert!(page.matches("&lt;script&gt;").count() >= 15);
    assert_eq!(
        page.matches("</title>").count(),
        page.matches("<title>").count()
    );
    outline(&page);
}

fn contestant_with(one: &Contestant, name: &str) -> Contestant {
    Contestant {
        name: name.to_owned(),
        ..one.clone()
    }
}

#[test]
fn the_page_stands_alone() {
    let page = page(&[told("fanout", json!({}), &[contestant("tidings", 1)])]);
    for word in [
        "http:", "https:", "src=", "url(", "@import", "<script", "<link",
    ] {
        assert!(!page.contains(word), "{word} is in the page");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[test]
fn nothing_to_show_is_no_trouble() {
    let mut once = histogram();
    once.record(0).unwrap();
    let odd = Contestant::new("odd")
        .figure("zero", "zero", "", 0.0, Better::Higher)
        .figure("below", "below", "", -5.0, Better::Lower)
        .distribution("once", "once", &once)
        .series("none", "none", "", vec![])
        .series("one", "one", "", vec![(0.0, 0.0)])
        .series("below", "below", "", vec![(-1.0, -3.0), (2.0, -4.0)]);
    let mut broken = contestant("broken", 1);
    broken.distributions[0].curve = vec![(1.0, 5.0), (-1.0, 5.0), (2.0, 5.0)];
    broken.series[0].points = vec![(1.0, f64::MAX), (0.0, f64::MIN_POSITIVE)];
    for contestants in [
        vec![],
        vec![Contestant::new("silent")],
        vec![odd.clone()],
        vec![contestant_with(&odd, "floor"), odd],
        vec![broken],
    ] {
        let page = page(&[told("odd", Value::Null, &contestants)]);
        outline(&page);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
    outline(&page(&[]));
}

#[test]
fn what_is_zero_for_all_needs_no_plot() {
    let of = |name: &str, lost, doubled| {
        Contestant::new(name)
            .figure("lost", "lost", "", lost, Better::Lower)
            .figure("doubled", "doubled", "", doubled, Better::Lower)
            .figure("cut", "cut", "", 0.0, Better::Lower)
    };
    let contestants = [of("tidings", 0.0, 0.0), of("peer", 0.0, 1.0)];
    let page = page(&[told("fanout", json!({}), &contestants)]);
    assert!(page.contains("0 throughout: lost, cut<"));
    assert_eq!(page.matches("less is better").count(), 1);
}

#[test]
fn several_runs_have_an_overview() {
    let mut failed = told("join", json!({}), &[contestant("tidings", 1)]);
    failed.report.passed = false;
    let page_of = |machine: usize| {
        let mut failed = Told::of(failed_again(&failed)).unwrap();
        failed.report.machine.cores = machine;
        page(&[
            told("fanout", json!({}), &[contestant("socket.io", 2)]),
            failed,
        ])
    };
    let page = page_of(2);
    outline(&page);
    assert!(page.contains("Load test: fanout, join"));
    assert!(page.contains("href=\"#run-1\"") && page.contains("id=\"run-1\""));
    assert_eq!(page.matches("badge good").count(), 2);
    assert_eq!(page.matches("badge bad").count(), 2);
    assert_eq!(
        page.matches("<dt>processor</dt>").count(),
        1,
        "one machine is told once"
    );
    assert_eq!(page_of(64).matches("<dt>processor</dt>").count(), 2);
    // The same on the whole page, whoever comes first.
    assert!(page.contains("line k1") && page.contains("line k0"));
}

fn failed_again(told: &Told) -> Report {
    serde_json::from_value(serde_json::to_value(&told.report).unwrap()).unwrap()
}

#[test]
fn the_command_writes_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run.json");
    told("fanout", json!({}), &[contestant("tidings", 1)])
        .report
        .write(&run)
        .unwrap();
    let out = dir.path().join("page.html");
    html(&HtmlArgs {
        runs: vec![run.clone()],
        out: out.clone(),
    })
    .unwrap();
    outline(&std::fs::read_to_string(&out).unwrap());
    let nowhere = dir.path().join("none").join("page.html");
    let error = html(&HtmlArgs {
        runs: vec![run],
        out: nowhere,
    })
    .unwrap_err();
    assert!(error.to_string().contains("--out"));
}
