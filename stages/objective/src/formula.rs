//! Facts: the constant description of an objective, beside its equation.

use crate::batch::Batch;
use crate::error::Result;
use crate::evaluation::{Evaluation, NoStep};
use crate::side::EdgeObjective;

/// The kind of rows an objective is computed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Edges.
    Pairs,
    /// Items with labels.
    Items,
    /// Either.
    Both,
}

impl Reads {
    /// True where pairs are accepted.
    pub fn pairs(self) -> bool {
        self != Reads::Items
    }

    /// True where items are accepted.
    pub fn items(self) -> bool {
        self != Reads::Pairs
    }
}

/// The number of a sequence that margins are differences of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// log pi/ref; without a reference log pi.
    LogRatio,
    /// log pi/ref, divided by the response's tokens.
    LogRatioPerToken,
    /// log pi, divided by the response's tokens. Against a reference such objectives are measured as others are.
    LogProbPerToken,
    /// The number that a reward model gives the whole text.
    Reward,
}

/// Facts about an objective that hold for all values of its knobs, for people and for callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The word in pipeline files.
    pub name: &'static str,
    /// The long name; short ones are taken several times over in this field.
    pub title: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// The loss of one edge or item.
    pub equation: &'static str,
    /// Which side comes first, and what happens when they are swapped.
    pub orientation: &'static str,
    /// Normalisation of log-probs: summed, or divided by length.
    pub length: &'static str,
    /// Effect on an edge of p_hat = 0.5.
    pub at_half: &'static str,
    /// Rows that it is computed on.
    pub reads: Reads,
    /// It measures against a frozen reference.
    pub reference: bool,
    /// It scores the prompt too.
    pub prompt_part: bool,
    /// It looks at the rejected side.
    pub rejected: bool,
    /// The degree of a preference matters, beyond which side is better.
    pub p_hat: bool,
    /// Weights other than 0 and 1 mean something.
    pub weights: bool,
    /// It divides by numbers of tokens.
    pub tokens: bool,
    /// It needs the mismatched sequences of KTO.
    pub mismatched: bool,
    /// Swapping an edge's sides together with p_hat -> 1 - p_hat changes nothing. The others want p_hat >= 0.5.
    pub mirrored: bool,
    /// beta times the margin is a log-odds, so that its sigmoid is P(chosen better). It is not where beta sets a target
    /// or a weight.
    pub log_odds: bool,
    /// The score whose differences are margins.
    pub score: Score,
    /// Pairs of two prompts mean something to it although it does not score prompts.
    pub joint_pairs: bool,
    /// The objective for pairs of two prompts, where it takes pairs of one.
    pub joint_twin: &'static str,
    /// The objective for pairs of one prompt, where it scores prompts.
    pub same_twin: &'static str,
    /// A remark for a reader who meets it first, beside its knobs in a new pipeline file.
    pub remark: &'static str,
    /// The knobs to begin with, as a pipeline file has them.
    pub knobs: &'static str,
    /// Knobs to add to these on items, for one that takes items or pairs by its knobs.
    pub knobs_on_items: &'static str,
}

impl Facts {
    /// Defaults that most objectives share: sums over the response's tokens of both sides of a pair, against a
    /// reference, with hard labels.
    pub(crate) const OF_PAIRS: Facts = Facts {
        name: "",
        title: "",
        paper: "",
        equation: "",
        orientation: "",
        length: "",
        at_half: "",
        reads: Reads::Pairs,
        reference: true,
        prompt_part: false,
        rejected: true,
        p_hat: false,
        weights: true,
        tokens: false,
        mismatched: false,
        mirrored: false,
        log_odds: true,
        score: Score::LogRatio,
        joint_pairs: false,
        joint_twin: "jpo",
        same_twin: "dpo",
        remark: "",
        knobs: "beta: 0.1",
        knobs_on_items: "",
    };
}

/// A finding about a knob: its key and a lowercase fragment.
pub type Finding = (&'static str, String);

impl Facts {
    /// An objective as a new pipeline file has it, on pairs or on items: `{name: gdpo, beta: 0.1}`.
    pub fn yaml(&self, on_items: bool) -> String {
        let more = if on_items { self.knobs_on_items } else { "" };
        let name = format!("name: {}", self.name);
        let parts = [name.as_str(), more, self.knobs].into_iter().filter(|part| !part.is_empty());
        format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
    }
}

/// An objective: its facts, its knobs and its terms.
pub(crate) trait Formula {
    /// Facts that hold for all values of the knobs.
    fn facts() -> &'static Facts
    where
        Self: Sized;

    /// How strongly the reference holds the policy back, above 0; `sft` has none.
    fn beta(&self) -> Option<f64>;

    /// Findings about knobs other than beta.
    fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// The terms of its loss.
    fn terms(&self) -> Terms<'_>;

    /// The rows it is computed on, where that depends on its knobs; else its facts say so.
    fn reads(&self) -> Option<Reads> {
        None
    }

    /// True where the degree of a preference matters; nothing where its facts say so for all knobs.
    fn reads_p_hat(&self) -> Option<bool> {
        None
    }

    /// True where it weighs by the similarity of prompts.
    fn needs_similarities(&self) -> bool {
        false
    }

    /// Checks that it can take an item with this label; else gives the reason.
    fn accepts_label(&self, _label: f64) -> std::result::Result<(), &'static str> {
        Ok(())
    }
}

/// The terms of a loss.
pub(crate) enum Terms<'a> {
    /// A sum over edges.
    Edges(&'a dyn EdgeObjective),
    /// A function of the batch.
    Batch(&'a dyn BatchObjective),
}

/// An objective that is no sum over edges.
pub(crate) trait BatchObjective {
    /// Loss and gradient of a batch, or of a part of one whose denominator is given: see
    /// [`Objective::evaluate_part`](crate::Objective::evaluate_part).
    fn evaluate(&self, batch: &Batch, denominator: f64) -> Result<Evaluation>;

    /// Divisor of the sum of weighted terms.
    fn denominator(&self, batch: &Batch) -> f64 {
        batch.edges.iter().map(|edge| edge.weight).sum()
    }

    /// Why a batch would move nothing.
    fn no_step(&self, batch: &Batch) -> Option<NoStep> {
        (self.denominator(batch) == 0.0).then_some(NoStep::ZeroWeight)
    }

    /// The loss of a term where the policy still equals the reference; nothing where that depends on the model.
    fn value_at_zero(&self) -> Option<f64>;

    /// True where the parts of a batch add up to the whole.
    fn separable(&self) -> bool {
        false
    }
}

/// A finding, where a number is out of range.
pub(crate) fn finding(in_range: bool, key: &'static str, got: f64, wanted: &str) -> Option<Finding> {
    (!in_range).then(|| (key, format!("{got} is out of range, wanted {wanted}")))
}

pub(crate) fn above_0(key: &'static str, value: f64) -> Option<Finding> {
    finding(value > 0.0 && value.is_finite(), key, value, "a number above 0")
}

pub(crate) fn at_least_0(key: &'static str, value: f64) -> Option<Finding> {
    finding(value >= 0.0 && value.is_finite(), key, value, "a number of at least 0")
}
