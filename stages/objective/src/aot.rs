//! AOT: alignment via optimal transport, paired form.

use std::f64::consts::LN_2;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::formula::{BatchObjective, Facts, Formula, Terms};
use crate::side::Side;
use crate::stable::{sigmoid, softplus};

/// Distributional preference: the margins of the policy, sorted, against those of the reference, sorted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aot {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

impl BatchObjective for Aot {
    /// mean_k -log sigmoid(beta (m_(k) - r_(k))), m_(k) and r_(k) the k-th smallest margins of policy and reference,
    /// arXiv 2406.05882 (TRL's `aot`). Equal margins keep their order, so that the gradient is determined. Edges of
    /// weight 0 are left out. The terms come in the order of the policy's margins: edge i with the reference margin of
    /// its rank.
    fn evaluate(&self, batch: &Batch, _denominator: f64) -> Result<Evaluation> {
        let mut evaluation = Evaluation::empty(batch, batch.edges.len());
        let edges: Vec<usize> = (0..batch.edges.len()).filter(|&i| batch.edges[i].weight > 0.0).collect();
        let Some(&first) = edges.first() else { return Ok(evaluation.without_weight()) };
        let first = batch.edges[first].weight;
        if let Some(other) = edges.iter().map(|&i| batch.edges[i].weight).find(|&weight| weight != first) {
            return Err(Error::UnequalWeights { first, other });
        }
        let sides = |i: usize| {
            let edge = batch.edges[i];
            let side = |sequence| Side::of(&batch.sequences[sequence], false);
            (side(edge.chosen), side(edge.rejected))
        };
        let sorted = |margin: &dyn Fn(usize) -> f64| {
            let mut margins: Vec<(f64, usize)> = edges.iter().map(|&i| (margin(i), i)).collect();
            margins.sort_by(|a, b| a.0.total_cmp(&b.0));
            margins
        };
        let policy = sorted(&|i| sides(i).0.policy - sides(i).1.policy);
        let reference = sorted(&|i| sides(i).0.reference - sides(i).1.reference);
        let scale = 1.0 / edges.len() as f64;
        for ((margin, i), (anchor, _)) in policy.into_iter().zip(reference) {
            let z = self.beta * (margin - anchor);
            evaluation.terms[i] = softplus(-z);
            evaluation.loss += scale * evaluation.terms[i];
            let slope = -scale * self.beta * sigmoid(-z);
            evaluation.d_policy[batch.edges[i].chosen].0 += slope;
            evaluation.d_policy[batch.edges[i].rejected].0 -= slope;
        }
        Ok(evaluation)
    }

    fn value_at_zero(&self) -> Option<f64> {
        Some(LN_2)
    }
}

impl Formula for Aot {
    fn facts() -> &'static Facts {
        &Facts {
            name: "aot",
            title: "alignment via optimal transport, paired form",
            paper: "arXiv 2406.05882",
            equation: "mean over ranks k of -log sigmoid(beta (policy margin of rank k - reference margin of rank k))",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "counts like any other margin",
            weights: false,
            remark: "sorted margins of a batch against those of the reference",
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
