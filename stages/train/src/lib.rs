//! The stage `train`: a policy is trained with a preference objective, or on demonstrations; or a reward model.
//!
//! It knows pairs and items, the order they come in, what the frozen reference said of them, checkpoints and metrics.
//! Log-probs and their gradient are `lm`'s, the loss is `objective`'s. Read [`Train`] first, then `run.rs`.

mod attach;
mod best;
mod check;
mod checkpoint;
mod config;
mod cut;
mod dataset;
mod evaluate;
mod export;
mod folder;
mod forecast;
mod learning_rate;
mod log;
mod micro;
mod order;
mod policy;
mod read;
mod run;
mod splits;
mod stage;
mod step;
mod sum;
mod tensorboard;

pub use config::{
    Adapter, BatchOptions, BestOptions, EvalMetric, Head, MemoryOptions, MemorySchedule, ModelAdapter, Optimizer,
    SaveOptions, Schedule, Train,
};

pub use export::export_model;
pub use lm::{SavedDtype, is_gguf};
pub use objective::{Forms, Objective};

/// The kind in pipeline files.
pub const KIND: kit::Kind = kit::Kind::of::<Train>("train", "train a policy on pairs or items with a chosen objective");
