//! The side of a verdict that is the policy's.

use std::collections::HashSet;

use kit::rows::{Reject, ResponseScore, VerdictLabels};
use kit::{Context, Finding, Input, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A side of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Side a.
    A,
    /// Side b.
    B,
}

/// The policy's side of each verdict.
pub(crate) enum Sides {
    /// Always the same.
    Fixed(Side),
    /// The one that is not among these: the bits of (prompt id, response id).
    NotOf(HashSet<[u8; 12]>),
}

impl Sides {
    /// From the setting, or from the input `baseline`.
    pub(crate) fn read(context: &Context<'_>, fixed: Option<Side>) -> Result<Sides> {
        if let Some(side) = fixed {
            return Ok(Sides::Fixed(side));
        }
        let baseline = context.rows::<ResponseScore>("baseline")?;
        let ids = baseline.map(|row| row.map(|row| kit::id_bits(&[row.prompt_id, row.response_id])));
        Ok(Sides::NotOf(ids.collect::<Result<_>>()?))
    }

    /// The policy's side, or the reason why it is unclear.
    pub(crate) fn of(&self, row: &VerdictLabels) -> Result<Side, &'static str> {
        let baseline = match self {
            Sides::Fixed(side) => return Ok(*side),
            Sides::NotOf(baseline) => baseline,
        };
        if (&row.a_prompt_id, &row.a_response_id) == (&row.b_prompt_id, &row.b_response_id) {
            // The policy says what the baseline says: either side is its.
            return Ok(Side::A);
        }
        let a = baseline.contains(&kit::id_bits(&[&row.a_prompt_id, &row.a_response_id]));
        let b = baseline.contains(&kit::id_bits(&[&row.b_prompt_id, &row.b_response_id]));
        match (a, b) {
            (false, true) => Ok(Side::A),
            (true, false) => Ok(Side::B),
            (true, true) => Err("both responses are among the baseline's, so either may be the policy's"),
            (false, false) => Err("neither response is among the baseline's"),
        }
    }
}

/// Findings about the two ways to name the policy's side of `verdicts`, one of which has to be given.
pub(crate) fn findings(baseline: Option<&Input>, side: Option<Side>) -> Option<Finding> {
    match (baseline, side) {
        (None, None) => Some(Finding::at(
            "verdicts",
            "needs `baseline` (its `responses`), or `policy_side` where it is always the same",
        )),
        (Some(_), Some(_)) => Some(Finding::at("policy_side", "without effect: `baseline` names the sides")),
        _ => None,
    }
}

/// A verdict that is left out.
pub(crate) fn reject(row: VerdictLabels, reason: &str, detail: &str) -> Reject {
    Reject {
        input: "verdicts".to_owned(),
        row_id: row.comparison_id,
        reason: reason.to_owned(),
        detail: detail.to_owned(),
        source_file: row.source_file,
        source_line: row.source_line,
    }
}

/// P(the policy's response better), checked to be a probability.
pub(crate) fn policys(row: &VerdictLabels, side: Side) -> Result<f64> {
    let p = probability("p_hat", &row.comparison_id, (&row.source_file, row.source_line), row.p_hat)?;
    Ok(if side == Side::A { p } else { 1.0 - p })
}

/// A number in [0, 1], or the error that names its place.
pub(crate) fn probability(
    column: &str,
    comparison: &str,
    (file, line): (&Option<String>, Option<u64>),
    got: f64,
) -> Result<f64> {
    if (0.0..=1.0).contains(&got) {
        return Ok(got);
    }
    let place = file.as_ref().map(|file| line.map_or(file.clone(), |line| format!("{file}:{line}")));
    let place = place.map_or(String::new(), |place| format!(" ({place})"));
    Err(kit::Error::data(format!("comparison `{comparison}`{place}: `{column}` is {got}, wanted a number in [0, 1]")))
}
