//! The stage kind `jury`: votes and judges about the same comparisons become one probability each.
//!
//! It knows who said what about which comparison ([`bench`]), how far they agree ([`agreement`]) and the ways to make
//! one probability of it ([`Method`]). It knows no model. Read [`Jury`] first.

pub mod agreement;
mod answers;
pub mod bench;
mod config;
pub mod dawid_skene;
mod deliberating;
mod doubts;
mod folds;
mod gold;
pub mod logistic;
mod measure;
mod share;
mod stack;
mod stage;
mod summary;

pub use config::{Jury, Method, Term};
pub use folds::Deal;

/// The kind for the engine's list.
pub const KIND: kit::Kind = kit::Kind::of::<Jury>("jury", "one probability from many: votes, several judges");
