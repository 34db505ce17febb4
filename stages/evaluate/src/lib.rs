//! The stage kind `evaluate`: the results of training, as figures with intervals.
//!
//! It knows how held-out pairs, verdicts and the sandbox's truth become figures ([`interval`], [`win_rate`]). It
//! neither generates nor judges: that is `sample`, `compare` and `judge`, so that it is cached and can be seen. Read
//! [`Evaluate`] first; with the key `measure` the stage is a [`Measure`] instead.

mod alternative;
mod answers;
mod bootstrap;
mod config;
mod corrected;
mod forecast;
mod games;
pub mod interval;
mod leaderboard;
mod length;
mod logistic;
mod measure;
mod measured;
mod pairs;
mod preference;
mod scores;
mod sides;
mod stage;
mod student;
mod summary;
mod truth;
mod utility;
pub mod win_rate;

pub use config::Evaluate;
pub use measure::{KIND, Measure};
pub use sides::Side;
