//! SPPO with soft labels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Terms};
use crate::side::{EdgeObjective, EdgeTerm, Side};

/// Self-play preference optimization: pulls each side's log-ratio to its own target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sppo {
    /// The targets are (p_hat - 1/2) / beta and (1/2 - p_hat) / beta nats: a smaller beta pushes further. Above 0.
    pub beta: f64,
}

impl EdgeObjective for Sppo {
    /// (s1 - (p_hat - 1/2)/beta)^2 + (s2 - (1/2 - p_hat)/beta)^2, arXiv 2405.00675 (its eta is 1/beta);
    /// at p_hat = 1 TRL's `sppo_hard`.
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
        let target = (p_hat - 0.5) / self.beta;
        let (up, down) = (chosen.log_ratio() - target, rejected.log_ratio() + target);
        EdgeTerm { loss: up * up + down * down, d_chosen: 2.0 * up, d_rejected: 2.0 * down }
    }
}

impl Formula for Sppo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "sppo",
            title: "self-play preference optimization with soft labels",
            paper: "arXiv 2405.00675",
            equation: "(s1 - (p_hat - 1/2)/beta)^2 + (s2 - (1/2 - p_hat)/beta)^2, s = log pi/ref",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over response tokens",
            at_half: "pulls both log-ratios to 0",
            p_hat: true,
            mirrored: true,
            log_odds: false,
            remark: "pulls each side to a log-ratio of its own",
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
