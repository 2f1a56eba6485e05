//! `show`: the tables of runs that were written to files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Deserialize as _;

use super::{Contestant, Report, contestants_table};

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Files that a scenario wrote with --json.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
}

pub(crate) fn show(args: &ShowArgs) -> anyhow::Result<()> {
    for path in &args.runs {
        let run = Report::read(path)?;
        let contestants = run.contestants()?;
        print!("{}", run.heading());
        println!("{}", contestants_table(&contestants));
    }
    Ok(())
}

impl Report {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a report: name a file that a scenario wrote with --json",
                path.display()
            )
        })
    }

    /// None if the scenario, or the version of this program that wrote the file, did not tell its results this way.
    pub(crate) fn contestants(&self) -> anyhow::Result<Vec<Contestant>> {
        match self.results.get("contestants") {
            Some(contestants) => Vec::deserialize(contestants).with_context(|| {
                format!(
                    "the contestants of a run of {} are malformed",
                    self.scenario
                )
            }),
            None => Ok(Vec::new()),
        }
    }
}
