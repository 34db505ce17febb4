//! The stage's configuration.

use kit::{Finding, Input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Turns verdicts, or pairs, into training pairs or items.
///
/// The rules work in the order of the fields: labels are disturbed by `noise`, pairs are oriented so that
/// `p_hat >= 0.5`, then ties, thresholds, shape, cap, mix and budget drop rows, then labels and weights are set.
/// Every dropped row is in `rejects` under the first reason that met it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pairs {
    /// `verdicts`, or `pairs` (a list is read in order). Also `items`, which get mismatched responses for KTO: with
    /// `write: items` and `kl_group`, and beside them `weight: given | uniform` and `order`. Their labels stay.
    pub from: Input,
    /// The same two responses seen again: `first` keeps the first row and rejects the later ones (`duplicate`, or
    /// `contradictory` where they favour the other side); `average` gives the first row the mean label of all and
    /// rejects the later ones as `averaged`. A pair of a response with itself is always rejected (`same_response`).
    #[serde(default)]
    pub duplicates: Duplicates,
    /// Disturbs labels on purpose, as though the judge had given them (arXiv 2409.06691, appendix N). Seeded per row.
    #[serde(default)]
    pub noise: Option<Noise>,
    /// `drop` rejects ties (`tie`); `keep` keeps them, the chosen side decided by a digest of the ids where the label
    /// is exactly 1/2.
    #[serde(default)]
    pub ties: Ties,
    /// Labels this close to 1/2 are ties too. Default 0: only exact ties.
    #[serde(default)]
    pub tie_width: Option<f64>,
    /// Rejects labels below this (`below_threshold`), after orientation: in [0.5, 1].
    #[serde(default)]
    pub min_p_hat: Option<f64>,
    /// Rejects labels above this (`above_threshold`), after orientation: in [0.5, 1].
    #[serde(default)]
    pub max_p_hat: Option<f64>,
    /// Shapes the distribution of labels as the GDPO paper does (section 4): `skewed` rejects `p_hat >= 0.8`; `stairs`
    /// keeps labels in [0.65, 0.9) and draws so that counts fall from bin to bin of width 0.05. Reason `shape`.
    #[serde(default)]
    pub shape: Option<Shape>,
    /// At most this many pairs per prompt, drawn; a joint pair counts for both of its prompts. Reason `capped`.
    #[serde(default)]
    pub cap_per_prompt: Option<u32>,
    /// Shares of the forms, such as `{same: 0.5, joint: 0.5}`: as many pairs as the shares allow, drawn. Reason `mix`;
    /// where `budget` leaves room for fewer, `budget`.
    #[serde(default)]
    pub mix: Option<Mix>,
    /// At most this many pairs, drawn. Reason `budget`.
    #[serde(default)]
    pub budget: Option<u64>,
    /// `soft` keeps `p_hat`; `hard` sets it to 1 (after all thresholds) and asks for `ties: drop`.
    #[serde(default)]
    pub labels: Labels,
    /// `given` keeps the weights of pairs and gives verdicts 1; `uniform` gives all 1; `certainty` multiplies the given
    /// weight by `2 p_hat - 1` of the soft label.
    #[serde(default)]
    pub weight: Weights,
    /// `pairs`, or `items`: the chosen side labelled `p_hat` and the rejected side `1 - p_hat` (1 and 0 with
    /// `labels: hard`).
    #[serde(default)]
    pub write: Write,
    /// With `write: items`, a response that stands in several pairs: `mean` (the default) makes one item with the
    /// weighted mean of its labels and the mean of its weights; `separate` makes one item per pair and side.
    #[serde(default)]
    pub repeats: Option<Repeats>,
    /// With `write: items`, for KTO: consecutive rows form groups of this many, and each row gets the response of the
    /// next row of its group that has another prompt (of the next row of the table where the group has none).
    #[serde(default)]
    pub kl_group: Option<u32>,
    /// `id` sorts the output by its id; `input` keeps the order of the rows as they were read.
    #[serde(default)]
    pub order: Order,
}

/// Treatment of two responses that were compared before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// The first row counts.
    #[default]
    First,
    /// The mean label counts.
    Average,
}

/// Disturbance of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// The labels that change, and the change.
    pub kind: NoiseKind,
    /// Probability of a flip, or share of the flipped label: in [0, 1].
    pub rate: f64,
}

/// Kinds of noise of arXiv 2409.06691, appendix N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoiseKind {
    /// Flips the binary label with probability `rate`; asks for `labels: hard`.
    BFlip,
    /// `p_hat -> 1 - p_hat` with probability `rate`; asks for `labels: soft`.
    SFlip,
    /// `p_hat -> (1 - rate) p_hat + rate (1 - p_hat)` for every row; asks for `labels: soft`.
    SAve,
}

