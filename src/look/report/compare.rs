//! Several runs side by side: their answers, settings, figures, their trainings and their labels.

use std::path::Path;

use kit::{Result, Table};

use super::answers::answers;
use super::evidence::Evidence;
use super::files::{self, Found};
use super::labels::outlines;
use super::sections::{View, head};
use super::training::drawings;
use super::view::{Cell, Grid, Part, Section, four};
use super::{FIGURES, ROWS};
use crate::look::diff::{Side, stages};
use crate::store::{Difference, Part as Decides, Records, RunRecord, Store};

/// A run with its tables.
struct Run<'a> {
    name: String,
    record: &'a RunRecord,
    found: Vec<Found>,
}

/// The page; `folder` is where links start.
///
/// # Errors
/// When a table cannot be read.
pub fn view(store: &Store, records: &Records, records_of_runs: &[RunRecord], folder: &Path) -> Result<View> {
    let one_pipeline = records_of_runs.iter().all(|record| record.pipeline == records_of_runs[0].pipeline);
    let name = |record: &RunRecord| match one_pipeline {
        true => format!("run {}", record.run),
        false => format!("{} {}", record.pipeline, record.run),
    };
    let runs: Vec<Run<'_>> = records_of_runs
        .iter()
        .map(|record| Ok(Run { name: name(record), record, found: files::found(store, record)? }))
        .collect::<Result<_>>()?;
    let heads = runs.iter().map(|run| {
        let own = records.run(&run.record.pipeline, run.record.run);
        head(run.record, &own, folder).among(run.name.clone(), &own.join(super::FILE), folder)
    });
    let sections =
        [answered(store, &runs)?, decided(store, &runs)?, figures(&runs)?, trainings(&runs)?, labels(&runs)?];
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = if one_pipeline { records_of_runs[0].pipeline.clone() } else { "runs".to_owned() };
    Ok(View {
        title,
        name: names.join(", "),
        runs: heads.collect(),
        version: env!("CARGO_PKG_VERSION"),
        sections: sections.into_iter().flatten().collect(),
        ..View::default()
    })
}

