//! The stage kind `embed`: sentence embeddings of prompts.
//!
//! It knows which text of a prompt is embedded and in which shards. It does not know how a text becomes a vector
//! (that is `lm`), how an endpoint is asked (that is `endpoint`), nor what is done with it (`compare`, `train`). Read
//! [`Embed`] first.

mod config;
mod embedding;
mod protocol;
mod remote;
mod stage;

pub use config::{Embed, EmbeddedText};

/// The kind for the engine's list.
pub const KIND: kit::Kind = kit::Kind::of::<Embed>("embed", "sentence embeddings of distinct prompts, of unit length");
