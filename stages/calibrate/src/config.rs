//! The configuration of `calibrate`: its field docs are the manual.

use kit::{Finding, Input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fit::Method;

/// Corrects a judge's soft labels against gold ones on some of the comparisons.
///
/// A row whose prompt has gold labels is corrected by a fit that saw none of them (the folds are by prompt), the others
/// by the fit to all gold labels. So calibration before and after is compared on rows that the fit has not seen.
///
/// What is corrected are log-odds: the difference of two scores (`scores`), those that a jury stored (`log_odds`), or the
/// difference of the labels' log-probs, nothing cut. Verdicts with a probability alone give its log-odds, cut 1e-12 from 0
/// and 1.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibrate {
    /// The soft labels to correct.
    pub verdicts: Input,
    /// The scores of the responses, in the column `score`: the log-odds of a row are then score of a less score of b, and
    /// its own label is not read. Of a reward model, or of people's marks (`ingest` stores them with `responses`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Input>,
    /// Better labels of some of the comparisons, hard (0 or 1) or soft: `verdicts` (as `ingest` makes them of a file with
    /// two responses and `feedback`, `preference` or `p_hat`), `pairs` (of people's choices), or the sandbox's `truth`.
    /// They are matched by the ids of both sides, or by the comparison's id, and turned where the sides are exchanged.
    /// Several labels of one comparison are averaged. At least 30 comparisons have to match: with fewer, accuracy alone
    /// is uncertain by more than 18 points.
    pub gold: Input,
    /// `temperature` (one factor of the log-odds), `platt` (factor and offset), or `isotonic` (any non-decreasing
    /// curve; wants some hundreds of labels).
    #[serde(default)]
    pub method: Method,
    /// Folds of the cross-fitting, by prompt.
    #[serde(default = "folds")]
    pub folds: u32,
    /// Which prompts make a fold.
    #[serde(default, skip_serializing_if = "Deal::is_default")]
    pub deal: Deal,
    /// Uses at most this many gold labels, drawn; the others are as if they were not there.
    #[serde(default)]
    pub max_gold: Option<u64>,
    /// Bins of the reliability diagram, over [0.5, 1].
    #[serde(default = "bins")]
    pub bins: u32,
}

/// Which prompts make a fold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deal {
    /// Drawn from the seed and the prompt's id.
    #[default]
    Drawn,
    /// In turn: of the prompts with gold labels, in the order of `verdicts`, number k (from 0) is in fold k mod `folds`.
    /// For figures that others can reproduce.
    InTurn,
}

impl Deal {
    fn is_default(&self) -> bool {
        *self == Deal::Drawn
    }
}

fn folds() -> u32 {
    5
}

/// Fewer gold labels are refused: the 95 % interval of a share of one half of 30 reaches 18 points to each side.
pub const FEWEST: u64 = 30;
/// Bins beyond this would each hold a verdict or none.
const MOST_BINS: u32 = 10_000;

fn bins() -> u32 {
    10
}

impl Calibrate {
    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.folds < 2 {
            findings.push(Finding::at("folds", format!("got {}, wanted at least 2", self.folds)));
        }
        if !(1..=MOST_BINS).contains(&self.bins) {
            findings.push(Finding::at("bins", format!("got {}, wanted 1 to {MOST_BINS}", self.bins)));
        }
        if let Some(max) = self.max_gold.filter(|max| *max < FEWEST) {
            let text = format!("got {max}, wanted at least {}: fewer labels teach nothing", FEWEST);
            findings.push(Finding::at("max_gold", text));
        }
        findings
    }
}
