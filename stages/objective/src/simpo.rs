//! SimPO: no reference, log-probs per token.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Score, Terms, at_least_0};
use crate::side::{EdgeObjective, EdgeTerm, Side};
use crate::stable::{sigmoid, softplus};

/// Simple preference optimization.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Simpo {
    /// Scale of the difference of log-probs per token; above 0. The paper takes 2 to 10.
    pub beta: f64,
    /// The target margin between the sides, in units of the scaled difference; at least 0.
    pub gamma: f64,
}

impl EdgeObjective for Simpo {
    /// -log sigmoid(beta (log pi(chosen)/|chosen| - log pi(rejected)/|rejected|) - gamma), eq. 6 of arXiv 2405.14734.
    fn term(&self, chosen: &Side, rejected: &Side, _p_hat: f64) -> EdgeTerm {
        let z = self.beta * (chosen.mean() - rejected.mean()) - self.gamma;
        let slope = -self.beta * sigmoid(-z);
        EdgeTerm { loss: softplus(-z), d_chosen: slope / chosen.tokens, d_rejected: -slope / rejected.tokens }
    }
}

impl Formula for Simpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "simpo",
            title: "simple preference optimization (no reference)",
            paper: "arXiv 2405.14734, eq. 6",
            equation: "-log sigmoid(beta (log pi(chosen)/|chosen| - log pi(rejected)/|rejected|) - gamma)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "means over response tokens",
            at_half: "still pushes the chosen side up",
            reference: false,
            tokens: true,
            score: Score::LogProbPerToken,
            remark: "log-probs per token, no reference",
            knobs: "beta: 2.0, gamma: 1.0",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        at_least_0("gamma", self.gamma).into_iter().collect()
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
