//! Checkpoints: everything a run needs to go on as if nothing had happened.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::commit::{Sealed, commit_sealed, read_sealed, sync_folder};
use kit::rows::{Contrast, Metric, Split, StepRow};
use kit::{Collective, Context, Error, Event, Part, Result, read_rows, write_part};
use lm::Training;
use serde::{Deserialize, Serialize};
use tokens::lm_error;

use crate::best::BestPolicies;
use crate::folder::sync_files;
use crate::log::{Counters, Log};

/// The folder of the model's and the optimizer's state within a checkpoint.
const STATE: &str = "state";
/// The file with the record.
const RECORD: &str = "counters.json";

/// The record of a checkpoint, written last: a folder without it is no checkpoint.
#[derive(Serialize, Deserialize)]
struct Record {
    counters: Counters,
    /// The files beside it, and those in its folder `state`.
    tables: Vec<Part>,
    state: Vec<Part>,
}

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

    /// True where so many minutes have passed since the latest checkpoint, and writing takes a tenth of the time at
    /// most.
    pub(crate) fn due(&self, minutes: f64) -> bool {
        let gone = self.since.elapsed();
        gone.as_secs_f64() >= 60.0 * minutes && gone >= self.took * REST
    }

    /// Takes up the latest checkpoint that is as it was written, with the policies that it needs, where there is one.
    pub(crate) fn resume(
        &mut self,
        context: &Context<'_>,
        training: &mut Training,
        best: Option<&BestPolicies<'_>>,
    ) -> Result<Option<Log>> {
        while let Some((batches, folder)) = self.all()?.pop() {
            let log = match checked(&folder)? {
                Ok(counters) => read_log(&folder, counters).and_then(|log| {
                    let damage = best.map_or(Ok(None), |best| best.damage(&log.metrics))?;
                    Ok(damage.map_or(Ok(log), Err))
                })?,
                Err(damage) => Err(damage),
            };
            let log = match log {
                Ok(log) => log,
                Err(damage) => {
                    let name = folder.strip_prefix(context.folder).expect("it lies in the stage's folder");
                    context.set_aside(&name.to_string_lossy(), &damage)?;
                    continue;
                }
            };
            training.load_state(&folder.join(STATE)).map_err(lm_error)?;
            self.latest = Some(batches);
            return Ok(Some(log));
        }
        Ok(None)
    }

    /// Takes up the checkpoint that rank 0 resumed from, so many batches in.
    pub(crate) fn follow(&self, training: &mut Training, batches: u64) -> Result<Log> {
        let folder = self.at(batches);
        let damaged = |damage: String| Error::Data(format!("{}: {damage}", folder.display()));
        let log = read_log(&folder, checked(&folder)?.map_err(damaged)?)?;
        training.load_state(&folder.join(STATE)).map_err(lm_error)?;
        Ok(log)
    }

    fn at(&self, batches: u64) -> PathBuf {
        self.folder.join(format!("{batches:012}"))
    }

    /// Batches that the latest checkpoint has; 0 without one.
    pub(crate) fn done(&self) -> Result<u64> {
        Ok(self.all()?.last().map_or(0, |(batches, _)| *batches))
    }

    /// Writes a checkpoint on rank 0, unless the latest one is of the same batch. All ranks give their shares of the state.
    pub(crate) fn write(
        &mut self,
        context: &Context<'_>,
        training: &Training,
        log: &Log,
        ranks: &dyn Collective,
    ) -> Result<()> {
        let (batches, leads) = (log.counters.batches, ranks.rank() == 0);
        let begun = Instant::now();
        let written = self.latest == Some(batches);
        if (written || !leads) && !training.is_shared() {
            return Ok(());
        }
        let all = training.gathered_state(leads, |own| ranks.gather_many(own)).map_err(lm_error)??;
        if written || !leads {
            return Ok(());
        }
        let partial = self.folder.join(".partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(Error::io(&partial))?;
        }
        let state = partial.join(STATE);
        std::fs::create_dir_all(&state).map_err(Error::io(&state))?;
        all.save(&state).map_err(lm_error)?;
        let tables = vec![
            write_part(&partial.join("metrics.parquet"), &log.metrics)?,
            write_part(&partial.join("steps.parquet"), &log.steps)?,
            write_part(&partial.join("contrasts.parquet"), &log.contrasts)?,
            write_part(&partial.join("splits.parquet"), &log.splits)?,
        ];
        let record = Record { counters: log.counters.clone(), tables, state: sync_files(&state)? };
        commit_sealed(&partial.join(RECORD), &record)?;
        let older = self.all()?;
        let folder = self.at(batches);
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

/// The tables of a checkpoint.
fn read_log(folder: &Path, counters: Counters) -> Result<Log> {
    Ok(Log {
        counters,
        metrics: read_rows::<Metric>(&folder.join("metrics.parquet"))?,
        steps: read_rows::<StepRow>(&folder.join("steps.parquet"))?,
        contrasts: read_rows::<Contrast>(&folder.join("contrasts.parquet"))?,
        splits: read_rows::<Split>(&folder.join("splits.parquet"))?,
    })
}

/// Compares a checkpoint with its record: its counters, or what is wrong.
fn checked(folder: &Path) -> Result<std::result::Result<Counters, String>> {
    let record = match read_sealed::<Record>(&folder.join(RECORD))? {
        Sealed::Whole(record) => record,
        Sealed::Missing => return Ok(Err(format!("has no {RECORD}"))),
        Sealed::Damaged(damage) => return Ok(Err(format!("has a {RECORD} that {damage}"))),
    };
    let state = folder.join(STATE);
    let tables = record.tables.iter().map(|part| (folder, part));
    for (folder, part) in tables.chain(record.state.iter().map(|part| (state.as_path(), part))) {
        if let Some(damage) = part.damage(folder)? {
            return Ok(Err(format!("is not as it was written: {} {damage}", part.file)));
        }
    }
    Ok(Ok(record.counters))
}