/// Treatment of ties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// They stay.
    #[default]
    Keep,
    /// They are rejected.
    Drop,
}

/// Distributions of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// No label of 0.8 or more.
    Skewed,
    /// Counts fall over the five bins of [0.65, 0.9).
    Stairs,
}

/// Shares of the forms of pairs; they add up to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Share of pairs of one prompt.
    pub same: f64,
    /// Share of pairs across prompts.
    pub joint: f64,
}

/// Soft or hard labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// The probability.
    #[default]
    Soft,
    /// 1 for the side that the probability favours.
    Hard,
}

/// Source of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// From the data; 1 for verdicts.
    #[default]
    Given,
    /// 1.
    Uniform,
    /// The given weight times `2 p_hat - 1`.
    Certainty,
}

/// Rows that the stage writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// The table `pairs`.
    #[default]
    Pairs,
    /// The table `items`.
    Items,
}

/// Treatment of a response that stands in several pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Repeats {
    /// One item with the mean label.
    Mean,
    /// One item per pair and side.
    Separate,
}

/// The order of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// By `pair_id` or `item_id`.
    #[default]
    Id,
    /// As read.
    Input,
}

impl Pairs {
    /// Findings beyond types and unknown keys.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut wrong = |path: &str, text: String| findings.push(Finding::at(path, text));
        for (key, value, low, high) in [
            ("tie_width", self.tie_width, 0.0, 0.5),
            ("min_p_hat", self.min_p_hat, 0.5, 1.0),
            ("max_p_hat", self.max_p_hat, 0.5, 1.0),
            ("noise.rate", self.noise.as_ref().map(|noise| noise.rate), 0.0, 1.0),
            ("mix.same", self.mix.as_ref().map(|mix| mix.same), 0.0, 1.0),
            ("mix.joint", self.mix.as_ref().map(|mix| mix.joint), 0.0, 1.0),
        ] {
            if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
                wrong(key, format!("{value} is outside [{low}, {high}]"));
            }
        }
        if let (Some(low), Some(high)) = (self.min_p_hat, self.max_p_hat)
            && low > high
        {
            wrong("min_p_hat", format!("{low} is above `max_p_hat`, {high}: no label is left"));
        }
        if self.tie_width.is_some() && self.ties == Ties::Keep {
            wrong("tie_width", "has no effect with `ties: keep`; say `ties: drop`".to_owned());
        }
        if let Some(mix) = &self.mix
            && (mix.same + mix.joint - 1.0).abs() > 1e-9
        {
            wrong("mix", format!("the shares add up to {}, not to 1", mix.same + mix.joint));
        }
        if self.labels == Labels::Hard && self.ties == Ties::Keep {
            wrong("labels", "a tie has no hard label; say `ties: drop`".to_owned());
        }
        match self.noise.as_ref().map(|noise| noise.kind) {
            Some(NoiseKind::BFlip) if self.labels == Labels::Soft => {
                wrong("noise.kind", "`b_flip` flips binary labels; say `labels: hard`, or use `s_flip`".to_owned());
            }
            Some(NoiseKind::SFlip | NoiseKind::SAve) if self.labels == Labels::Hard => {
                wrong("noise.kind", "disturbs soft labels; say `labels: soft`, or use `b_flip`".to_owned());
            }
            _ => {}
        }
        for (key, zero) in [("cap_per_prompt", self.cap_per_prompt == Some(0)), ("budget", self.budget == Some(0))] {
            if zero {
                wrong(key, "0 leaves no pair; leave the key out for no limit".to_owned());
            }
        }
        if self.write == Write::Pairs {
            for (key, given) in [("repeats", self.repeats.is_some()), ("kl_group", self.kl_group.is_some())] {
                if given {
                    wrong(key, "has no effect with `write: pairs`; say `write: items`".to_owned());
                }
            }
        } else if self.kl_group.is_some_and(|group| group < 2) {
            wrong("kl_group", "a group needs at least 2 rows to mismatch responses".to_owned());
        }
        findings
    }

    /// The settings given that are about two responses, which items are not.
    pub(crate) fn rules_for_two(&self) -> Vec<&'static str> {
        let given = [
            ("duplicates", self.duplicates != Duplicates::First),
            ("noise", self.noise.is_some()),
            ("ties", self.ties != Ties::Keep),
            ("min_p_hat", self.min_p_hat.is_some()),
            ("max_p_hat", self.max_p_hat.is_some()),
            ("shape", self.shape.is_some()),
            ("cap_per_prompt", self.cap_per_prompt.is_some()),
            ("mix", self.mix.is_some()),
            ("budget", self.budget.is_some()),
            ("labels", self.labels != Labels::Soft),
            ("weight: certainty", self.weight == Weights::Certainty),
            ("repeats", self.repeats.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }
}
