//! Key figures: bars where several contestants have one, a large number where only one has it.

use super::markup::{Element, Markup, element};
use super::palette::Palette;
use crate::report::{Better, Contestant, Digits, FLOOR, Figure, in_order, ratio_to_floor};

/// Numbers that say what is better or worse. Those that only describe stand in the table.
pub(super) struct KeyFigures {
    pub(super) bars: Vec<Markup>,
    pub(super) tiles: Vec<Markup>,
    /// Titles of those that are 0 for all: nothing was lost, and no plot is needed to say so.
    pub(super) zeros: Vec<String>,
}

impl KeyFigures {
    pub(super) fn of(contestants: &[Contestant], palette: &Palette) -> Self {
        let mut key = Self {
            bars: Vec::new(),
            tiles: Vec::new(),
            zeros: Vec::new(),
        };
        let all = contestants.iter().flat_map(|one| &one.figures);
        for first in in_order(all, |figure| &figure.name) {
            if first.better == Better::Neither {
                continue;
            }
            let found: Vec<(&Contestant, &Figure)> = contestants
                .iter()
                .filter_map(|one| Some((one, one.get(&first.name)?)))
                .collect();
            match found[..] {
                _ if found.iter().all(|(_, figure)| figure.value == 0.0) => {
                    key.zeros.push(first.title.clone());
                }
                [(one, figure)] => {
                    let owner = (contestants.len() > 1).then_some(&*one.name);
                    key.tiles.push(tile(figure, owner, palette));
                }
                _ => key.bars.push(bars(contestants, found, first, palette)),
            }
        }
        key
    }
}

/// The best comes first.
fn bars(
    all: &[Contestant],
    mut found: Vec<(&Contestant, &Figure)>,
    first: &Figure,
    palette: &Palette,
) -> Markup {
    found.sort_by(|(_, one), (_, other)| {
        let rising = one.value.total_cmp(&other.value);
        if first.better == Better::Higher {
            rising.reverse()
        } else {
            rising
        }
    });
    let most = found
        .iter()
        .map(|(_, figure)| figure.value)
        .fold(0.0, f64::max);
    let digits = Digits::of(found.iter().map(|(_, figure)| figure.value));
    let rows = found.iter().map(|(one, figure)| {
        let share = if most > 0.0 {
            (figure.value / most).max(0.0)
        } else {
            0.0
        };
        let ratio = match ratio_to_floor(all, one, figure) {
            Some(ratio) => format!("{ratio:.2}× floor"),
            None => String::new(),
        };
        let class = palette.class(&one.name);
        element("li")
            .child(element("span").class("who").text(&one.name))
            .child(element("span").class("note").text(ratio))
            .child(value(figure, &digits))
            .child(
                element("svg")
                    .class(format!("bar {class}"))
                    .attribute("aria-hidden", "true")
                    .child(element("rect").attribute("width", format!("{:.2}%", share * 100.0))),
            )
    });
    element("article")
        .class("card")
        .child(element("h4").text(&first.title))
        .child(element("p").class("note").text(direction(first.better)))
        .child(element("ul").class("bars").children(rows))
        .into()
}

fn tile(figure: &Figure, owner: Option<&str>, palette: &Palette) -> Markup {
    let owner = owner.map(|name| {
        let class = format!("swatch {}", palette.class(name));
        element("p")
            .class("note")
            .child(element("i").class(class))
            .text(if name == FLOOR { "the floor" } else { name })
    });
    element("article")
        .class("card tile")
        .child(element("h4").text(&figure.title))
        .child(value(figure, &Digits::of([figure.value])))
        .children(owner)
        .into()
}

fn value(figure: &Figure, digits: &Digits) -> Element {
    let unit =
        (!figure.unit.is_empty()).then(|| element("small").text(format!(" {}", figure.unit)));
    element("span")
        .class("value")
        .text(digits.text(figure.value))
        .children(unit)
}

fn direction(better: Better) -> &'static str {
    match better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
        Better::Neither => "",
    }
}
