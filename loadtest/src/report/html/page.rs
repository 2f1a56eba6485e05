//! The page: what was measured where and when, and then each run from the overview to the details.

use serde_json::Value;

use super::bars::KeyFigures;
use super::curves::curves;
use super::date::date;
use super::markup::{Element, Markup, element, void};
use super::over_time::over_time;
use super::palette::Palette;
use super::{Told, tables};
use crate::report::Machine;

const STYLE: &str = include_str!("style.css");

pub(super) fn page(runs: &[Told]) -> String {
    let palette = Palette::of(runs);
    let title = title(runs);
    let head = element("head")
        .child(void("meta").attribute("charset", "utf-8"))
        .child(
            void("meta")
                .attribute("name", "viewport")
                .attribute("content", "width=device-width, initial-scale=1"),
        )
        .child(
            void("meta")
                .attribute("name", "color-scheme")
                .attribute("content", "light dark"),
        )
        .child(element("title").text(&title))
        .child(element("style").style_sheet(STYLE));
    // One machine is told once.
    let one_machine = runs
        .windows(2)
        .all(|two| two[0].report.machine == two[1].report.machine);
    let sections = runs
        .iter()
        .enumerate()
        .map(|(index, run)| section(index, run, &palette, !one_machine));
    let body = element("body")
        .child(header(runs, &title, one_machine))
        .child(element("main").children(sections));
    Markup::from(
        element("html")
            .attribute("lang", "en")
            .child(head)
            .child(body),
    )
    .into_document()
}

fn title(runs: &[Told]) -> String {
    let mut scenarios: Vec<&str> = Vec::new();
    for run in runs {
        if !scenarios.contains(&&*run.report.scenario) {
            scenarios.push(&run.report.scenario);
        }
    }
    format!("Load test: {}", scenarios.join(", "))
}

fn header(runs: &[Told], title: &str, one_machine: bool) -> Element {
    let machine = runs.first().filter(|_| one_machine).map(|run| {
        let machine = facts(machine_facts(&run.report.machine).into_iter());
        element("div").child(machine)
    });
    let when = match runs {
        [] => None,
        [run] => Some(element("p").class("meta").text(origin(run))),
        _ => None,
    };
    let list = (runs.len() > 1).then(|| {
        let links = runs.iter().enumerate().map(|(index, run)| {
            element("li")
                .child(
                    element("a")
                        .attribute("href", format!("#run-{index}"))
                        .text(&run.report.scenario),
                )
                .child(element("span").class("note").text(origin(run)))
                .child(verdict(run))
        });
        element("nav").child(element("ol").children(links))
    });
    element("header")
        .child(element("h1").text(title))
        .children(when)
        .children(machine)
        .children(list)
}

fn origin(run: &Told) -> String {
    let commit = run.report.commit.as_deref().unwrap_or("unknown");
    // The word stays with its commit.
    format!("{} · commit\u{a0}{commit}", date(run.report.started_at))
}

fn verdict(run: &Told) -> Element {
    match run.report.passed {
        true => element("span").class("badge good").text("as promised"),
        false => element("span").class("badge bad").text("not as promised"),
    }
}

fn machine_facts(machine: &Machine) -> Vec<(String, String)> {
    let mut facts = vec![("cores".to_owned(), machine.cores.to_string())];
    if let Some(processor) = &machine.processor {
        facts.push(("processor".to_owned(), processor.clone()));
    }
    if let Some(bytes) = machine.memory_bytes {
        let size = format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        facts.push(("memory".to_owned(), size));
    }
    facts.push(("system".to_owned(), machine.system.clone()));
    facts
}

fn facts(facts: impl Iterator<Item = (String, String)>) -> Element {
    element("dl")
        .class("facts")
        .children(facts.map(|(name, value)| {
            element("div")
                .child(element("dt").text(name.replace('_', " ")))
                .child(element("dd").text(value))
        }))
}

fn section(index: usize, run: &Told, palette: &Palette, with_machine: bool) -> Element {
    let contestants = &run.contestants;
    let machine = with_machine.then(|| facts(machine_facts(&run.report.machine).into_iter()));
    let key = KeyFigures::of(contestants, palette);
    let table = Markup::join([tables::figures(contestants), tables::times(contestants)]);
    let nothing = contestants.is_empty().then(|| {
        element("p").text("This run tells no figures of contestants; what it tells is below.")
    });
    let parameters = parameters(&run.report.parameters);
    element("section")
        .attribute("id", format!("run-{index}"))
        .child(
            element("div")
                .class("title")
                .child(element("h2").text(&run.report.scenario))
                .child(verdict(run)),
        )
        .child(element("p").class("meta").text(origin(run)))
        .children(machine)
        .children((!parameters.is_empty()).then(|| facts(parameters.into_iter())))
        .children(nothing)
        .children(key_figures(key))
        .children(block("Latency", "cards", curves(contestants, palette)))
        .children(block("Over time", "cards", over_time(contestants, palette)))
        .children(block("All figures", "tables", [table]))
        .children(rest(&run.report.results))
}

fn key_figures(key: KeyFigures) -> Option<Element> {
    let group = |class: &'static str, parts: Vec<Markup>| {
        (!parts.is_empty()).then(|| element("div").class(class).children(parts).into())
    };
    let zeros = (!key.zeros.is_empty()).then(|| {
        let text = format!("0 throughout: {}", key.zeros.join(", "));
        element("p").class("meta").text(text).into()
    });
    let parts = [group("cards", key.bars), group("tiles", key.tiles), zeros];
    block("Key figures", "groups", parts.into_iter().flatten())
}

/// A heading with what stands below it; nothing if there is nothing.
fn block(
    title: &'static str,
    class: &'static str,
    parts: impl IntoIterator<Item = Markup>,
) -> Option<Element> {
    let parts = Markup::join(parts);
    (!parts.is_empty()).then(|| {
        element("div")
            .class("block")
            .child(element("h3").text(title))
            .child(element("div").class(class).child(parts))
    })
}

fn parameters(parameters: &Value) -> Vec<(String, String)> {
    let told = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(values) => {
            let values: Vec<String> = values
                .iter()
                .map(|value| value.to_string().replace('"', ""))
                .collect();
            values.join(", ")
        }
        value => value.to_string(),
    };
    parameters.as_object().map_or_else(Vec::new, |fields| {
        fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), told(value)))
            .filter(|(_, value)| !value.is_empty())
            .collect()
    })
}

/// What the scenario tells besides, as it stands in the file.
fn rest(results: &Value) -> Option<Element> {
    let mut results = results.clone();
    if let Some(fields) = results.as_object_mut() {
        fields.remove("contestants");
    }
    let nothing = match &results {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let text = serde_json::to_string_pretty(&results).unwrap_or_default();
    (!nothing).then(|| {
        element("details")
            .child(element("summary").text("What else this run tells"))
            .child(element("pre").text(text))
    })
}
