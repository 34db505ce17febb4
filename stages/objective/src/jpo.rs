//! JPO: DPO on the joint log-probs of prompt and response, so that pairs may have two prompts.
//!
//! log pi(x, y) = log pi(x) + log pi(y | x). There is no partition function left that depends on a prompt. For two
//! responses under one prompt its terms cancel and JPO is DPO. The evaluation adds the prompt part to both sides; the
//! terms below are those of `dpo`, `cdpo` and `gdpo` on that margin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dpo::{Cdpo, Dpo, Gdpo};
use crate::formula::{Facts, Formula, Terms};
use crate::side::{MarginObjective, Slope};

/// Joint preference optimization: the label is taken as certain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jpo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

/// Conservative JPO: cross-entropy with the soft label.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cjpo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

/// Geometric-averaged JPO: the soft label scales the joint margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gjpo {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

impl MarginObjective for Jpo {
    /// -log sigmoid(beta Delta) with joint Delta, the objective of arXiv 2404.00530.
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        Dpo { beta: self.beta }.at(margin, p_hat)
    }
}

impl MarginObjective for Cjpo {
    /// Eq. 6 of arXiv 2409.06691 with joint Delta.
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        Cdpo { beta: self.beta }.at(margin, p_hat)
    }
}

impl MarginObjective for Gjpo {
    /// Eq. 11 of arXiv 2409.06691 with joint Delta.
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        Gdpo { beta: self.beta }.at(margin, p_hat)
    }
}

impl Formula for Jpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "jpo",
            title: "joint preference optimization over (prompt, response)",
            paper: "arXiv 2404.00530",
            equation: "-log sigmoid(beta D), D = (log pi/ref)(prompt + chosen) - (log pi/ref)(prompt + rejected)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over prompt and response tokens",
            at_half: "still pushes the chosen side up",
            prompt_part: true,
            same_twin: "dpo",
            remark: "as dpo, over prompts and responses together",
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

impl Formula for Cjpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "cjpo",
            title: "conservative joint preference optimization over (prompt, response)",
            paper: "arXiv 2404.00530 with eq. 6 of 2409.06691",
            equation: "-p_hat log sigmoid(beta D) - (1 - p_hat) log sigmoid(-beta D), D joint",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over prompt and response tokens",
            at_half: "pulls the margin to 0",
            prompt_part: true,
            p_hat: true,
            mirrored: true,
            same_twin: "cdpo",
            remark: "as cdpo, over prompts and responses together",
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

impl Formula for Gjpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "gjpo",
            title: "geometric-averaged joint preference optimization over (prompt, response)",
            paper: "arXiv 2404.00530 with eq. 11 of 2409.06691",
            equation: "-log sigmoid(beta (2 p_hat - 1) D), D joint",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over prompt and response tokens",
            at_half: "loss log 2, no pull",
            prompt_part: true,
            p_hat: true,
            mirrored: true,
            same_twin: "gdpo",
            remark: "as gdpo, over prompts and responses together",
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
