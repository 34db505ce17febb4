//! BCO on pairs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Terms};
use crate::side::{EdgeObjective, EdgeTerm, Side};
use crate::stable::{sigmoid, softplus};

/// Binary classifier optimization, pair form without the reward shift (TRL's `bco_pair`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bco {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

impl EdgeObjective for Bco {
    /// -log sigmoid(beta s1) - log sigmoid(-beta s2), arXiv 2404.04656 with its shift at 0.
    fn term(&self, chosen: &Side, rejected: &Side, _p_hat: f64) -> EdgeTerm {
        let (up, down) = (self.beta * chosen.log_ratio(), self.beta * rejected.log_ratio());
        EdgeTerm {
            loss: softplus(-up) + softplus(down),
            d_chosen: -self.beta * sigmoid(-up),
            d_rejected: self.beta * sigmoid(down),
        }
    }
}

impl Formula for Bco {
    fn facts() -> &'static Facts {
        &Facts {
            name: "bco",
            title: "binary classifier optimization, pair form without reward shift",
            paper: "arXiv 2404.04656",
            equation: "-log sigmoid(beta s1) - log sigmoid(-beta s2), s = log pi/ref",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the sides apart",
            remark: "each side by itself, chosen up and rejected down",
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
