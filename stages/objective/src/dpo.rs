//! DPO and its two soft-label forms. Delta = s(chosen) - s(rejected), on sums over the response's tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Terms};
use crate::side::{MarginObjective, Slope};
use crate::stable::{sigmoid, softplus};

/// Direct preference optimization: the label is taken as certain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dpo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

/// Conservative DPO: cross-entropy with the soft label.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cdpo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

/// Geometric-averaged preference optimization: the soft label scales the margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gdpo {
    /// Strength of the pull towards the reference; above 0. The paper takes a larger one than for DPO, as
    /// 2 p_hat - 1 shrinks it.
    pub beta: f64,
}

impl MarginObjective for Dpo {
    /// -log sigmoid(beta Delta), eq. 7 of arXiv 2305.18290 (eq. 5 of 2409.06691).
    fn at(&self, margin: f64, _p_hat: f64) -> Slope {
        let z = self.beta * margin;
        Slope { loss: softplus(-z), slope: -self.beta * sigmoid(-z) }
    }
}

impl MarginObjective for Cdpo {
    /// -p_hat log sigmoid(beta Delta) - (1 - p_hat) log sigmoid(-beta Delta), eq. 6 of arXiv 2409.06691.
    /// Its minimum lies at beta Delta = logit(p_hat).
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        let z = self.beta * margin;
        Slope {
            loss: p_hat * softplus(-z) + (1.0 - p_hat) * softplus(z),
            slope: self.beta * ((1.0 - p_hat) * sigmoid(z) - p_hat * sigmoid(-z)),
        }
    }
}

impl MarginObjective for Gdpo {
    /// -log sigmoid(beta (2 p_hat - 1) Delta), eq. 11 of arXiv 2409.06691. At p_hat = 1 this is DPO; at 1/2 it pulls
    /// nowhere.
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        let certainty = 2.0 * p_hat - 1.0;
        let z = self.beta * certainty * margin;
        Slope { loss: softplus(-z), slope: -self.beta * certainty * sigmoid(-z) }
    }
}

impl Formula for Dpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "dpo",
            title: "direct preference optimization",
            paper: "arXiv 2305.18290, eq. 7",
            equation: "-log sigmoid(beta D), D = (log pi/ref)(chosen) - (log pi/ref)(rejected)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the chosen side up",
            remark: "labels count as certain",
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

impl Formula for Cdpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "cdpo",
            title: "conservative DPO",
            paper: "arXiv 2409.06691, eq. 6",
            equation: "-p_hat log sigmoid(beta D) - (1 - p_hat) log sigmoid(-beta D)",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over response tokens",
            at_half: "pulls the margin to 0",
            p_hat: true,
            mirrored: true,
            joint_twin: "cjpo",
            remark: "p_hat is the chance that the label is right",
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

impl Formula for Gdpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "gdpo",
            title: "geometric-averaged DPO for soft labels",
            paper: "arXiv 2409.06691, eq. 11",
            equation: "-log sigmoid(beta (2 p_hat - 1) D)",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over response tokens",
            at_half: "loss log 2, no pull",
            p_hat: true,
            mirrored: true,
            joint_twin: "gjpo",
            remark: "a pair pulls as far as its label is certain; with p_hat = 1 it is DPO",
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
