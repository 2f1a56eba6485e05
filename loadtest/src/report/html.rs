//! `report`: runs as one page to look at. It stands alone: no network, no script, and both light and dark.

mod bars;
mod curves;
mod date;
mod markup;
mod over_time;
mod page;
mod palette;
mod plot;
mod scale;
mod tables;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Contestant, Report};

#[derive(Args, Debug)]
pub(crate) struct HtmlArgs {
    /// Files that scenarios wrote with --json, of one scenario or of several.
    #[arg(required = true)]
    runs: Vec<PathBuf>,

    /// Where the page goes.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

/// A run, and what it says of those that were measured.
struct Told {
    report: Report,
    contestants: Vec<Contestant>,
}

pub(crate) fn html(args: &HtmlArgs) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for path in &args.runs {
        runs.push(Told::of(Report::read(path)?)?);
    }
    let page = page::page(&runs);
    std::fs::write(&args.out, page).with_context(|| {
        format!(
            "cannot write {}: name another file with --out",
            args.out.display()
        )
    })?;
    println!("{} runs are in {}", runs.len(), args.out.display());
    Ok(())
}

impl Told {
    fn of(report: Report) -> anyhow::Result<Self> {
        let contestants = report.contestants()?;
        Ok(Self {
            report,
            contestants,
        })
    }
}

#[cfg(test)]
mod tests;
