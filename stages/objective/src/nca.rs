//! NCA on pairs, with soft labels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Formula, Terms};
use crate::side::{EdgeObjective, EdgeTerm, Side};
use crate::stable::{sigmoid, softplus};

/// Noise contrastive alignment, pair form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nca {
    /// Strength of the pull towards the reference; above 0.
    pub beta: f64,
}

impl EdgeObjective for Nca {
    /// -p_hat log sigmoid(beta s1) - (1 - p_hat) log sigmoid(beta s2) - 1/2 sum_k log sigmoid(-beta s_k):
    /// arXiv 2402.05369 for two responses with reward weights (p_hat, 1 - p_hat); at p_hat = 1 TRL's `nca_pair`.
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
        let one = |side: &Side, share: f64| {
            let z = self.beta * side.log_ratio();
            (share * softplus(-z) + 0.5 * softplus(z), self.beta * (0.5 * sigmoid(z) - share * sigmoid(-z)))
        };
        let ((a, d_chosen), (b, d_rejected)) = (one(chosen, p_hat), one(rejected, 1.0 - p_hat));
        EdgeTerm { loss: a + b, d_chosen, d_rejected }
    }
}

impl Formula for Nca {
    fn facts() -> &'static Facts {
        &Facts {
            name: "nca",
            title: "noise contrastive alignment, pair form with soft labels",
            paper: "arXiv 2402.05369",
            equation: "-p_hat log sigmoid(beta s1) - (1 - p_hat) log sigmoid(beta s2) - 1/2 (log sigmoid(-beta s1) + log sigmoid(-beta s2))",
            orientation: "swapping the sides and taking 1 - p_hat changes nothing",
            length: "sums over response tokens",
            at_half: "pulls both log-ratios to 0",
            p_hat: true,
            mirrored: true,
            remark: "each side by itself, against noise",
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
