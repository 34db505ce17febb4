//! The events of a run, named in the past tense.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::clock;
use crate::store::{Owner, RunState};

/// Something that the engine did.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// A run began.
    RunStarted {
        /// The pipeline's name.
        pipeline: String,
        /// The run's number.
        run: u64,
        /// Device that models compute on.
        device: String,
        /// Number of selected stages.
        stages: usize,
    },
    /// A stage began its work.
    StageStarted {
        kind: &'static str,
        /// Reasons why it runs.
        why: Vec<String>,
        /// The store entry it makes.
        entry: String,
        /// Device that it computes on.
        device: String,
        /// True where unfinished work was found.
        resumed: bool,
    },
    /// A stage's earlier result serves.
    StageReused {
        /// The store entry.
        entry: String,
        /// Rows of the stage's first input, where it reads row by row.
        read: Option<u64>,
        /// Rows of its main output.
        rows: u64,
        /// Rejects in it.
        rejected: u64,
    },
    /// A stage does not run.
    StageSkipped {
        /// The reason.
        why: String,
    },
    /// A stage waits for another process that makes the same entry.
    StageWaited {
        /// That process.
        owner: Option<Owner>,
    },
    /// A stage's result is in the store.
    StageFinished {
        /// The store entry.
        entry: String,
        /// Rows of the stage's first input, where it reads row by row.
        read: Option<u64>,
        /// Rows of its main output.
        rows: u64,
        /// Rejects in it.
        rejected: u64,
        /// Duration of its work.
        seconds: f64,
        /// The figures of the stage's outcome.
        figures: BTreeMap<String, Value>,
    },
    /// A stage stopped with an error.
    StageFailed { error: String },
    /// A stage stopped on a signal.
    StageInterrupted,
    /// A forced attempt gave other bytes than the entry it replaced.
    BytesDiffered {
        /// The ports that differ.
        ports: Vec<String>,
    },
    /// An entry of the store was not what its manifest says; it was moved away.
    EntryDamaged {
        entry: String,
        /// The fault.
        damage: String,
        /// Its new folder.
        moved: String,
    },
    /// A large result began to travel between the work folder and the shared store.
    TransferStarted {
        /// Its size, and from where or to where.
        what: String,
    },
    /// A stage's result came from the shared store.
    ResultFetched {
        entry: String,
        /// The address of the shared store.
        from: String,
        /// Bytes that travelled.
        bytes: u64,
        /// Duration of the transfer.
        seconds: f64,
    },
    /// A stage's result went to the shared store.
    ResultPushed {
        entry: String,
        /// The address of the shared store.
        to: String,
        /// Files that travelled; those that were there stayed.
        files: usize,
        /// Bytes that travelled.
        bytes: u64,
        /// Duration of the transfer.
        seconds: f64,
    },
    /// A result in the shared store is not what its manifest says.
    SharedResultDamaged {
        entry: String,
        /// The fault.
        damage: String,
    },
    /// The shared store has another result of the same recipe, made in another way.
    SharedResultDiffers {
        entry: String,
        /// The address of the shared store.
        to: String,
        /// The ports that differ.
        ports: Vec<String>,
        /// Device, processor and version that made the result there.
        there: String,
    },
    /// A signal requested a stop.
    StopRequested,
    /// The run is over.
    RunFinished {
        /// Final state.
        state: RunState,
        /// Duration of the run.
        seconds: f64,
    },
}

/// An event of the engine or of a stage at work.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// The engine's.
    Run(RunEvent),
    /// A stage's.
    Work(kit::Event),
}

impl Event {
    /// The event as one JSON object, with the time and the stage; without secrets that a message repeats.
    pub fn json(&self, stage: Option<&str>) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("time".to_owned(), clock::now().to_string().into());
        if let Some(stage) = stage {
            object.insert("stage".to_owned(), stage.into());
        }
        if let Value::Object(fields) = serde_json::to_value(self).expect("an event can be written as JSON") {
            object.extend(fields.into_iter().map(|(key, value)| (key, kit::redacted(value))));
        }
        Value::Object(object)
    }
}

/// A reporter of events: prints, draws or records them.
pub trait Reporter: Send + Sync {
    /// Takes one event, of a stage or of the run as a whole.
    fn report(&self, stage: Option<&str>, event: &Event);
}

impl<R: Reporter> Reporter for std::sync::Arc<R> {
    fn report(&self, stage: Option<&str>, event: &Event) {
        (**self).report(stage, event);
    }
}

/// Several reporters.
#[derive(Default)]
pub struct Reporters(pub Vec<Box<dyn Reporter>>);

impl Reporter for Reporters {
    fn report(&self, stage: Option<&str>, event: &Event) {
        self.0.iter().for_each(|reporter| reporter.report(stage, event));
    }
}
