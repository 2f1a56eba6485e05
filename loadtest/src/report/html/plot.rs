//! A plot of lines, as SVG. Who calls it has brought all values to places from 0 to 1.

use std::fmt::Write as _;

use super::markup::{Element, Markup, element};
use super::scale::Tick;

/// In units of the drawing, which is shown about as large as this on any screen, so that its text has the size of text.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 42.0;

/// A place, and what a pointer that rests there is told.
pub(super) struct Spot {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) tip: String,
}

pub(super) struct Line {
    pub(super) name: String,
    pub(super) class: String,
    /// Beside the name in the legend.
    pub(super) note: String,
    pub(super) spots: Vec<Spot>,
}

pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x_label: String,
    /// Empty if the ticks say it.
    pub(super) y_label: String,
    pub(super) x_ticks: Vec<Tick>,
    pub(super) y_ticks: Vec<Tick>,
    pub(super) lines: Vec<Line>,
}

impl Plot {
    pub(super) fn draw(self) -> Markup {
        let unit = (!self.y_label.is_empty()).then(|| label(&self.y_label, 4.0, 12.0, "start"));
        let drawing = element("svg")
            .attribute("viewBox", format!("0 0 {WIDTH} {HEIGHT}"))
            .attribute("role", "img")
            .attribute("aria-label", format!("{} by {}", self.title, self.x_label))
            .children(self.y_ticks.iter().flat_map(y_tick))
            .children(self.x_ticks.iter().flat_map(x_tick))
            .children(unit)
            .child(label(&self.x_label, WIDTH - RIGHT, HEIGHT - 6.0, "end"))
            .children(self.lines.iter().map(Line::draw));
        let legend = element("ul")
            .class("legend")
            .children(self.lines.iter().map(Line::legend));
        element("article")
            .class("card")
            .child(element("h4").text(&self.title))
            .child(drawing)
            .child(legend)
            .into()
    }
}

impl Line {
    fn draw(&self) -> Element {
        let mut path = String::new();
        for (index, spot) in self.spots.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            // Writing to a string does not fail.
            let _ = write!(path, "{command}{:.1} {:.1}", x(spot.x), y(spot.y));
        }
        let dots = self.spots.iter().map(|spot| {
            element("circle")
                .class(if self.spots.len() == 1 { "dot" } else { "hit" })
                .attribute("cx", format!("{:.1}", x(spot.x)))
                .attribute("cy", format!("{:.1}", y(spot.y)))
                .attribute("r", 5)
                .child(element("title").text(&spot.tip))
        });
        let line = (self.spots.len() > 1).then(|| element("path").attribute("d", &path));
        element("g")
            .class(format!("line {}", self.class))
            .children(line)
            .children(dots)
    }

    fn legend(&self) -> Element {
        element("li")
            .child(element("i").class(format!("swatch {}", self.class)))
            .child(element("span").class("who").text(&self.name))
            .child(element("span").class("note").text(&self.note))
    }
}

fn x(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn y(place: f64) -> f64 {
    HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
}

fn y_tick(tick: &Tick) -> [Element; 2] {
    let at = y(tick.at);
    [
        rule(LEFT, at, WIDTH - RIGHT, at),
        label(&tick.label, LEFT - 8.0, at + 4.0, "end"),
    ]
}

fn x_tick(tick: &Tick) -> [Element; 2] {
    let (at, bottom) = (x(tick.at), HEIGHT - BOTTOM);
    [
        rule(at, bottom, at, bottom + 4.0),
        label(&tick.label, at, bottom + 17.0, "middle"),
    ]
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64) -> Element {
    let at = |value: f64| format!("{value:.1}");
    element("line")
        .attribute("x1", at(x1))
        .attribute("y1", at(y1))
        .attribute("x2", at(x2))
        .attribute("y2", at(y2))
}

fn label(text: &str, x: f64, y: f64, anchor: &str) -> Element {
    element("text")
        .attribute("x", format!("{x:.1}"))
        .attribute("y", format!("{y:.1}"))
        .attribute("text-anchor", anchor)
        .text(text)
}
