//! The records of runs: what ran, from what, and where the results are.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use kit::commit::read_json;
use kit::{Error, Headline, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lock::{Attempt, Lock};
use super::manifest::Recipe;
use super::unless_torn;
use crate::clock;

/// Folder of a stage's TensorBoard event files in its entry: beside the ports, since they contain times.
const EVENT_FILES: &str = ".tensorboard";

/// Held while a record is written, so that of two writers of this process the last has the word.
static WRITING: Mutex<()> = Mutex::new(());
/// A process that ends waits no longer for it.
const SOON: Duration = Duration::from_millis(300);

/// The state of a stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// Its turn has not come.
    Pending,
    /// Another process makes the same entry.
    Waiting,
    /// At work.
    Running,
    /// It did its work in this run.
    Ran,
    /// An earlier result serves.
    Reused,
    /// The latest result was taken although it is out of date (`--stale`).
    Stale,
    /// Nobody reads it, or it was not selected.
    Skipped,
    /// It stopped with an error.
    Failed,
    /// It was stopped by a signal.
    Interrupted,
}

impl StageState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            StageState::Pending => "pending",
            StageState::Waiting => "waiting",
            StageState::Running => "running",
            StageState::Ran => "ran",
            StageState::Reused => "reused",
            StageState::Stale => "stale",
            StageState::Skipped => "skipped",
            StageState::Failed => "failed",
            StageState::Interrupted => "interrupted",
        }
    }
}

/// How the result of a stage came to lie in a shared store and here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Travel {
    /// This run brought it here.
    Fetched,
    /// This run brought it there.
    Pushed,
    /// It was in both places.
    There,
}

/// A stage in a run record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageRecord {
    pub state: StageState,
    /// The reason: the change, the cause of skipping, or the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The store entry, once its recipe is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The recipe, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// Rows of its first input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// Rows of its main output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Rows rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<u64>,
    /// Seconds of work in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The figures of the stage's outcome.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, Value>,
    /// The few of them that people look for first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headlines: Vec<Headline>,
    /// The ports of the entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// The shared store that has the result, and how it came there or here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<(String, Travel)>,
}

impl StageRecord {
    /// A stage in a state, with nothing known yet.
    pub fn new(state: StageState) -> StageRecord {
        StageRecord {
            state,
            why: None,
            entry: None,
            recipe: None,
            read: None,
            rows: None,
            rejected: None,
            seconds: None,
            figures: BTreeMap::new(),
            headlines: Vec::new(),
            ports: Vec::new(),
            shared: None,
        }
    }
}

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// At work, or killed.
    Running,
    /// Every requested result exists.
    Done,
    /// A stage failed.
    Failed,
    /// A signal stopped it, or it found a lock held.
    Interrupted,
}

/// `stages.json` of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// The pipeline's name.
    pub pipeline: String,
    /// The run's number.
    pub run: u64,
    /// The pipeline file.
    pub file: PathBuf,
    /// The command line.
    pub command: Vec<String>,
    /// When it began, in UTC.
    pub started: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    pub state: RunState,
    /// The stages' names in the order of the file.
    pub order: Vec<String>,
    pub stages: BTreeMap<String, StageRecord>,
}

