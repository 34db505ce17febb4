//! One row of a run: what every stage stored about it, joined by ids.
//!
//! No stage is asked: tables meet in the columns that name prompts, responses, comparisons, pairs and items. Read
//! [`columns::Ids`] first, then [`follow`].

mod columns;
mod follow;
mod graph;
mod show;

pub use follow::follow;
pub use graph::Lineage;
pub use show::text;
