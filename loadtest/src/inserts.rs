//! `inserts`: what does realtime cost the database? Inserts a second into the same table with different triggers, in turns
//! on one private cluster, each as a share of what the table takes without any trigger.

mod audience;
mod stand;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use self::audience::Audience;
use self::stand::Stand;
use crate::frame::text;
use crate::own::OwnCluster;
use crate::report::{Better, Contestant, Report};

#[derive(Args, Debug)]
pub(crate) struct InsertsArgs {
    /// Numbers of connections that insert at once.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 32])]
    connections: Vec<usize>,

    /// Length of one turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// How many turns each has with each number of connections.
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// How many people listen to the gateway meanwhile, each to one of 64 chats.
    #[arg(long, default_value_t = 8)]
    subscribers: usize,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// The directory of PostgreSQL's programs, if it is not found by itself.
    #[arg(long, env = "TIDINGS_POSTGRES_BIN")]
    postgres: Option<PathBuf>,

    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What stands behind the table. Each has a database of its own in the same cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Variant {
    NoTrigger,
    /// The change log, and nobody rings.
    LogOnly,
    /// The change log, and every commit rings, for nobody listens who could say that there is no need.
    LogAndBell,
    /// The change log, read by a gateway that delivers.
    Gateway,
    /// Each row in the payload of a NOTIFY.
    NotifyRow,
}

impl Variant {
    const ALL: [Self; 5] = [
        Self::NoTrigger,
        Self::LogOnly,
        Self::LogAndBell,
        Self::Gateway,
        Self::NotifyRow,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::NoTrigger => "no trigger",
            Self::LogOnly => "Tidings' trigger, bell silent",
            Self::LogAndBell => "Tidings' trigger, bell at each commit",
            Self::Gateway => "Tidings' trigger, gateway attached",
            Self::NotifyRow => "trigger that NOTIFYs the row",
        }
    }

    fn database(self) -> &'static str {
        match self {
            Self::NoTrigger => "no_trigger",
            Self::LogOnly => "log_only",
            Self::LogAndBell => "log_and_bell",
            Self::Gateway => "gateway",
            Self::NotifyRow => "notify_row",
        }
    }

    /// The triggers that the table must have, so that no figure is one of something else.
    fn triggers(self) -> &'static [&'static str] {
        match self {
            Self::NoTrigger => &[],
            Self::LogOnly | Self::LogAndBell | Self::Gateway => {
                &["tidings_capture", "tidings_truncate"]
            }
            Self::NotifyRow => &["notify_row"],
        }
    }
}

/// One turn of one variant.
#[derive(Clone, Copy, Debug, Serialize)]
struct Turn {
    inserts_per_second: f64,
    /// Of PostgreSQL, for one insert.
    cpu_us: Option<f64>,
    /// From the last insert until everything was delivered.
    catch_up_seconds: Option<f64>,
}

pub(crate) async fn run(args: InsertsArgs) -> anyhow::Result<bool> {
    ensure!(
        !args.connections.is_empty()
            && args
                .connections
                .iter()
                .all(|count| (1..=150).contains(count)),
        "--connections must be from 1 to 150"
    );
    ensure!(
        args.rounds > 0 && args.seconds > 0,
        "--rounds and --seconds must be at least 1"
    );
    let cluster = OwnCluster::start(args.postgres.clone()).await?;
    let result = Box::pin(measure(&args, &cluster)).await;
    let stopped = cluster.stop().await;
    result?;
    stopped?;
    Ok(true)
}