/// The runs of all pipelines of a work folder.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// The records below a work folder.
    pub fn new(root: &Path) -> Records {
        Records { folder: root.join("runs") }
    }

    /// The work folder.
    pub fn work(&self) -> &Path {
        self.folder.parent().unwrap_or(Path::new("."))
    }

    /// The folder of a pipeline's runs.
    pub fn pipeline(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of a run.
    pub fn run(&self, pipeline: &str, run: u64) -> PathBuf {
        self.pipeline(pipeline).join(run.to_string())
    }

    /// The names of all pipelines that ever ran.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn pipelines(&self) -> Result<Vec<String>> {
        names(&self.folder)
    }

    /// The numbers of a pipeline's runs, the latest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn runs(&self, pipeline: &str) -> Result<Vec<u64>> {
        let mut runs: Vec<u64> = names(&self.pipeline(pipeline))?.iter().filter_map(|name| name.parse().ok()).collect();
        runs.sort_unstable_by(|a, b| b.cmp(a));
        Ok(runs)
    }

    /// The record of a run; nothing where it is torn or was never written.
    ///
    /// # Errors
    /// When it is there and the system cannot read it.
    pub fn read(&self, pipeline: &str, run: u64) -> Result<Option<RunRecord>> {
        unless_torn(read_json(&self.run(pipeline, run).join("stages.json")))
    }

    /// The latest run of a pipeline that has a record.
    ///
    /// # Errors
    /// When the folder or a record cannot be read.
    pub fn latest(&self, pipeline: &str) -> Result<Option<RunRecord>> {
        for run in self.runs(pipeline)? {
            if let Some(record) = self.read(pipeline, run)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Begins a run: the next free number, its folder, and a lock that says it is alive.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn begin(&self, pipeline: &str) -> Result<(u64, Lock)> {
        let folder = self.pipeline(pipeline);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut run = self.runs(pipeline)?.first().map_or(1, |latest| latest + 1);
        loop {
            let path = self.run(pipeline, run);
            match std::fs::create_dir(&path) {
                Ok(()) => loop {
                    // Others only look whether it is held, which takes no time.
                    match Lock::attempt(&path.join(".alive"))? {
                        Attempt::Held(lock) => return Ok((run, lock)),
                        Attempt::Busy(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                },
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => run += 1,
                Err(source) => return Err(Error::Io { path, source }),
            }
        }
    }

    /// True while the process of a run is alive.
    pub fn alive(&self, pipeline: &str, run: u64) -> bool {
        Lock::is_held(&self.run(pipeline, run).join(".alive"))
    }

    /// Writes the record of a run. It is replaced whole, so that readers never see half of it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, record: &RunRecord) -> Result<()> {
        let _one = WRITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.replace(record)
    }

    fn replace(&self, record: &RunRecord) -> Result<()> {
        let path = self.run(&record.pipeline, record.run).join("stages.json");
        let temporary = path.with_file_name(".stages.json");
        // A key on the command line, or one that a stage's error repeats, is not kept.
        let mut record = record.clone();
        let whys = record.stages.values_mut().filter_map(|stage| stage.why.as_mut());
        record.command.iter_mut().chain(whys).for_each(|text| *text = kit::redact(text));
        let text = serde_json::to_vec_pretty(&record).expect("a record can be written as JSON");
        std::fs::write(&temporary, text).map_err(Error::io(&temporary))?;
        std::fs::rename(&temporary, &path).map_err(Error::io(&path))
    }

    /// Says in the record of a run that it was interrupted, and its stages at work with it. Nothing is written after
    /// that by this process, which is about to end: where the record cannot be had soon, it ends without.
    pub fn mark_interrupted(&self, pipeline: &str, run: u64) {
        let began = Instant::now();
        let held = loop {
            match WRITING.try_lock() {
                Ok(held) => break held,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if began.elapsed() < SOON => std::thread::sleep(Duration::from_millis(5)),
                Err(TryLockError::WouldBlock) => return,
            }
        };
        let record = self.read(pipeline, run).ok().flatten();
        if let Some(mut record) = record.filter(|record| record.state == RunState::Running) {
            record.state = RunState::Interrupted;
            record.finished = Some(clock::now().to_string());
            let at_work = record.stages.values_mut().filter(|stage| stage.state == StageState::Running);
            at_work.for_each(|stage| stage.state = StageState::Interrupted);
            // No reporter is left.
            let _ = self.replace(&record);
        }
        std::mem::forget(held);
    }

    /// Lets `runs/<pipeline>/<stage>/<port>` lead to an entry's ports, and `tensorboard` to its event files.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn link(&self, pipeline: &str, stage: &str, entry: &str, ports: &[String]) -> Result<()> {
        let folder = self.pipeline(pipeline).join(stage);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let store = PathBuf::from("../../../store").join(entry);
        let mut links: Vec<_> = ports.iter().map(|port| (port.clone(), store.join(port))).collect();
        if folder.join(&store).join(EVENT_FILES).is_dir() {
            links.push(("tensorboard".to_owned(), store.join(EVENT_FILES)));
        }
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let known = |(name, _): &(String, PathBuf)| path.file_name().is_some_and(|file| **name == *file);
            if path.is_symlink() && !links.iter().any(known) {
                remove_link(&path)?;
            }
        }
        for (name, target) in links {
            self.point(&folder.join(&name), &target)?;
        }
        Ok(())
    }

    /// Lets a link lead to a target; it is exchanged whole. Of two processes that do so at once, one wins.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn point(&self, link: &Path, target: &Path) -> Result<()> {
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        // One name for all processes, so that what a killed one leaves goes with the next link.
        let temporary = link.with_file_name(format!(".{name}.next"));
        loop {
            remove_link(&temporary)?;
            if std::fs::read_link(link).is_ok_and(|now| now == target) {
                return Ok(());
            }
            match symlink(target, &temporary) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(Error::io(&temporary))?,
            }
            match std::fs::rename(&temporary, link) {
                // Another process was about to point the same link and took ours away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                renamed => return renamed.map_err(Error::io(link)),
            }
        }
    }

    /// The link of a port, relative to the working directory.
    pub fn link_path(&self, pipeline: &str, stage: &str, port: &str) -> PathBuf {
        self.pipeline(pipeline).join(stage).join(port)
    }
}

/// Removes a link, if it is there.
fn remove_link(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// The names in a folder that are not hidden, sorted; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { path: folder.to_owned(), source }),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_process_left_between_link_and_rename_goes_with_the_next_link() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let ports = ["pairs", "rejects"].map(str::to_owned);
        records.link("p", "s", "pairs-1", &ports).unwrap();
        let stage = records.pipeline("p").join("s");
        for (entry, left) in [("pairs-1", ".pairs.next"), ("pairs-2", ".rejects.next"), ("pairs-2", ".verdicts-17")] {
            symlink("nowhere", stage.join(left)).unwrap();
            records.link("p", "s", entry, &ports).unwrap();
            assert_eq!(all_names(&stage), ports);
            assert_eq!(std::fs::read_link(stage.join("pairs")).unwrap(), format!("../../../store/{entry}/pairs"));
        }
    }

    #[test]
    fn many_may_ask_at_once_whether_a_run_is_alive() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let (run, lock) = records.begin("p").unwrap();
        let owner = std::fs::read(records.run("p", run).join(".alive")).unwrap();
        assert!(records.alive("p", run));
        drop(lock);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..200).for_each(|_| assert!(!records.alive("p", run), "nobody holds it")));
            }
        });
        assert_eq!(std::fs::read(records.run("p", run).join(".alive")).unwrap(), owner, "who asks leaves no name");
    }

    #[test]
    fn two_processes_may_point_one_link_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (records, link) = (Records::new(folder.path()), folder.path().join("link"));
        std::thread::scope(|scope| {
            for target in ["a", "b", "c"] {
                let (records, link) = (&records, &link);
                scope.spawn(move || (0..300).for_each(|_| records.point(link, Path::new(target)).unwrap()));
            }
        });
        assert_eq!(all_names(folder.path()), ["link"]);
        assert!(["a", "b", "c"].iter().any(|target| std::fs::read_link(&link).unwrap() == Path::new(target)));
    }
}
