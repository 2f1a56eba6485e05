//! What the turns of a contestant come to: the figures of `fanout`, those of both loads in one list, and what only a
//! comparison asks.

use std::borrow::Cow;

use crate::fanout::figures::contestant;
use crate::fanout::turn::Turn;
use crate::report::{Better, Contestant};

/// What belongs to a turn and is not in it.
pub(super) struct Aside {
    pub(super) readers: usize,
    /// Of the server, before any readers came. Without it, no memory is told.
    pub(super) memory_before: Option<u64>,
}

/// Adds a turn under a load of this name.
pub(super) fn add(all: Contestant, load: &str, turn: &Turn, aside: &Aside) -> Contestant {
    let seen = &turn.seen;
    let mut one = contestant(&all.name, std::slice::from_ref(turn))
        .figure("lost", "lost", "", lost(turn), Better::Lower)
        .figure(
            "doubled",
            "doubled or out of order",
            "",
            seen.doubled as f64,
            Better::Lower,
        )
        .figure(
            "cut",
            "readers that were cut off",
            "",
            seen.ends.values().sum::<usize>() as f64,
            Better::Lower,
        )
        .figure(
            "memory_kib_per_connection",
            "server memory per connection",
            "KiB",
            memory(turn, aside),
            Better::Lower,
        );
    if let Some(frame) = &seen.sample {
        one = one.figure(
            "frame_bytes",
            "text of a frame",
            "bytes",
            frame.len() as f64,
            Better::Neither,
        );
    }
    joined(all, load, one)
}

/// New deliveries, of those that were expected: what came twice does not hide what is lost.
fn lost(turn: &Turn) -> f64 {
    let new = turn.seen.deliveries.saturating_sub(turn.seen.doubled);
    turn.expected.saturating_sub(new) as f64
}

/// What the server has more at the end of the turn than before the readers came, for each of them.
fn memory(turn: &Turn, aside: &Aside) -> f64 {
    match (turn.costs.server, aside.memory_before) {
        (Some(after), Some(before)) => {
            after.memory_bytes.saturating_sub(before) as f64 / 1024.0 / aside.readers as f64
        }
        _ => f64::NAN,
    }
}

/// All of `more` under names that begin with the load's.
fn joined(mut all: Contestant, load: &str, more: Contestant) -> Contestant {
    let name = |name: &str| Cow::Owned(format!("{load}_{name}"));
    let title = |title: &str| format!("{load}: {}", title.trim_start());
    for mut figure in more.figures {
        (figure.name, figure.title) = (name(&figure.name), title(&figure.title));
        all.figures.push(figure);
    }
    for mut distribution in more.distributions {
        distribution.name = name(&distribution.name);
        distribution.title = title(&distribution.title);
        all.distributions.push(distribution);
    }
    for mut series in more.series {
        (series.name, series.title) = (name(&series.name), title(&series.title));
        all.series.push(series);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::Seen;
    use crate::fanout::feed::Load;
    use crate::fanout::host::Costs;
    use crate::usage::Usage;

    fn usage(cpu_seconds: f64) -> Option<Usage> {
        Some(Usage {
            cpu_seconds,
            memory_bytes: 3 << 20,
            peak_memory_bytes: None,
        })
    }

    fn turn() -> Turn {
        Turn {
            load: Load::Burst {
                messages: 1,
                rows: 1,
            },
            seen: Seen {
                deliveries: 990,
                doubled: 10,
                first: Some(500_000),
                last: Some(1_000_000),
                sample: Some(vec![b'x'; 800]),
                ..Seen::default()
            },
            expected: 1000,
            costs: Costs {
                server: usage(0.00495),
                ..Costs::default()
            },
            fed: None,
            join_seconds: 1.0,
        }
    }

    #[test]
    fn figures_of_both_loads_stand_side_by_side() {
        let mut aside = Aside {
            readers: 1024,
            memory_before: Some(1 << 20),
        };
        let one = add(Contestant::new("x"), "paced", &turn(), &aside);
        aside.memory_before = None;
        let one = add(one, "saturated", &turn(), &aside);
        let value = |name: &str| one.get(name).map(|figure| figure.value);
        assert_eq!(value("paced_server_cpu_us_per_delivery"), Some(5.0));
        assert_eq!(value("saturated_server_cpu_us_per_delivery"), Some(5.0));
        assert_eq!(value("paced_memory_kib_per_connection"), Some(2.0));
        assert_eq!(value("saturated_memory_kib_per_connection"), None);
        assert_eq!(value("saturated_frame_bytes"), Some(800.0));
        let title = one.get("paced_lost").map(|figure| figure.title.as_str());
        assert_eq!(title, Some("paced: lost"));
    }

    #[test]
    fn what_came_twice_does_not_hide_what_is_lost() {
        assert!((lost(&turn()) - 20.0).abs() < 1e-9);
    }
}
