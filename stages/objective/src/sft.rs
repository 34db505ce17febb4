//! Supervised fine-tuning: the likelihood of demonstrations, or of the chosen sides of pairs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::Result;
use crate::evaluation::Evaluation;
use crate::formula::{BatchObjective, Facts, Formula, Reads, Terms};

/// Negative log-likelihood, the mean over all response tokens of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {}

impl Sft {
    /// The demonstrations: sequence and weight of each edge's chosen side, then of each item.
    fn demonstrations(batch: &Batch) -> impl Iterator<Item = (usize, f64)> + '_ {
        let edges = batch.edges.iter().map(|edge| (edge.chosen, edge.weight));
        edges.chain(batch.items.iter().map(|item| (item.sequence, item.weight)))
    }
}

impl BatchObjective for Sft {
    /// sum w (-log pi) / sum w tokens. The terms are the sums -log pi.
    fn evaluate(&self, batch: &Batch, denominator: f64) -> Result<Evaluation> {
        let mut evaluation = Evaluation::empty(batch, 0);
        evaluation.terms = Sft::demonstrations(batch).map(|(i, _)| -batch.sequences[i].policy.0).collect();
        if denominator == 0.0 {
            return Ok(evaluation.without_weight());
        }
        for (i, weight) in Sft::demonstrations(batch) {
            evaluation.loss -= weight * batch.sequences[i].policy.0 / denominator;
            evaluation.d_policy[i].0 -= weight / denominator;
        }
        Ok(evaluation)
    }

    /// sum w tokens.
    fn denominator(&self, batch: &Batch) -> f64 {
        Sft::demonstrations(batch).map(|(i, weight)| weight * batch.sequences[i].tokens as f64).sum()
    }

    fn value_at_zero(&self) -> Option<f64> {
        None
    }

    fn separable(&self) -> bool {
        true
    }
}

impl Formula for Sft {
    fn facts() -> &'static Facts {
        &Facts {
            name: "sft",
            title: "supervised fine-tuning",
            paper: "maximum likelihood",
            equation: "sum of w (-log pi) / sum of w tokens, over the chosen sides or the items with a label above 0.5",
            orientation: "sees the chosen side alone",
            length: "the mean over the tokens of the whole batch",
            at_half: "still raises the chosen side",
            reads: Reads::Both,
            reference: false,
            rejected: false,
            tokens: true,
            log_odds: false,
            joint_pairs: true,
            remark: "imitates",
            knobs: "",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        None
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Batch(self)
    }

    fn accepts_label(&self, label: f64) -> std::result::Result<(), &'static str> {
        if label > 0.5 { Ok(()) } else { Err("sft takes demonstrations: labels above 0.5") }
    }
}
