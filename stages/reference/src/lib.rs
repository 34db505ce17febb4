//! The stage kind `reference`: log-probs of every distinct training sequence under the frozen reference model.
//!
//! It knows which sequences the rows of a table need and how they are cut into shards. It does not know how tokens
//! or log-probs come about (that is `lm`), nor what is done with them (that is `train`). Read [`Reference`] first.

mod config;
mod forecast;
mod score;
mod stage;
mod work;

pub use config::Reference;
pub use lm::{Bits, Dtype, EFFICIENCY, ModelFacts, Speed, TemplateFacts, Use, gpus, resolve_device};

/// A model as its files describe it.
///
/// # Errors
/// Where it is no model, or the system cannot read it.
pub fn describe(path: &std::path::Path) -> kit::Result<ModelFacts> {
    ModelFacts::read(path).map_err(tokens::lm_error)
}

/// The kind for the engine's list.
pub const KIND: kit::Kind =
    kit::Kind::of::<Reference>("reference", "log-probs of each distinct sequence under the frozen reference model");
