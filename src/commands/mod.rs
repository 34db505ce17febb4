//! The commands, one file each.

mod check;
mod dag;
mod diff;
mod doctor;
mod export;
mod foretold;
mod gc;
mod init;
mod inspect;
mod plan;
mod render;
mod report;
mod run;
mod schema;
mod shown;
mod status;
mod trace;
mod verify;

pub use check::check;
pub use dag::{DagForm, dag};
pub use diff::diff;
pub use doctor::doctor;
pub use export::{SavedDtype, export, saved_dtype};
pub use gc::gc;
pub use init::init;
pub use inspect::{View, inspect};
pub use plan::plan;
pub use render::render;
pub use report::report;
pub use run::run;
pub use schema::{completions, kinds, schema};
pub use status::status;
pub use trace::trace;
pub use verify::verify;

use std::path::Path;

use crate::check::check_file;
use crate::cli::PipelineFile;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::inspect::{latest_pipeline, no_run};
use crate::kinds::KINDS;
use crate::problem::Problem;
use crate::store::{Records, RunRecord, RunState};
use crate::streams::say;

/// The checked pipeline of a command line.
fn load(args: &PipelineFile) -> Result<Graph> {
    check_file(&args.pipeline, &args.set, KINDS)
        .map_err(|problems| Error::Problems { file: args.pipeline.clone(), problems })
}

/// Says on stderr what is not wrong with a pipeline and hardly meant.
fn warn(graph: &Graph) {
    graph.warnings.iter().for_each(|warning| say(&format!("warning: {}", warning.line(&graph.file))));
}

/// Says on stderr what is hardly meant on this machine.
fn remark(graph: &Graph, remarks: &[Problem]) {
    remarks.iter().for_each(|remark| say(&format!("warning: {}", remark.line(&graph.file))));
}

/// How the latest word of a run reads.
fn state_of(records: &Records, record: &RunRecord) -> &'static str {
    match record.state {
        RunState::Running if records.alive(&record.pipeline, record.run) => "is running",
        RunState::Running => "was killed",
        RunState::Done => "is done",
        RunState::Failed => "failed",
        RunState::Interrupted => "was interrupted",
    }
}

/// A size as people say it.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..units.len() - 1).take_while(|power| bytes >> (10 * (power + 1)) > 0).count();
    match power {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / 1024_f64.powi(power as i32), units[power]),
    }
}

/// Says on stderr what became of a run that is not done; what is shown of it is not all.
fn note_unfinished(records: &Records, record: &RunRecord) {
    let became = crate::inspect::what_became(records, record);
    if let Some(text) = became.strip_prefix("; ") {
        say(&format!("note: {text}"));
    }
}

/// The record of a run: the latest one if no number is given, of the pipeline that ran last if none is named.
fn record_of(records: &Records, pipeline: Option<String>, run: Option<u64>) -> Result<RunRecord> {
    let name = pipeline.map_or_else(|| latest_pipeline(records), |text| pipeline_name(&text))?;
    let record = match run {
        Some(run) => records.read(&name, run),
        None => records.latest(&name)?,
    };
    record.ok_or_else(|| no_run(records, &name, run))
}

/// The run that a text means: `N` of a pipeline, `NAME:N`, or `NAME` (or a file) for its latest.
fn run_of(records: &Records, text: &str, default: impl Fn() -> Result<String>) -> Result<RunRecord> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (name, number) = match (number(text), text.rsplit_once(':').and_then(|(name, run)| Some((name, number(run)?))))
    {
        (Some(run), _) => (default()?, Some(run)),
        (None, Some((name, run))) => (pipeline_name(name)?, Some(run)),
        (None, None) => (pipeline_name(text)?, None),
    };
    let found = match number {
        Some(run) => records.read(&name, run),
        None => records.latest(&name)?,
    };
    found.ok_or_else(|| no_run(records, &name, number))
}

/// The name of a pipeline given by name or file.
pub fn pipeline_name(text: &str) -> Result<String> {
    let path = Path::new(text);
    if !path.is_file() {
        return Ok(text.to_owned());
    }
    let (pipeline, _) = crate::pipeline::Pipeline::load(path, &[])
        .map_err(|problems| Error::Problems { file: path.to_owned(), problems })?;
    Ok(pipeline.name)
}
