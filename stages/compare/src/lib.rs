//! The stage `compare`: comparisons of responses, within a prompt and across prompts.
//!
//! Knows ids, prompts' embeddings and draws; it decides on them alone and gathers the texts while writing. Nearest
//! prompts are searched in shards. It knows no judge and no labels. Which side is shown as `a` is drawn for each
//! comparison, so that position says nothing. Read [`Compare`] first: its fields are the manual.

mod config;
mod forecast;
mod ivf;
mod nearest;
mod responses;
mod search;
mod selection;
mod stage;
mod tile;

pub use config::{Against, Compare, EqualTexts, Ivf, Joint, Neighbours, Within};

/// The kind `compare`.
pub const KIND: kit::Kind =
    kit::Kind::of::<Compare>("compare", "sets responses against each other, within a prompt or across prompts");
