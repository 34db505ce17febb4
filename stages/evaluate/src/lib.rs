//! The stage kind `evaluate`: the results of training, as figures with intervals.
//!
//! It knows how held-out pairs, verdicts and the sandbox's truth become figures ([`interval`], [`win_rate`]). It
//! neither generates nor judges: that is `sample`, `compare` and `judge`, so that it is cached and can be seen. Read
//! [`Evaluate`] first.

mod ahead;
mod config;
pub mod interval;
mod pairs;
mod preference;
mod scores;
mod stage;
mod summary;
mod truth;
mod utility;
pub mod win_rate;

pub use config::{Evaluate, Side};

/// The kind for the engine's list.
pub const KIND: kit::Kind =
    kit::Kind::of::<Evaluate>("evaluate", "accuracy, margins, win rates and agreement with the truth, with intervals");
