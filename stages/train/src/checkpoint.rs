//! Checkpoints: everything a run needs to go on as if nothing had happened.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::commit::{commit_json, read_json, sync_folder};
use kit::rows::{Contrast, Metric, Split, StepRow};
use kit::{Context, Error, Event, Result, Row, read_rows, write_part};
use lm::Training;

use crate::lm_error;
use crate::log::{Counters, Log};

/// The checkpoints of a run, in its scratch folder. A checkpoint appears under its name whole; then older ones go.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    /// Batches done at the latest one.
    latest: Option<u64>,
    /// When the latest one was whole, or the run began, and how long it took.
    since: Instant,
    took: Duration,
}

/// Time between checkpoints, in times of what one takes.
const REST: u32 = 9;

impl Checkpoints {
    pub(crate) fn open(context: &Context<'_>) -> Checkpoints {
        let folder = context.scratch().join("checkpoints");
        Checkpoints { folder, latest: None, since: Instant::now(), took: Duration::ZERO }
    }

    /// Whether so many minutes have gone since the latest one, and enough that writing takes a tenth of the time at most.
    pub(crate) fn due(&self, minutes: f64) -> bool {
        let gone = self.since.elapsed();
        gone.as_secs_f64() >= 60.0 * minutes && gone >= self.took * REST
    }

    /// Takes up the latest checkpoint, where there is one.
    pub(crate) fn resume(&mut self, training: &mut Training) -> Result<Option<Log>> {
        let Some((batches, folder)) = self.all()?.pop() else { return Ok(None) };
        let counters: Counters = read_json(&folder.join("counters.json"))?
            .ok_or_else(|| Error::internal(format!("checkpoint {} has no counters.json", folder.display())))?;
        training.load_state(&folder.join("state")).map_err(lm_error)?;
        self.latest = Some(batches);
        Ok(Some(Log {
            counters,
            metrics: read_rows::<Metric>(&folder.join("metrics.parquet"))?,
            steps: read_rows::<StepRow>(&folder.join("steps.parquet"))?,
            contrasts: read_rows::<Contrast>(&folder.join("contrasts.parquet"))?,
            splits: read_rows::<Split>(&folder.join("splits.parquet"))?,
        }))
    }

    /// Writes a checkpoint, unless the latest one is of the same batch.
    pub(crate) fn write(&mut self, context: &Context<'_>, training: &Training, log: &Log) -> Result<()> {
        let batches = log.counters.batches;
        if self.latest == Some(batches) {
            return Ok(());
        }
        let begun = Instant::now();
        let partial = self.folder.join(".partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(Error::io(&partial))?;
        }
        let state = partial.join("state");
        std::fs::create_dir_all(&state).map_err(Error::io(&state))?;
        training.save_state(&state).map_err(lm_error)?;
        sync_files(&state)?;
        write_rows(&partial.join("metrics.parquet"), &log.metrics)?;
        write_rows(&partial.join("steps.parquet"), &log.steps)?;
        write_rows(&partial.join("contrasts.parquet"), &log.contrasts)?;
        write_rows(&partial.join("splits.parquet"), &log.splits)?;
        commit_json(&partial.join("counters.json"), &log.counters)?;
        let older = self.all()?;
        let folder = self.folder.join(format!("{batches:012}"));
        std::fs::rename(&partial, &folder).map_err(Error::io(&folder))?;
        sync_folder(&self.folder)?;
        for (_, folder) in older {
            std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        self.latest = Some(batches);
        (self.since, self.took) = (Instant::now(), begun.elapsed());
        context.emit(Event::CheckpointWritten { step: batches });
        Ok(())
    }

    /// Checkpoints by batch.
    fn all(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        if self.folder.is_dir() {
            for entry in std::fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
                let path = entry.map_err(Error::io(&self.folder))?.path();
                let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                found.extend(number.map(|number| (number, path)));
            }
        }
        found.sort();
        Ok(found)
    }
}

fn write_rows<R: Row>(path: &Path, rows: &[R]) -> Result<()> {
    write_part(path, rows).map(|_| ())
}

/// Makes the files of a folder durable, and the folder.
fn sync_files(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
    }
    sync_folder(folder)
}
