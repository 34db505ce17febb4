//! EXO on pairs: the reverse-KL twin of conservative DPO.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Terms, finding};
use crate::side::{MarginObjective, Slope};
use crate::stable::{sigmoid, softplus};

/// Efficient exact optimization, pair form with the soft label.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
    /// `p_hat` is kept this far from 0 and 1, where the divergence would be infinite; in (0, 0.5).
    #[serde(default = "default_clip")]
    pub clip: f64,
}

fn default_clip() -> f64 {
    1e-6
}

impl MarginObjective for Exo {
    /// KL((sigmoid(z), sigmoid(-z)) || (p, 1 - p)), z = beta Delta, p = `p_hat` clipped: arXiv 2402.00856 with
    /// the soft label in the place of its smoothed one. d/dz = sigmoid(z) sigmoid(-z) (z - logit p).
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        let z = self.beta * margin;
        let p = p_hat.clamp(self.clip, 1.0 - self.clip);
        let (log_p, log_q) = (p.ln(), (-p).ln_1p());
        let (win, lose) = (sigmoid(z), sigmoid(-z));
        Slope {
            loss: win * (-softplus(-z) - log_p) + lose * (-softplus(z) - log_q),
            slope: self.beta * win * lose * (z - (log_p - log_q)),
        }
    }
}

impl Formula for Exo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "exo",
            title: "efficient exact optimization, pair form with soft labels",
            paper: "arXiv 2402.00856",
            equation: "KL((sigmoid(beta D), sigmoid(-beta D)) || (p_hat, 1 - p_hat)), p_hat clipped",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over response tokens",
            at_half: "pulls the margin to 0",
            p_hat: true,
            mirrored: true,
            remark: "fits the policy's preference to the label",
            ..Facts::OF_PAIRS
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn check(&self) -> Vec<Finding> {
        finding(self.clip > 0.0 && self.clip < 0.5, "clip", self.clip, "a number between 0 and 0.5")
            .into_iter()
            .collect()
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
