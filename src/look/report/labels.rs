//! The judge's labels: their histogram before and after debiasing or calibration, what position and length do to them,
//! and how they compare with gold.

use kit::{Result, Table};

use super::ROWS;
use super::files::{self, Found, groups};
use super::plots::{Frame, Ink, Mark, counts, outline, range};
use super::training::wilson;
use super::view::{Figure, Part, Section, four, grouped};
use crate::look::inspect::{Rows, is_text};

const SIZE: (u32, u32) = (350, 250);
/// Texts are read for this many labels at most.
const TEXTS: usize = 4000;

/// Labels of each stage that gave or changed some.
pub fn section(found: &[Found]) -> Result<Option<Section>> {
    let parts = files::parts(&groups(found, &[Table::Verdicts]), labels)?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "labels",
        title: "Labels",
        note: "p̂ is the probability that response a is the better one. ab is the judge's answer with a shown first, ba with \
               b shown first; a judge without position bias has both on the diagonal.",
        parts,
    }))
}

fn labels(table: &Found) -> Result<Part> {
    let columns = ["p_hat", "ab_p", "ba_p", "uncalibrated_p_hat", "ab_mass", "ba_mass"];
    let rows = table.first(&columns, ROWS)?;
    let column = |at: usize| rows.iter().filter_map(move |row| row[at].as_f64());
    let both: Vec<(f64, f64)> = rows.iter().filter_map(|row| Some((row[1].as_f64()?, row[2].as_f64()?))).collect();
    let before: Vec<f64> = column(3).collect();
    let mut facts = vec![table.read_note(rows.len(), "labels")];
    let mut figures = Vec::new();
    let after: Vec<f64> = column(0).collect();
    let calibrated = !before.is_empty();
    let debiased = if calibrated { &before } else { &after };
    if both.is_empty() {
        if !calibrated {
            figures.push(histogram("Labels", ("p̂", debiased), &[])?);
        }
    } else {
        // The judge's answers in either order, and their combination.
        let (ab, ba): (Vec<f64>, Vec<f64>) = both.iter().copied().unzip();
        let orders = [("ab, a first", &ab), ("ba, b first", &ba)];
        figures.push(histogram("Before and after debiasing", ("both orders, debiased", debiased), &orders)?);
    }
    if calibrated {
        let uncalibrated = [("before calibration", &before)];
        figures.push(histogram("Before and after calibration", ("p̂, calibrated", &after), &uncalibrated)?);
    }
    if !both.is_empty() {
        let share = |count: usize| four(count as f64 / both.len() as f64);
        let flipped = both.iter().filter(|(ab, ba)| (ab - 0.5) * (ba - 0.5) < 0.0).count();
        let gap = both.iter().map(|(ab, ba)| ab - ba).sum::<f64>() / both.len() as f64;
        let apart = both.iter().map(|(ab, ba)| (ab - ba).abs()).sum::<f64>() / both.len() as f64;
        facts.push(format!("verdict turns over with the order: {}", share(flipped)));
        facts.push(format!("position gap ab − ba: mean {}, mean size {}", four(gap), four(apart)));
        figures.push(heat(&both)?);
    }
    let masses: Vec<f64> = column(4).chain(column(5)).collect();
    if !masses.is_empty() {
        facts.push(format!("label mass: mean {}", four(masses.iter().sum::<f64>() / masses.len() as f64)));
    }
    facts.extend(without_verdict(table)?);
    figures.extend(lengths(table)?);
    Ok(Part { title: table.name(), facts: facts.join(" · "), figures, ..Part::default() })
}

