//! Plots as SVG whose colours are the page's: it is the style sheet that says what `--c0`, `--c1`, ... are.

use std::error::Error as StdError;
use std::ops::Range;

use kit::{Error, Result};
use plotters::prelude::*;

/// Plots are drawn on a grid this many times finer than the page's pixels, since plotters rounds to whole ones.
const FINE: u32 = 4;
/// The text and the grid.
const TEXT: Ink = Ink(0);
const GRID: Ink = Ink(1);

/// One of the page's colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink(pub u8);

impl Ink {
    /// The colour of a series; the page has six, used in turn.
    pub fn series(number: usize) -> Ink {
        Ink(2 + (number % 6) as u8)
    }

    /// The name of its CSS variable.
    pub fn variable(self) -> String {
        format!("--c{}", self.0)
    }

    /// A colour that stands for it until the drawing is done.
    fn stand_in(self) -> RGBColor {
        RGBColor(1, 2, self.0)
    }
}

/// The shape of a plotted series.
pub enum Mark {
    /// Points with lines between them.
    Line(Vec<(f64, f64)>),
    /// The same, thin and broken: what would be ideal, or nothing.
    Guide(Vec<(f64, f64)>),
    Dots(Vec<(f64, f64)>),
    /// From the ground up to y, between two x: (from, to, y).
    Bars(Vec<(f64, f64, f64)>),
    /// Upright intervals: (x, low, high).
    Intervals(Vec<(f64, f64, f64)>),
    /// Rectangles with a strength in [0, 1]: (x range, y range, strength).
    Cells(Vec<(Range<f64>, Range<f64>, f64)>),
}

/// The frame of a plot.
pub struct Frame {
    /// Width and height in the page's pixels.
    pub size: (u32, u32),
    /// The range across.
    pub x: Range<f64>,
    /// The range upwards.
    pub y: Range<f64>,
    /// Name of the x axis.
    pub x_name: &'static str,
    /// Name of the y axis, where the title does not give it.
    pub y_name: &'static str,
}

/// Draws marks over each other.
///
/// # Errors
/// When plotters refuses, which would be a bug.
pub fn plot(frame: &Frame, marks: &[(Ink, Mark)]) -> Result<String> {
    let mut svg = String::new();
    draw(frame, marks, &mut svg).map_err(|error| Error::internal(format!("a plot: {error}")))?;
    for ink in (0..8).map(Ink) {
        svg = svg.replace(&format!("\"#0102{:02X}\"", ink.0), &format!("\"var({})\"", ink.variable()));
    }
    // In HTML an inline drawing needs no namespace, and the page has no addresses in it.
    let svg = svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", "");
    let (width, height) = frame.size;
    Ok(svg.replacen(
        &format!("width=\"{}\" height=\"{}\"", width * FINE, height * FINE),
        &format!("class=\"plot\" role=\"img\" width=\"{width}\" height=\"{height}\""),
        1,
    ))
}

fn draw(frame: &Frame, marks: &[(Ink, Mark)], svg: &mut String) -> std::result::Result<(), Box<dyn StdError>> {
    let (width, height) = frame.size;
    let area = SVGBackend::with_string(svg, (width * FINE, height * FINE)).into_drawing_area();
    let span = frame.y.end - frame.y.start;
    // The room for labels is that of the longest; these places stand for the ticks that plotters chooses.
    let longest = (0..=20).map(|tick| number(frame.y.start + span * f64::from(tick) / 20.0, span).chars().count());
    let longest = longest.max().expect("there are ticks") as u32;
    let name = if frame.y_name.is_empty() { 0 } else { 18 };
    let mut chart = ChartBuilder::on(&area)
        .margin_top(9 * FINE)
        .margin_left(4 * FINE)
        .margin_right(12 * FINE)
        .x_label_area_size(36 * FINE)
        .y_label_area_size((44.max(longest * 7 + 12) + name) * FINE)
        .build_cartesian_2d(frame.x.clone(), frame.y.clone())?;
    let label = |span: f64| move |value: &f64| number(*value, span);
    let (x_label, y_label) = (label(frame.x.end - frame.x.start), label(span));
    let grey = TEXT.stand_in();
    let text = ("sans-serif", 13 * FINE, &grey).into_text_style(&area);
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stand_in().stroke_width(FINE))
        .axis_style(GRID.stand_in().stroke_width(FINE))
        .x_labels((width / 40) as usize)
        .y_labels(6)
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .x_desc(frame.x_name)
        .label_style(text.clone())
        .axis_desc_style(text);
    if !frame.y_name.is_empty() {
        mesh.y_desc(frame.y_name);
    }
    mesh.draw()?;
    for (ink, mark) in marks {
        let colour = ink.stand_in();
        match mark {
            Mark::Line(points) => {
                chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(7)))?;
            }
            Mark::Guide(points) => {
                let style = colour.stroke_width(FINE);
                chart.draw_series(DashedLineSeries::new(points.iter().copied(), 4 * FINE, 4 * FINE, style))?;
            }
            Mark::Dots(points) => {
                // Many dots are small and let each other through.
                let (radius, ink) = if points.len() > 200 { (6, colour.mix(0.5)) } else { (3 * FINE, colour.mix(1.0)) };
                chart.draw_series(points.iter().map(|point| Circle::new(*point, radius, ink.filled())))?;
            }
            Mark::Bars(bars) => {
                let bar = |(from, to, y): &(f64, f64, f64)| {
                    Rectangle::new([(*from, 0.0), (*to, *y)], colour.mix(0.35).filled())
                };
                chart.draw_series(bars.iter().map(bar))?;
            }
            Mark::Intervals(all) => {
                let interval = |(x, low, high): &(f64, f64, f64)| {
                    PathElement::new(vec![(*x, *low), (*x, *high)], colour.stroke_width(6))
                };
                chart.draw_series(all.iter().map(interval))?;
            }
            Mark::Cells(cells) => {
                let cell = |(x, y, strength): &(Range<f64>, Range<f64>, f64)| {
                    Rectangle::new([(x.start, y.start), (x.end, y.end)], colour.mix(*strength).filled())
                };
                chart.draw_series(cells.iter().map(cell))?;
            }
        }
    }
    area.present()?;
    Ok(())
}

