//! What the LM head is asked for, and what it gives.

/// A token whose log-probability is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Index of the row that predicts it.
    pub row: usize,
    pub token: u32,
}

impl Target {
    /// Its place among tokens from `start` on, where it is one of them.
    pub fn column(&self, start: usize, tokens: usize) -> Option<usize> {
        (self.token as usize).checked_sub(start).filter(|&column| column < tokens)
    }
}

/// Results of the forward: ln p of each target, and the log-sum-exp of each row, for the backward.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HeadScores {
    pub logps: Vec<f64>,
    pub lse: Vec<f64>,
}