/// Number of comparisons without a verdict because the judge gave another answer, and that answer, from the judge's
/// summary.
fn without_verdict(table: &Found) -> Result<Option<String>> {
    let summary = table.path.with_file_name("summary");
    if !summary.is_dir() {
        return Ok(None);
    }
    let rows = Rows::open(&summary)?.first(&["metric", "value", "rows"], ROWS)?;
    let metric = |row: &[serde_json::Value]| is_text(&row[0]);
    let of = |name: &str| rows.iter().find(|row| metric(row).as_deref() == Some(name));
    let Some(low) = of("label_mass/too_low") else { return Ok(None) };
    let tokens: Vec<String> = rows
        .iter()
        .filter_map(|row| Some((metric(row)?.strip_prefix("first_token/")?.to_owned(), row[1].as_f64()?)))
        .map(|(token, share)| format!("{token} {}", four(share)))
        .collect();
    let tokens = if tokens.is_empty() { String::new() } else { format!(", it would rather say {}", tokens.join(", ")) };
    let number = |at: usize| low[at].as_f64().unwrap_or_default();
    let (share, all) = (number(1), number(2));
    Ok(Some(format!(
        "no verdict, since both labels got too little: {} of {}{tokens}",
        four(share),
        grouped(all as u64)
    )))
}

/// Values as bars, and what they were made of as outlines.
fn histogram(title: &str, after: (&str, &[f64]), before: &[(&str, &Vec<f64>)]) -> Result<Figure> {
    let counted = |values: &[f64]| counts(values.iter().copied(), 0.0..1.0, 25);
    let bars = counted(after.1);
    let outlines: Vec<_> = before.iter().map(|(_, values)| counted(values)).collect();
    let top = outlines.iter().flatten().chain(&bars).map(|bar| bar.2).fold(1.0, f64::max);
    let frame = Frame { size: SIZE, x: 0.0..1.0, y: 0.0..top * 1.05, x_name: "P(a better)", y_name: "labels" };
    let mut marks = vec![(Ink::series(0), Mark::Bars(bars))];
    let mut legend = vec![(Ink::series(0), after.0.to_owned())];
    for (number, ((name, _), bars)) in before.iter().zip(&outlines).enumerate() {
        marks.push((Ink::series(number + 1), Mark::Line(outline(bars))));
        legend.push((Ink::series(number + 1), (*name).to_owned()));
    }
    Figure::new(title, &frame, &marks, &legend)
}

/// Labels of several runs as outlines, each in shares of its own number.
pub fn outlines(title: &str, all: &[(String, Vec<f64>)]) -> Result<Figure> {
    let counted: Vec<_> = all
        .iter()
        .map(|(_, values)| {
            let share = |(from, to, count)| (from, to, count / values.len().max(1) as f64);
            counts(values.iter().copied(), 0.0..1.0, 25).into_iter().map(share).collect::<Vec<_>>()
        })
        .collect();
    let top = counted.iter().flatten().map(|bar| bar.2).fold(0.01, f64::max);
    let frame = Frame { size: SIZE, x: 0.0..1.0, y: 0.0..top * 1.05, x_name: "p̂", y_name: "share of labels" };
    let marks: Vec<(Ink, Mark)> =
        counted.iter().enumerate().map(|(number, bars)| (Ink::series(number), Mark::Line(outline(bars)))).collect();
    let legend: Vec<(Ink, String)> =
        all.iter().enumerate().map(|(number, (name, _))| (Ink::series(number), name.clone())).collect();
    Figure::new(title, &frame, &marks, &legend)
}

fn heat(both: &[(f64, f64)]) -> Result<Figure> {
    const BINS: usize = 20;
    let bin = |value: f64| ((value * BINS as f64) as usize).min(BINS - 1);
    let mut grid = vec![0_usize; BINS * BINS];
    both.iter().for_each(|(ab, ba)| grid[bin(*ab) * BINS + bin(*ba)] += 1);
    let most = *grid.iter().max().expect("the grid has cells") as f64;
    let edge = |bin: usize| bin as f64 / BINS as f64;
    let cell = |(at, count): (usize, &usize)| {
        let (x, y) = (at / BINS, at % BINS);
        // By the root, so that rare cells are seen beside full ones.
        (edge(x)..edge(x + 1), edge(y)..edge(y + 1), (*count as f64 / most).sqrt())
    };
    let cells = grid.iter().enumerate().filter(|(_, count)| **count > 0).map(cell).collect();
    let (x_name, y_name) = ("P(a better), a shown first", "P(a better), b shown first");
    let frame = Frame { size: SIZE, x: 0.0..1.0, y: 0.0..1.0, x_name, y_name };
    let marks = [(Ink::series(0), Mark::Cells(cells)), (Ink(0), Mark::Guide(vec![(0.0, 0.0), (1.0, 1.0)]))];
    let figure = Figure::new("Position", &frame, &marks, &[])?;
    Ok(figure.with_scale(Ink::series(0), "0", &format!("{} labels, by the root", grouped(most as u64))))
}

