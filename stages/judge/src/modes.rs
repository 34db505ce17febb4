//! The ways to a verdict other than the log-probs of two labels: their settings, which are the manual.

use lm::SamplingRules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rates each response by itself, on a scale: `p_hat` is P(a's level is above b's) + P(they are equal) / 2, the levels of
/// both drawn independently.
///
/// A response is rated once, however many comparisons it stands in. Several criteria are questions of their own; their
/// `p_hat` are combined into the mean, by weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rating {
    /// The levels of the scale, the worst first, each with its spellings: `[["1", " 1"], ["2", " 2"], ["3", " 3"]]`, or
    /// words. A level's probability is the sum over its spellings. An endpoint shows the first token alone: there a
    /// spelling has to be one token.
    pub levels: Vec<Vec<String>>,
    /// The criteria, each a question of its own; without any there is one question. The template sees `criterion` (the
    /// name) and `rubric`, both empty without criteria.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<Criterion>,
}

/// A criterion of a rating.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// Its name, such as `honesty`.
    pub name: String,
    /// The meaning of its levels, in the words that the judge reads.
    #[serde(default)]
    pub rubric: String,
    /// Its weight among the criteria, more than 0.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// Lets the judge reason: in each order it writes several answers, and a pattern finds the verdict in each.
///
/// An order's probability is (k + 1/2) / (n + 1): k of n answers with a verdict prefer a, ties count half. Answers
/// without a verdict are missing. The captured text is looked up in `labels` and `ties`, white space around it left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reasoning {
    /// Answers in each order.
    pub samples: usize,
    /// Divides the logits; 0 takes the most likely token each time.
    pub temperature: f64,
    /// Draws only from the most likely tokens that together have this probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Draws only from so many most likely tokens. For a judge in this process alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Longest answer in tokens, thoughts included. One that is cut off counts if its verdict is there already.
    pub max_tokens: usize,
    /// Texts that end an answer; they are not part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// The regular expression that finds the verdict, such as `\[\[(A|B|C)\]\]`. The group named `verdict` captures it,
    /// else the first group.
    pub pattern: String,
    /// The match that counts, where there are several: the `last` one or the `first`.
    pub take: Take,
    /// Captured texts that stand for a tie, such as `[C]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ties: Vec<String>,
    /// The least share of an order's answers, above 0 to 1, in which a verdict has to be found. A comparison with less is
    /// rejected as `unparsed`.
    #[serde(default = "least_parsed")]
    pub least_parsed: f64,
    /// The marks around thoughts before the answer. The verdict is looked for behind the last closing one; an answer whose
    /// thoughts do not end has none.
    #[serde(default = "think", skip_serializing_if = "is_think")]
    pub think: [String; 2],
}

/// The match of a pattern that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The last one: a judge that weighs both sides names them before it decides.
    Last,
    /// The first one: a judge that decides and then explains.
    First,
}

fn least_parsed() -> f64 {
    0.5
}

fn think() -> [String; 2] {
    ["<think>".to_owned(), "</think>".to_owned()]
}

fn is_think(marks: &[String; 2]) -> bool {
    *marks == think()
}

/// Judges in two steps, as the GDPO paper does (arXiv 2409.06691, appendix F, after arXiv 2309.00267): a rationale is
/// decoded in each order, then an ending is put behind it and the labels' log-probs are read there.
///
/// Question, rationale and ending become tokens together, as one text. For a judge in this process alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rationale {
    /// Divides the logits; 0 takes the most likely token each time.
    pub temperature: f64,
    /// Draws only from the most likely tokens that together have this probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Draws only from so many most likely tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Longest rationale in tokens; one that is cut off is used as it is.
    pub max_tokens: usize,
    /// Texts that end a rationale; they are not part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// The text behind the rationale, such as `"\nPreferred Response="`. A label follows it directly.
    pub ending: String,
}

impl Reasoning {
    /// The rules for one answer.
    pub(crate) fn rules(&self) -> SamplingRules {
        SamplingRules {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
        }
    }
}

impl Rationale {
    /// The rules for a rationale.
    pub(crate) fn rules(&self) -> SamplingRules {
        SamplingRules {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
        }
    }
}

impl Rating {
    /// The criteria; without any, one without a name.
    pub(crate) fn questions(&self) -> Vec<Criterion> {
        match self.criteria.is_empty() {
            true => vec![Criterion { name: String::new(), rubric: String::new(), weight: 1.0 }],
            false => self.criteria.clone(),
        }
    }

    /// The number that each level stands for: its first spelling where all of them are rising numbers, else its place
    /// from 1.
    pub(crate) fn values(&self) -> Vec<f64> {
        let number = |level: &Vec<String>| level.first()?.trim().parse::<f64>().ok().filter(|value| value.is_finite());
        let numbers: Option<Vec<f64>> = self.levels.iter().map(number).collect();
        let rising = numbers.filter(|numbers| numbers.windows(2).all(|pair| pair[0] < pair[1]));
        rising.unwrap_or_else(|| (1..=self.levels.len()).map(|place| place as f64).collect())
    }
}

/// The way to a verdict.
#[derive(Clone, Copy)]
pub(crate) enum Mode<'a> {
    /// The log-probs of two labels.
    Labels,
    Rating(&'a Rating),
    Reasoning(&'a Reasoning),
    Rationale(&'a Rationale),
}
