//! A tokenised text with the place where its completion starts.

use std::ops::Range;

/// One token sequence to score, train on or continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens of prompt and completion.
    pub ids: Vec<u32>,
    /// The index of the first completion token in `ids`; `ids.len()` for a prompt alone.
    pub start: usize,
    /// The length of the tokenised prompt alone, which differs from `start` where the two tokenise jointly.
    pub prompt_tokens: usize,
    /// The completion tokens that are not scored, in order, such as what a tool says; `ids` before `start` not among
    /// them.
    pub unscored: Vec<Range<usize>>,
    /// True where the prompt's own rendering differs from the text that the chat template writes before an answer by
    /// more than its last tokens.
    pub displaced: bool,
    /// Spans of special-token text that were encoded as ordinary text.
    pub escaped: u32,
    /// Tokens cut off on the left to fit the limit.
    pub cut: u32,
}

impl Sequence {
    /// Tokens with their completion from `start` on, all of it scored.
    pub fn new(ids: Vec<u32>, start: usize) -> Sequence {
        Sequence { ids, start, prompt_tokens: start, unscored: Vec::new(), displaced: false, escaped: 0, cut: 0 }
    }

    /// Completion tokens that are scored.
    pub fn completion_tokens(&self) -> usize {
        self.ids.len() - self.start - self.unscored.iter().map(ExactSizeIterator::len).sum::<usize>()
    }

    /// True where the completion token at an index is scored.
    pub fn is_scored(&self, index: usize) -> bool {
        index >= self.start && !self.unscored.iter().any(|range| range.contains(&index))
    }
}
