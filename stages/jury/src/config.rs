//! The configuration of `jury`: its field docs are the manual.

use kit::{Finding, Input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes one probability of what several annotators and judges say about the same comparisons.
///
/// Each annotator of `votes` and each table of `verdicts` is a source. How far they agree stands in `summary`, what
/// each is like in `annotators`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jury {
    /// Votes, as `ingest` makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Input>,
    /// The comparisons that votes are about, with their texts; matched by the comparison's id. Without it they are
    /// those of `verdicts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparisons: Option<Input>,
    /// Labels of judges about the same comparisons: each table of the list is a source. They are matched by the
    /// comparison's id or by the ids of both sides, and turned where the sides are exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<Input>,
    /// Combination of the sources into one probability.
    pub method: Method,
    /// `beta`: votes added to either side, above 0. 1/2 is Jeffreys' prior, 1 Laplace's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a: Option<f64>,
    /// `dawid_skene`: votes added to each cell of a matrix and to each class, at least 0. 0 is maximum likelihood, 1
    /// keeps annotators with few votes from extremes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<f64>,
    /// Sources to listen to, by name; `*` stands for any letters. The others are as if they had said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
}

/// Combination of the sources into one probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The share of votes for a; ties are half.
    Share,
    /// The same with `a` votes added to either side: (votes for a + ties / 2 + a) / (votes + 2 a).
    Beta,
    /// Dawid and Skene's model: each annotator has a matrix P(vote | truth), found with the truth by EM from the votes
    /// alone. `p_hat` is P(a better) + P(tie) / 2. A vote between counts as the side that it prefers. Without gold it
    /// can be wrong with confidence where many sources err in the same way.
    DawidSkene,
    /// The mean of the sources' probabilities, each source once.
    Mean,
    /// The mean of their log-odds; those of a hard vote are cut at P = 1 - 1e-6.
    MeanLogOdds,
}

impl Method {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Share => "share",
            Method::Beta => "beta",
            Method::DawidSkene => "dawid_skene",
            Method::Mean => "mean",
            Method::MeanLogOdds => "mean_log_odds",
        }
    }
}

impl Jury {
    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.votes.is_none() && self.verdicts.is_none() {
            findings.push(Finding::at("", "it has neither `votes` nor `verdicts` to listen to"));
        }
        if self.votes.is_some() && self.comparisons.is_none() && self.verdicts.is_none() {
            let text =
                "`votes` are about comparisons whose texts stand elsewhere; give these, such as `comparisons: data`";
            findings.push(Finding::at("votes", text));
        }
        self.number(&mut findings, "a", self.a, Method::Beta, "0.5 (Jeffreys), 1 (Laplace)", |a| a > 0.0);
        let wanted = "0 (maximum likelihood), 1 (add one)";
        self.number(&mut findings, "smoothing", self.smoothing, Method::DawidSkene, wanted, |s| s >= 0.0);
        if self.only.as_ref().is_some_and(Vec::is_empty) {
            findings.push(Finding::at("only", "an empty list names no source; leave it out for all sources"));
        }
        findings
    }

    /// A number that one method needs and no other reads.
    fn number(
        &self,
        findings: &mut Vec<Finding>,
        key: &str,
        value: Option<f64>,
        of: Method,
        wanted: &str,
        fits: fn(f64) -> bool,
    ) {
        let (method, name) = (self.method.name(), of.name());
        match value {
            Some(_) if self.method != of => {
                findings.push(Finding::at(key, format!("has no effect with `method: {method}`; `{name}` reads it")));
            }
            Some(value) if !(value.is_finite() && fits(value)) => {
                findings.push(Finding::at(key, format!("got {value}, wanted such as {wanted}")));
            }
            None if self.method == of => {
                findings.push(Finding::at("", format!("`method: {name}` needs `{key}`: {wanted}")));
            }
            _ => {}
        }
    }
}
