//! The hinge loss of RSO (SLiC with a reference).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Terms};
use crate::side::{MarginObjective, Slope};

/// Hinge on the margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hinge {
    /// The margin at which the pull ends is 1 / beta nats; above 0.
    pub beta: f64,
}

impl MarginObjective for Hinge {
    /// max(0, 1 - beta Delta), arXiv 2309.06657.
    fn at(&self, margin: f64, _p_hat: f64) -> Slope {
        let room = 1.0 - self.beta * margin;
        Slope { loss: room.max(0.0), slope: if room > 0.0 { -self.beta } else { 0.0 } }
    }
}

impl Formula for Hinge {
    fn facts() -> &'static Facts {
        &Facts {
            name: "hinge",
            title: "hinge loss of RSO (SLiC with a reference)",
            paper: "arXiv 2309.06657",
            equation: "max(0, 1 - beta D)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "sums over response tokens",
            at_half: "still pushes the margin to 1/beta",
            log_odds: false,
            remark: "pushes to a margin of 1 / beta",
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
