//! CPO: DPO without a reference, plus the likelihood of the chosen side.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Terms, at_least_0};
use crate::side::{EdgeObjective, EdgeTerm, Side};
use crate::stable::{sigmoid, softplus};

/// Contrastive preference optimization.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpo {
    /// Scale of the difference of log-probs; above 0.
    pub beta: f64,
    /// Weight of the chosen side's negative log-prob per token; at least 0. TRL calls it `cpo_alpha` and takes 1.
    pub alpha: f64,
}

impl EdgeObjective for Cpo {
    /// -log sigmoid(beta (log pi(chosen) - log pi(rejected))) - alpha log pi(chosen)/|chosen|, arXiv 2401.08417.
    fn term(&self, chosen: &Side, rejected: &Side, _p_hat: f64) -> EdgeTerm {
        let z = self.beta * (chosen.policy - rejected.policy);
        let slope = -self.beta * sigmoid(-z);
        EdgeTerm {
            loss: softplus(-z) - self.alpha * chosen.mean(),
            d_chosen: slope - self.alpha / chosen.tokens,
            d_rejected: -slope,
        }
    }
}

impl Formula for Cpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "cpo",
            title: "contrastive preference optimization (no reference)",
            paper: "arXiv 2401.08417",
            equation: "-log sigmoid(beta (log pi(chosen) - log pi(rejected))) - alpha log pi(chosen)/|chosen|",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens in the preference, mean in the likelihood",
            at_half: "still pushes the chosen side up",
            reference: false,
            tokens: true,
            remark: "no reference, with a likelihood term",
            knobs: "beta: 0.1, alpha: 1.0",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        at_least_0("alpha", self.alpha).into_iter().collect()
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
