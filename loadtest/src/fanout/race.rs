//! What `fanout` and `sessions` share: the options, and the report about all who took their turns.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};

use super::feed::Load;
use super::figures::contestant;
use super::host::Serializer;
use super::turn::{Shape, Turn};
use crate::report::{Contestant, Report, contestants_table};
use crate::target::{Target, TargetArgs};

/// The name that reports know as the one to compare with.
pub(crate) const FLOOR: &str = "floor";

#[derive(Args, Debug)]
pub(crate) struct RaceArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Also measure the least that a program could do for the same deliveries, in the same run.
    #[arg(long)]
    floor: bool,

    /// How many turns each has. The figures are the medians.
    #[arg(long, default_value_t = 1)]
    rounds: usize,

    /// With --own: a setting of the server, as TIDINGS_NAME=value. May be given more than once.
    #[arg(long, requires = "own")]
    setting: Vec<String>,

    /// The version of the wire format.
    #[arg(long, value_enum, default_value_t = Serializer::V2)]
    serializer: Serializer,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// Joins under way at once.
    #[arg(long, default_value_t = 64)]
    connecting: usize,

    /// Seconds without a single delivery after which what is missing counts as lost.
    #[arg(long, default_value_t = 10)]
    quiet: u64,

    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl RaceArgs {
    pub(crate) async fn start(&self) -> anyhow::Result<Target> {
        ensure!(
            (1..=100).contains(&self.rounds),
            "--rounds must be from 1 to 100"
        );
        let mut settings = Vec::new();
        for setting in &self.setting {
            let Some(pair @ (name, _)) = setting.split_once('=') else {
                anyhow::bail!("--setting {setting} has no =: write TIDINGS_NAME=value");
            };
            ensure!(
                name.starts_with("TIDINGS_"),
                "--setting {setting}: settings of the server begin with TIDINGS_"
            );
            settings.push(pair);
        }
        Target::start_with(&self.target, false, &settings).await
    }

    pub(crate) fn shape(&self, sessions: usize, readers: usize, load: Load) -> Shape {
        Shape {
            sessions,
            readers,
            size: self.size,
            load,
            connecting: self.connecting,
            quiet: Duration::from_secs(self.quiet),
        }
    }

    pub(crate) fn has_floor(&self) -> bool {
        self.floor
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds
    }

    pub(crate) fn serializer(&self) -> Serializer {
        self.serializer
    }
}

/// All turns of one run, by who had them.
pub(crate) struct Race {
    report: Report,
    json: Option<PathBuf>,
    turns: Vec<(String, Vec<Turn>)>,
    faults: Vec<String>,
}

impl Race {
    pub(crate) fn new(
        scenario: &'static str,
        args: &RaceArgs,
        target: &Target,
        mut parameters: Value,
    ) -> Self {
        let common = json!({
            "own": target.is_own(), "postgres": target.postgres_version(), "size": args.size, "rounds": args.rounds,
            "floor": args.floor, "settings": args.setting, "serializer": args.serializer.name(),
        });
        if let (Some(all), Value::Object(common)) = (parameters.as_object_mut(), common) {
            all.extend(common);
        }
        Self {
            report: Report::new(scenario, parameters),
            json: args.json.clone(),
            turns: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &str, turn: Turn) {
        let faults = turn.seen.faults(turn.expected);
        self.faults
            .extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
        match self.turns.iter_mut().find(|(other, _)| *other == name) {
            Some((_, turns)) => turns.push(turn),
            None => self.turns.push((name.to_owned(), vec![turn])),
        }
    }

    /// Prints everything, and returns whether all was as promised.
    pub(crate) fn conclude(mut self) -> anyhow::Result<bool> {
        let contestants: Vec<Contestant> = self
            .turns
            .iter()
            .map(|(name, turns)| contestant(name, turns))
            .collect();
        self.report.passed = self.faults.is_empty();
        print!("{}", self.report.heading());
        println!("{}", contestants_table(&contestants));
        if self.faults.is_empty() {
            println!("everything arrived once and in order");
        }
        for fault in self.faults.iter().take(10) {
            println!("not as promised: {fault}");
        }
        self.report.results = json!({"contestants": contestants, "faults": self.faults});
        if let Some(path) = &self.json {
            self.report.write(path)?;
        }
        Ok(self.report.passed)
    }
}
