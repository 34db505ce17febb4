//! Events of a stage at work. Reporters of the engine print them; stages never print.

use serde::Serialize;

/// Something that happened in a stage, named in the past tense.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Work of known size began or went on. `done` and `total` count `unit`s ("rows", "tokens", "steps").
    Progressed {
        /// Units finished.
        done: u64,
        /// Units in all.
        total: u64,
        /// Unit that is counted, in the plural.
        unit: &'static str,
        /// Short figures to show beside the bar, such as `loss 0.61`.
        detail: String,
    },
    /// A shard's files are on disk and will not be computed again.
    ShardCommitted {
        /// The shard's number.
        shard: u64,
        /// Shards in all.
        shards: u64,
        /// Rows it wrote, over all ports.
        rows: u64,
    },
    /// Earlier work was found and is kept.
    Resumed {
        /// The work that was found, such as `12 of 40 shards`.
        what: String,
    },
    /// A training checkpoint is on disk.
    CheckpointWritten {
        /// Optimizer steps done.
        step: u64,
    },
    /// Rows were rejected for one reason.
    RowsRejected {
        /// The reason.
        reason: String,
        /// Number of rows.
        rows: u64,
    },
    /// Something worth knowing that is not an error.
    Noted {
        /// A sentence.
        text: String,
    },
    /// Something that probably is not what the user wants.
    Warned {
        /// A sentence with the next step.
        text: String,
    },
}

/// Listener to a stage's events.
pub trait Events: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> Events for F {
    fn emit(&self, event: Event) {
        self(event);
    }
}
