//! The stage's configuration.

use kit::{Finding, Input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ivf::Lists;

/// Makes comparisons of responses: within a prompt, across prompts, or both.
///
/// Two responses meet at most once. Responses of one prompt with equal texts do not meet, unless `equal_texts: keep`
/// (they are counted). All draws come from the seed and the ids, so the order of the input does not matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// `responses` (a list is read in order).
    pub from: Input,
    /// Comparisons within a prompt: `all`, `{random: n}` for n drawn per prompt, or `{against: ...}`: `best` sets every
    /// response against the one with the highest score (the smallest id of several), `{model: NAME}` against those that
    /// the model NAME wrote, `baseline` against the responses of the input `baseline`.
    #[serde(default)]
    pub within: Option<Within>,
    /// Comparisons across prompts: `{random: n}` sets each prompt against n prompts drawn at random, `{nearest: k}`
    /// against the k prompts with the most similar embeddings (ties by id). For each two prompts that meet one
    /// response of each is drawn; two prompts that choose each other give one comparison.
    #[serde(default)]
    pub joint: Option<Joint>,
    /// The search for the nearest prompts: `exact` sets each prompt against all, `{ivf: {lists: n, probes: m}}` parts
    /// the prompts into n lists by k-means and sets each against those of the m lists nearest to it; the part of the
    /// exact neighbours that it finds is measured, and told. Left out: `exact` below 100000 prompts, `ivf` from there
    /// on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<Neighbours>,
    /// `responses` to compare with, for `within: {against: baseline}`.
    #[serde(default)]
    pub baseline: Option<Input>,
    /// Two responses of one prompt that say the same: `drop` them, for nothing can be learned from them, or `keep`
    /// them, for a contest in which they are ties. A judge that is asked in both orders gives them exactly 1/2.
    #[serde(default, skip_serializing_if = "EqualTexts::is_default")]
    pub equal_texts: EqualTexts,
    /// `embeddings` of the prompts, for `joint: {nearest: k}`.
    #[serde(default)]
    pub embeddings: Option<Input>,
    /// At most this many comparisons per prompt, drawn; a joint one counts for both of its prompts.
    #[serde(default)]
    pub cap_per_prompt: Option<u32>,
    /// At most this many comparisons, drawn.
    #[serde(default)]
    pub budget: Option<u64>,
}

/// Comparisons within a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Within {
    /// Each two responses.
    All,
    /// This many drawn per prompt.
    Random(u32),
    /// Every response against a given one.
    Against(Against),
}

/// The responses that the others are set against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// The one with the highest score.
    Best,
    /// Those of the input `baseline`.
    Baseline,
    /// Those that this model wrote, by the column `model`.
    Model(String),
}

/// Treatment of two responses with equal texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EqualTexts {
    /// They do not meet.
    #[default]
    Drop,
    /// They meet like others.
    Keep,
}

impl EqualTexts {
    fn is_default(&self) -> bool {
        *self == EqualTexts::Drop
    }
}

/// Comparisons across prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Joint {
    /// With this many other prompts, drawn.
    Random(u32),
    /// With this many most similar prompts.
    Nearest(u32),
}

/// The search for the nearest prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Neighbours {
    /// Among all prompts.
    Exact,
    /// Among those of some lists.
    Ivf(Ivf),
}

/// Lists of prompts that are alike (an inverted file).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ivf {
    /// Lists. Left out: the square root of the number of prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lists: Option<u32>,
    /// Lists that are searched for each prompt; more find more of the exact neighbours. Left out: 16. As many as `lists`
    /// find all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,
}

/// Prompts from which on the search is not exact, where nothing is said.
const MANY: u64 = 100_000;
/// Lists that are searched where nothing is said.
const PROBES: usize = 16;

impl Compare {
    /// The lists for so many prompts; none where the search is exact.
    pub(crate) fn lists(&self, prompts: u64) -> Option<Lists> {
        let ivf = match self.neighbours {
            Some(Neighbours::Exact) => return None,
            Some(Neighbours::Ivf(ivf)) => ivf,
            None if prompts < MANY => return None,
            None => Ivf::default(),
        };
        if prompts == 0 {
            return None;
        }
        let lists =
            ivf.lists.map_or_else(|| (prompts as f64).sqrt().round() as u64, u64::from).clamp(1, prompts) as usize;
        Some(Lists { lists, probes: ivf.probes.map_or(PROBES, |probes| probes as usize).min(lists) })
    }

    /// True where the responses of another input are compared with.
    pub(crate) fn has_baseline(&self) -> bool {
        self.within == Some(Within::Against(Against::Baseline))
    }

    /// True where embeddings are read.
    pub(crate) fn needs_embeddings(&self) -> bool {
        matches!(self.joint, Some(Joint::Nearest(_)))
    }

    /// Keys with a default that have no effect with these values, each with the reason.
    pub(crate) fn without_effect(&self) -> Vec<Finding> {
        let text = "without effect: only comparisons `within` a prompt leave equal texts out";
        self.within.is_none().then(|| Finding::at("equal_texts", text)).into_iter().collect()
    }

    /// Findings beyond types and unknown keys.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut wrong = |path: &str, text: &str| findings.push(Finding::at(path, text));
        if self.within.is_none() && self.joint.is_none() {
            wrong("", "compares nothing; say `within: all`, or `joint: {random: 1}`, or both");
        }
        if self.has_baseline() && self.baseline.is_none() {
            wrong("within", "`against: baseline` needs the input `baseline`");
        }
        if self.needs_embeddings() && self.embeddings.is_none() {
            wrong("joint", "`nearest` needs the input `embeddings`; the stage `embed` writes them");
        }
        if self.neighbours.is_some() && !self.needs_embeddings() {
            wrong("neighbours", "without effect: only `joint: {nearest: k}` looks for neighbours");
        }
        let ivf = match self.neighbours {
            Some(Neighbours::Ivf(ivf)) => ivf,
            _ => Ivf::default(),
        };
        if ivf.lists.zip(ivf.probes).is_some_and(|(lists, probes)| probes > lists) {
            wrong("neighbours.ivf.probes", "more than `lists`; as many search all of them");
        }
        for (path, zero) in [
            ("neighbours.ivf.lists", ivf.lists == Some(0)),
            ("neighbours.ivf.probes", ivf.probes == Some(0)),
            ("within.random", self.within == Some(Within::Random(0))),
            ("joint", matches!(self.joint, Some(Joint::Random(0) | Joint::Nearest(0)))),
            ("cap_per_prompt", self.cap_per_prompt == Some(0)),
            ("budget", self.budget == Some(0)),
        ] {
            if zero {
                wrong(path, "0 leaves no comparison");
            }
        }
        findings
    }
}