/// The label against how much longer a is, as means over tenths of the rows.
fn lengths(table: &Found) -> Result<Option<Figure>> {
    let rows = table.first(&["p_hat", "a_response", "b_response"], TEXTS)?;
    let size = |cell| is_text(cell).map(|text| text.chars().count() as f64);
    let mut points: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((size(&row[1])? - size(&row[2])?, row[0].as_f64()?))).collect();
    if points.len() < 20 || points.iter().all(|point| point.0 == points[0].0) {
        return Ok(None);
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let (mut means, mut intervals) = (Vec::new(), Vec::new());
    let mut start = 0;
    while start < points.len() {
        // Equal differences stay together.
        let mut end = (start + points.len().div_ceil(10)).min(points.len());
        while end < points.len() && points[end].0 == points[end - 1].0 {
            end += 1;
        }
        let (x, _) = mean(points[start..end].iter().map(|point| point.0));
        let (y, error) = mean(points[start..end].iter().map(|point| point.1));
        means.push((x, y));
        intervals.push((x, (y - 1.96 * error).max(0.0), (y + 1.96 * error).min(1.0)));
        start = end;
    }
    let x = range(means.iter().map(|point| point.0));
    let guide = vec![(x.start, 0.5), (x.end, 0.5)];
    let frame = Frame { size: SIZE, x, y: 0.0..1.0, x_name: "characters by which a is longer", y_name: "mean p̂" };
    let ink = Ink::series(0);
    let marks = [
        (Ink(0), Mark::Guide(guide)),
        (ink, Mark::Intervals(intervals)),
        (ink, Mark::Line(means.clone())),
        (ink, Mark::Dots(means)),
    ];
    Figure::new("Length", &frame, &marks, &[]).map(Some)
}

/// Labels compared with gold: the sandbox's truth, or the gold labels of `calibrate`.
pub fn reliability(found: &[Found]) -> Result<Option<Section>> {
    let parts = files::parts(&groups(found, &[Table::Truth, Table::Reliability]), |table| match table.table {
        Table::Truth => against_truth(table),
        _ => binned(table),
    })?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "reliability",
        title: "Reliability",
        note: "Gold labels against the judge's labels, with 95\u{a0}% intervals. On the diagonal the judge's probabilities \
               are calibrated.",
        parts,
    }))
}

fn against_truth(table: &Found) -> Result<Part> {
    let rows = table.first(&["p_hat", "p_star"], ROWS)?;
    let points: Vec<(f64, f64)> = rows.iter().filter_map(|row| Some((row[0].as_f64()?, row[1].as_f64()?))).collect();
    let (mut means, mut intervals, mut error) = (Vec::new(), Vec::new(), 0.0);
    for bin in 0..10 {
        let inside: Vec<_> = points.iter().filter(|(p, _)| ((p * 10.0) as usize).min(9) == bin).collect();
        if inside.is_empty() {
            continue;
        }
        let (x, _) = mean(inside.iter().map(|point| point.0));
        let (y, deviation) = mean(inside.iter().map(|point| point.1));
        means.push((x, y));
        intervals.push((x, (y - 1.96 * deviation).max(0.0), (y + 1.96 * deviation).min(1.0)));
        error += (x - y).abs() * inside.len() as f64 / points.len() as f64;
    }
    let ink = Ink::series(0);
    let marks = [
        (Ink(0), Mark::Guide(vec![(0.0, 0.0), (1.0, 1.0)])),
        (ink, Mark::Intervals(intervals)),
        (ink, Mark::Line(means.clone())),
        (ink, Mark::Dots(means)),
    ];
    let frame = Frame { size: SIZE, x: 0.0..1.0, y: 0.0..1.0, x_name: "the judge's p̂", y_name: "mean p*" };
    let many = counts(points.iter().map(|point| point.0), 0.0..1.0, 10);
    let full = many.iter().map(|bar| bar.2).fold(1.0, f64::max);
    let counted = Frame { size: SIZE, x: 0.0..1.0, y: 0.0..full * 1.05, x_name: "the judge's p̂", y_name: "labels" };
    let differences = counts(points.iter().map(|(p, star)| p - star), -1.0..1.0, 41);
    let top = differences.iter().map(|bar| bar.2).fold(1.0, f64::max);
    let spread = Frame { size: SIZE, x: -1.0..1.0, y: 0.0..top * 1.05, x_name: "p̂ − p*", y_name: "labels" };
    let figures = vec![
        Figure::new("Mean p* where the judge says p̂", &frame, &marks, &[])?,
        Figure::new("Labels in each tenth", &counted, &[(ink, Mark::Bars(many))], &[])?,
        Figure::new("Errors of the labels", &spread, &[(ink, Mark::Bars(differences))], &[])?,
    ];
    let facts = [table.read_note(rows.len(), "labels"), format!("expected calibration error {}", four(error))];
    Ok(Part { title: table.name(), facts: facts.join(" · "), figures, ..Part::default() })
}

