//! The section on training: its curves, the held-out pairs with the results on them, and the contrasts of RPO.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Result, Table};
use serde_json::Value;

use super::examples::short;
use super::files::{self, Found, groups};
use super::plots::{Frame, Ink, Mark, counts, range};
use super::texts::texts;
use super::view::{Cell, Figure, Grid, Part, Section, four, grouped};
use super::{FIGURES, ROWS};
use crate::look::inspect::Rows;

const SIZE: (u32, u32) = (350, 230);
/// Points of a curve; longer trainings are shown by the means of as many parts.
const POINTS: usize = 200;
/// Points of a curve of some pairs only.
const POOLS: usize = 40;
/// Rows of `splits` that are read.
const SPLITS: usize = 100_000;
/// The plots of `splits`: the column's index among those that are read, the name, and whether its axis is a share.
const SPLIT: [(usize, &str, bool); 3] =
    [(4, "loss by label", false), (5, "rewards/margins by label", false), (6, "rewards/accuracies by label", true)];

/// The plots of `metrics`: the column, and whether its axis is a share.
const CURVES: [(&str, bool); 8] = [
    ("loss", false),
    ("rewards/margins", false),
    ("rewards/accuracies", true),
    ("eval_loss", false),
    ("eval_rewards/margins", false),
    ("eval_rewards/accuracies", true),
    ("grad_norm", false),
    ("learning_rate", false),
];

/// A training and its curves.
struct Curves {
    name: String,
    rows: Vec<Vec<Value>>,
    /// The step whose weights became the policy, where evaluations chose it.
    policy_step: Option<u64>,
}

/// The curves of some trainings, each with its name. Preference training and imitation apart, since their losses have
/// nothing in common.
pub fn drawings<'a>(tables: impl IntoIterator<Item = (String, &'a Found)>) -> Result<Vec<Part>> {
    let mut columns = vec!["step"];
    columns.extend(CURVES.iter().map(|(name, _)| *name));
    let (mut preference, mut imitation) = (Vec::new(), Vec::new());
    for (name, table) in tables.into_iter().filter(|(_, table)| table.table == Table::Metrics && table.rows > 0) {
        let curves = Curves { name, rows: table.first(&columns, ROWS)?, policy_step: table.policy_step };
        let rewarded = curves.rows.iter().any(|row| !row[2].is_null());
        if rewarded { preference.push(curves) } else { imitation.push(curves) }
    }
    let mut parts = Vec::new();
    for (title, all) in [("Preference training", preference), ("Imitation", imitation)] {
        if !all.is_empty() {
            parts.push(drawn(title, &all)?);
        }
    }
    Ok(parts)
}

/// The curves of each training of a run.
pub fn curves(found: &[Found]) -> Result<Option<Section>> {
    let mut parts = drawings(found.iter().map(|table| (table.stage.clone(), table)))?;
    parts.extend(files::parts(&groups(found, &[Table::Splits]), split)?);
    Ok((!parts.is_empty()).then_some(Section {
        id: "training",
        title: "Training",
        note: "By optimizer step. Margins are beta times the difference of log-ratios, chosen less rejected; losses of \
               different objectives are on scales of their own. By label: the pairs whose p̂ lies in one tenth, means over \
               some steps.",
        parts,
    }))
}