/// A table whose columns are the runs.
fn grid(first: &[&str], runs: &[Run<'_>], numbers: bool) -> Grid {
    let mut titles: Vec<String> = first.iter().map(|title| (*title).to_owned()).collect();
    titles.extend(runs.iter().map(|run| if numbers { format!("#{}", run.name) } else { run.name.clone() }));
    Grid::new(&titles.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The answers of each run's own report.
fn answered(store: &Store, runs: &[Run<'_>]) -> Result<Option<Section>> {
    let mut table = grid(&["question"], runs, false);
    let of = |run: &Run<'_>| Ok(answers(&Evidence::of(store, run.record, &run.found)?));
    let all = runs.iter().map(of).collect::<Result<Vec<_>>>()?;
    for (at, first) in all[0].iter().enumerate() {
        let mut cells = vec![Cell::from(first.question)];
        cells.extend(all.iter().map(|answers| Cell::from(answers[at].answer.replace('`', ""))));
        table.push(cells);
    }
    Ok(Some(Section {
        id: "answers",
        title: "Answers",
        note: "The first answers of each run's report.",
        parts: vec![Part { table: Some(table), ..Part::default() }],
    }))
}

/// The differences between the configurations of the first run and the others.
fn decided(store: &Store, runs: &[Run<'_>]) -> Result<Option<Section>> {
    let first = Side::of(store, runs[0].record)?;
    // (stage, key) with the values of the first run and of each other one that differs.
    let mut rows: Vec<(String, String, String, Vec<Option<String>>)> = Vec::new();
    for (at, run) in runs.iter().enumerate().skip(1) {
        let other = Side::of(store, run.record)?;
        for differing in stages(&first, &other) {
            let decides = |it: &&Difference| !matches!(it.part, Decides::Input | Decides::File);
            for difference in differing.differences.iter().filter(decides) {
                let (key, before) = (difference.label(), Difference::short(difference.before.as_ref()));
                let known = rows.iter().position(|(stage, known, ..)| *stage == differing.stage && *known == key);
                let place = known.unwrap_or_else(|| {
                    rows.push((differing.stage.clone(), key, before, vec![None; runs.len()]));
                    rows.len() - 1
                });
                rows[place].3[at] = Some(Difference::short(difference.after.as_ref()));
            }
        }
    }
    let mut table = grid(&["stage", "setting"], runs, false);
    let none = rows.is_empty();
    for (stage, key, before, others) in rows {
        let mut cells = vec![Cell::from(stage), Cell::from(key)];
        cells.extend(others.into_iter().map(|value| Cell::from(value.unwrap_or_else(|| before.clone()))));
        table.push(cells);
    }
    let part = match none {
        true => Part { facts: "no setting differs".to_owned(), ..Part::default() },
        false => Part { table: Some(table), ..Part::default() },
    };
    Ok(Some(Section {
        id: "settings",
        title: "Differences in configuration",
        note: "Settings after defaults, seeds and versions of the stages that the runs have in common.",
        parts: vec![part],
    }))
}

/// The figures of each table of figures, a line each.
fn figures(runs: &[Run<'_>]) -> Result<Option<Section>> {
    let (mut parts, mut same) = (Vec::new(), Vec::new());
    for name in tables_of(runs, &[Table::Summary]).into_iter().take(2 * FIGURES) {
        let paths: Vec<Option<&Path>> = runs
            .iter()
            .map(|run| run.found.iter().find(|table| table.name() == name).map(|table| table.path.as_path()))
            .collect();
        if paths.iter().all(|path| path.is_some() && *path == paths[0]) {
            same.push(name);
            continue;
        }
        let mut metrics: Vec<String> = Vec::new();
        let mut values: Vec<Vec<(String, String)>> = Vec::new();
        for run in runs {
            let mut own = Vec::new();
            if let Some(table) = run.found.iter().find(|table| table.name() == name) {
                for row in table.first(&["metric", "value", "low", "high"], ROWS)? {
                    let (Some(metric), Some(value)) = (row[0].as_str(), row[1].as_f64()) else { continue };
                    let interval = row[2].as_f64().zip(row[3].as_f64());
                    let interval = interval.map(|(low, high)| format!(" ({} to {})", four(low), four(high)));
                    own.push((metric.to_owned(), four(value) + &interval.unwrap_or_default()));
                    if !metrics.iter().any(|known| known == metric) {
                        metrics.push(metric.to_owned());
                    }
                }
            }
            values.push(own);
        }
        let mut table = grid(&["figure"], runs, true);
        for metric in metrics {
            let mut cells = vec![Cell::from(metric.as_str())];
            cells.extend(values.iter().map(|own| {
                let value = own.iter().find(|(known, _)| *known == metric).map(|(_, value)| value.clone());
                Cell::from(value.unwrap_or_default())
            }));
            table.push(cells);
        }
        parts.push(Part { title: name, table: Some(table), ..Part::default() });
    }
    if !same.is_empty() {
        parts.push(Part { facts: format!("the same result in all runs: {}", same.join(", ")), ..Part::default() });
    }
    Ok((!parts.is_empty()).then_some(Section {
        id: "summary",
        title: "Figures",
        note: "With their 95\u{a0}% intervals. Where those of two runs overlap, the difference may be chance.",
        parts,
    }))
}

fn trainings(runs: &[Run<'_>]) -> Result<Option<Section>> {
    let several = |run: &Run<'_>| run.found.iter().filter(|table| table.table == Table::Metrics).count() > 1;
    let named = |run: &Run<'_>, table: &Found| match several(run) {
        true => format!("{} {}", run.name, table.stage),
        false => run.name.clone(),
    };
    // The same result in several runs is one curve.
    let mut seen: Vec<&Path> = Vec::new();
    let mut all: Vec<(String, &Found)> = Vec::new();
    for run in runs {
        for table in run.found.iter().filter(|table| table.table == Table::Metrics) {
            if !seen.contains(&table.path.as_path()) {
                seen.push(&table.path);
                all.push((named(run, table), table));
            }
        }
    }
    let parts = drawings(all)?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "training",
        title: "Training",
        note: "By optimizer step; a training that several runs share is drawn once, under the name of the first.",
        parts,
    }))
}

fn labels(runs: &[Run<'_>]) -> Result<Option<Section>> {
    let mut parts = Vec::new();
    for name in tables_of(runs, &[Table::Verdicts, Table::Pairs]).into_iter().take(FIGURES) {
        let mut seen: Vec<&Path> = Vec::new();
        let mut all = Vec::new();
        for run in runs {
            let Some(table) = run.found.iter().find(|table| table.name() == name && table.rows > 0) else { continue };
            if seen.contains(&table.path.as_path()) {
                continue;
            }
            seen.push(&table.path);
            let rows = table.first(&["p_hat"], ROWS)?;
            all.push((run.name.clone(), rows.iter().filter_map(|row| row[0].as_f64()).collect::<Vec<f64>>()));
        }
        if all.len() > 1 {
            parts.push(Part { title: name, figures: vec![outlines("p̂", &all)?], ..Part::default() });
        }
    }
    Ok((!parts.is_empty()).then_some(Section {
        id: "labels",
        title: "Labels",
        note: "Tables whose labels differ between the runs.",
        parts,
    }))
}

/// The names of the tables of some sorts that any run has.
fn tables_of(runs: &[Run<'_>], wanted: &[Table]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for table in runs.iter().flat_map(|run| &run.found).filter(|table| wanted.contains(&table.table)) {
        if !names.contains(&table.name()) {
            names.push(table.name());
        }
    }
    names
}
