//! The page as data: the stages, their results, and the folders of everything.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kit::{Error, Result, Table};
use serde::Serialize;

use super::answers::{Answer, answers};
use super::evidence::Evidence;
use super::files::{Found, Group, groups, relative};
use super::view::{Cell, Figure, Grid, Part, Section, four, grouped};
use super::{FIGURES, ROWS, alike, examples, graph, labels, margins, sources, training};
use crate::store::{RunRecord, RunState, Store};
use crate::units::spoken;

/// At most this many rows of a table of results are shown.
const RESULTS: usize = 60;
/// Figures of a matrix that stand beside each other.
const BESIDE: usize = 4;

/// The page.
#[derive(Debug, Default, Serialize)]
pub struct View {
    /// The heading.
    pub title: String,
    /// The name beside it, such as `run 3`.
    pub name: String,
    /// The run, or the runs that are compared.
    pub runs: Vec<RunHead>,
    /// The version that writes the page.
    pub version: &'static str,
    /// The answers at the top.
    pub answers: Vec<Answer>,
    /// The stages as a picture.
    pub graph: String,
    /// Stages that failed, and why.
    pub failures: Vec<(String, String)>,
    /// The details.
    pub sections: Vec<Section>,
}

/// A run at the top of the page.
#[derive(Debug, Serialize)]
pub struct RunHead {
    /// Its name among several; empty where it is the only one.
    pub name: String,
    state: &'static str,
    started: String,
    worked: String,
    /// Cost of requests to endpoints; empty where none has a price.
    cost: String,
    command: String,
    /// Path of its settings and of its own report.
    settings: Option<String>,
    report: Option<String>,
}

/// Gathers what a run has; `folder` is where links start.
///
/// # Errors
/// When a table cannot be read.
pub fn view(store: &Store, record: &RunRecord, found: &[Found], run: &Path, folder: &Path) -> Result<View> {
    let sections = [
        sources::leaderboards(found)?,
        summaries(found)?,
        results(found)?,
        sources::section(found)?,
        labels::section(found)?,
        margins::section(found)?,
        labels::reliability(found)?,
        training::curves(found)?,
        training::scores(found)?,
        alike::section(record, found)?,
        training::contrasts(found)?,
        examples::section(found)?,
        Some(tables(record, found, folder)),
    ];
    let failures = record.order.iter().filter_map(|name| {
        let stage = record.stages.get(name)?;
        let why = stage.why.clone().filter(|_| matches!(stage.state.word(), "failed" | "interrupted"))?;
        Some((name.clone(), why))
    });
    Ok(View {
        title: record.pipeline.clone(),
        name: format!("run {}", record.run),
        runs: vec![head(record, run, folder)],
        version: env!("CARGO_PKG_VERSION"),
        answers: answers(&Evidence::of(store, record, found)?),
        graph: graph::svg(store, record, run),
        failures: failures.collect(),
        sections: sections.into_iter().flatten().collect(),
    })
}

/// The head of a run's report; `run` is its folder, links are relative to `folder`.
pub fn head(record: &RunRecord, run: &Path, folder: &Path) -> RunHead {
    let seconds: f64 = record.stages.values().filter_map(|stage| stage.seconds).sum();
    let command = std::iter::once("halftone").chain(record.command.iter().skip(1).map(String::as_str));
    let settings = run.join("resolved.yaml");
    RunHead {
        name: String::new(),
        state: match record.state {
            RunState::Running => "not finished",
            RunState::Done => "done",
            RunState::Failed => "failed",
            RunState::Interrupted => "interrupted",
        },
        started: record.started.replace('T', " ").replace('Z', " UTC"),
        worked: if seconds > 0.0 { spoken(Duration::from_secs_f64(seconds)) } else { String::new() },
        cost: cost(record),
        command: command.collect::<Vec<_>>().join(" "),
        settings: settings.is_file().then(|| relative(folder, &settings)),
        report: None,
    }
}

/// The cost of all stages, by currency.
fn cost(record: &RunRecord) -> String {
    let mut all: BTreeMap<&str, f64> = BTreeMap::new();
    let headlines = record.stages.values().flat_map(|stage| &stage.headlines);
    headlines.filter(|line| line.name == "cost").for_each(|line| *all.entry(&line.note).or_default() += line.value);
    all.iter().map(|(currency, cost)| format!("{cost:.4} {currency}")).collect::<Vec<_>>().join(" + ")
}

