//! A tokenised text with the place where its completion starts.

/// One token sequence to score, train on or continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens of prompt and completion.
    pub ids: Vec<u32>,
    /// The index of the first completion token in `ids`; `ids.len()` for a prompt alone.
    pub start: usize,
    /// The length of the tokenised prompt alone, which differs from `start` where the two tokenise jointly.
    pub prompt_tokens: usize,
    /// Spans of special-token text that were encoded as ordinary text.
    pub escaped: u32,
    /// Tokens cut off on the left to fit the limit.
    pub cut: u32,
}
