//! The stage kind `sample`: responses of a model to prompts.
//!
//! It knows which prompts are answered how often, with which seeds, and what a response looks like as a row. It does
//! not know how text is generated (that is `lm`), nor how an endpoint is asked (that is `endpoint`). Read [`Sample`]
//! first.

mod config;
mod forecast;
mod remote;
mod rendering;
mod repetition;
mod sampling;
mod stage;
mod work;

pub use config::Sample;

/// The kind for the engine's list.
pub const KIND: kit::Kind = kit::Kind::of::<Sample>("sample", "k responses of a model to each prompt");
