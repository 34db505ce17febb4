//! ORPO: likelihood of the chosen side and the odds between the sides, without a reference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Score, Terms};
use crate::side::{EdgeObjective, EdgeTerm, Side};
use crate::stable::{log_one_minus_exp, sigmoid, softplus};

/// Odds ratio preference optimization.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Orpo {
    /// Weight of the odds-ratio term (the paper's lambda); above 0.
    pub beta: f64,
}

impl EdgeObjective for Orpo {
    /// -m1 - beta log sigmoid(odds(m1) - odds(m2)), m = log pi / tokens, odds(m) = m - log(1 - e^m), eq. 6 of
    /// arXiv 2403.07691. The likelihood is over the response's tokens (TRL's counts the prompt too).
    fn term(&self, chosen: &Side, rejected: &Side, _p_hat: f64) -> EdgeTerm {
        let log_odds = |mean: f64| mean - log_one_minus_exp(mean);
        let d_log_odds = |mean: f64| -1.0 / mean.exp_m1();
        let (up, down) = (chosen.mean(), rejected.mean());
        let z = log_odds(up) - log_odds(down);
        let slope = -self.beta * sigmoid(-z);
        EdgeTerm {
            loss: self.beta * softplus(-z) - up,
            d_chosen: (slope * d_log_odds(up) - 1.0) / chosen.tokens,
            d_rejected: -slope * d_log_odds(down) / rejected.tokens,
        }
    }
}

impl Formula for Orpo {
    fn facts() -> &'static Facts {
        &Facts {
            name: "orpo",
            title: "odds ratio preference optimization (no reference)",
            paper: "arXiv 2403.07691, eq. 6",
            equation: "-m1 - beta log sigmoid(odds(m1) - odds(m2)), m = log pi per token, odds(m) = m - log(1 - e^m)",
            orientation: "chosen first; the soft label is taken as certain",
            length: "means over response tokens",
            at_half: "still pushes the chosen side up",
            reference: false,
            tokens: true,
            log_odds: false,
            score: Score::LogProbPerToken,
            remark: "odds ratios, no reference",
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