fn drawn(title: &str, all: &[Curves]) -> Result<Part> {
    let shown = &all[..all.len().min(FIGURES)];
    let inks: Vec<(Ink, String)> =
        shown.iter().enumerate().map(|(number, curves)| (Ink::series(number), curves.name.clone())).collect();
    let mut figures = Vec::new();
    for (column, (name, share)) in CURVES.iter().enumerate() {
        let lines: Vec<(Ink, Vec<(f64, f64)>)> = shown
            .iter()
            .zip(&inks)
            .map(|(curves, (ink, _))| (*ink, thinned(&curves.rows, column + 1)))
            .filter(|(_, points)| !points.is_empty())
            .collect();
        if lines.is_empty() {
            continue;
        }
        let values = |axis: fn(&(f64, f64)) -> f64| lines.iter().flat_map(move |(_, points)| points.iter().map(axis));
        let y = if *share { 0.0..1.0 } else { range(values(|point| point.1)) };
        let last = values(|point| point.0).fold(1.0, f64::max);
        let frame = Frame { size: SIZE, x: 0.0..last, y: y.clone(), x_name: "step", y_name: "" };
        let zero = if *share { 0.5 } else { 0.0 };
        let mut marks = Vec::new();
        if y.start < zero && y.end > zero {
            marks.push((Ink(0), Mark::Guide(vec![(0.0, zero), (last, zero)])));
        }
        let several = lines.len() > 1;
        let legend: Vec<_> =
            inks.iter().filter(|(ink, _)| several && lines.iter().any(|line| line.0 == *ink)).cloned().collect();
        marks.extend(lines.into_iter().map(|(ink, points)| match points.len() {
            1 => (ink, Mark::Dots(points)),
            _ => (ink, Mark::Line(points)),
        }));
        for (curves, (ink, _)) in shown.iter().zip(&inks) {
            marks.extend(chosen(curves, column + 1).map(|point| (*ink, Mark::Dots(vec![point]))));
        }
        figures.push(Figure::new(name, &frame, &marks, &legend)?);
    }
    let name = |curves: &Curves| {
        let policy =
            curves.policy_step.map_or(String::new(), |step| format!(", policy of step {} (dot)", grouped(step)));
        format!("{}: {} steps{policy}", curves.name, grouped(curves.rows.len() as u64))
    };
    let mut facts = shown.iter().map(name).collect::<Vec<_>>().join(" · ");
    if all.len() > shown.len() {
        facts.push_str(&format!(" · and {} more, which are not drawn", all.len() - shown.len()));
    }
    let table = (all.len() > 1).then(|| ends(all));
    if table.is_some() {
        facts.push_str(" · below: means over the last tenth of the steps, at least 10; of evaluations the last");
    }
    Ok(Part { title: title.to_owned(), facts, figures, table, ..Part::default() })
}

/// The last measurements of each training.
fn ends(all: &[Curves]) -> Grid {
    let known: Vec<usize> = (0..CURVES.len())
        .filter(|column| all.iter().any(|curves| curves.rows.iter().any(|row| !row[column + 1].is_null())))
        .collect();
    let mut head = vec!["training".to_owned(), "#steps".to_owned()];
    head.extend(known.iter().map(|&column| format!("#{}", CURVES[column].0)));
    let mut grid = Grid::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for curves in all {
        let mut cells = vec![curves.name.as_str().into(), grouped(curves.rows.len() as u64).into()];
        for column in &known {
            let values: Vec<f64> = curves.rows.iter().filter_map(|row| row[column + 1].as_f64()).collect();
            let end = match kit::is_mean_at_end(CURVES[*column].0) {
                true => kit::end_mean(&values).map(|(mean, _)| mean),
                false => values.last().copied(),
            };
            cells.push(end.map(four).unwrap_or_default().into());
        }
        grid.push(cells);
    }
    grid
}