fn binned(table: &Found) -> Result<Part> {
    let rows = table.first(&["labels", "mean_p", "mean_gold", "rows", "low", "high"], ROWS)?;
    let mut marks = vec![(Ink(0), Mark::Guide(vec![(0.0, 0.0), (1.0, 1.0)]))];
    let mut counted = Vec::new();
    let (mut legend, mut facts) = (Vec::new(), Vec::new());
    let mut least = 0.5_f64;
    for (number, which) in ["before", "after"].into_iter().enumerate() {
        let of = rows.iter().filter(|row| row[0] == which);
        let bins: Vec<(f64, f64, f64)> =
            of.filter_map(|row| Some((row[1].as_f64()?, row[2].as_f64()?, row[3].as_f64()?))).collect();
        let all: f64 = bins.iter().map(|bin| bin.2).sum();
        if all == 0.0 {
            continue;
        }
        let points: Vec<(f64, f64)> = bins.iter().map(|bin| (bin.0, bin.1)).collect();
        least = points.iter().map(|point| point.0.min(point.1)).fold(least, f64::min);
        let error: f64 = bins.iter().map(|(p, gold, rows)| (p - gold).abs() * rows / all).sum();
        facts.push(format!("expected calibration error {which}: {}", four(error)));
        let ink = Ink::series(if which == "after" { 0 } else { number + 1 });
        let intervals = bins.iter().map(|(p, gold, rows)| {
            let (low, high) = wilson(*gold, *rows);
            (*p, low, high)
        });
        let intervals = Mark::Intervals(intervals.collect());
        marks.extend([(ink, intervals), (ink, Mark::Line(points.clone())), (ink, Mark::Dots(points))]);
        let edges = rows.iter().filter(|row| row[0] == which);
        let bars = edges.filter_map(|row| Some((row[4].as_f64()?, row[5].as_f64()?, row[3].as_f64()?))).collect();
        counted.push((ink, bars));
        legend.push((ink, format!("{which} calibration")));
    }
    let (low, x_name) = ((least * 10.0).floor() / 10.0, "probability of the preferred side");
    let frame = Frame { size: SIZE, x: low..1.0, y: low..1.0, x_name, y_name: "mean gold probability" };
    let top = counted.iter().flat_map(|(_, bars): &(Ink, Vec<_>)| bars).map(|bar| bar.2).fold(1.0, f64::max);
    let many = Frame { size: SIZE, x: low..1.0, y: 0.0..top * 1.05, x_name, y_name: "labels" };
    let outlines: Vec<_> = counted.iter().map(|(ink, bars)| (*ink, Mark::Line(outline(bars)))).collect();
    let figures = vec![
        Figure::new("The preferred side", &frame, &marks, &legend)?,
        Figure::new("Labels in each bin", &many, &outlines, &legend)?,
    ];
    Ok(Part { title: table.name(), facts: facts.join(" · "), figures, ..Part::default() })
}

/// The mean and its standard error.
fn mean(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean, (variance / count).sqrt())
}
