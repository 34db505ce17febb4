//! A run: its inputs and options.

use kit::Interrupt;

use crate::engine::executor::Executor;
use crate::engine::plan::Selection;
use crate::error::Result;
use crate::pipeline::graph::Graph;
use crate::progress::{Event, Reporter, RunEvent};
use crate::store::{Records, Store};

/// Options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The selected stages.
    pub selection: Selection,
    /// Device that models compute on: `cpu` or `cuda:N`.
    pub device: String,
    /// Fails rather than waits where another process makes the same entry.
    pub no_wait: bool,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// A run with everything it stands on.
pub struct Run<'a> {
    /// The pipeline.
    pub graph: &'a Graph,
    pub store: &'a Store,
    /// The records of earlier runs and of this one.
    pub records: &'a Records,
    /// Options of the run.
    pub options: &'a Options,
    /// Executor of the stages' jobs.
    pub executor: &'a dyn Executor,
    /// The reporter of events.
    pub reporter: &'a dyn Reporter,
    /// Raised by a signal.
    pub interrupt: &'a Interrupt,
}

impl Run<'_> {
    pub(crate) fn emit(&self, stage: Option<&str>, event: RunEvent) {
        self.reporter.report(stage, &Event::Run(event));
    }
}

/// Stages may recurse deeper than the two MiB of a plain thread allow.
pub(crate) const STACK: usize = 16 << 20;

/// Builds the pool of threads that stages run in.
///
/// # Errors
/// When the system gives no threads.
pub fn build_pool() -> Result<()> {
    let Err(error) = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global() else { return Ok(()) };
    // It may be there already; that the system gives no threads is what ends the run.
    match std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>()) {
        None => Ok(()),
        Some(source) => {
            let source = std::io::Error::new(source.kind(), source.to_string());
            Err(kit::Error::Io { path: "threads to compute with".into(), source }.into())
        }
    }
}
