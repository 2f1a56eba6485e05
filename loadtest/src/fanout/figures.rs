//! What the turns of one server say in the report: the median of each figure, and all times together.

use crate::crowd::STEP;
use crate::meter::histogram;
use crate::report::{Better, Contestant};
use crate::usage::Usage;

use super::feed::Load;
use super::turn::Turn;

struct Value {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    value: f64,
    better: Better,
}

pub(crate) fn contestant(name: &str, turns: &[Turn]) -> Contestant {
    let mut contestant = Contestant::new(name);
    let each: Vec<Vec<Value>> = turns.iter().map(values).collect();
    for value in each.first().into_iter().flatten() {
        let all = each
            .iter()
            .flatten()
            .filter(|other| other.name == value.name)
            .map(|other| other.value)
            .collect();
        contestant = contestant.figure(
            value.name,
            value.title,
            value.unit,
            median(all),
            value.better,
        );
    }
    let (mut commit, mut due) = (histogram(), histogram());
    let (mut insert, mut lag) = (histogram(), histogram());
    for turn in turns {
        // Equal bounds always add.
        let _ = commit.add(&turn.seen.from_commit);
        let _ = due.add(&turn.seen.from_due);
        if let Some(fed) = &turn.fed {
            let _ = insert.add(&fed.insert);
            let _ = lag.add(&fed.lag);
        }
    }
    if turns.iter().any(|turn| turn.fed.is_some()) {
        contestant = contestant.distribution("from_commit", "commit to delivery", &commit);
    }
    // In a flood nothing is due: the next insert is sent when the last one is answered.
    if !turns
        .iter()
        .any(|turn| matches!(turn.load, Load::Flood { .. }))
    {
        contestant = contestant.distribution("from_due", "due time to delivery", &due);
    }
    contestant = contestant
        .distribution("insert", "  of which insert and commit", &insert)
        .distribution("harness_late", "  of which the load test was late", &lag);
    if let Some(first) = turns.first() {
        contestant = contestant.series(
            "deliveries_per_second",
            "deliveries over time",
            "1/s",
            per_second(&first.seen.steps),
        );
    }
    contestant
}

fn values(turn: &Turn) -> Vec<Value> {
    let seen = &turn.seen;
    let seconds = |micros: u64| micros as f64 / 1e6;
    let (first, last) = (seen.first.unwrap_or(0), seen.last.unwrap_or(0));
    let deliveries = seen.deliveries as f64;
    let mut values = Vec::new();
    let mut add = |name, title, unit, value: Option<f64>, better| {
        if let Some(value) = value {
            values.push(Value {
                name,
                title,
                unit,
                value,
                better,
            });
        }
    };
    let per = |usage: Option<Usage>, things: f64| Some(usage?.cpu_seconds * 1e6 / things);
    let memory = |usage: Option<Usage>| Some(usage?.memory_bytes as f64 / f64::from(1 << 20));
    let costs = &turn.costs;
    add(
        "deliveries",
        "deliveries",
        "",
        Some(deliveries),
        Better::Neither,
    );
    let better = match turn.load {
        Load::Paced { .. } => Better::Neither,
        Load::Burst { .. } | Load::Flood { .. } => Better::Higher,
    };
    add(
        "deliveries_per_second",
        "deliveries, first to last",
        "1/s",
        Some(deliveries / seconds(last.saturating_sub(first))),
        better,
    );
    if let (Load::Flood { .. }, Some(fed)) = (turn.load, &turn.fed) {
        let messages = fed.messages() as f64;
        add(
            "changes_delivered_per_second",
            "changes committed and delivered",
            "1/s",
            Some(messages / seconds(last.max(fed.until))),
            Better::Higher,
        );
        add(
            "inserts_per_second",
            "inserts",
            "1/s",
            Some(messages / seconds(fed.until)),
            Better::Higher,
        );
        add(
            "catch_up_seconds",
            "last commit to last delivery",
            "s",
            Some(seconds(last.saturating_sub(fed.until))),
            Better::Lower,
        );
    }
    add(
        "server_cpu_us_per_delivery",
        "server CPU per delivery",
        "µs",
        per(costs.server, deliveries),
        Better::Lower,
    );
    add(
        "client_cpu_us_per_delivery",
        "load test CPU per delivery",
        "µs",
        per(costs.loadtest, deliveries),
        Better::Neither,
    );
    add(
        "postgres_cpu_us_per_message",
        "PostgreSQL CPU per message",
        "µs",
        turn.fed
            .as_ref()
            .and_then(|fed| per(costs.postgres, fed.messages() as f64)),
        Better::Lower,
    );
    add(
        "server_memory",
        "server memory",
        "MiB",
        memory(costs.server),
        Better::Lower,
    );
    add(
        "other_cores",
        "processors busy with other things",
        "",
        costs.others,
        Better::Neither,
    );
    add(
        "join_seconds",
        "until all had joined",
        "s",
        Some(turn.join_seconds),
        Better::Neither,
    );
    values
}

/// The middle value; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(values[middle - 1], *upper),
    }
}

fn per_second(steps: &[u64]) -> Vec<(f64, f64)> {
    let width = STEP as f64 / 1e6;
    let point = |(index, count): (usize, &u64)| (index as f64 * width, *count as f64 / width);
    steps.iter().enumerate().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::Seen;
    use crate::fanout::host::Costs;

    fn turn(deliveries: u64, last: u64) -> Turn {
        Turn {
            load: Load::Burst {
                messages: 10,
                rows: 1,
            },
            seen: Seen {
                deliveries,
                first: Some(1_000_000),
                last: Some(last),
                steps: vec![0, 5],
                ..Seen::default()
            },
            expected: deliveries,
            costs: Costs {
                server: Some(Usage {
                    cpu_seconds: 0.5,
                    memory_bytes: 3 << 20,
                    peak_memory_bytes: None,
                }),
                ..Costs::default()
            },
            fed: None,
            join_seconds: 1.0,
        }
    }

    #[test]
    fn a_figure_is_the_median_of_its_turns() {
        let turns = [
            turn(1000, 2_000_000),
            turn(1000, 3_000_000),
            turn(1000, 1_500_000),
        ];
        let contestant = contestant("x", &turns);
        let value = |name| contestant.get(name).map(|figure| figure.value);
        assert_eq!(value("deliveries_per_second"), Some(1000.0));
        assert_eq!(value("server_cpu_us_per_delivery"), Some(500.0));
        assert_eq!(value("server_memory"), Some(3.0));
        // What could not be read is left out.
        assert_eq!(value("client_cpu_us_per_delivery"), None);
        assert_eq!(contestant.series[0].points, [(0.0, 0.0), (0.1, 50.0)]);
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        assert!((median(vec![3.0, 1.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![3.0, 1.0, 9.0]) - 3.0).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