async fn measure(args: &InsertsArgs, cluster: &OwnCluster) -> anyhow::Result<()> {
    let mut report = Report::new(
        "inserts",
        json!({
            "postgres": cluster.version(), "connections": args.connections, "seconds": args.seconds,
            "rounds": args.rounds, "subscribers": args.subscribers, "size": args.size,
        }),
    );
    let mut stands = BTreeMap::new();
    for variant in Variant::ALL {
        stands.insert(variant, Stand::build(cluster, variant).await?);
    }
    let audience = Audience::gather(args, cluster, &stands[&Variant::Gateway]).await?;
    for (variant, stand) in &stands {
        stand.check(*variant).await?;
    }

    let content: Arc<str> = text(args.size).into();
    let bar = ProgressBar::new((args.rounds * args.connections.len() * Variant::ALL.len()) as u64);
    let mut turns: BTreeMap<(usize, Variant), Vec<Turn>> = BTreeMap::new();
    for round in 0..args.rounds {
        for &connections in &args.connections {
            for index in 0..Variant::ALL.len() {
                // Another one begins in each round, so that none profits from its place.
                let variant = Variant::ALL[(index + round) % Variant::ALL.len()];
                let stand = &stands[&variant];
                let mut turn = stand
                    .turn(cluster, connections, args.seconds, &content)
                    .await?;
                if variant == Variant::Gateway {
                    turn.1.catch_up_seconds = Some(audience.catch_up(&turn.0).await?);
                }
                turns
                    .entry((connections, variant))
                    .or_default()
                    .push(turn.1);
                stand.clear().await?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    audience.stop().await;

    print!("{}", report.heading());
    println!(
        "PostgreSQL {}, {} rounds of {} s each\n\n{}",
        cluster.version(),
        args.rounds,
        args.seconds,
        table(args, &turns)
    );
    report.results = json!({
        "contestants": contestants(args, &turns),
        "variants": variants(&turns),
    });
    report.passed = true;
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(())
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn rate(turns: &[Turn]) -> f64 {
    mean(turns.iter().map(|turn| turn.inserts_per_second)).unwrap_or_default()
}

/// "no trigger" is the floor: nothing that captures changes takes less.
fn contestants(
    args: &InsertsArgs,
    turns: &BTreeMap<(usize, Variant), Vec<Turn>>,
) -> Vec<Contestant> {
    let one = |variant: Variant| {
        let name = match variant {
            Variant::NoTrigger => "floor",
            _ => variant.title(),
        };
        let mut one = Contestant::new(name);
        for count in &args.connections {
            let own = &turns[&(*count, variant)];
            let title = format!("inserts over {count} connections");
            let key = format!("inserts_per_second_{count}");
            one = one.figure(key, title, "/s", rate(own), Better::Higher);
            if let Some(cost) = mean(own.iter().filter_map(|turn| turn.cpu_us)) {
                let title = format!("PostgreSQL CPU of an insert, {count} connections");
                let key = format!("postgres_cpu_us_per_insert_{count}");
                one = one.figure(key, title, "µs", cost, Better::Lower);
            }
            if let Some(seconds) = mean(own.iter().filter_map(|turn| turn.catch_up_seconds)) {
                let title = format!("catch-up after {count} connections");
                let key = format!("catch_up_seconds_{count}");
                one = one.figure(key, title, "s", seconds, Better::Lower);
            }
        }
        one
    };
    Variant::ALL.into_iter().map(one).collect()
}

fn variants(turns: &BTreeMap<(usize, Variant), Vec<Turn>>) -> serde_json::Value {
    let rows: Vec<_> = turns
        .iter()
        .map(|((connections, variant), own)| {
            let baseline = rate(&turns[&(*connections, Variant::NoTrigger)]);
            json!({
                "connections": connections, "variant": variant, "inserts_per_second": rate(own),
                "share": rate(own) / baseline, "turns": own,
            })
        })
        .collect();
    json!(rows)
}

fn table(args: &InsertsArgs, turns: &BTreeMap<(usize, Variant), Vec<Turn>>) -> String {
    let mut table = String::new();
    for connections in &args.connections {
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "{:<40}{:>12}{:>8}{:>16}{:>14}",
            format!("{connections} connections"),
            "inserts/s",
            "share",
            "PG CPU µs/row",
            "catch-up s"
        );
        let baseline = rate(&turns[&(*connections, Variant::NoTrigger)]);
        for variant in Variant::ALL {
            let own = &turns[&(*connections, variant)];
            let optional = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let _ = writeln!(
                table,
                "{:<40}{:>12.0}{:>7.0}%{:>16}{:>14}",
                variant.title(),
                rate(own),
                100.0 * rate(own) / baseline,
                optional(mean(own.iter().filter_map(|turn| turn.cpu_us)), 0),
                optional(mean(own.iter().filter_map(|turn| turn.catch_up_seconds)), 2),
            );
        }
        table.push('\n');
    }
    table
}
