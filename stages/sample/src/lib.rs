//! The stage kind `sample`: responses of a model to prompts.
//!
//! It knows which prompts are answered how often, with which seeds, and what a response looks like as a row. It does
//! not know how text is generated (that is `lm`). Read [`Sample`] first.

mod ahead;
mod rendering;
mod sampling;
mod stage;
mod work;

pub use stage::Sample;

/// The kind for the engine's list.
pub const KIND: kit::Kind = kit::Kind::of::<Sample>("sample", "k responses of a model to each prompt");

/// What `lm` could not do, as a stage's error.
fn lm_error(error: lm::Error) -> kit::Error {
    match error {
        lm::Error::Io { path, source } => kit::Error::io(path)(source),
        error if error.is_data() => kit::Error::Data(error.to_string()),
        error => kit::Error::Internal(error.to_string()),
    }
}
