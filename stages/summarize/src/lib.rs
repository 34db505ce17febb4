//! The stage kind `summarize`: the results of many runs of one pipeline.
//!
//! It reads the `summary` tables of runs that differ in known labels (an objective, a beta, a seed), takes means over
//! the seeds, chooses the best setting by one figure and compares settings by another, seed by seed ([`student`]). It
//! knows labels and figures, not what they mean. Read [`Summarize`] first.

mod cells;
mod config;
mod pages;
mod plot;
mod stage;
pub mod student;

pub use config::{Best, Choose, Summarize};

/// The kind for the engine's list.
pub const KIND: kit::Kind =
    kit::Kind::of::<Summarize>("summarize", "means, choices and paired comparisons over the runs of a matrix");
