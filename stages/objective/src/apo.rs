//! Anchored preference optimization: each side has a direction of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Terms};
use crate::side::{EdgeObjective, EdgeTerm, Side};
use crate::stable::sigmoid;

/// APO-zero: raises the chosen side and lowers the rejected one; for data better than the policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApoZero {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

/// APO-down: lowers both sides, the rejected one more; for data worse than the policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApoDown {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

impl EdgeObjective for ApoZero {
    /// 1 - sigmoid(beta s1) + sigmoid(beta s2), arXiv 2408.06266.
    fn term(&self, chosen: &Side, rejected: &Side, _p_hat: f64) -> EdgeTerm {
        let (up, down) = (self.beta * chosen.log_ratio(), self.beta * rejected.log_ratio());
        EdgeTerm {
            loss: sigmoid(-up) + sigmoid(down),
            d_chosen: -self.beta * bell(up),
            d_rejected: self.beta * bell(down),
        }
    }
}

impl EdgeObjective for ApoDown {
    /// sigmoid(beta s1) + 1 - sigmoid(beta (s1 - s2)), arXiv 2408.06266.
    fn term(&self, chosen: &Side, rejected: &Side, _p_hat: f64) -> EdgeTerm {
        let up = self.beta * chosen.log_ratio();
        let apart = up - self.beta * rejected.log_ratio();
        EdgeTerm {
            loss: sigmoid(up) + sigmoid(-apart),
            d_chosen: self.beta * (bell(up) - bell(apart)),
            d_rejected: self.beta * bell(apart),
        }
    }
}

/// The derivative of the sigmoid.
fn bell(z: f64) -> f64 {
    sigmoid(z) * sigmoid(-z)
}

impl Formula for ApoZero {
    fn facts() -> &'static Facts {
        &Facts {
            name: "apo_zero",
            title: "anchored preference optimization, zero (chosen up, rejected down)",
            paper: "arXiv 2408.06266",
            equation: "1 - sigmoid(beta s1) + sigmoid(beta s2), s = log pi/ref",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the sides apart",
            remark: "chosen up, rejected down",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}

impl Formula for ApoDown {
    fn facts() -> &'static Facts {
        &Facts {
            name: "apo_down",
            title: "anchored preference optimization, down (both down, rejected more)",
            paper: "arXiv 2408.06266",
            equation: "sigmoid(beta s1) + 1 - sigmoid(beta (s1 - s2)), s = log pi/ref",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the sides apart",
            remark: "both sides down, the rejected one more",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
