//! From two distributions over a scale to one probability.
//!
//! All of it is exactly antisymmetric: with a and b exchanged, p becomes 1 - p to the last bit.

use std::collections::BTreeMap;

use kit::rows::{self, Comparison, ScoredVerdict, SummaryRow, Verdict};
use kit::{Context, Result, RowReader};
use serde::{Deserialize, Serialize};

use crate::labels::log_sum;
use crate::modes::{Criterion, Rating};
use crate::template::AsksFor;

/// The judge's answer to a question about one response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Opinion {
    /// The log-prob of each level, and how many of them are upper bounds.
    Levels(Vec<f64>, u32),
    /// Nothing that is a rating: reason and detail.
    Nothing(String, String),
}

/// Weights of P(a above b) and P(b above a), with a tie as half of each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Balance {
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// `a - b`, by itself, for a and b lose digits in the ties.
    pub(crate) difference: f64,
}

impl Balance {
    /// The balance of two distributions over the same levels, the worst first.
    pub(crate) fn of(a: &[f64], b: &[f64]) -> Balance {
        let above = |one: &[f64], other: &[f64]| {
            let (mut below, mut sum) = (0.0, 0.0);
            for (one, other) in one.iter().zip(other) {
                sum += one * below;
                below += other;
            }
            sum
        };
        let (up, down) = (above(a, b), above(b, a));
        let tie: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        Balance { a: up + 0.5 * tie, b: down + 0.5 * tie, difference: up - down }
    }

    /// The weighted mean over criteria.
    pub(crate) fn mean(parts: impl Iterator<Item = (Balance, f64)>) -> Balance {
        let mut sum = Balance { a: 0.0, b: 0.0, difference: 0.0 };
        let mut weights = 0.0;
        for (part, weight) in parts {
            sum.a += weight * part.a;
            sum.b += weight * part.b;
            sum.difference += weight * part.difference;
            weights += weight;
        }
        Balance { a: sum.a / weights, b: sum.b / weights, difference: sum.difference / weights }
    }

    /// P(a better): the half in [0.5, 1] is computed, and its difference to 1 is exact.
    pub(crate) fn p(self) -> f64 {
        let upper = (0.5 + 0.5 * self.difference.abs()).min(1.0);
        if self.difference >= 0.0 { upper } else { 1.0 - upper }
    }

    /// Its log-odds, also where p rounds to 1; none where a level has no probability at all.
    pub(crate) fn log_odds(self) -> Option<f64> {
        Some(self.a.ln() - self.b.ln()).filter(|z| z.is_finite())
    }
}

/// The row of a rating.
pub(crate) fn row(ids: (&str, &str), criterion: &Criterion, rating: &Rating, opinion: Opinion) -> rows::Rating {
    let empty = rows::Rating {
        prompt_id: ids.0.to_owned(),
        response_id: ids.1.to_owned(),
        criterion: criterion.name.clone(),
        rating: None,
        levels: Vec::new(),
        mass: None,
        bounded: None,
        reason: None,
        detail: None,
    };
    match opinion {
        Opinion::Nothing(reason, detail) => rows::Rating { reason: Some(reason), detail: Some(detail), ..empty },
        Opinion::Levels(logps, bounded) => {
            let all = log_sum(&logps, &(0..logps.len()).collect::<Vec<_>>());
            let levels: Vec<f64> = logps.iter().map(|logp| (logp - all).exp()).collect();
            let mean = levels.iter().zip(rating.values()).map(|(p, value)| p * value).sum();
            let bounded = (bounded > 0).then_some(bounded);
            rows::Rating { rating: Some(mean), levels, mass: Some(all.exp()), bounded, ..empty }
        }
    }
}

/// The finished table of ratings: those of each response by criterion.
pub(crate) struct Ratings {
    by_response: BTreeMap<(String, String), Vec<rows::Rating>>,
}

impl Ratings {
    /// # Errors
    /// When the table cannot be read.
    pub(crate) fn read(context: &Context<'_>) -> Result<Ratings> {
        let mut by_response = BTreeMap::<_, Vec<rows::Rating>>::new();
        for row in RowReader::<rows::Rating>::open(&[&context.port("ratings")])? {
            let row = row?;
            by_response.entry((row.prompt_id.clone(), row.response_id.clone())).or_default().push(row);
        }
        Ok(Ratings { by_response })
    }

    fn of(&self, prompt: &str, response: &str) -> &[rows::Rating] {
        let key = (prompt.to_owned(), response.to_owned());
        self.by_response.get(&key).expect("every response that is compared was rated")
    }

