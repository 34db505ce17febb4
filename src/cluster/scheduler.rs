//! The contract of a scheduler: submit, look, cancel.

use std::path::Path;

use kit::Result;
use serde::{Deserialize, Serialize};

/// A job of the scheduler: a task, or an array of them.
pub type JobId = String;

/// A submission of some parts of a task, or of a task in one part.
#[derive(Debug, Clone)]
pub struct Submission<'a> {
    /// The script.
    pub script: &'a Path,
    /// The parts; none where the task is not in parts. No more than [`Scheduler::most_elements`], nor further apart.
    pub parts: Option<&'a [usize]>,
    /// Parts that run at once, at most.
    pub at_once: Option<usize>,
    /// Jobs that have to end well first.
    pub after: Vec<JobId>,
}

/// The condition of a task in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It runs, begins or ends.
    Running,
    /// It waits for its turn or for other jobs; the scheduler's reason.
    Pending(String),
    /// Somebody holds it back.
    Held(String),
    /// It will never run by itself: what it waits for failed, or its start did.
    Stuck(String),
}

/// A task in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub job: JobId,
    /// The element of an array.
    pub element: Option<usize>,
    pub condition: Condition,
}

/// A scheduler. What it says of tasks is a hint: it may have lost some, and may run some twice.
pub trait Scheduler {
    /// Elements of an array, at most; their numbers are below it.
    ///
    /// # Errors
    /// When the scheduler does not answer.
    fn most_elements(&self) -> Result<usize>;

    /// Submits a job.
    ///
    /// # Errors
    /// When the scheduler does not answer or refuses.
    fn submit(&self, submission: &Submission<'_>) -> Result<JobId>;

    /// The user's tasks that have not ended.
    ///
    /// # Errors
    /// When the scheduler does not answer.
    fn queued(&self) -> Result<Vec<Queued>>;

    /// Cancels jobs, or elements of arrays. Those that have ended are passed over.
    ///
    /// # Errors
    /// When the scheduler does not answer.
    fn cancel(&self, tasks: &[(JobId, Option<usize>)]) -> Result<()>;
}
