//! ROPO's loss and its geometric-averaged form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Terms, at_least_0, finding};
use crate::side::{MarginObjective, Slope};
use crate::stable::{sigmoid, softplus};

/// Robust preference optimization, the loss alone (the paper's filtering of samples is not part of it).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ropo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
    /// Weight of the bounded part 1 - sigmoid(beta Delta); at least 0. GDPO's paper takes 2.
    pub alpha: f64,
    /// Weight of the DPO part; at least 0, and not 0 together with `alpha`. GDPO's paper takes 0.1.
    pub gamma: f64,
}

/// Geometric-averaged ROPO: the soft label scales the margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gropo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
    /// Weight of the bounded part; at least 0. The paper takes 2.
    pub alpha: f64,
    /// Weight of the GDPO part; at least 0, and not 0 together with `alpha`. The paper takes 0.1.
    pub gamma: f64,
}

impl MarginObjective for Ropo {
    /// alpha (1 - sigmoid(beta Delta)) - gamma log sigmoid(beta Delta), eq. 9 of arXiv 2409.06691 (after 2404.04102).
    fn at(&self, margin: f64, _p_hat: f64) -> Slope {
        bounded(self.alpha, self.gamma, self.beta, margin)
    }
}

impl MarginObjective for Gropo {
    /// The same at (2 p_hat - 1) Delta, eq. 13 of arXiv 2409.06691.
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        bounded(self.alpha, self.gamma, self.beta * (2.0 * p_hat - 1.0), margin)
    }
}

fn bounded(alpha: f64, gamma: f64, scale: f64, margin: f64) -> Slope {
    let z = scale * margin;
    let miss = sigmoid(-z);
    Slope { loss: alpha * miss + gamma * softplus(-z), slope: -scale * miss * (alpha * sigmoid(z) + gamma) }
}

/// Findings about the weights of the two parts.
fn weights(alpha: f64, gamma: f64) -> Vec<Finding> {
    let one = finding(alpha != 0.0 || gamma != 0.0, "gamma", gamma, "a number above 0 where alpha is 0");
    [at_least_0("alpha", alpha), at_least_0("gamma", gamma), one].into_iter().flatten().collect()
}

impl Formula for Ropo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "ropo",
            title: "robust preference optimization (bounded loss plus DPO)",
            paper: "arXiv 2409.06691, eq. 9, after 2404.04102",
            equation: "alpha (1 - sigmoid(beta D)) - gamma log sigmoid(beta D)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the chosen side up",
            remark: "a bounded loss beside that of dpo, for noisy labels",
            knobs: "beta: 0.1, alpha: 2.0, gamma: 0.1",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        weights(self.alpha, self.gamma)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}

impl Formula for Gropo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "gropo",
            title: "geometric-averaged ROPO for soft labels",
            paper: "arXiv 2409.06691, eq. 13",
            equation: "alpha (1 - sigmoid(beta (2 p_hat - 1) D)) - gamma log sigmoid(beta (2 p_hat - 1) D)",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over response tokens",
            at_half: "loss alpha/2 + gamma log 2, no pull",
            p_hat: true,
            mirrored: true,
            remark: "as ropo; a pair pulls as far as its label is certain",
            knobs: "beta: 0.1, alpha: 2.0, gamma: 0.1",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        weights(self.alpha, self.gamma)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
