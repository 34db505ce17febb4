//! Texts that a judge writes, and the verdict that several of them come to.

use kit::rows::{Comparison, JudgeAnswer, SummaryRow, Verdict};
use kit::{Context, Result, RowReader, wilson};
use serde::{Deserialize, Serialize};

use crate::modes::Reasoning;
use crate::pattern::{Named, Pattern};
use crate::template::AsksFor;
use crate::verdict::Answer;

/// A text of the judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) thoughts: Option<String>,
    /// None where the thoughts do not end.
    pub(crate) text: Option<String>,
    /// Its length, where it is known.
    pub(crate) tokens: Option<u32>,
    /// Its end: `eos`, `stop` or `length`.
    pub(crate) finish: Option<String>,
}

/// An order of presentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// a first.
    Ab,
    /// b first.
    Ba,
}

impl Order {
    /// Its word in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Order::Ab => "ab",
            Order::Ba => "ba",
        }
    }

    /// Its words in messages.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Order::Ab => "a first",
            Order::Ba => "b first",
        }
    }

    /// The side that is first or second here, as P(a better).
    pub(crate) fn p(self, named: Named, asks_for: AsksFor) -> f64 {
        let first_is_better = match (named, asks_for) {
            (Named::Tie, _) => return 0.5,
            (Named::First, AsksFor::Better) | (Named::Second, AsksFor::Worse) => true,
            (Named::Second, AsksFor::Better) | (Named::First, AsksFor::Worse) => false,
        };
        f64::from(u8::from(first_is_better == (self == Order::Ab)))
    }
}

/// The row of a text; `p` is P(a better) by it.
pub(crate) fn row(
    comparison: &Comparison,
    order: Order,
    sample: usize,
    written: &Written,
    p: Option<f64>,
) -> JudgeAnswer {
    JudgeAnswer {
        comparison_id: comparison.comparison_id.clone(),
        order: order.name().to_owned(),
        sample: sample as u32,
        p,
        thoughts: written.thoughts.clone(),
        text: written.text.clone().unwrap_or_default(),
        tokens: written.tokens,
        finish: written.finish.clone(),
    }
}

/// The verdicts in the answers of an order, as P(a better) each.
pub(crate) fn verdicts(
    pattern: &Pattern<'_>,
    order: Order,
    asks_for: AsksFor,
    answers: &[Written],
) -> Vec<Option<f64>> {
    let of = |answer: &Written| Some(order.p(pattern.read(answer.text.as_deref()?)?, asks_for));
    answers.iter().map(of).collect()
}

/// An order's probability (k + 1/2) / (n + 1) as an [`Answer`], or why there is none.
pub(crate) fn counted(reasoning: &Reasoning, order: Order, verdicts: &[Option<f64>]) -> Result<Answer, String> {
    let (parsed, all) = (verdicts.iter().flatten().count() as f64, verdicts.len());
    let least = reasoning.least_parsed * all as f64;
    if parsed == 0.0 || parsed < least {
        return Err(format!(
            "{}: a verdict was found in {parsed} of {all} answers, `least_parsed: {}`",
            order.shown(),
            reasoning.least_parsed
        ));
    }
    let a: f64 = verdicts.iter().flatten().sum();
    let b: f64 = verdicts.iter().flatten().map(|p| 1.0 - p).sum();
    let share = |count: f64| (count + 0.5).ln() - (parsed + 1.0).ln();
    Ok(Answer { logp_a: share(a), logp_b: share(b) })
}

/// A verdict that counts answers: it has no log-probs of labels.
pub(crate) fn without_log_probs(row: Verdict) -> Verdict {
    Verdict { ab_logp_a: None, ab_logp_b: None, ab_mass: None, ba_logp_a: None, ba_logp_b: None, ba_mass: None, ..row }
}

