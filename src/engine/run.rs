//! A run: its inputs and options.

use kit::Interrupt;

use crate::engine::executor::Executor;
use crate::engine::plan::Selection;
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
