//! The stage kind `sandbox`: a small world with known truth.
//!
//! It knows what is asked and answered there ([`words`]), how good an answer is and how likely it is preferred
//! ([`utility`]), and the texts its judge reads ([`forms`]). It does not know how anything is learned: that is the
//! work of the same stages as with real data. Read [`Sandbox`] first, then [`utility::utility`].

pub mod forms;
mod stage;
pub mod tokenizer;
mod truth;
pub mod utility;
pub mod words;
mod world;

pub use stage::Sandbox;
pub use truth::Truth;
pub use world::{Shape, World};

/// The entry in the list of kinds.
pub const KIND: kit::Kind = kit::Kind::of::<Sandbox>("sandbox", "a small synthetic world with known truth");
