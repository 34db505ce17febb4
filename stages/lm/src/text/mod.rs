//! Text to tokens: templates, the rules of a text, special tokens.

pub mod bounded;
pub mod messages;
mod rendered;
pub mod rules;
pub mod scored;
pub mod sequence;
pub mod special;
pub mod template;
mod tokenised;
pub mod tokenizer_files;
pub mod tokens;
