//! Each contestant has one colour on the whole page.

use super::Told;
use crate::report::FLOOR;

/// Colours in the style sheet besides those of the floor and of the first.
const OTHERS: usize = 7;

pub(super) struct Palette {
    /// Without the floor, in order of appearance. The gateway of this repository comes first wherever it stands.
    names: Vec<String>,
}

impl Palette {
    pub(super) fn of(runs: &[Told]) -> Self {
        let mut names = vec!["tidings".to_owned()];
        for one in runs.iter().flat_map(|run| &run.contestants) {
            if one.name != FLOOR && !names.contains(&one.name) {
                names.push(one.name.clone());
            }
        }
        Self { names }
    }

    /// A class of the style sheet.
    pub(super) fn class(&self, name: &str) -> String {
        if name == FLOOR {
            return "floor".to_owned();
        }
        match self.names.iter().position(|other| other == name) {
            None | Some(0) => "k0".to_owned(),
            Some(index) => format!("k{}", (index - 1) % OTHERS + 1),
        }
    }
}