/// A number beside an axis of that span: with the digits that distinguish neighbours.
fn number(value: f64, span: f64) -> String {
    if value.abs() < span * 1e-9 {
        return "0".to_owned();
    }
    if span >= 10_000.0 {
        return format!("{:.0}k", value / 1000.0);
    }
    let decimals = (1.5 - span.log10()).ceil().max(0.0);
    if value.abs() < 1e-2 && decimals > 4.0 {
        let digits = (decimals + value.abs().log10().floor()).max(0.0) as usize;
        return format!("{value:.digits$e}");
    }
    let digits = decimals as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// The range of values, with a little room; of no values or a single one, something around it.
pub fn range(values: impl IntoIterator<Item = f64>) -> Range<f64> {
    let values = values.into_iter().filter(|value| value.is_finite());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
    if low > high {
        return 0.0..1.0;
    }
    let room = match (high > low, high == 0.0) {
        (true, _) => (high - low) * 0.05,
        (false, true) => 1.0,
        (false, false) => high.abs() * 0.1,
    };
    // A value near 0 from above stays above it.
    let floor = if low >= 0.0 && low <= 2.0 * room { 0.0 } else { low - room };
    floor..high + room
}

/// Numbers of values in `bins` equal parts of a range, as steps to be drawn; values outside count at its ends.
pub fn counts(values: impl IntoIterator<Item = f64>, over: Range<f64>, bins: usize) -> Vec<(f64, f64, f64)> {
    let width = (over.end - over.start) / bins as f64;
    let mut counts = vec![0.0; bins];
    for value in values.into_iter().filter(|value| value.is_finite()) {
        counts[(((value - over.start) / width).max(0.0) as usize).min(bins - 1)] += 1.0;
    }
    let edge = |bin: usize| over.start + width * bin as f64;
    counts.into_iter().enumerate().map(|(bin, count)| (edge(bin), edge(bin + 1), count)).collect()
}

/// The outline of bars.
pub fn outline(bars: &[(f64, f64, f64)]) -> Vec<(f64, f64)> {
    bars.iter().flat_map(|(from, to, y)| [(*from, *y), (*to, *y)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_left_to_the_page() {
        let frame = Frame { size: (300, 200), x: 0.0..1.0, y: 0.0..2.0, x_name: "x", y_name: "" };
        let marks = [
            (Ink::series(0), Mark::Bars(counts([0.1, 0.1, 0.9], 0.0..1.0, 2))),
            (Ink::series(1), Mark::Line(vec![(0.0, 0.0), (1.0, 2.0)])),
            (GRID, Mark::Guide(vec![(0.0, 1.0), (1.0, 1.0)])),
        ];
        let svg = plot(&frame, &marks).unwrap();
        assert!(svg.contains("var(--c2)") && svg.contains("var(--c3)") && svg.contains("viewBox=\"0 0 1200 800\""));
        assert!(!svg.contains("\"#") && !svg.contains("http"), "{svg}");
        assert!(svg.starts_with("<svg class=\"plot\" role=\"img\" width=\"300\" height=\"200\""), "{svg}");
    }

    #[test]
    fn every_value_is_counted() {
        let bars = counts([-1.0, 0.0, 0.49, 0.5, 1.0, 7.0, f64::NAN], 0.0..1.0, 2);
        assert_eq!(bars, [(0.0, 0.5, 3.0), (0.5, 1.0, 3.0)]);
    }

    #[test]
    fn neighbours_on_an_axis_read_differently() {
        let powers = (-8..4).map(|power| 10_f64.powi(power));
        for step in powers.flat_map(|power| [1.0, 2.0, 2.5, 5.0].map(|times| times * power)) {
            for start in [0.0, 0.6942, 12.0, -3.5] {
                let first = (start / step).ceil() * step;
                let ticks: Vec<String> =
                    (0..6).map(|tick| number(first + step * f64::from(tick), 5.5 * step)).collect();
                let mut distinct = ticks.clone();
                distinct.dedup();
                assert_eq!(distinct.len(), 6, "steps of {step} from {start}: {ticks:?}");
            }
        }
    }

    #[test]
    fn axes_have_short_numbers() {
        let cases = [(0.0, 1.0, "0"), (0.25, 1.0, "0.25"), (0.30000000000000004, 1.0, "0.3"), (1500.0, 2000.0, "1500")];
        for (value, span, wanted) in cases {
            assert_eq!(number(value, span), wanted);
        }
        assert_eq!((number(3e-4, 3e-4), number(40_000.0, 50_000.0)), ("3.00e-4".to_owned(), "40k".to_owned()));
        assert_eq!((number(0.6942, 4e-4), number(5.3e-7, 5e-7)), ("0.6942".to_owned(), "5.3e-7".to_owned()));
        assert_eq!(range([2.0]), 1.8..2.2);
        assert_eq!(range([]), 0.0..1.0);
    }
}
