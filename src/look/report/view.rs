//! The values that the template is given: sections of figures, tables and examples. The template escapes everything but
//! drawings.

use crate::units;
use serde::Serialize;

use super::plots::{Frame, Ink, Mark, plot};

/// A chapter of the page.
#[derive(Debug, Default, Serialize)]
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// A note to read first.
    pub note: &'static str,
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

/// A part of a section.
#[derive(Debug, Default, Serialize)]
pub struct Part {
    /// A heading, such as the stage.
    pub title: String,
    /// A sentence of figures.
    pub facts: String,
    /// Plots side by side.
    pub figures: Vec<Figure>,
    /// A table below them.
    pub table: Option<Grid>,
    /// Rows with long texts.
    pub examples: Vec<Example>,
}

/// A plot with its title and what its colours mean.
#[derive(Debug, Serialize)]
pub struct Figure {
    title: String,
    svg: String,
    image: String,
    legend: Vec<(String, String)>,
    /// The scale of an ink's strength: the ink, its value at zero strength and at full strength.
    scale: Option<(String, String, String)>,
}

/// A table with some columns of numbers.
#[derive(Debug, Default, Serialize)]
pub struct Grid {
    head: Vec<Head>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Serialize)]
struct Head {
    name: String,
    class: &'static str,
}

/// A cell of a table.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Cell {
    pub text: String,
    /// Links beside it: (text, address).
    pub links: Vec<(String, String)>,
    /// A share with its interval in percent of the track: (from, width, at).
    pub track: Option<(String, String, String)>,
}

/// A pair to be read.
#[derive(Debug, Serialize)]
pub struct Example {
    /// Figures above it.
    pub facts: String,
    /// (what it is, text)
    pub texts: Vec<(&'static str, String)>,
}

impl Figure {
    /// Draws a figure; the legend names the inks.
    ///
    /// # Errors
    /// As `plot`.
    pub fn new(title: &str, frame: &Frame, marks: &[(Ink, Mark)], legend: &[(Ink, String)]) -> kit::Result<Figure> {
        let legend = legend.iter().map(|(ink, name)| (ink.variable(), name.clone())).collect();
        let svg = plot(frame, marks)?;
        Ok(Figure { title: title.to_owned(), svg, image: String::new(), legend, scale: None })
    }

    /// A drawing that a stage left. As an image it can neither run nor fetch anything.
    pub fn of_file(title: &str, svg: &[u8]) -> Figure {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~ ".contains(&byte);
        let encode = |byte: &u8| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
        let data: String = svg.iter().map(encode).collect();
        let image = format!("data:image/svg+xml,{data}");
        Figure { title: title.to_owned(), svg: String::new(), image, legend: Vec::new(), scale: None }
    }

    /// Tells what the weakest and the strongest ink mean.
    pub fn with_scale(mut self, ink: Ink, none: &str, all: &str) -> Figure {
        self.scale = Some((ink.variable(), none.to_owned(), all.to_owned()));
        self
    }
}

impl Grid {
    /// A table with these columns; those that begin with `#` hold numbers.
    pub fn new(head: &[&str]) -> Grid {
        let column = |name: &&str| match name.strip_prefix('#') {
            Some(name) => Head { name: name.to_owned(), class: "number" },
            None => Head { name: (*name).to_owned(), class: "" },
        };
        Grid { head: head.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, ..Cell::default() }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        text.to_owned().into()
    }
}

impl Cell {
    /// A share and its interval on a track from 0 to 1.
    pub fn track(value: f64, low: f64, high: f64) -> Cell {
        let percent = |share: f64| format!("{:.2}", share.clamp(0.0, 1.0) * 100.0);
        let width = (high.min(1.0) - low.max(0.0)).max(0.0);
        Cell { track: Some((percent(low), percent(width), percent(value))), ..Cell::default() }
    }
}

/// A figure with four digits.
pub fn four(value: f64) -> String {
    match value.abs() {
        // What rounding leaves of nothing is nothing.
        size if size < 1e-15 => return "0".to_owned(),
        size if !(1e-4..1e6).contains(&size) => format!("{value:.2e}"),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
    .replace('-', "\u{2212}")
}

/// A number of things, in groups of three digits.
pub fn grouped(number: u64) -> String {
    units::grouped(number, '\u{202f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_aligned() {
        for (value, wanted) in
            [(0.775_734, "0.7757"), (-9.5317, "−9.5317"), (13.6359, "13.64"), (0.0, "0"), (3e-5, "3.00e−5")]
        {
            assert_eq!(four(value), wanted);
        }
        assert_eq!((grouped(7), grouped(135_100)), ("7".to_owned(), "135\u{202f}100".to_owned()));
    }
}
