//! The target of `inspect`: a stage, a port, a run or a path.

use std::path::{Path, PathBuf};

use kit::Table;

use super::missing::{near_path, near_tables, no_run, nothing_here, unfinished_note};
use crate::error::{Error, Result};
use crate::pipeline::problem::did_you_mean;
use crate::store::{Manifest, Records, RunRecord};

/// Something to look into.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// Parquet.
    Table(PathBuf),
    /// A model folder.
    Model(PathBuf),
    /// A page for people.
    Page(PathBuf),
}

/// Tables that stages write beside their main table.
const BESIDE: [Table; 10] = [
    Table::Rejects,
    Table::Summary,
    Table::Calibration,
    Table::Reliability,
    Table::Annotators,
    Table::Metrics,
    Table::Steps,
    Table::Contrasts,
    Table::Splits,
    Table::Pages,
];

/// Finds `stage.port` or `stage` in the latest run of a pipeline (the one that ran last if none is named), or a path. A
/// stage alone means the port that holds one of the `wanted` tables; where any table will do, its main one.
///
/// # Errors
/// When there is nothing of that name; what there is is named.
pub fn resolve(text: &str, wanted: &[Table], pipeline: Option<&str>, records: &Records) -> Result<Target> {
    resolve_noting(text, wanted, pipeline, None, records).map(|(target, _)| target)
}

/// As [`resolve`], in a run by its number, with what is worth saying of the target: that its result is not of this run.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_noting(
    text: &str,
    wanted: &[Table],
    pipeline: Option<&str>,
    run: Option<u64>,
    records: &Records,
) -> Result<(Target, Option<String>)> {
    let path = Path::new(text);
    if text.contains('/') || path.exists() {
        return of_path(path).map(|target| (target, None));
    }
    let name = match pipeline {
        Some(name) => crate::look::runs::pipeline_name(name)?,
        None => latest_pipeline(records)?,
    };
    let record = match run {
        Some(run) => records.read(&name, run)?,
        None => records.latest(&name)?,
    };
    let record = record.ok_or_else(|| no_run(records, &name, run))?;
    let (stage, port) = crate::pipeline::groups::parts_of(text, |stage| record.stages.contains_key(stage));
    let Some(found) = record.stages.get(stage) else {
        return Err(Error::Usage(format!("pipeline `{name}` has no stage `{stage}`{}", near_tables(&record, text))));
    };
    let store = records.work().join("store");
    let folder = |port: &str| match (run, &found.entry) {
        (Some(_), Some(entry)) => store.join(entry).join(port),
        _ => records.link_path(&name, stage, port),
    };
    let ports = if run.is_some() { found.ports.clone() } else { written(&record, stage, records) };
    if ports.is_empty() {
        let why = found.why.as_deref().and_then(|why| why.lines().next()).unwrap_or("it has not run");
        let note = unfinished_note(records, &record);
        return Err(Error::Usage(format!("stage `{stage}` has no result: {}, {why}{note}", found.state.word())));
    }
    let earlier = found.ports.is_empty().then(|| {
        let run = record.run;
        format!(
            "run {run} has not come to `{stage}`: this is the result of an earlier run{}",
            unfinished_note(records, &record)
        )
    });
    let target = match port {
        Some(port) if ports.iter().any(|known| known == port) => of_path(&folder(port)),
        Some(port) => {
            let near = did_you_mean(port, ports.iter().map(String::as_str));
            let near = if near.is_empty() { format!("; it has {}", ports.join(", ")) } else { near };
            Err(Error::Usage(format!("stage `{stage}` has no output `{port}`{near}")))
        }
        None => match main_port(&ports, &folder, wanted) {
            Some(one) => of_path(&folder(one)),
            None => {
                let names: Vec<String> = ports.iter().map(|port| format!("{stage}.{port}")).collect();
                Err(Error::Usage(format!("`{stage}` has several outputs: {}", names.join(", "))))
            }
        },
    };
    target.map(|target| (target, earlier))
}

/// The port that the name of a stage alone means.
fn main_port<'a>(ports: &'a [String], folder: &dyn Fn(&str) -> PathBuf, wanted: &[Table]) -> Option<&'a String> {
    let manifest = |port: &str| -> Option<Manifest> {
        let entry = folder(port).canonicalize().ok()?;
        kit::commit::read_json(&entry.parent()?.join("manifest.json")).ok().flatten()
    };
    let table = |port: &&String| Some(manifest(port)?.ports.get(*port)?.table);
    let fits = |port: &&String| match table(port) {
        Some(table) if wanted.is_empty() => !BESIDE.contains(&table),
        Some(table) => wanted.contains(&table),
        None => false,
    };
    let fitting: Vec<&String> = ports.iter().filter(fits).collect();
    let others: Vec<&String> = ports.iter().filter(|port| *port != "rejects").collect();
    // Of several, the one named like what it holds: `pairs` beside `holdout_pairs`.
    let plain = || wanted.iter().find_map(|table| fitting.iter().find(|port| **port == table.name()));
    match (&fitting[..], &others[..]) {
        ([one], _) | ([], [one]) => Some(one),
        _ => plain().copied(),
    }
}

/// The ports that the links of a stage lead to; a stage that has not run in this run may have results of an earlier
/// one.
fn written(record: &RunRecord, stage: &str, records: &Records) -> Vec<String> {
    let own = &record.stages[stage].ports;
    if !own.is_empty() {
        return own.clone();
    }
    let links = std::fs::read_dir(records.pipeline(&record.pipeline).join(stage)).into_iter().flatten().flatten();
    let mut names: Vec<String> = links
        .filter(|link| link.path().exists())
        .map(|link| link.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// The name of the pipeline that ran last.
///
/// # Errors
/// When nothing has run.
pub fn latest_pipeline(records: &Records) -> Result<String> {
    let mut latest: Option<(String, String)> = None;
    for name in records.pipelines()? {
        let started = records.latest(&name)?.map(|record| record.started);
        if started > latest.as_ref().map(|(started, _)| started.clone()) {
            latest = started.map(|started| (started, name));
        }
    }
    latest.map(|(_, name)| name).ok_or_else(|| nothing_here(records))
}

fn of_path(path: &Path) -> Result<Target> {
    if !path.exists() {
        return Err(Error::Usage(format!("there is no `{}`{}", path.display(), near_path(path))));
    }
    if !path.is_dir() {
        // A pipe or a device is no table.
        kit::open_file(path)?;
    }
    if path.is_dir() && kit::parts_of(path).is_err() {
        if models::is_model(path) {
            return Ok(Target::Model(path.to_owned()));
        }
        let files = std::fs::read_dir(path).map_err(kit::Error::io(path))?.flatten().map(|entry| entry.path());
        let mut pages: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect();
        pages.sort();
        if let Some(page) = pages.into_iter().next() {
            return Ok(Target::Page(page));
        }
        // An entry of the store, or another folder of tables.
        let mut below: Vec<String> = std::fs::read_dir(path)
            .map_err(kit::Error::io(path))?
            .flatten()
            .filter(|entry| kit::parts_of(&entry.path()).is_ok())
            .map(|entry| entry.path().display().to_string())
            .collect();
        below.sort();
        if !below.is_empty() {
            return Err(Error::Usage(format!("`{}` holds several tables: {}", path.display(), below.join(", "))));
        }
    }
    Ok(Target::Table(path.to_owned()))
}