/// A training by form and soft label of its pairs.
fn split(table: &Found) -> Result<Part> {
    let columns = ["step", "form", "p_hat_low", "pairs", "loss", "rewards/margins", "rewards/accuracies"];
    let rows = Rows::open(&table.path)?.first(&columns, SPLITS)?;
    let last = rows.iter().filter_map(|row| row[0].as_f64()).fold(1.0, f64::max);
    let mut keys: BTreeMap<(&str, u64), Vec<&Vec<Value>>> = BTreeMap::new();
    for row in &rows {
        if let (Some(form), Some(low)) = (row[1].as_str(), row[2].as_f64()) {
            keys.entry((form, (low * 10.0).round() as u64)).or_default().push(row);
        }
    }
    let forms: BTreeSet<&str> = keys.keys().map(|(form, _)| *form).collect();
    let mut figures = Vec::new();
    for (form, (column, name, share)) in forms.iter().flat_map(|form| SPLIT.map(|curve| (*form, curve))) {
        let own = || keys.iter().filter(|((of, _), _)| *of == form);
        let ink = |tenth: u64| Ink::series(tenth as usize + 1);
        let lines: Vec<(u64, Vec<(f64, f64)>)> =
            own().map(|((_, tenth), rows)| (*tenth, pooled(rows, column, last))).collect();
        let values = lines.iter().flat_map(|(_, points)| points.iter().map(|point| point.1));
        let y = if share { 0.0..1.0 } else { range(values) };
        let frame = Frame { size: SIZE, x: 0.0..last, y, x_name: "step", y_name: "" };
        let legend: Vec<(Ink, String)> = lines
            .iter()
            .map(|(tenth, _)| {
                let [from, to] = [*tenth, tenth + 1].map(|edge| edge as f64 / 10.0);
                (ink(*tenth), format!("{from:.1} to {to:.1}"))
            })
            .collect();
        let marks: Vec<(Ink, Mark)> = lines
            .into_iter()
            .map(|(tenth, points)| {
                (ink(tenth), if points.len() == 1 { Mark::Dots(points) } else { Mark::Line(points) })
            })
            .collect();
        let title = if forms.len() > 1 { format!("{name}, {form}") } else { name.to_owned() };
        figures.push(Figure::new(&title, &frame, &marks, &legend)?);
    }
    let pairs: u64 = rows.iter().filter_map(|row| row[3].as_u64()).sum();
    let facts = format!("{} pairs seen, by label · {}", grouped(pairs), table.read_note(rows.len(), "parts of steps"));
    Ok(Part { title: format!("{} by label", table.stage), facts, figures, ..Part::default() })
}

/// (step, value) over equal parts of the steps: means in which each pair counts once.
fn pooled(rows: &[&Vec<Value>], column: usize, last: f64) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0, 0.0); POOLS.min(last as usize).max(1)];
    let parts = sums.len();
    for row in rows {
        let (Some(step), Some(pairs), Some(value)) = (row[0].as_f64(), row[3].as_f64(), row[column].as_f64()) else {
            continue;
        };
        let (steps, values, weight) = &mut sums[(((step - 1.0) / last * parts as f64) as usize).min(parts - 1)];
        *steps += pairs * step;
        *values += pairs * value;
        *weight += pairs;
    }
    let filled = sums.into_iter().filter(|(.., weight)| *weight > 0.0);
    filled.map(|(steps, values, weight)| (steps / weight, values / weight)).collect()
}

/// The evaluation that chose the policy, on its curve.
fn chosen(curves: &Curves, column: usize) -> Option<(f64, f64)> {
    let step = curves.policy_step? as f64;
    let row = curves.rows.iter().find(|row| row[0].as_f64() == Some(step))?;
    CURVES[column - 1].0.starts_with("eval_").then_some((step, row[column].as_f64()?))
}

/// (step, value) of the rows that have one, as the means of at most so many parts.
fn thinned(rows: &[Vec<Value>], column: usize) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((row[0].as_f64()?, row[column].as_f64()?))).collect();
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        (part.iter().map(|point| point.0).sum::<f64>() / count, part.iter().map(|point| point.1).sum::<f64>() / count)
    };
    points.chunks(size).map(mean).collect()
}

/// Held-out pairs by soft label and by form.
pub fn scores(found: &[Found]) -> Result<Option<Section>> {
    let parts = files::parts(&groups(found, &[Table::Scores]), held_out)?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "heldout",
        title: "Held-out pairs",
        note: "Pairs that training has not seen, under the trained policy and its reference. Accuracy is the share with a \
               margin above 0 for the chosen side; the more certain the label, the higher it should be. The 95\u{a0}% intervals are Wilson's.",
        parts,
    }))
}

