//! KTO: each response by itself, against an estimate of how far the policy has moved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::formula::{BatchObjective, Facts, Formula, Reads, Terms};
use crate::side::Side;
use crate::stable::sigmoid;

/// Kahneman-Tversky optimization, with labels in [0, 1]. The weights of desirable and undesirable items are those of
/// the items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kto {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

impl BatchObjective for Kto {
    /// label (1 - sigmoid(beta (s - z))) + (1 - label) (1 - sigmoid(beta (z - s))), eq. 8 of arXiv 2402.01306, with
    /// z = max(0, mean of s over the mismatched sequences), which is held constant in the gradient.
    fn evaluate(&self, batch: &Batch, _denominator: f64) -> Result<Evaluation> {
        if batch.kl.is_empty() {
            return Err(Error::NoKl);
        }
        let log_ratio = |sequence: usize| Side::of(&batch.sequences[sequence], false).log_ratio();
        let drift = batch.kl.iter().map(|&i| log_ratio(i)).sum::<f64>() / batch.kl.len() as f64;
        // `max` would turn NaN into 0 and hide it.
        let anchor = if drift < 0.0 { 0.0 } else { drift };
        let mut evaluation = Evaluation::empty(batch, batch.items.len());
        let total = self.denominator(batch);
        for (term, item) in evaluation.terms.iter_mut().zip(&batch.items) {
            let v = self.beta * (log_ratio(item.sequence) - anchor);
            *term = item.label * sigmoid(-v) + (1.0 - item.label) * sigmoid(v);
            if total > 0.0 {
                let share = item.weight / total;
                evaluation.loss += share * *term;
                let bell = sigmoid(v) * sigmoid(-v);
                evaluation.d_policy[item.sequence].0 += share * self.beta * (1.0 - 2.0 * item.label) * bell;
            }
        }
        Ok(if total > 0.0 { evaluation } else { evaluation.without_weight() })
    }

    fn denominator(&self, batch: &Batch) -> f64 {
        batch.items.iter().map(|item| item.weight).sum()
    }

    fn value_at_zero(&self) -> Option<f64> {
        Some(0.5)
    }
}

impl Formula for Kto {
    fn facts() -> &'static Facts {
        &Facts {
            name: "kto",
            title: "Kahneman-Tversky optimization of labelled responses",
            paper: "arXiv 2402.01306, eq. 8",
            equation: "label (1 - sigmoid(beta (s - z))) + (1 - label) (1 - sigmoid(beta (z - s))), s = log pi/ref, z = max(0, mean s of mismatched responses)",
            orientation: "items with labels; taking 1 - label mirrors the pull",
            length: "sums over response tokens",
            at_half: "an item with label 0.5 has loss 1/2 and no pull",
            reads: Reads::Items,
            p_hat: true,
            mirrored: true,
            mismatched: true,
            remark: "each side by itself, good or bad",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Batch(self)
    }
}
