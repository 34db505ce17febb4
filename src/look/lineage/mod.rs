//! Following a pair or a comparison through the stages of a run, with its numbers computed again.
//!
//! The stages say what they know of two responses ([`kit::Stage::trace`]); here stands which stages a run had, what each
//! of them read, and how the answers are put together. Read [`Lineage`] first, then [`follow`].

mod follow;
mod graph;
mod show;

pub use follow::follow;
pub use graph::Lineage;
pub use show::text;
