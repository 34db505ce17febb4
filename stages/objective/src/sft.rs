//! Supervised fine-tuning: the likelihood of demonstrations, or of the chosen sides of pairs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::card::Card;
use crate::evaluation::Evaluation;

/// Negative log-likelihood, the mean over all response tokens of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {}

impl Sft {
    /// What is demonstrated: sequence and weight of each edge's chosen side, then of each item.
    fn demonstrations(batch: &Batch) -> impl Iterator<Item = (usize, f64)> + '_ {
        let edges = batch.edges.iter().map(|edge| (edge.chosen, edge.weight));
        edges.chain(batch.items.iter().map(|item| (item.sequence, item.weight)))
    }

    /// sum w tokens.
    pub(crate) fn denominator(batch: &Batch) -> f64 {
        Sft::demonstrations(batch).map(|(i, weight)| weight * batch.sequences[i].tokens as f64).sum()
    }

    /// sum w (-log pi) / sum w tokens. The terms are the sums -log pi.
    pub(crate) fn evaluate(&self, batch: &Batch, denominator: f64) -> Evaluation {
        let mut evaluation = Evaluation::empty(batch, 0);
        evaluation.terms = Sft::demonstrations(batch).map(|(i, _)| -batch.sequences[i].policy.0).collect();
        if denominator == 0.0 {
            return evaluation.without_weight();
        }
        for (i, weight) in Sft::demonstrations(batch) {
            evaluation.loss -= weight * batch.sequences[i].policy.0 / denominator;
            evaluation.d_policy[i].0 -= weight / denominator;
        }
        evaluation
    }

    pub(crate) const CARD: Card = Card {
        name: "sft",
        title: "supervised fine-tuning",
        paper: "maximum likelihood",
        equation: "sum of w (-log pi) / sum of w tokens, over the chosen sides or the items with a label above 0.5",
        orientation: "sees the chosen side alone",
        length: "the mean over the tokens of the whole batch",
        at_half: "still raises the chosen side",
    };
}
