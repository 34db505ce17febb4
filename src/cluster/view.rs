//! What was submitted and where it stands, for people: tasks in the queue, tasks that ended without their work, the last
//! lines of their logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cluster::ledger::{Job, Jobs, Ledger, ours};
use crate::cluster::reconcile::open_parts;
use crate::cluster::scheduler::{Condition, Queued};
use crate::cluster::tasks::Role;

/// Lines of a log that are shown.
const LINES: usize = 5;
/// Bytes of a log that are looked at for them.
const BYTES: u64 = 4096;

/// A stage's tasks of one role.
#[derive(Debug, Serialize)]
pub struct Tasks {
    pub name: String,
    pub role: Role,
    /// Tasks by state: `running`, `waiting`, `held`, `stuck`, and `ended` of those that are not in the queue.
    pub states: BTreeMap<&'static str, usize>,
    /// The reason of the first that waits or is held.
    pub reason: Option<String>,
    /// A log of one that ended otherwise than well.
    pub failed: Option<Failed>,
}

/// A task that is not in the queue and did not end well.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// Its log.
    pub log: PathBuf,
    /// The last lines of it.
    pub lines: Vec<String>,
}

/// The tasks that were submitted for a pipeline, by the latest job of each. `queued` are those in the queue; none where
/// the scheduler does not say. Of the tasks that ended those are shown whose work is missing: `whole` are the stages whose
/// results are there, `shards` those that are committed of other stages.
pub fn view(
    ledger: &Ledger,
    jobs: &Jobs,
    queued: Option<&[Queued]>,
    whole: &BTreeSet<String>,
    shards: &BTreeMap<String, Vec<bool>>,
) -> Vec<Tasks> {
    let live = queued.map(|queued| ours(&jobs.jobs, queued)).unwrap_or_default();
    let mut seen: Vec<Tasks> = Vec::new();
    let mut order: Vec<(&str, Role)> = Vec::new();
    for job in &jobs.jobs {
        if !order.contains(&(&*job.name, job.role)) {
            order.push((&job.name, job.role));
        }
    }
    for (name, role) in order {
        let mine = || live.iter().filter(|(job, _)| job.name == name && job.role == role);
        let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut reason = None;
        for (_, task) in mine() {
            let (word, why) = word(&task.condition);
            *states.entry(word).or_default() += 1;
            reason = reason.or_else(|| why.cloned());
        }
        let mut failed = None;
        if queued.is_some() && !whole.contains(name) {
            // The latest task of each part.
            let mut latest: BTreeMap<usize, &Job> = BTreeMap::new();
            for job in jobs.jobs.iter().filter(|job| job.name == name && job.role == role) {
                let parts = if role == Role::Parts { job.parts.as_slice() } else { &[0] };
                parts.iter().for_each(|part| _ = latest.insert(*part, job));
            }
            for (part, job) in latest {
                let element = job.element(part);
                let there = shards.get(name).filter(|_| role == Role::Parts);
                if there.is_some_and(|shards| !open_parts(job.of, Some(shards)).contains(&part)) {
                    continue;
                }
                if mine().any(|(other, task)| other.job == job.job && task.element == element) {
                    continue;
                }
                *states.entry("ended").or_default() += 1;
                if failed.is_none() {
                    failed = failure(&ledger.log(job, part));
                }
            }
        }
        if !states.is_empty() {
            seen.push(Tasks { name: name.to_owned(), role, states, reason, failed });
        }
    }
    seen
}

/// A condition in a word, with its reason.
fn word(condition: &Condition) -> (&'static str, Option<&String>) {
    match condition {
        Condition::Running => ("running", None),
        Condition::Pending(why) => ("waiting", Some(why)),
        Condition::Held(why) => ("held", Some(why)),
        Condition::Stuck(why) => ("stuck", Some(why)),
    }
}

/// The end of a log, where the task did not end well; none where it did, or was never started.
fn failure(log: &Path) -> Option<Failed> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.last().is_some_and(|line| line.starts_with("# ") && line.ends_with(": exit 0")) {
        return None;
    }
    let last = lines[lines.len().saturating_sub(LINES)..].iter().map(|line| kit::redact(line)).collect();
    Some(Failed { log: log.to_owned(), lines: last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown_where_a_task_failed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        assert!(failure(&log).is_none());
        std::fs::write(&log, "# 2026 x whole, attempt 0, node n1: begins\n# 2026 x whole: exit 0\n").unwrap();
        assert!(failure(&log).is_none());
        let many: String = (0..1000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&log, many + "error: no\n\n# 2026 x: exit 65\n").unwrap();
        let failed = failure(&log).unwrap();
        assert_eq!(failed.lines, ["line 997", "line 998", "line 999", "error: no", "# 2026 x: exit 65"]);
    }
}