fn held_out(table: &Found) -> Result<Part> {
    let rows = table.first(&["form", "p_hat", "margin", "correct"], ROWS)?;
    let scored = |row: &Vec<Value>| {
        Some(Scored {
            form: row[0].as_str()?.to_owned(),
            p_hat: row[1].as_f64()?,
            margin: row[2].as_f64()?,
            correct: row[3].as_bool()?,
        })
    };
    let scored: Vec<Scored> = rows.iter().filter_map(scored).collect();
    let x = range(scored.iter().map(|row| row.margin));
    let bars = counts(scored.iter().map(|row| row.margin), x.clone(), 40);
    let top = bars.iter().map(|bar| bar.2).fold(1.0, f64::max);
    let frame = Frame { size: SIZE, x: x.clone(), y: 0.0..top * 1.05, x_name: "margin in nats", y_name: "pairs" };
    let marks = [(Ink::series(0), Mark::Bars(bars)), (Ink(0), Mark::Guide(vec![(0.0, 0.0), (0.0, top * 1.05)]))];
    let mut figures = vec![Figure::new("Margins", &frame, &marks, &[])?];
    let mut forms: BTreeMap<&str, Vec<&Scored>> = BTreeMap::new();
    scored.iter().for_each(|row| forms.entry(&row.form).or_default().push(row));
    let mut grid = Grid::new(&["form", "p̂", "#pairs", "#accuracy", "#low", "#high", "", "#mean margin"]);
    let (mut marks, mut legend) = (vec![(Ink(0), Mark::Guide(vec![(0.5, 0.5), (1.0, 0.5)]))], Vec::new());
    for (number, (form, rows)) in forms.iter().enumerate() {
        let ink = Ink::series(number);
        let (mut points, mut intervals) = (Vec::new(), Vec::new());
        for bin in 0..5 {
            let inside: Vec<&&Scored> = rows.iter().filter(|row| bucket(row.p_hat) == bin).collect();
            let [from, to] = [bin, bin + 1].map(|edge| 0.5 + edge as f64 / 10.0);
            if let Some((value, low, high)) = grid_row(&mut grid, form, &format!("{from:.1} to {to:.1}"), &inside) {
                let x = inside.iter().map(|row| row.p_hat).sum::<f64>() / inside.len() as f64;
                points.push((x, value));
                intervals.push((x, low, high));
            }
        }
        grid_row(&mut grid, form, "all", &rows.iter().collect::<Vec<_>>());
        marks.extend([(ink, Mark::Intervals(intervals)), (ink, Mark::Line(points.clone())), (ink, Mark::Dots(points))]);
        legend.push((ink, form.to_string()));
    }
    let frame = Frame { size: SIZE, x: 0.5..1.0, y: 0.0..1.0, x_name: "p̂ of the pair", y_name: "" };
    figures.push(Figure::new("Accuracy by soft label", &frame, &marks, &legend)?);
    let mut facts = vec![table.read_note(rows.len(), "pairs")];
    if !scored.is_empty() {
        let count = scored.len() as f64;
        let share = scored.iter().filter(|row| row.correct).count() as f64 / count;
        let (low, high) = wilson(share, count);
        facts.push(format!("accuracy {} ({} to {})", four(share), four(low), four(high)));
        facts.push(format!("mean margin {}", four(scored.iter().map(|row| row.margin).sum::<f64>() / count)));
    }
    Ok(Part { title: table.name(), facts: facts.join(" · "), figures, table: Some(grid), ..Part::default() })
}

struct Scored {
    form: String,
    p_hat: f64,
    margin: f64,
    correct: bool,
}

/// The fifth of [0.5, 1] that a label lies in.
fn bucket(p_hat: f64) -> usize {
    (((p_hat - 0.5) * 10.0).max(0.0) as usize).min(4)
}

/// A line of the table, and its accuracy with its interval; nothing of no rows.
fn grid_row(grid: &mut Grid, form: &str, label: &str, rows: &[&&Scored]) -> Option<(f64, f64, f64)> {
    if rows.is_empty() {
        return None;
    }
    let count = rows.len() as f64;
    let share = rows.iter().filter(|row| row.correct).count() as f64 / count;
    let (low, high) = wilson(share, count);
    let margin = rows.iter().map(|row| row.margin).sum::<f64>() / count;
    grid.push(vec![
        form.into(),
        label.into(),
        grouped(rows.len() as u64).into(),
        four(share).into(),
        four(low).into(),
        four(high).into(),
        Cell::track(share, low, high),
        four(margin).into(),
    ]);
    Some((share, low, high))
}