impl RunHead {
    /// As one of several, with a link to its own report where there is one.
    pub fn among(self, name: String, report: &Path, folder: &Path) -> RunHead {
        RunHead { name, report: report.is_file().then(|| relative(folder, report)), ..self }
    }
}

/// The figures of `evaluate`.
fn summaries(found: &[Found]) -> Result<Option<Section>> {
    let mut parts = Vec::new();
    for group in groups(found, &[Table::Summary]) {
        match group.members[..] {
            [table] => parts.push(summary(table)?),
            _ => parts.extend(summaries_of(&group)?),
        }
    }
    Ok((!parts.is_empty()).then_some(Section {
        id: "summary",
        title: "Results",
        note: "Low and high are the ends of the 95\u{a0}% interval. Shares are also drawn on a track from 0 to 1 with a tick at one half.",
        parts,
    }))
}

/// The figures of one stage.
fn summary(table: &Found) -> Result<Part> {
    let mut grid = Grid::new(&["figure", "#value", "#low", "#high", "", "#rows", "note"]);
    for row in table.first(&["metric", "value", "low", "high", "rows", "note"], ROWS)? {
        let metric = row[0].as_str().unwrap_or_default();
        let (value, low, high) = (row[1].as_f64(), row[2].as_f64(), row[3].as_f64());
        let digits = |value: Option<f64>| Cell::from(value.map(four).unwrap_or_default());
        let is_share = ["accuracy", "win_rate", "truth/agreement"].iter().any(|name| metric.starts_with(name));
        let track = value.filter(|_| is_share).map(|it| Cell::track(it, low.unwrap_or(it), high.unwrap_or(it)));
        grid.push(vec![
            metric.into(),
            digits(value),
            digits(low),
            digits(high),
            track.unwrap_or_default(),
            grouped(row[4].as_u64().unwrap_or(0)).into(),
            row[5].as_str().unwrap_or_default().into(),
        ]);
    }
    Ok(Part { title: table.name(), table: Some(grid), ..Part::default() })
}

/// The figures of a matrix: a line for each stage, a few figures beside each other.
fn summaries_of(group: &Group<'_>) -> Result<Vec<Part>> {
    let mut metrics: Vec<(String, String)> = Vec::new();
    let mut stages: Vec<(&str, BTreeMap<String, String>)> = Vec::new();
    for table in &group.members {
        let mut values = BTreeMap::new();
        for row in table.first(&["metric", "value", "low", "high", "note"], ROWS)? {
            let (metric, note) = (row[0].as_str().unwrap_or_default(), row[4].as_str().unwrap_or_default());
            if metrics.iter().all(|(known, _)| known != metric) {
                metrics.push((metric.to_owned(), note.to_owned()));
            }
            let digits = |at: usize| row[at].as_f64().map(four);
            let interval = digits(2).zip(digits(3)).map(|(low, high)| format!(" ({low} to {high})"));
            values.insert(metric.to_owned(), digits(1).unwrap_or_default() + &interval.unwrap_or_default());
        }
        stages.push((&table.stage, values));
    }
    let mut parts = Vec::new();
    for some in metrics.chunks(BESIDE) {
        let mut head = vec!["stage".to_owned()];
        head.extend(some.iter().map(|(metric, _)| format!("#{metric}")));
        let mut grid = Grid::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for (stage, values) in &stages {
            let cell = |(metric, _): &(String, String)| Cell::from(values.get(metric).cloned().unwrap_or_default());
            grid.push(std::iter::once(Cell::from(*stage)).chain(some.iter().map(cell)).collect());
        }
        let notes: Vec<String> = some.iter().map(|(metric, note)| format!("{metric}: {note}")).collect();
        let title = format!("{} × {}", group.name, stages.len());
        parts.push(Part { title, facts: notes.join(" · "), table: Some(grid), ..Part::default() });
    }
    Ok(parts)
}

