//! Results of earlier runs of a pipeline, stage by stage.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use kit::Result;

use super::records::{Records, StageRecord};

/// A reason for running again is looked for in at most this many records.
const RECENT: usize = 50;

/// The earlier runs of a pipeline, the latest first. Each record is read once, on first use: a pipeline of
/// thousands of stages has large ones.
pub struct History {
    pipeline: String,
    records: Records,
    runs: Vec<(u64, OnceCell<BTreeMap<String, StageRecord>>)>,
}

impl History {
    /// The runs of a pipeline, but for one that is going on.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn of(records: &Records, pipeline: &str, but: Option<u64>) -> Result<History> {
        let runs = records.runs(pipeline)?.into_iter().filter(|run| Some(*run) != but).take(RECENT);
        Ok(History {
            pipeline: pipeline.to_owned(),
            records: records.clone(),
            runs: runs.map(|run| (run, OnceCell::new())).collect(),
        })
    }

    /// The records of a stage whose recipe was known, each with its run, the latest first; an error where the system
    /// cannot read one.
    pub fn attempts(&self, stage: &str) -> impl Iterator<Item = Result<(u64, &StageRecord)>> {
        self.runs.iter().filter_map(move |(run, stages)| {
            if stages.get().is_none() {
                match self.records.read(&self.pipeline, *run) {
                    Ok(record) => _ = stages.set(record.map(|record| record.stages).unwrap_or_default()),
                    Err(error) => return Some(Err(error)),
                }
            }
            let record = stages.get()?.get(stage)?;
            record.recipe.is_some().then_some(Ok((*run, record)))
        })
    }
}
