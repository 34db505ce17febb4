//! The stage `pairs`: soft verdicts become training pairs, or items for objectives that take responses one by one.
//!
//! Knows labels, sides and counts: orientation, ties, thresholds, caps, duplicates, shares of forms, hard labels, and
//! the label experiments of the GDPO paper (arXiv 2409.06691). Every row that is left out stands in `rejects` with its
//! reason. It decides on ids and labels alone, whole-table; texts are only carried from input to output. It knows no
//! judge, no tokens and no objective. Read [`Pairs`] first: its fields are the manual, in the order of work.

mod candidates;
mod config;
mod draw;
mod grouped;
mod groups;
mod items;
mod output;
mod rules;
mod stage;

pub use config::{Duplicates, Labels, Mix, Noise, NoiseKind, Order, Pairs, Repeats, Shape, Ties, Weights, Write};

/// The kind `pairs`.
pub const KIND: kit::Kind =
    kit::Kind::of::<Pairs>("pairs", "turns verdicts into oriented training pairs, or into items; counts what it drops");
