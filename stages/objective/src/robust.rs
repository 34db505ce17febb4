//! rDPO: DPO made unbiased for labels that flip at a known rate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Terms, finding};
use crate::side::{MarginObjective, Slope};
use crate::stable::{sigmoid, softplus};

/// Robust DPO (rDPO, TRL's `robust`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Robust {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
    /// The rate at which hard labels are flipped, in [0, 0.5). TRL calls it `label_smoothing`. It is one rate for the
    /// whole data set, not 1 - p_hat.
    pub epsilon: f64,
}

impl MarginObjective for Robust {
    /// (-(1 - eps) log sigmoid(beta Delta) + eps log sigmoid(-beta Delta)) / (1 - 2 eps), arXiv 2403.00409.
    fn at(&self, margin: f64, _p_hat: f64) -> Slope {
        let (z, eps) = (self.beta * margin, self.epsilon);
        let scale = 1.0 / (1.0 - 2.0 * eps);
        Slope {
            loss: scale * ((1.0 - eps) * softplus(-z) - eps * softplus(z)),
            slope: -self.beta * scale * ((1.0 - eps) * sigmoid(-z) + eps * sigmoid(z)),
        }
    }
}

impl Formula for Robust {
    fn facts() -> &'static Facts {
        &Facts {
            name: "robust",
            title: "robust DPO (rDPO) for labels that flip at a known rate",
            paper: "arXiv 2403.00409",
            equation: "(-(1 - eps) log sigmoid(beta D) + eps log sigmoid(-beta D)) / (1 - 2 eps)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the chosen side up",
            remark: "as dpo, for labels of which a share epsilon is flipped",
            knobs: "beta: 0.1, epsilon: 0.1",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        finding((0.0..0.5).contains(&self.epsilon), "epsilon", self.epsilon, "0 up to, but without, 0.5")
            .into_iter()
            .collect()
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
