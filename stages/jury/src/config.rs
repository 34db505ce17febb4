//! The configuration of `jury`: its field docs are the manual.

use kit::{Finding, Input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::folds::Deal;

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
    /// Better labels of some of the comparisons, hard or soft: `verdicts` or `pairs`. They are matched as `verdicts`
    /// are; several of one comparison are averaged. `stack` learns from them; with every method the answer and each
    /// source are held against them, and the figures stand in `summary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<Input>,
    /// `stack`: the ridge, at least 0: half of it times the sum of the squared factors is added to the sum of the
    /// cross-entropies (1 / C of scikit-learn). The factor of `position` is free. 0 adds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ridge: Option<f64>,
    /// `stack`: a term for the difference in length of the two responses: tanh(characters of a less those of b, over
    /// the root mean square of that). `remove` keeps it in the fit and out of the answer, so that a liking of gold for
    /// long responses does not reach the labels; `keep` leaves it in. Without it lengths play no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Term>,
    /// `stack`: a term for the side that stands first, a constant. `remove` keeps it out of the answer. Scores cannot
    /// know the side: what such a term learns there is the balance of sides in this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Term>,
    /// `stack`: folds of the cross-fitting, by prompt, 5 unless given. A comparison whose prompt has gold labels gets
    /// its answer from a fit that saw none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<u32>,
    /// `stack`: how prompts come to their folds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deal: Option<Deal>,
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
    /// A logistic fit of `gold` to the log-odds of the sources, cross-fitted by prompt; those of a hard vote are cut at
    /// P = 1 - 1e-6. What each source adds is shown by leaving it out.
    Stack,
}

/// A term of `stack` beside the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// It is in the fit and in the answer.
    Keep,
    /// It is in the fit and not in the answer.
    Remove,
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
            Method::Stack => "stack",
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
        self.number(&mut findings, "ridge", self.ridge, Method::Stack, "1, or 0 for none", |ridge| ridge >= 0.0);
        if self.method == Method::Stack && self.gold.is_none() {
            findings.push(Finding::at("", "`method: stack` learns from `gold` labels of some comparisons; give them"));
        }
        let settings = [
            ("length", self.length.is_some()),
            ("position", self.position.is_some()),
            ("folds", self.folds.is_some()),
            ("deal", self.deal.is_some()),
        ];
        for (key, _) in settings.iter().filter(|(_, given)| *given && self.method != Method::Stack) {
            let text = format!("has no effect with `method: {}`; `stack` reads it", self.method.name());
            findings.push(Finding::at(key, text));
        }
        if let Some(folds) = self.folds.filter(|folds| *folds < 2) {
            findings.push(Finding::at("folds", format!("got {folds}, wanted at least 2")));
        }
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
