//! One batch as an objective sees it: edges, items and the log-probs of their sequences.

use crate::error::{Error, Result};

/// One sequence: log-probs in nats, summed over tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceLogps {
    /// Under the policy: of the response given the prompt, and of the prompt (0 where it is not needed). For objectives
    /// of reward models the reward of the text, and 0.
    pub policy: (f64, f64),
    /// The same under the frozen reference.
    pub reference: Option<(f64, f64)>,
    /// Tokens of the response.
    pub tokens: usize,
    /// Tokens of the prompt that are scored.
    pub prompt_tokens: usize,
}

/// A preference between two sequences of the batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// Index of the preferred sequence.
    pub chosen: usize,
    /// Index of the other one.
    pub rejected: usize,
    /// P(chosen better).
    pub p_hat: f64,
    /// Weight in the loss, at least 0.
    pub weight: f64,
}

/// A sequence with a label of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// Index of the sequence.
    pub sequence: usize,
    /// Desirability, in [0, 1].
    pub label: f64,
    /// Weight in the loss, at least 0.
    pub weight: f64,
}

/// A whole batch: the loss is a function of this and of nothing else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Each distinct sequence, or one per side; edges and items point here.
    pub sequences: Vec<SequenceLogps>,
    /// Preferences.
    pub edges: Vec<Edge>,
    /// Labelled sequences.
    pub items: Vec<Item>,
    /// KTO: the mismatched sequences.
    pub kl: Vec<usize>,
    /// RPO: how alike the prompts of chosen and rejected sides are.
    pub similarities: Option<Similarities>,
}

/// Cosines between the prompts of the chosen sides (rows) and of the rejected sides (columns).
#[derive(Debug, Clone, PartialEq)]
pub struct Similarities {
    /// Number of chosen sides, in the order of the edges (or of the items with a label above 0.5).
    pub rows: usize,
    /// Number of rejected sides, in the order of the edges (or of the items with a label below 0.5).
    pub columns: usize,
    /// Row by row.
    pub values: Vec<f64>,
}

impl Similarities {
    /// The cosines of embeddings, in f64. Lengths do not matter, as long as no vector is 0.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where an embedding has no direction.
    pub fn of<T: Copy + Into<f64>>(chosen: &[&[T]], rejected: &[&[T]]) -> Result<Similarities> {
        let lengths = |side: &str, vectors: &[&[T]]| -> Result<Vec<f64>> {
            let length = |(i, vector): (usize, &&[T])| {
                let length = dot(vector, vector).sqrt();
                let what = || format!("length of the embedding of {side} side {i}");
                if length > 0.0 && length.is_finite() {
                    Ok(length)
                } else {
                    Err(Error::OutOfRange { what: what(), got: length, wanted: "a finite length above 0" })
                }
            };
            vectors.iter().enumerate().map(length).collect()
        };
        let (row_lengths, column_lengths) = (lengths("chosen", chosen)?, lengths("rejected", rejected)?);
        let values = chosen
            .iter()
            .zip(&row_lengths)
            .flat_map(|(a, a_length)| {
                rejected.iter().zip(&column_lengths).map(move |(b, b_length)| dot(a, b) / (a_length * b_length))
            })
            .collect();
        Ok(Similarities { rows: chosen.len(), columns: rejected.len(), values })
    }
}

fn dot<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (*a).into() * (*b).into()).sum()
}
