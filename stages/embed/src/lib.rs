//! The stage kind `embed`: sentence embeddings of prompts.
//!
//! It knows which text of a prompt is embedded and in which shards. It does not know how a text becomes a vector
//! (that is `lm`), nor what is done with it (`compare`, `train`). Read [`Embed`] first.

mod embedding;
mod stage;

pub use stage::{Embed, EmbeddedText};

/// The kind for the engine's list.
pub const KIND: kit::Kind = kit::Kind::of::<Embed>("embed", "sentence embeddings of distinct prompts, of unit length");

/// What `lm` could not do, as a stage's error.
fn lm_error(error: lm::Error) -> kit::Error {
    match error {
        lm::Error::Io { path, source } => kit::Error::io(path)(source),
        error if error.is_data() => kit::Error::Data(error.to_string()),
        error => kit::Error::Internal(error.to_string()),
    }
}
