//! Executors: they compute the jobs of stages.
//!
//! Shards can be computed by any process, in any order ([`kit::compute_shards`]), and ended by any
//! ([`kit::finish_shards`]): another place to compute is another [`Executor`] in a file beside this one.

use kit::{Context, Job, Outcome, Result};

/// Computes jobs.
pub trait Executor: Sync {
    /// Does all of a stage's job; its outputs lie under `context.folder` afterwards.
    ///
    /// # Errors
    /// The job's error. Work that was committed stays, and the next attempt does not compute it again.
    fn execute(&self, stage: &str, job: Job<'_>, context: &Context<'_>) -> Result<Outcome>;
}

/// This process computes them, shard after shard; a model takes all threads.
pub struct Here;

impl Executor for Here {
    fn execute(&self, _stage: &str, job: Job<'_>, context: &Context<'_>) -> Result<Outcome> {
        job.run(context)
    }
}
