//! Why two runs may not be comparable.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::report::Report;

pub(super) fn differences(before: &Report, after: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    if before.scenario != after.scenario {
        warnings.push(format!(
            "these are different scenarios: {} and {}",
            before.scenario, after.scenario
        ));
    }
    let machines = [&before.machine, &after.machine]
        .map(|machine| serde_json::to_value(machine).unwrap_or_default());
    compare("the machines", &machines[0], &machines[1], &mut warnings);
    compare(
        "the parameters",
        &before.parameters,
        &after.parameters,
        &mut warnings,
    );
    for (run, which) in [(before, "before"), (after, "after")] {
        if !run.passed {
            warnings.push(format!(
                "in the run {which}, not everything arrived as promised"
            ));
        }
    }
    warnings
}

fn compare(what: &str, before: &Value, after: &Value, warnings: &mut Vec<String>) {
    let nothing = serde_json::Map::new();
    let fields = |value| Value::as_object(value).unwrap_or(&nothing);
    let (before, after) = (fields(before), fields(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (old, new) = (before.get(key), after.get(key));
        if old != new {
            warnings.push(format!(
                "{what} differ in {key}: {} and {}",
                told(old),
                told(new)
            ));
        }
    }
}

fn told(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}
