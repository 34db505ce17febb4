//! Score margins: how far each source prefers a side, as log-odds.

use kit::{Result, Table};

use super::ROWS;
use super::files::{self, Found, Group, groups};
use super::plots::{Frame, Ink, Mark, counts, outline, range};
use super::view::{Figure, Grid, Part, Section, four, grouped};

const SIZE: (u32, u32) = (350, 250);
/// The page's colours: so many sources are drawn.
const DRAWN: usize = 6;
/// At most so many sources are listed.
const LISTED: usize = 60;

/// The margins of a source.
struct Source {
    name: String,
    values: Vec<f64>,
}

/// The margins of every stage that gave some.
pub fn section(found: &[Found]) -> Result<Option<Section>> {
    let mut with_margins = Vec::new();
    for group in groups(found, &[Table::Verdicts, Table::Votes]) {
        let mut members = Vec::new();
        for table in group.members {
            if !sources(table)?.is_empty() {
                members.push(table);
            }
        }
        if !members.is_empty() {
            with_margins.push(Group { name: group.name, members });
        }
    }
    let parts = files::parts(&with_margins, margins)?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "margins",
        title: "Score margins",
        note: "A margin is the log-odds that response a is better: of a reward model the difference of its two scores, of \
               marks their difference times the scale, of a jury or a calibration what it made of them. Where one source \
               has wider margins than the others, it decides a mean of log-odds; a temperature brings it to the scale of \
               the truth.",
        parts,
    }))
}

/// The margins in a table: of votes by who gave them, else before and after a calibration.
fn sources(table: &Found) -> Result<Vec<Source>> {
    let rows = table.first(&["annotator", "log_odds", "uncalibrated_log_odds"], ROWS)?;
    let mut sources: Vec<Source> = Vec::new();
    let mut note = |name: &str, value: Option<f64>| {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        match sources.iter_mut().find(|source| source.name == name) {
            Some(source) => source.values.push(value),
            None => sources.push(Source { name: name.to_owned(), values: vec![value] }),
        }
    };
    for row in rows {
        let calibrated = row[2].as_f64();
        let name = match (table.table, calibrated) {
            (Table::Votes, _) => row[0].as_str().unwrap_or("nobody by name"),
            (_, Some(_)) => "after calibration",
            (_, None) => "all",
        };
        note(name, row[1].as_f64());
        note("before calibration", calibrated);
    }
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(sources)
}

fn margins(table: &Found) -> Result<Part> {
    let sources = sources(table)?;
    let all = || sources.iter().flat_map(|source| source.values.iter().copied());
    let x = range(all());
    let drawn: Vec<_> =
        sources.iter().take(DRAWN).map(|source| counts(source.values.iter().copied(), x.clone(), 41)).collect();
    let top = drawn.iter().flatten().map(|bar| bar.2).fold(1.0, f64::max);
    let frame = Frame { size: SIZE, x, y: 0.0..top * 1.05, x_name: "log-odds that a is better", y_name: "labels" };
    let mut marks = vec![(Ink(0), Mark::Guide(vec![(0.0, 0.0), (0.0, top * 1.05)]))];
    let mut legend = Vec::new();
    let alone = drawn.len() == 1;
    for (number, (bars, source)) in drawn.into_iter().zip(&sources).enumerate() {
        let ink = Ink::series(number);
        marks.push((ink, if alone { Mark::Bars(bars) } else { Mark::Line(outline(&bars)) }));
        legend.extend((!alone).then(|| (ink, source.name.clone())));
    }
    let figures = vec![Figure::new("Margins", &frame, &marks, &legend)?];
    let mut grid =
        Grid::new(&["source", "#margins", "#mean", "#mean size", "#median size", "#95\u{a0}% below", "#largest"]);
    for source in sources.iter().take(LISTED) {
        let count = source.values.len() as f64;
        let mut sizes: Vec<f64> = source.values.iter().map(|value| value.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let at = |share: f64| sizes[((share * count).ceil() as usize).clamp(1, sizes.len()) - 1];
        grid.push(vec![
            source.name.as_str().into(),
            grouped(source.values.len() as u64).into(),
            four(source.values.iter().sum::<f64>() / count).into(),
            four(sizes.iter().sum::<f64>() / count).into(),
            four(at(0.5)).into(),
            four(at(0.95)).into(),
            four(at(1.0)).into(),
        ]);
    }
    let mut facts = vec![table.read_note(ROWS.min(table.rows as usize), "rows")];
    if sources.len() > DRAWN {
        facts.push(format!("the first {DRAWN} of {} sources are drawn", sources.len()));
    }
    Ok(Part { title: table.name(), facts: facts.join(" · "), figures, table: Some(grid), ..Part::default() })
}
