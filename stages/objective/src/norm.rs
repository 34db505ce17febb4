//! DPO and its soft-label forms with length-normalised log-ratios: Delta = s(chosen)/|chosen| - s(rejected)/|rejected|,
//! |y| being the tokens of a response.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Score, Terms};
use crate::side::{EdgeObjective, EdgeTerm, MarginObjective, Side, Slope};
use crate::{Cdpo, Dpo, Gdpo};

/// Length-normalised DPO, as Tülu 3 trains with: TRL's `sigmoid_norm`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DpoNorm {
    /// Strength of the pull towards the reference, per token; above 0. Tülu 3 takes 5: values for `dpo` do not
    /// carry over.
    pub beta: f64,
}

/// Length-normalised conservative DPO.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CdpoNorm {
    /// Strength of the pull towards the reference, per token; above 0.
    pub beta: f64,
}

/// Length-normalised geometric-averaged DPO.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GdpoNorm {
    /// Strength of the pull towards the reference, per token; above 0.
    pub beta: f64,
}

/// An objective of margins at the difference of the log-ratios per token.
fn per_token(objective: &impl MarginObjective, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
    let margin = chosen.log_ratio() / chosen.tokens - rejected.log_ratio() / rejected.tokens;
    let Slope { loss, slope } = objective.at(margin, p_hat);
    EdgeTerm { loss, d_chosen: slope / chosen.tokens, d_rejected: -slope / rejected.tokens }
}

impl EdgeObjective for DpoNorm {
    /// -log sigmoid(beta Delta), eq. 6 of arXiv 2411.15124.
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
        per_token(&Dpo { beta: self.beta }, chosen, rejected, p_hat)
    }
}

impl EdgeObjective for CdpoNorm {
    /// -p_hat log sigmoid(beta Delta) - (1 - p_hat) log sigmoid(-beta Delta).
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
        per_token(&Cdpo { beta: self.beta }, chosen, rejected, p_hat)
    }
}

impl EdgeObjective for GdpoNorm {
    /// -log sigmoid(beta (2 p_hat - 1) Delta).
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
        per_token(&Gdpo { beta: self.beta }, chosen, rejected, p_hat)
    }
}

/// Facts that the three share.
const PER_TOKEN: Facts =
    Facts { length: "means over response tokens", tokens: true, score: Score::LogRatioPerToken, ..Facts::OF_PAIRS };

impl Formula for DpoNorm {
    fn facts() -> &'static Facts {
        &Facts {
            name: "dpo_norm",
            title: "length-normalised direct preference optimization (TRL's `sigmoid_norm`)",
            paper: "arXiv 2411.15124, eq. 6",
            equation: "-log sigmoid(beta D), D = (log pi/ref)(chosen)/|chosen| - (log pi/ref)(rejected)/|rejected|",
            orientation: "chosen first; the soft label is taken as certain",
            at_half: "still pushes the chosen side up",
            remark: "as dpo, per token of each response",
            knobs: "beta: 5.0",
            ..PER_TOKEN
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}

impl Formula for CdpoNorm {
    fn facts() -> &'static Facts {
        &Facts {
            name: "cdpo_norm",
            title: "length-normalised conservative DPO",
            paper: "arXiv 2409.06691, eq. 6, with the division by length of 2411.15124",
            equation: "-p_hat log sigmoid(beta D) - (1 - p_hat) log sigmoid(-beta D), D per token",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            at_half: "pulls the margin to 0",
            p_hat: true,
            mirrored: true,
            joint_twin: "cjpo",
            remark: "as cdpo, per token of each response",
            knobs: "beta: 5.0",
            ..PER_TOKEN
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}

impl Formula for GdpoNorm {
    fn facts() -> &'static Facts {
        &Facts {
            name: "gdpo_norm",
            title: "length-normalised geometric-averaged DPO for soft labels",
            paper: "arXiv 2409.06691, eq. 11, with the division by length of 2411.15124",
            equation: "-log sigmoid(beta (2 p_hat - 1) D), D per token",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            at_half: "loss log 2, no pull",
            p_hat: true,
            mirrored: true,
            joint_twin: "gjpo",
            remark: "as gdpo, per token of each response",
            knobs: "beta: 5.0",
            ..PER_TOKEN
        }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.beta)
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
