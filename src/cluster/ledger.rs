//! The record of what was submitted from a work folder: `cluster/PIPELINE/` with scripts, logs and `jobs.json`.

use std::path::{Path, PathBuf};

use kit::commit::{commit_json, read_json};
use kit::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::cluster::scheduler::{JobId, Queued};
use crate::cluster::tasks::Role;
use crate::store::{Attempt, Lock};

/// A job that was submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub job: JobId,
    /// The stage; `report` for the last task.
    pub name: String,
    pub role: Role,
    /// Number of parts of the stage; 1 where it is not in parts.
    pub of: usize,
    /// The parts of this job, ascending; the first is element 0 of its array. Without parts it is no array.
    pub parts: Vec<usize>,
    /// Digest of what decides the work: the settings of the stage and of those before it.
    pub work: String,
    /// Digest of what was asked for: resources, prelude, program.
    pub asked: String,
    /// The number of the submission, whose folder has its script and logs.
    pub submission: u64,
    /// When it was submitted, in UTC.
    pub at: String,
}

impl Job {
    /// The part that an element of the array computes; 0 where it is not in parts.
    pub fn part(&self, element: Option<usize>) -> usize {
        element.map_or(0, |element| element + self.parts.first().copied().unwrap_or(0))
    }

    /// The element of the array that computes a part.
    pub fn element(&self, part: usize) -> Option<usize> {
        (self.role == Role::Parts).then(|| part - self.parts.first().copied().unwrap_or(0))
    }
}

/// `jobs.json` of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    /// The cluster file of the last submission.
    pub cluster: PathBuf,
    /// The pipeline file of it.
    pub file: PathBuf,
    /// All jobs, in the order of their submission.
    pub jobs: Vec<Job>,
}

/// What was submitted for one pipeline of a work folder.
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// Of a pipeline.
    pub fn new(work: &Path, pipeline: &str) -> Ledger {
        Ledger { folder: folder(work).join(pipeline) }
    }

    /// The names of the pipelines that anything was submitted for.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn pipelines(work: &Path) -> Result<Vec<String>> {
        let folder = folder(work);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(&folder)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&folder))?;
            if entry.path().join("jobs.json").is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a submission.
    pub fn submission(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// A number that no submission has.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn next(&self) -> Result<u64> {
        let entries = std::fs::read_dir(&self.folder).map_err(Error::io(&self.folder))?;
        let names = entries.map(|entry| Ok(entry.map_err(Error::io(&self.folder))?.file_name()));
        let names = names.collect::<Result<Vec<_>>>()?;
        let last = names.iter().filter_map(|name| name.to_str()?.parse::<u64>().ok()).max();
        Ok(last.unwrap_or(0) + 1)
    }

    /// The right to submit and cancel.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn lock(&self) -> Result<Attempt> {
        Lock::attempt(&self.folder.join("lock"))
    }

    /// What was submitted so far.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn read(&self) -> Result<Jobs> {
        Ok(read_json(&self.folder.join("jobs.json"))?.unwrap_or_default())
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, jobs: &Jobs) -> Result<()> {
        commit_json(&self.folder.join("jobs.json"), jobs)
    }

    /// The log of a task.
    pub fn log(&self, job: &Job, part: usize) -> PathBuf {
        let id = job.element(part).map_or(job.job.clone(), |element| format!("{}_{element}", job.job));
        self.submission(job.submission).join("logs").join(format!("{}.{}-{id}.log", job.name, job.role.word()))
    }
}

fn folder(work: &Path) -> PathBuf {
    work.join("cluster")
}

/// The tasks in the queue that were submitted from here, each with its job. A number may mean another job by now: one
/// with other elements is not ours.
pub fn ours<'j>(jobs: &'j [Job], queued: &'j [Queued]) -> Vec<(&'j Job, &'j Queued)> {
    let job = |task: &Queued| {
        let is = |job: &&Job| job.job == task.job && (job.role == Role::Parts) == task.element.is_some();
        jobs.iter().rev().find(is).filter(|job| task.element.is_none() || job.parts.contains(&job.part(task.element)))
    };
    queued.iter().filter_map(|task| Some((job(task)?, task))).collect()
}
