//! Text to tokens: templates, the rules of a text, special tokens.

pub mod bounded;
pub mod messages;
pub mod rules;
pub mod scored;
pub mod sequence;
pub mod special;
pub mod template;
pub mod tokenizer_files;
pub mod tokens;