/// Figures of the finished table `answers`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn summary(context: &Context<'_>) -> Result<Vec<SummaryRow>> {
    let (mut all, mut parsed, mut cut, mut ties, mut tokens, mut counted) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    for row in RowReader::<JudgeAnswer>::open(&[&context.port("answers")])? {
        let row = row?;
        all += 1;
        parsed += u64::from(row.p.is_some());
        ties += u64::from(row.p == Some(0.5));
        cut += u64::from(row.finish.as_deref() == Some("length"));
        tokens += row.tokens.map_or(0, u64::from);
        counted += u64::from(row.tokens.is_some());
    }
    let share = |metric: &str, part: u64, of: u64, note: &str| {
        let interval = wilson(part as f64 / of as f64, of);
        SummaryRow {
            metric: metric.to_owned(),
            value: part as f64 / of as f64,
            low: interval.map(|it| it.0),
            high: interval.map(|it| it.1),
            rows: of,
            note: format!("{note}; Wilson interval"),
        }
    };
    let mut rows = Vec::new();
    if all > 0 {
        rows.push(share("answers/parsed", parsed, all, "answers with a verdict"));
        rows.push(share("answers/truncated", cut, all, "answers that `max_tokens` cut off"));
    }
    if parsed > 0 {
        rows.push(share("answers/ties", ties, parsed, "answers with a verdict that prefer neither side"));
    }
    if counted > 0 {
        rows.push(SummaryRow {
            metric: "answers/tokens".to_owned(),
            value: tokens as f64 / counted as f64,
            low: None,
            high: None,
            rows: counted,
            note: "mean length in tokens, thoughts included".to_owned(),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::verdict::{Debias, p_hat};

    fn reasoning(least_parsed: f64) -> Reasoning {
        serde_json::from_value(json!({"samples": 4, "temperature": 1.0, "max_tokens": 9, "pattern": "(A|B)",
            "take": "last", "least_parsed": least_parsed}))
        .unwrap()
    }

    #[test]
    fn the_share_is_smoothed_ties_are_half_and_missing_ones_do_not_count() {
        let p = |verdicts: &[Option<f64>]| counted(&reasoning(0.25), Order::Ab, verdicts).map(|answer| answer.p());
        let (a, b, tie) = (Some(1.0), Some(0.0), Some(0.5));
        assert!((p(&[a, a, a, a]).unwrap() - 4.5 / 5.0).abs() < 1e-15);
        assert!((p(&[a, b, tie, None]).unwrap() - 2.0 / 4.0).abs() < 1e-15);
        assert!((p(&[b, None, None, None]).unwrap() - 0.5 / 2.0).abs() < 1e-15);
        assert!(p(&[None; 4]).unwrap_err().starts_with("a first: a verdict was found in 0 of 4 answers"));
        let few = counted(&reasoning(0.75), Order::Ba, &[a, a, None, None]).unwrap_err();
        assert_eq!(few, "b first: a verdict was found in 2 of 4 answers, `least_parsed: 0.75`");
    }

    #[test]
    fn exchanging_a_and_b_gives_exactly_one_minus_p() {
        let reasoning = reasoning(0.1);
        for (k, n) in (1..12).flat_map(|n| (0..=2 * n).map(move |k| (k, n))) {
            // k halves of n answers.
            let verdicts: Vec<Option<f64>> = (0..n).map(|at| Some(f64::from((k - 2 * at).clamp(0, 2)) / 2.0)).collect();
            let mirrored: Vec<Option<f64>> = verdicts.iter().map(|p| p.map(|p| 1.0 - p)).collect();
            let (one, other) = (counted(&reasoning, Order::Ab, &verdicts), counted(&reasoning, Order::Ba, &mirrored));
            let (one, other) = (one.unwrap(), other.unwrap());
            for debias in [Debias::Probability, Debias::Logit] {
                let third = counted(&reasoning, Order::Ba, &[Some(1.0), Some(0.5)]).unwrap();
                let turned = counted(&reasoning, Order::Ab, &[Some(0.0), Some(0.5)]).unwrap();
                assert_eq!(p_hat(turned, other, debias), 1.0 - p_hat(one, third, debias));
            }
        }
    }

    #[test]
    fn the_side_follows_from_the_order_and_from_what_is_asked_for() {
        use AsksFor::{Better, Worse};
        for (order, named, asks_for, p) in [
            (Order::Ab, Named::First, Better, 1.0),
            (Order::Ab, Named::Second, Better, 0.0),
            (Order::Ba, Named::First, Better, 0.0),
            (Order::Ba, Named::Second, Better, 1.0),
            (Order::Ab, Named::First, Worse, 0.0),
            (Order::Ba, Named::First, Worse, 1.0),
            (Order::Ba, Named::Tie, Worse, 0.5),
        ] {
            assert_eq!(order.p(named, asks_for), p, "{order:?} {named:?} {asks_for:?}");
        }
    }
}
