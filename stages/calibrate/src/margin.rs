//! The log-odds of a verdict, as exactly as its tables hold them.

use std::collections::HashMap;

use kit::rows::{ResponseScore, VerdictLabels};
use kit::{Context, Error, Result};

use crate::fit::{Label, logit};

/// Log-odds of label log-probs stand for a verdict's probability where they give it this exactly.
const SAME: f64 = 1e-9;

/// A verdict and its log-odds.
pub struct Margin {
    /// The verdict; its `p_hat` is a probability.
    pub verdict: VerdictLabels,
    /// Log-odds of P(a better), finite.
    pub z: f64,
    /// P(a better) before: of the scores where they were given, else the verdict's own.
    pub before: f64,
    /// True where they come from a probability of 0 or 1, which has none: cut.
    pub cut: bool,
}

/// Where log-odds come from.
pub struct Margins {
    /// Scores by the bits of prompt and response, where they were given.
    scores: Option<HashMap<[u8; 12], f64>>,
}

impl Margins {
    /// Reads the input `scores`, where there is one.
    ///
    /// # Errors
    /// When a score is no number, or one response has two.
    pub fn read(context: &Context<'_>) -> Result<Margins> {
        if context.sources("scores").is_empty() {
            return Ok(Margins { scores: None });
        }
        let mut scores = HashMap::new();
        for row in context.rows::<ResponseScore>("scores")? {
            let row = row?;
            let Some(score) = row.score else { continue };
            let at = place(row.source_file.as_deref(), row.source_line);
            if !score.is_finite() {
                let id = &row.response_id;
                return Err(Error::data(format!("response `{id}`{at}: `score` is {score}, wanted a finite number")));
            }
            let key = kit::id_bits(&[&row.prompt_id, &row.response_id]);
            if let Some(before) = scores.insert(key, score).filter(|before| *before != score) {
                let id = row.response_id;
                return Err(Error::data(format!(
                    "response `{id}`{at} has two scores in `scores`, {before} and {score}: give one table for each model \
                     that scores, in stages of their own"
                )));
            }
        }
        Ok(Margins { scores: Some(scores) })
    }

    /// All verdicts of the input `verdicts`, in its order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn verdicts(&self, context: &Context<'_>) -> Result<impl Iterator<Item = Result<Margin>>> {
        Ok(context.rows::<VerdictLabels>("verdicts")?.map(|row| self.of(row?)))
    }

    /// The log-odds of a verdict: of its scores, else those that it stores, else of its labels' log-probs, else of its
    /// probability.
    ///
    /// # Errors
    /// When a score is missing, or a label is no probability.
    pub fn of(&self, verdict: VerdictLabels) -> Result<Margin> {
        let at = place(verdict.source_file.as_deref(), verdict.source_line);
        let wrong = |column: &str, value: f64, wanted: &str| {
            let id = &verdict.comparison_id;
            Err(Error::data(format!("verdict `{id}`{at}: `{column}` is {value}, wanted {wanted}")))
        };
        if let Some(scores) = &self.scores {
            let score = |prompt: &str, response: &str| match scores.get(&kit::id_bits(&[prompt, response])) {
                Some(score) => Ok(*score),
                None => Err(Error::data(format!(
                    "verdict `{}`{at}: response `{response}` has no `score` in `scores`; score every response that was \
                     compared, or leave the comparison out",
                    verdict.comparison_id
                ))),
            };
            let a = score(&verdict.a_prompt_id, &verdict.a_response_id)?;
            let z = a - score(&verdict.b_prompt_id, &verdict.b_response_id)?;
            return Ok(Margin { verdict, z, before: Label::of(z).p, cut: false });
        }
        if !(0.0..=1.0).contains(&verdict.p_hat) {
            return wrong("p_hat", verdict.p_hat, "a probability");
        }
        let z = match verdict.log_odds {
            Some(z) if !z.is_finite() => return wrong("log_odds", z, "a finite number"),
            Some(z) => Some(z),
            None => of_labels(&verdict),
        };
        let cut = z.is_none() && (verdict.p_hat == 0.0 || verdict.p_hat == 1.0);
        let z = z.unwrap_or_else(|| logit(verdict.p_hat));
        let before = verdict.p_hat;
        Ok(Margin { verdict, z, before, cut })
    }
}

/// The log-odds of the labels' log-probs, both orders together in the way that gives the verdict's probability; nothing
/// where neither way does.
fn of_labels(row: &VerdictLabels) -> Option<f64> {
    if row.p_hat == 0.5 {
        return Some(0.0);
    }
    let order = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a - b).filter(|z| z.is_finite());
    let (ab, ba) = (order(row.ab_logp_a, row.ab_logp_b), order(row.ba_logp_a, row.ba_logp_b));
    let ways = match (ab, ba) {
        (Some(ab), Some(ba)) => vec![log_odds_of_mean(ab, ba), 0.5 * (ab + ba)],
        (Some(one), None) | (None, Some(one)) => vec![one],
        (None, None) => Vec::new(),
    };
    ways.into_iter().find(|z| (share(*z) - row.p_hat).abs() < SAME)
}

/// The log-odds of the mean of two probabilities given by theirs; exact also where both round to 1.
fn log_odds_of_mean(x: f64, y: f64) -> f64 {
    (share(x) + share(y)).ln() - (share(-x) + share(-y)).ln()
}

/// 1 / (1 + exp(-x)), small ones to full precision.
fn share(x: f64) -> f64 {
    let low = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + low) } else { low / (1.0 + low) }
}

/// A row's place in its file, in brackets.
pub fn place(file: Option<&str>, line: Option<u64>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_probabilities_keeps_its_log_odds_where_it_rounds_to_one() {
        // Both sides ln 3: P = 3/4. Sides ln 3 and 0: P = 5/8, log-odds ln(5/3).
        assert!((log_odds_of_mean(3f64.ln(), 3f64.ln()) - 3f64.ln()).abs() < 1e-15);
        assert!((log_odds_of_mean(3f64.ln(), 0.0) - (5.0f64 / 3.0).ln()).abs() < 1e-15);
        // 1 - P = exp(-50) for both: the probability is 1.0 in double precision.
        assert!((log_odds_of_mean(50.0, 50.0) - 50.0).abs() < 1e-12);
        for (x, y) in [(1.0, -3.0), (40.0, 2.0), (0.3, 0.1)] {
            assert_eq!(log_odds_of_mean(x, y), -log_odds_of_mean(-x, -y));
        }
    }
}
