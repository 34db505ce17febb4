//! Scores of responses as probabilities: sigmoid(scale times their difference).

use std::collections::BTreeMap;

use kit::Finding;
use kit::probability::sigmoid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How scores become labels, and which responses to a prompt are compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// P(first better) is sigmoid(`scale` times the difference of the scores), above 0: with 1 a point more is 0.73.
    /// Without it the higher score is the better one, for certain. The scores are kept, so that `calibrate` can find a
    /// better scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Formats with several responses: which of them are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Compared>,
    /// Formats `ranked` and `scored`: the score is the sum of these times their weights. They are fields of a
    /// response's object, with dots inside (`annotations.honesty.Rating`), or columns of its row: criteria, or several
    /// raters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub criteria: BTreeMap<String, f64>,
}

/// Which responses to a prompt are compared. Of equally good ones the first counts as the best or the worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Every two.
    #[default]
    All,
    /// The best and the worst.
    BestWorst,
    /// The best and each of the others.
    BestEach,
}

impl Scores {
    /// The faults of the values.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(scale) = self.scale.filter(|scale| !(*scale > 0.0 && scale.is_finite())) {
            findings.push(Finding::at("scores.scale", format!("got {scale}, wanted a number above 0")));
        }
        for (name, weight) in self.criteria.iter().filter(|(_, weight)| !weight.is_finite() || **weight == 0.0) {
            let text = format!("the weight of `{name}` is {weight}, wanted a number other than 0");
            findings.push(Finding::at("scores.criteria", text));
        }
        if *self == Scores::default() {
            findings.push(Finding::at("scores", "it says nothing; leave it out"));
        }
        findings
    }

    /// P(first better) and its log-odds, by the difference of two scores; certain without a scale.
    pub fn label(&self, difference: f64) -> (f64, Option<f64>) {
        match self.scale {
            Some(scale) => {
                let z = scale * difference;
                (sigmoid(z), Some(z))
            }
            None => (if difference == 0.0 { 0.5 } else { f64::from(u8::from(difference > 0.0)) }, None),
        }
    }

    /// The places of two responses that are compared, by how good all are, the higher the better.
    pub fn compared(&self, worths: &[f64]) -> Vec<(usize, usize)> {
        let count = worths.len();
        let first = |better: fn(f64, f64) -> bool| {
            (0..count).reduce(|best, at| if better(worths[at], worths[best]) { at } else { best })
        };
        let (Some(best), Some(worst)) = (first(|a, b| a > b), first(|a, b| a < b)) else { return Vec::new() };
        let ordered = |a: usize, b: usize| (a.min(b), a.max(b));
        match self.pairs.unwrap_or_default() {
            Compared::All => (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect(),
            // All equally good: any two are.
            Compared::BestWorst if best == worst => (count > 1).then_some((0, 1)).into_iter().collect(),
            Compared::BestWorst => vec![ordered(best, worst)],
            Compared::BestEach => (0..count).filter(|at| *at != best).map(|at| ordered(best, at)).collect(),
        }
    }
}

/// A field of an object, or one inside it where the name has dots.
pub fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    field(object.get(outer)?, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: Compared, worths: &[f64]) -> Vec<(usize, usize)> {
        Scores { pairs: Some(pairs), ..Scores::default() }.compared(worths)
    }

    #[test]
    fn responses_are_compared_by_rule() {
        let worths = [2.0, 5.0, 1.0, 5.0];
        assert_eq!(pairs(Compared::All, &worths), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]);
        assert_eq!(pairs(Compared::BestWorst, &worths), [(1, 2)]);
        assert_eq!(pairs(Compared::BestEach, &worths), [(0, 1), (1, 2), (1, 3)]);
        assert_eq!(pairs(Compared::BestWorst, &[3.0, 3.0, 3.0]), [(0, 1)]);
        for rule in [Compared::All, Compared::BestWorst, Compared::BestEach] {
            assert!(pairs(rule, &[1.0]).is_empty() && pairs(rule, &[]).is_empty());
        }
    }

    #[test]
    fn a_difference_becomes_a_probability() {
        let scores = Scores { scale: Some(0.5), ..Scores::default() };
        // numpy: 1 / (1 + exp(-0.5 * 3)) = 0.8175744761936437
        let (p, z) = scores.label(3.0);
        assert!((p - 0.817_574_476_193_643_7).abs() < 1e-15 && z == Some(1.5));
        assert_eq!(scores.label(-3.0).0, 1.0 - p);
        assert_eq!([2.0, 0.0, -0.1].map(|it| Scores::default().label(it)), [(1.0, None), (0.5, None), (0.0, None)]);
    }

    #[test]
    fn criteria_are_found_inside_objects() {
        let object = serde_json::json!({"a": {"b": {"c": 1}}, "a.b": 2});
        assert_eq!(field(&object, "a.b"), Some(&2.into()));
        assert_eq!((field(&object, "a.b.c"), field(&object, "a.c")), (Some(&1.into()), None));
    }
}
