//! From the log-probs of labels in two orders to one probability.
//!
//! All of it is exactly antisymmetric: with a and b exchanged, every probability p becomes 1 - p to the last bit.

use kit::probability::sigmoid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Combination of two orders into one probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Debias {
    /// The mean of the two orders' probabilities, as in GDPO (arXiv 2409.06691, section 4.1).
    Probability,
    /// The mean of the two orders' log-odds: removes exactly a bias that adds a constant to the log-odds of whatever
    /// is shown first.
    Logit,
}

/// The judge's answer in one order of presentation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Log of the probability of the label that says a is better.
    pub logp_a: f64,
    /// Log of the probability of the label that says b is better.
    pub logp_b: f64,
}

impl Answer {
    /// True where both log-probs are finite.
    pub fn is_finite(&self) -> bool {
        self.logp_a.is_finite() && self.logp_b.is_finite()
    }

    /// Log-odds of a, the other tokens left out of account.
    pub fn logit(&self) -> f64 {
        self.logp_a - self.logp_b
    }

    /// P(a better), labels normalised (eq. 16 of arXiv 2409.06691).
    pub fn p(&self) -> f64 {
        sigmoid(self.logit())
    }

    /// Probability of both labels together.
    pub fn mass(&self) -> f64 {
        self.logp_a.exp() + self.logp_b.exp()
    }
}

/// Marks of the log-probs of a verdict that are upper bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// a's label, a shown first.
    pub ab_a: bool,
    /// b's label, a shown first.
    pub ab_b: bool,
    /// a's label, b shown first.
    pub ba_a: bool,
    /// b's label, b shown first.
    pub ba_b: bool,
}

impl Bounds {
    /// The names of those columns, as the column `bounded` has them; nothing where none is.
    pub fn columns(&self) -> Option<String> {
        let named =
            [(self.ab_a, "ab_logp_a"), (self.ab_b, "ab_logp_b"), (self.ba_a, "ba_logp_a"), (self.ba_b, "ba_logp_b")];
        let names: Vec<&str> = named.into_iter().filter(|(bounded, _)| *bounded).map(|(_, name)| name).collect();
        (!names.is_empty()).then(|| names.join(","))
    }
}

/// P(a better) from both orders.
pub fn p_hat(ab: Answer, ba: Answer, debias: Debias) -> f64 {
    match debias {
        Debias::Probability => mean(ab.p(), ba.p()),
        Debias::Logit => sigmoid(0.5 * (ab.logit() + ba.logit())),
    }
}

/// The mean of two probabilities, with mean(1 - p, 1 - q) = 1 - mean(p, q) to the last bit where `1 - p` and `1 - q`
/// come from [`sigmoid`].
fn mean(p: f64, q: f64) -> f64 {
    let a = 0.5 * (p + q);
    let b = 0.5 * ((1.0 - p) + (1.0 - q));
    match a.total_cmp(&b) {
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Less => 1.0 - b,
        std::cmp::Ordering::Equal => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> impl Iterator<Item = Answer> {
        let levels = [-40.0, -7.3, -2.000_000_1, -0.693, -0.1, -1e-9];
        levels.into_iter().flat_map(move |logp_a| levels.map(|logp_b| Answer { logp_a, logp_b }))
    }

    fn swapped(answer: Answer) -> Answer {
        Answer { logp_a: answer.logp_b, logp_b: answer.logp_a }
    }

    #[test]
    fn exchanging_a_and_b_gives_exactly_one_minus_p() {
        for ab in answers() {
            for ba in answers() {
                for debias in [Debias::Probability, Debias::Logit] {
                    let p = p_hat(ab, ba, debias);
                    // The order a first is the order b first for the exchanged pair.
                    assert_eq!(p_hat(swapped(ba), swapped(ab), debias), 1.0 - p, "{ab:?} {ba:?} {debias:?}");
                    assert!((0.0..=1.0).contains(&p));
                }
            }
        }
    }

    #[test]
    fn the_papers_mean_is_of_probabilities() {
        let answer = |p: f64| Answer { logp_a: p.ln(), logp_b: (1.0 - p).ln() };
        let p = p_hat(answer(0.9), answer(0.3), Debias::Probability);
        assert!((p - 0.6).abs() < 1e-12);
        // Labels that got half of the mass only: normalised.
        let half = Answer { logp_a: 0.45f64.ln(), logp_b: 0.05f64.ln() };
        assert!((half.p() - 0.9).abs() < 1e-12 && (half.mass() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_constant_position_offset_is_removed_exactly_in_logit_space() {
        for logit in [-3.0f64, -0.4, 0.0, 1.7] {
            for offset in [-2.0, 0.3, 1.5] {
                let order = |logit: f64| Answer { logp_a: sigmoid(logit).ln(), logp_b: sigmoid(-logit).ln() };
                // The offset favours what is shown first: a in one order, b in the other.
                let p = p_hat(order(logit + offset), order(logit - offset), Debias::Logit);
                assert!((p - sigmoid(logit)).abs() < 1e-6, "{logit} {offset} {p}");
            }
        }
    }

    #[test]
    fn orders_that_contradict_each_other_give_one_half() {
        let sure = Answer { logp_a: -0.01, logp_b: -5.0 };
        assert_eq!(p_hat(sure, swapped(sure), Debias::Probability), 0.5);
        assert_eq!(p_hat(sure, swapped(sure), Debias::Logit), 0.5);
    }
}
