//! `diff`: two runs side by side.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::look::diff::{Figures, Labels, Side, Stages, figures, labels, stages};
use crate::look::inspect::{latest_pipeline, no_run, unfinished_note};
use crate::look::runs::{note_unfinished, pipeline_name, run_of};
use crate::progress::aligned;
use crate::store::{Difference, Records, RunRecord, RunState, Store};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Diff {
    /// A run: its number, `PIPELINE:N`, or a pipeline's name or file for its latest [default: of the last two that are
    /// done, the earlier]
    #[arg(value_name = "RUN_A")]
    pub first: Option<String>,
    /// The run to compare it with [default: the latest; without RUN_A, the latest that is done]
    #[arg(value_name = "RUN_B")]
    pub second: Option<String>,
    /// The pipeline whose runs the numbers mean, if it is not the one that ran last
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// All of it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Compares two runs.
pub fn diff(work: &Path, args: Diff) -> Result<()> {
    let (store, records) = (Store::open(work), Records::new(work));
    let [first, second] = chosen(&records, &args)?;
    [&first, &second].into_iter().for_each(|record| note_unfinished(&records, record));
    let (a, b) = (Side::of(&store, &first)?, Side::of(&store, &second)?);
    let (stages, labels, figures) = (stages(&a, &b), labels(&a, &b)?, figures(&a, &b)?);
    let removed: Vec<(&RunRecord, &str)> =
        [&a, &b].iter().flat_map(|side| side.removed().into_iter().map(|stage| (side.record, stage))).collect();
    if args.json {
        let run =
            |record: &RunRecord| json!({"pipeline": record.pipeline, "run": record.run, "started": record.started});
        let removed: Vec<Value> = removed.iter().map(|(run, stage)| json!({"run": run.run, "stage": stage})).collect();
        let all = json!({
            "first": run(&first), "second": run(&second),
            "stages": stages, "labels": labels, "figures": figures, "removed": removed,
        });
        return print(&format!("{all}\n"));
    }
    let names = [&first, &second].map(|run| match first.pipeline == second.pipeline {
        true => format!("run {}", run.run),
        false => format!("{}:{}", run.pipeline, run.run),
    });
    let mut text = match first.pipeline == second.pipeline {
        true => format!("{}, {} and {}\n", first.pipeline, names[0], names[1]),
        false => format!("{} and {}\n", names[0], names[1]),
    };
    text.push_str(&stages_text(&stages, &names));
    text.push_str(&labels_text(&labels, &names));
    text.push_str(&figures_text(&figures, &names));
    if !removed.is_empty() {
        text.push_str("\nnot compared, since `gc` removed them:\n");
        let rows: Vec<Vec<String>> = removed
            .iter()
            .map(|(run, stage)| vec![format!("  {stage}"), format!("of run {} of {}", run.run, run.pipeline)])
            .collect();
        text.push_str(&aligned(&rows, &[]));
    }
    print(&text)
}

/// The two runs that are meant: `N` of the pipeline, `NAME:N`, or `NAME` for its latest; the last two that are done
/// where none is named, and one against the latest.
fn chosen(records: &Records, args: &Diff) -> Result<[RunRecord; 2]> {
    let default = || args.pipeline.as_deref().map_or_else(|| latest_pipeline(records), pipeline_name);
    let first = args.first.as_deref().map(|text| run_of(records, text, default)).transpose()?;
    let second = args.second.as_deref().map(|text| run_of(records, text, default)).transpose()?;
    match (first, second) {
        (Some(first), Some(second)) => Ok([first, second]),
        (Some(first), None) => {
            let latest = records.latest(&first.pipeline)?.unwrap_or_else(|| first.clone());
            if latest.run == first.run {
                let text = format!("run {} of `{}` is its latest; name another run", first.run, first.pipeline);
                return Err(Error::Usage(text));
            }
            Ok([first, latest])
        }
        _ => {
            let name = default()?;
            let runs = records.runs(&name)?.into_iter().filter_map(|run| records.read(&name, run).transpose());
            let mut runs = runs.collect::<kit::Result<Vec<_>>>()?.into_iter().peekable();
            let latest = runs.peek().cloned().ok_or_else(|| no_run(records, &name, None))?;
            // A run that ended early has little to compare.
            let mut good = runs.filter(|run| run.state == RunState::Done);
            match (good.next(), good.next()) {
                (Some(second), Some(first)) => {
                    if second.run != latest.run {
                        note_unfinished(records, &latest);
                    }
                    Ok([first, second])
                }
                (Some(only), None) if only.run == latest.run => Err(Error::Usage(format!(
                    "`{name}` has one run, {}, that is done; there is nothing to compare it with",
                    only.run
                ))),
                _ => Err(Error::Usage(format!(
                    "`{name}` has no two runs that are done{}; name two runs: `halftone diff 1 2`",
                    unfinished_note(records, &latest)
                ))),
            }
        }
    }
}

fn stages_text(stages: &[Stages], names: &[String; 2]) -> String {
    if stages.is_empty() {
        return "\nconfiguration: no difference\n".to_owned();
    }
    let mut rows = vec![vec!["configuration".to_owned(), String::new(), names[0].clone(), names[1].clone()]];
    for stage in stages {
        let mut name = match stage.count {
            1 => format!("  {}", stage.stage),
            count => format!("  {} ({count} stages)", stage.stage),
        };
        if let Some((first, second)) = &stage.states {
            rows.push(vec![std::mem::take(&mut name), "(stage)".to_owned(), first.clone(), second.clone()]);
        }
        for difference in &stage.differences {
            let Difference { before, after, .. } = difference;
            let values = [before, after].map(|value| Difference::short(value.as_ref()));
            let [before, after] = values;
            rows.push(vec![std::mem::take(&mut name), difference.label(), before, after]);
        }
    }
    format!("\n{}", aligned(&rows, &[]))
}

fn labels_text(labels: &[Labels], names: &[String; 2]) -> String {
    let (same, other): (Vec<&Labels>, Vec<&Labels>) = labels.iter().partition(|labels| labels.same_result);
    let mut text = String::new();
    if !other.is_empty() {
        let only = |name: &String| format!("only {name}");
        let head = ["labels", "rows in both", "moved", "mean |change|", "flips"].map(str::to_owned);
        let mut rows = vec![head.into_iter().chain(names.iter().map(only)).collect::<Vec<_>>()];
        for labels in other {
            let change = labels.mean_change.map_or(String::new(), |change| format!("{change:.4}"));
            let counts = [labels.flips, labels.only_first, labels.only_second].map(|count| count.to_string());
            let mut row =
                vec![format!("  {}", labels.table), labels.rows.to_string(), labels.moved.to_string(), change];
            row.extend(counts);
            rows.push(row);
        }
        text = format!("\n{}", aligned(&rows, &[1, 2, 3, 4, 5, 6]));
    }
    if !same.is_empty() {
        let names: Vec<&str> = same.iter().map(|labels| labels.table.as_str()).collect();
        text.push_str(&format!("\nthe same labels: {}\n", names.join(", ")));
    }
    text
}

fn figures_text(figures: &[Figures], names: &[String; 2]) -> String {
    let (same, other): (Vec<&Figures>, Vec<&Figures>) = figures.iter().partition(|figures| figures.same_result);
    let mut text = String::new();
    for figures in other {
        let head = [figures.table.clone(), names[0].clone(), names[1].clone(), "difference".to_owned()];
        let mut rows = vec![head.to_vec()];
        for row in &figures.rows {
            let shown = |value: Option<f64>| value.map_or("-".to_owned(), short);
            let difference = row.difference.map_or(String::new(), |difference| match difference {
                0.0 => "0".to_owned(),
                above if above > 0.0 => format!("+{}", short(above)),
                below => short(below),
            });
            rows.push(vec![format!("  {}", row.name), shown(row.first), shown(row.second), difference]);
        }
        text.push_str(&format!("\n{}", aligned(&rows, &[1, 2, 3])));
        text.extend(figures.note.iter().map(|note| format!("  ({note})\n")));
    }
    if !same.is_empty() {
        let names: Vec<&str> = same.iter().map(|figures| figures.table.as_str()).collect();
        text.push_str(&format!("\nthe same figures: {}\n", names.join(", ")));
    }
    text
}

/// A number with five digits.
fn short(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&digits) {
        return format!("{value:.3e}");
    }
    format!("{value:.*}", (4.0 - digits).clamp(0.0, 6.0) as usize)
}