    /// The verdict on a comparison, or the reason and the detail why there is none.
    pub(crate) fn verdict(
        &self,
        rating: &Rating,
        asks_for: AsksFor,
        row: &Comparison,
    ) -> Result<Balance, (String, String)> {
        let a = self.of(&row.a_prompt_id, &row.a_response_id);
        let b = self.of(&row.b_prompt_id, &row.b_response_id);
        for (side, ratings) in [("a", a), ("b", b)] {
            if let Some(one) = ratings.iter().find(|one| one.rating.is_none()) {
                let by = if one.criterion.is_empty() { String::new() } else { format!(" by `{}`", one.criterion) };
                let detail = one.detail.as_deref().unwrap_or_default();
                return Err((one.reason.clone().unwrap_or_default(), format!("side {side}{by}: {detail}")));
            }
        }
        let (better, worse) = match asks_for {
            AsksFor::Better => (a, b),
            AsksFor::Worse => (b, a),
        };
        let parts = rating.questions();
        let parts = parts.iter().zip(better.iter().zip(worse));
        Ok(Balance::mean(parts.map(|(criterion, (a, b))| (Balance::of(&a.levels, &b.levels), criterion.weight))))
    }

    /// Figures of the ratings, criterion by criterion.
    pub(crate) fn summary(&self, rating: &Rating) -> Vec<SummaryRow> {
        let mut summary = Vec::new();
        let mut add = |metric: String, values: &[f64], note: &str| {
            if !values.is_empty() {
                let value = values.iter().sum::<f64>() / values.len() as f64;
                let (rows, note) = (values.len() as u64, note.to_owned());
                summary.push(SummaryRow { metric, value, low: None, high: None, rows, note });
            }
        };
        for (at, criterion) in rating.questions().iter().enumerate() {
            let name = |what: &str| match criterion.name.is_empty() {
                true => format!("rating/{what}"),
                false => format!("rating/{what}/{}", criterion.name),
            };
            let all: Vec<&rows::Rating> = self.by_response.values().filter_map(|rows| rows.get(at)).collect();
            let of = |get: fn(&rows::Rating) -> Option<f64>| all.iter().filter_map(|row| get(row)).collect::<Vec<_>>();
            add(name("mean"), &of(|row| row.rating), "mean level of the rated responses");
            add(name("mass"), &of(|row| row.mass), "probability of all levels together, where there is a rating");
            let missing = of(|row| Some(f64::from(u8::from(row.rating.is_none()))));
            add(name("missing"), &missing, "share of responses without a rating");
        }
        summary
    }
}

/// The row of a verdict.
pub(crate) fn verdict_row(row: &Comparison, balance: Balance, judge: &str, template: &str) -> ScoredVerdict {
    let verdict = Verdict::of(row.clone(), balance.p(), Some(judge.to_owned()));
    let verdict = Verdict { template: Some(template.to_owned()), ..verdict };
    ScoredVerdict { log_odds: balance.log_odds(), ..verdict.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_level_wins_and_equal_levels_are_half() {
        // P(a > b) = 0.5 * 0.25 + 0.3 * (0.25 + 0.5) = 0.35; ties 0.2 * 0.25 + 0.5 * 0.5 + 0.3 * 0.25 = 0.375.
        let balance = Balance::of(&[0.2, 0.5, 0.3], &[0.25, 0.5, 0.25]);
        assert!((balance.p() - (0.35 + 0.1875)).abs() < 1e-15, "{balance:?}");
        let z = (0.5375f64 / 0.4625).ln();
        assert!((balance.log_odds().unwrap() - z).abs() < 1e-14);
        assert_eq!(Balance::of(&[0.1, 0.9], &[0.1, 0.9]).p(), 0.5);
        assert_eq!(Balance::of(&[0.0, 1.0], &[1.0, 0.0]), Balance { a: 1.0, b: 0.0, difference: 1.0 });
        assert_eq!(Balance::of(&[0.0, 1.0], &[1.0, 0.0]).log_odds(), None);
    }

    #[test]
    fn exchanging_a_and_b_gives_exactly_one_minus_p() {
        let of = |seed: u32| -> Vec<f64> {
            let raw: Vec<f64> = (1..6u32).map(|at| f64::from((seed * at * 7919) % 101 + 1)).collect();
            let sum: f64 = raw.iter().sum();
            raw.iter().map(|p| p / sum).collect()
        };
        for seed in 1..60 {
            let (a, b) = (of(seed), of(seed * 31 + 5));
            let (c, d) = (of(seed + 7), of(seed * 3 + 1));
            let one = Balance::mean([(Balance::of(&a, &b), 2.0), (Balance::of(&c, &d), 0.7)].into_iter());
            let other = Balance::mean([(Balance::of(&b, &a), 2.0), (Balance::of(&d, &c), 0.7)].into_iter());
            assert_eq!(other.p(), 1.0 - one.p());
            assert_eq!(other.log_odds(), one.log_odds().map(|z| -z));
            let mean = (2.0 * Balance::of(&a, &b).p() + 0.7 * Balance::of(&c, &d).p()) / 2.7;
            assert!((one.p() - mean).abs() < 1e-14);
        }
    }

    #[test]
    fn log_odds_are_there_where_p_rounds_to_one() {
        let sure = |at: usize| -> Vec<f64> { (0..5).map(|level| if level == at { 1.0 } else { 1e-30 }).collect() };
        let balance = Balance::of(&sure(4), &sure(0));
        assert_eq!(balance.p(), 1.0);
        assert!(balance.log_odds().unwrap() > 60.0);
    }
}
