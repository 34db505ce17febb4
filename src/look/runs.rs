//! Runs by what people call them: a number, a pipeline's name or its file.

use std::path::Path;

use crate::error::{Error, Result};
use crate::look::inspect::{latest_pipeline, no_run, unfinished_note};
use crate::store::{Records, RunRecord, RunState};
use crate::streams::say;

/// The record of a run: the latest one if no number is given, of the pipeline that ran last if none is named.
pub fn record_of(records: &Records, pipeline: Option<String>, run: Option<u64>) -> Result<RunRecord> {
    let name = pipeline.map_or_else(|| latest_pipeline(records), |text| pipeline_name(&text))?;
    let record = match run {
        Some(run) => records.read(&name, run)?,
        None => records.latest(&name)?,
    };
    record.ok_or_else(|| no_run(records, &name, run))
}

/// The run that a text means: `N` of a pipeline, `NAME:N`, or `NAME` (or a file) for its latest.
pub fn run_of(records: &Records, text: &str, default: impl Fn() -> Result<String>) -> Result<RunRecord> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (name, number) = match (number(text), text.rsplit_once(':').and_then(|(name, run)| Some((name, number(run)?))))
    {
        (Some(run), _) => (default()?, Some(run)),
        (None, Some((name, run))) => (pipeline_name(name)?, Some(run)),
        (None, None) => (pipeline_name(text)?, None),
    };
    let found = match number {
        Some(run) => records.read(&name, run)?,
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

/// Word for the state of a run.
pub fn state_of(records: &Records, record: &RunRecord) -> &'static str {
    match record.state {
        RunState::Running if records.alive(&record.pipeline, record.run) => "is running",
        RunState::Running => "was killed",
        RunState::Done => "is done",
        RunState::Failed => "failed",
        RunState::Interrupted => "was interrupted",
    }
}

/// Warns on stderr that a run is not done, so that its tables are not complete.
pub fn note_unfinished(records: &Records, record: &RunRecord) {
    let note = unfinished_note(records, record);
    if let Some(text) = note.strip_prefix("; ") {
        say(&format!("note: {text}"));
    }
}
