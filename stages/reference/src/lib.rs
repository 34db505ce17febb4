//! The stage kind `reference`: log-probs of every distinct training sequence under the frozen reference model.
//!
//! It knows which sequences the rows of a table need and how they are cut into shards. It does not know how tokens
//! or log-probs come about (that is `lm`), nor what is done with them (that is `train`). Read [`Reference`] first.

mod ahead;
mod config;
mod score;
mod stage;
mod work;

pub use config::Reference;
pub use lm::{EFFICIENCY, Speed, resolve_device};

/// The kind for the engine's list.
pub const KIND: kit::Kind =
    kit::Kind::of::<Reference>("reference", "log-probs of each distinct sequence under the frozen reference model");
