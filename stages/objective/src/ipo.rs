//! IPO and its soft-label forms. c = 1 / (2 beta); Delta on sums, except in `ipo_norm`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Score, Terms};
use crate::side::{EdgeObjective, EdgeTerm, MarginObjective, Side, Slope};

/// Identity preference optimization: pulls the margin to a target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ipo {
    /// The margin's target is 1 / (2 beta) nats: a smaller beta pushes further. Above 0.
    pub beta: f64,
}

/// Conservative IPO: the soft label scales the target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cipo {
    /// The margin's target is (2 p_hat - 1) / (2 beta) nats. Above 0.
    pub beta: f64,
}

/// Geometric-averaged IPO: the soft label scales margin and target alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gipo {
    /// The margin's target is 1 / (2 beta) nats, whatever the label. Above 0.
    pub beta: f64,
}

/// IPO as TRL computes it: each side's log-ratio is divided by its number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpoNorm {
    /// The target is 1 / (2 beta) nats *per token*; values for `ipo` do not carry over. Above 0.
    pub beta: f64,
}

impl MarginObjective for Ipo {
    /// (Delta - c)^2, eq. 17 of arXiv 2310.12036 (eq. 7 of 2409.06691).
    fn at(&self, margin: f64, _p_hat: f64) -> Slope {
        let gap = margin - 0.5 / self.beta;
        Slope { loss: gap * gap, slope: 2.0 * gap }
    }
}

impl MarginObjective for Cipo {
    /// (Delta - (2 p_hat - 1) c)^2, eq. 8 of arXiv 2409.06691.
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        let gap = margin - (2.0 * p_hat - 1.0) * 0.5 / self.beta;
        Slope { loss: gap * gap, slope: 2.0 * gap }
    }
}

impl MarginObjective for Gipo {
    /// (2 p_hat - 1)^2 (Delta - c)^2, eq. 12 of arXiv 2409.06691. Not ((2 p_hat - 1) Delta - c)^2, whose minimum runs
    /// away as p_hat nears 1/2. The square makes it blind to the label's side, so edges must be oriented.
    fn at(&self, margin: f64, p_hat: f64) -> Slope {
        let (certainty, gap) = (2.0 * p_hat - 1.0, margin - 0.5 / self.beta);
        Slope { loss: (certainty * gap).powi(2), slope: 2.0 * certainty * certainty * gap }
    }
}

impl EdgeObjective for IpoNorm {
    /// (s(chosen)/|chosen| - s(rejected)/|rejected| - c)^2: TRL's `ipo` since its PR 1265.
    fn term(&self, chosen: &Side, rejected: &Side, _p_hat: f64) -> EdgeTerm {
        let gap = chosen.log_ratio() / chosen.tokens - rejected.log_ratio() / rejected.tokens - 0.5 / self.beta;
        EdgeTerm { loss: gap * gap, d_chosen: 2.0 * gap / chosen.tokens, d_rejected: -2.0 * gap / rejected.tokens }
    }
}

impl Formula for Ipo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "ipo",
            title: "identity preference optimization, on sums of log-probs (`ipo_norm` is TRL's)",
            paper: "arXiv 2310.12036, eq. 17",
            equation: "(D - 1/(2 beta))^2",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the margin to 1/(2 beta)",
            log_odds: false,
            remark: "pulls to a margin of 1 / (2 beta)",
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

impl Formula for Cipo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "cipo",
            title: "conservative IPO, on sums of log-probs",
            paper: "arXiv 2409.06691, eq. 8",
            equation: "(D - (2 p_hat - 1)/(2 beta))^2",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over response tokens",
            at_half: "pulls the margin to 0",
            p_hat: true,
            mirrored: true,
            log_odds: false,
            remark: "pulls to a margin of (2 p_hat - 1) / (2 beta)",
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

impl Formula for Gipo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "gipo",
            title: "geometric-averaged IPO for soft labels, on sums of log-probs",
            paper: "arXiv 2409.06691, eq. 12",
            equation: "(2 p_hat - 1)^2 (D - 1/(2 beta))^2",
            orientation: "chosen first, p_hat at least 0.5",
            length: "sums over response tokens",
            at_half: "loss 0, no pull",
            p_hat: true,
            log_odds: false,
            remark: "as ipo, weighed by how certain the label is",
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

impl Formula for IpoNorm {
    fn facts() -> &'static Facts {
        &Facts {
            name: "ipo_norm",
            title: "length-normalised identity preference optimization (TRL's `ipo`)",
            paper: "arXiv 2310.12036, eq. 17, with TRL's division by length",
            equation: "((log pi/ref)(chosen)/|chosen| - (log pi/ref)(rejected)/|rejected| - 1/(2 beta))^2",
            orientation: "chosen first; the soft label is taken as certain",
            length: "means over response tokens",
            at_half: "still pushes the margin to 1/(2 beta)",
            tokens: true,
            log_odds: false,
            score: Score::LogRatioPerToken,
            remark: "as ipo, per token of each response",
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