/// The tables and plots of `summarize`.
fn results(found: &[Found]) -> Result<Option<Section>> {
    let mut parts = Vec::new();
    for table in found.iter().filter(|table| table.table == Table::Results && table.rows > 0) {
        let columns =
            ["part", "metric", "block", "group", "setting", "against", "value", "low", "high", "p_value", "runs"];
        let rows = table.first(&columns, ROWS)?;
        // The chosen settings and their comparisons; without a choice, everything.
        let chosen = rows.iter().any(|row| row[0] != "mean");
        let shown: Vec<_> = rows.iter().filter(|row| !chosen || row[0] != "mean").collect();
        let mut grid = Grid::new(&["", "figure", "within", "what", "#value", "#low", "#high", "#p", "#runs"]);
        for row in shown.iter().take(RESULTS) {
            let text = |at: usize| row[at].as_str().unwrap_or_default();
            let digits = |at: usize| Cell::from(row[at].as_f64().map(four).unwrap_or_default());
            let what = match row[5].as_str() {
                Some(other) => format!("{} − {other}", text(3)),
                None => format!("{} {}", text(3), text(4)),
            };
            let runs = grouped(row[10].as_u64().unwrap_or(0)).into();
            let (part, metric, within) = (text(0).into(), text(1).into(), text(2).into());
            grid.push(vec![part, metric, within, what.into(), digits(6), digits(7), digits(8), digits(9), runs]);
        }
        let mut facts = Vec::new();
        if shown.len() > RESULTS {
            facts.push(format!("the first {RESULTS} of {} lines", shown.len()));
        }
        let (figures, more) = drawings(found, &table.stage)?;
        if more > 0 {
            facts.push(format!("{} drawings, and {more} more among the stage's pages", figures.len()));
        }
        let facts = facts.join(" · ");
        parts.push(Part { title: table.name(), facts, figures, table: Some(grid), ..Part::default() });
    }
    Ok((!parts.is_empty()).then_some(Section {
        id: "results",
        title: "Results over runs",
        note: "Means over runs with 95\u{a0}% intervals, and differences taken run by run.",
        parts,
    }))
}

/// The SVG files among the pages of a stage, and how many more there are.
fn drawings(found: &[Found], stage: &str) -> Result<(Vec<Figure>, usize)> {
    let (mut figures, mut more) = (Vec::new(), 0);
    for pages in found.iter().filter(|other| other.table == Table::Pages && other.stage == stage) {
        let entries = std::fs::read_dir(&pages.path).map_err(Error::io(&pages.path))?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files.retain(|file| file.extension().is_some_and(|end| end == "svg"));
        more += files.len().saturating_sub(FIGURES);
        for file in files.iter().take(FIGURES) {
            let svg = std::fs::read(file).map_err(Error::io(file))?;
            let title = file.file_stem().unwrap_or_default().to_string_lossy();
            figures.push(Figure::of_file(&title, &svg));
        }
    }
    Ok((figures, more))
}

/// All stages with links to what they wrote.
fn tables(record: &RunRecord, found: &[Found], folder: &Path) -> Section {
    let mut grid = Grid::new(&["stage", "kind", "state", "#time", "#rejected", "tables"]);
    for (name, stage) in record.order.iter().filter_map(|name| record.stages.get_key_value(name)) {
        let link = |table: &Found| {
            let rows = match table.table {
                Table::Model | Table::Pages => String::new(),
                _ => format!(" {}", grouped(table.rows)),
            };
            (format!("{}{rows}", table.port), relative(folder, &table.path) + "/")
        };
        // Empty lists of rejects are in the column before.
        let own =
            found.iter().filter(|table| table.stage == *name && (table.table != Table::Rejects || table.rows > 0));
        let time = stage.seconds.map(|seconds| spoken(Duration::from_secs_f64(seconds))).unwrap_or_default();
        let why = stage.why.as_ref().filter(|_| stage.ports.is_empty());
        let why = why.and_then(|why| why.lines().next()).unwrap_or_default().to_owned();
        grid.push(vec![
            name.as_str().into(),
            stage.recipe.as_ref().map(|recipe| recipe.kind.as_str()).unwrap_or_default().into(),
            stage.state.word().into(),
            time.into(),
            stage.rejected.map(grouped).unwrap_or_default().into(),
            Cell { text: why, links: own.map(link).collect(), ..Cell::default() },
        ]);
    }
    Section {
        id: "tables",
        title: "Stages and tables",
        note: "Each table is a folder of Parquet files, with its number of rows; the links lead to the folders from where this page lies.",
        parts: vec![Part { table: Some(grid), ..Part::default() }],
    }
}
