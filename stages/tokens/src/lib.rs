//! Rows as token sequences: the room between the tables of `kit` and the models of `lm`.
//!
//! `tokens` knows both rooms and no stage. Stages that hold a model read their rows through a [`SequenceReader`] under
//! one `tokens:` block ([`RowRules`], [`PromptRules`], [`QuestionRules`]), so that `reference` and `train` cannot
//! tokenise differently without a finding. It also renders sequences for people ([`rendering`]) and estimates what
//! passes over them cost ([`cost`]). Read [`SequenceReader`] first.

mod ahead;
mod base;
pub mod cost;
mod error;
pub mod kinds;
mod model;
mod reader;
pub mod rendering;
mod rules;

pub use ahead::prepared_ahead;
pub use base::{Base, precision};
pub use error::lm_error;
pub use model::{load_decoder, load_reward_model, open_device};
pub use reader::{DatasetRow, ItemSequences, Mismatched, RefusedRow, SequenceKey, SequenceReader, turns};
pub use rules::{PromptRules, QuestionRules, RowRules, TokensPerBatch, tokens_per_batch};
