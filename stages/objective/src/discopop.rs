//! DiscoPOP: the log-ratio modulated loss that a language model found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Terms, above_0};
use crate::side::{MarginObjective, Slope};
use crate::stable::{sigmoid, softplus};

/// Log-ratio modulated loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discopop {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
    /// Temperature of the switch between the logistic and the exponential loss; above 0. The paper takes 0.05.
    pub tau: f64,
}

impl MarginObjective for Discopop {
    /// (1 - m) (-log sigmoid(z)) + m e^-z, z = beta Delta, m = sigmoid(z / tau), section 4 of arXiv 2406.08414.
    /// m e^-z is taken through logarithms: for z far below 0 the one factor vanishes where the other overflows.
    fn at(&self, margin: f64, _p_hat: f64) -> Slope {
        let z = self.beta * margin;
        let (mix, rest) = (sigmoid(z / self.tau), sigmoid(-z / self.tau));
        let mixed = (-softplus(-z / self.tau) - z).exp(); // m e^-z
        let logistic = softplus(-z);
        let slope = rest / self.tau * (mixed - mix * logistic) - rest * sigmoid(-z) - mixed;
        Slope { loss: rest * logistic + mixed, slope: self.beta * slope }
    }
}

impl Formula for Discopop {
    fn facts() -> &'static Facts {
        &Facts {
            name: "discopop",
            title: "DiscoPOP, the log-ratio modulated loss",
            paper: "arXiv 2406.08414, section 4",
            equation: "(1 - m) (-log sigmoid(z)) + m exp(-z), z = beta D, m = sigmoid(z/tau)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the chosen side up",
            remark: "a logistic and an exponential loss, switched by the margin",
            knobs: "beta: 0.1, tau: 0.05",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        above_0("tau", self.tau).into_iter().collect()
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
