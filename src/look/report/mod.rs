//! The report of a run: one HTML file with everything in it, for people.
//!
//! It answers first (`answers`, from `evidence`), then shows the details, each section only where the run has the
//! tables for it. It asks nothing of the network and follows the reader's light or dark. Read [`write`] first;
//! `sections` says what there is, `plots` draws, `compare` sets several runs side by side.

mod advice;
mod alike;
mod answers;
mod compare;
mod evidence;
mod examples;
mod files;
mod graph;
mod labels;
mod margins;
mod plots;
mod sections;
mod sources;
#[cfg(test)]
mod tests;
mod texts;
mod training;
mod view;

use std::path::{Path, PathBuf};

use kit::{Error, Result};

use crate::store::{Records, RunRecord, Store};

/// At most this many rows of a table go into a figure: a report is a look, and takes no time.
const ROWS: usize = 20_000;
/// At most this many stages of a sort have figures of their own; a matrix counts as one, and the others are named.
const FIGURES: usize = 6;
/// The file, in the folder of a run and as a link in the folder of the pipeline.
const FILE: &str = "report.html";

/// Default path of a run's report.
pub fn path(records: &Records, record: &RunRecord) -> PathBuf {
    records.run(&record.pipeline, record.run).join(FILE)
}

/// Writes the report of a run to `out`; it is there whole or not at all.
///
/// # Errors
/// When a table cannot be read or the file not be written.
pub fn write(store: &Store, records: &Records, record: &RunRecord, out: &Path) -> Result<()> {
    let found = files::found(store, record)?;
    let run = records.run(&record.pipeline, record.run);
    to_file(out, |folder| sections::view(store, record, &found, &run, folder))
}

/// Writes a page; `view` makes it for the folder where its links start.
fn to_file(out: &Path, view: impl FnOnce(&Path) -> Result<sections::View>) -> Result<()> {
    let Some(file) = out.file_name() else {
        return Err(Error::Io { path: out.to_owned(), source: std::io::ErrorKind::IsADirectory.into() });
    };
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let view = view(folder)?;
    kit::commit::commit_bytes(&folder.join(file), html(&view)?.as_bytes())
}

/// Default path of a comparison of runs: in the folder of the first one's pipeline.
pub fn path_of_comparison(records: &Records, runs: &[RunRecord]) -> PathBuf {
    let first = &runs[0].pipeline;
    let name = |record: &RunRecord| match record.pipeline == *first {
        true => record.run.to_string(),
        false => format!("{}-{}", record.pipeline, record.run),
    };
    let names: Vec<String> = runs.iter().map(name).collect();
    records.pipeline(first).join(format!("compare-{}.html", names.join("-")))
}

/// Writes a page with several runs side by side to `out`; it is there whole or not at all.
///
/// # Errors
/// When a table cannot be read or the file not be written.
pub fn compare(store: &Store, records: &Records, runs: &[RunRecord], out: &Path) -> Result<()> {
    to_file(out, |folder| compare::view(store, records, runs, folder))
}

/// The report at the end of a run. Where nothing was computed, the linked one of an earlier run with the same results
/// serves.
///
/// # Errors
/// As [`write`].
pub fn of_run(store: &Store, records: &Records, record: &RunRecord) -> Result<PathBuf> {
    let link = records.pipeline(&record.pipeline).join(FILE);
    if let Some(earlier) = linked(records, record)
        && link.is_file()
        && entries(&earlier) == entries(record)
    {
        return Ok(link);
    }
    let out = path(records, record);
    write(store, records, record, &out)?;
    records.point(&link, &Path::new(&record.run.to_string()).join(FILE))?;
    Ok(link)
}

/// The run whose report is linked.
fn linked(records: &Records, record: &RunRecord) -> Option<RunRecord> {
    let target = std::fs::read_link(records.pipeline(&record.pipeline).join(FILE)).ok()?;
    records.read(&record.pipeline, target.parent()?.to_str()?.parse().ok()?).ok()?
}

/// The stages of a run with the entry of each result.
fn entries(record: &RunRecord) -> Vec<(&String, &Option<String>)> {
    record.order.iter().filter_map(|name| Some((name, &record.stages.get(name)?.entry))).collect()
}

/// The view through the template. The name ends in `.html`, so that every value is escaped.
fn html(view: &sections::View) -> Result<String> {
    let mut templates = minijinja::Environment::new();
    let wrong = |error: minijinja::Error| Error::internal(format!("the report's template: {error:#}"));
    templates.add_template("page.html", include_str!("page.html")).map_err(wrong)?;
    let view = serde_json::to_value(view).map_err(|error| Error::internal(format!("the report: {error}")))?;
    templates.get_template("page.html").and_then(|page| page.render(value(&view))).map_err(wrong)
}

/// JSON as the values of templates.
fn value(json: &serde_json::Value) -> minijinja::Value {
    use minijinja::Value;
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(number) => number.as_u64().map_or_else(|| number.as_f64().into(), Value::from),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect(),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(name, item)| (name.clone(), value(item)))),
    }
}
