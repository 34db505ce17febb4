//! Data files in: JSON Lines, JSON lists, CSV and Parquet in the formats that people have, as tables that stages read.
//!
//! `ingest` knows formats and columns, finds them from the first rows, and says what it found. Every row is kept or
//! rejected with a reason, a file and a line. It knows no models. Memory holds digests of ids and never the texts.
//! Read [`Ingest`] first, then [`Format`].

mod advice;
mod answer;
mod bad_row;
mod ballot;
mod column;
mod columns;
mod config;
mod dialogue;
mod faults;
mod files;
mod forecast;
mod form;
mod format;
mod head;
mod intake;
mod layout;
mod ledger;
mod messages;
mod names;
mod pass;
mod reading;
mod record;
mod register;
mod row;
mod scale;
mod scores;
mod shared;
mod source;
mod stage;
mod stored;
mod survey;
mod tables;

pub use column::Column;
pub use config::{Ingest, Kept, OnBadRow};
pub use files::Files;
pub use form::Form;
pub use format::Format;
pub use names::Names;
pub use scale::{VoteScale, VoteValues};
pub use scores::{Compared, Scores};
pub use survey::Found;

/// The kind that `kind: ingest` in a pipeline file names.
pub const KIND: kit::Kind =
    kit::Kind::of::<Ingest>("ingest", "data files in: preferences, comparisons, demonstrations, prompts, embeddings");
