//! Reward models: the soft Bradley-Terry loss on the difference of two rewards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::formula::{Facts, Finding, Formula, Score, Terms, above_0};
use crate::side::{EdgeObjective, EdgeTerm, Side};
use crate::stable::{sigmoid, softplus};

/// Soft Bradley-Terry: the difference of two rewards becomes the log-odds of the soft label. It trains a reward model,
/// whose reward of a text stands where other objectives have a log-prob.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reward {
    /// Weight of the squared sum of a pair's rewards, above 0: it keeps rewards about 0, which differences of rewards do
    /// not need. Eq. 2 of arXiv 2312.09244, under TRL's name; TRL recommends 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub center_rewards_coefficient: Option<f64>,
}

impl EdgeObjective for Reward {
    /// -p_hat log sigmoid(D) - (1 - p_hat) log sigmoid(-D) + c (r1 + r2)^2, D = r1 - r2.
    fn term(&self, chosen: &Side, rejected: &Side, p_hat: f64) -> EdgeTerm {
        let (margin, sum) = (chosen.policy - rejected.policy, chosen.policy + rejected.policy);
        let center = self.center_rewards_coefficient.unwrap_or(0.0);
        let slope = (1.0 - p_hat) * sigmoid(margin) - p_hat * sigmoid(-margin);
        let pull = 2.0 * center * sum;
        EdgeTerm {
            loss: p_hat * softplus(-margin) + (1.0 - p_hat) * softplus(margin) + center * sum * sum,
            d_chosen: pull + slope,
            d_rejected: pull - slope,
        }
    }
}

impl Formula for Reward {
    fn facts() -> &'static Facts {
        &Facts {
            name: "reward",
            title: "Bradley-Terry loss of a reward model, with soft labels",
            paper: "arXiv 2203.02155, eq. 1, with soft labels",
            equation: "-p_hat log sigmoid(r1 - r2) - (1 - p_hat) log sigmoid(r2 - r1) + c (r1 + r2)^2",
            orientation: "either side first: swapping them with 1 - p_hat changes nothing",
            length: "one number for the whole text",
            at_half: "pulls the difference of rewards to 0",
            reference: false,
            p_hat: true,
            mirrored: true,
            score: Score::Reward,
            joint_pairs: true,
            remark: "trains a reward model: `judge` takes it as `reward`",
            knobs: "",
            ..Facts::OF_PAIRS
        }
    }

    /// A reward is what it is: the difference of two is a log-odds.
    fn beta(&self) -> Option<f64> {
        Some(1.0)
    }

    fn check(&self) -> Vec<Finding> {
        self.center_rewards_coefficient
            .and_then(|value| above_0("center_rewards_coefficient", value))
            .into_iter()
            .collect()
    }

    fn terms(&self) -> Terms<'_> {
        Terms::Edges(self)
    }
}