/// Wilson's 95 % interval of a share.
pub fn wilson(share: f64, count: f64) -> (f64, f64) {
    let z2 = 1.96_f64 * 1.96;
    let middle = (share + z2 / (2.0 * count)) / (1.0 + z2 / count);
    let half = 1.96 / (1.0 + z2 / count) * (share * (1.0 - share) / count + z2 / (4.0 * count * count)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// The strongest cross-prompt weights, with the prompts where they can be found.
pub fn contrasts(found: &[Found]) -> Result<Option<Section>> {
    let parts = files::parts(&groups(found, &[Table::Contrasts]), |table| strongest(found, table))?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "contrasts",
        title: "Contrasts",
        note: "Relative preference optimization sets the chosen side of a pair against the rejected sides of others: the \
               nearer their prompts, the higher the weight. The strongest ones between different pairs:",
        parts,
    }))
}

fn strongest(found: &[Found], table: &Found) -> Result<Part> {
    let rows = table.first(&["step", "pair_id", "rejected_pair_id", "weight", "similarity"], ROWS)?;
    let mut cross: Vec<&Vec<Value>> = rows.iter().filter(|row| row[1] != row[2]).collect();
    let points: Vec<(f64, f64)> =
        cross.iter().filter_map(|row| Some((row[4].as_f64()?, row[3].as_f64()?))).take(2000).collect();
    cross.sort_by(|a, b| b[3].as_f64().unwrap_or(0.0).total_cmp(&a[3].as_f64().unwrap_or(0.0)));
    let wanted: Vec<&Vec<Value>> = cross.into_iter().take(10).collect();
    let ids = wanted.iter().flat_map(|row| [&row[1], &row[2]]).filter_map(Value::as_str).collect();
    let columns = |table| match table {
        Table::Pairs => Some(["pair_id", "chosen_prompt"]),
        Table::Items => Some(["item_id", "prompt"]),
        _ => None,
    };
    let texts = texts(found, ids, columns)?;
    let mut grid = Grid::new(&["prompt", "set against the rejected side of", "#similarity", "#weight", "#step"]);
    for row in wanted {
        let text = |cell: &Value| {
            let id = cell.as_str().unwrap_or_default();
            short(texts.get(id).map_or(id, String::as_str), 160)
        };
        let number = |cell: &Value| four(cell.as_f64().unwrap_or(f64::NAN));
        grid.push(vec![
            text(&row[1]).into(),
            text(&row[2]).into(),
            number(&row[4]).into(),
            number(&row[3]).into(),
            row[0].to_string().into(),
        ]);
    }
    let frame = Frame {
        size: SIZE,
        x: range(points.iter().map(|point| point.0)),
        y: range(points.iter().map(|point| point.1)),
        x_name: "cosine similarity of the prompts",
        y_name: "weight",
    };
    let figures = vec![Figure::new("Weight", &frame, &[(Ink::series(0), Mark::Dots(points))], &[])?];
    let facts = table.read_note(rows.len(), "contrasts");
    Ok(Part { title: table.name(), facts, figures, table: Some(grid), ..Part::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_stays_within_bounds() {
        // 8 of 10, as in Agresti and Coull.
        let (low, high) = wilson(0.8, 10.0);
        assert!((low - 0.4902).abs() < 1e-3 && (high - 0.9433).abs() < 1e-3, "{low} {high}");
        assert_eq!(wilson(0.0, 5.0).0, 0.0);
        assert_eq!([0.5, 0.59, 0.65, 0.95, 1.0].map(bucket), [0, 0, 1, 4, 4]);
    }

    #[test]
    fn long_curves_are_thinned_to_means() {
        let rows: Vec<Vec<Value>> =
            (1..=400).map(|step| vec![Value::from(step), Value::from(f64::from(step))]).collect();
        let points = thinned(&rows, 1);
        assert_eq!((points.len(), points[0], points[199]), (200, (1.5, 1.5), (399.5, 399.5)));
    }
}
