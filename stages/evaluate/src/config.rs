//! The configuration of `evaluate`: its field docs are the manual.

use kit::{Finding, Input, Table};
use lm::{Dtype, Precision};
use objective::Mixture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokens::{Base, RowRules};

use crate::sides::{self, Side};

/// Measures a policy: on held-out pairs, by verdicts on its responses, and against the sandbox's truth.
///
/// Each group of keys is optional; at least one is given. `measure` asks for another measure instead. Intervals are at 95 % and take rows as independent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Held-out pairs: gives `scores`, accuracy and margins. Needs `model`.
    #[serde(default)]
    pub pairs: Option<Input>,
    /// The policy that the pairs are scored with; for the objective `reward` the reward model.
    #[serde(default)]
    pub model: Option<Input>,
    /// The baseline of the policy: the reference model, or a `reference` table of these pairs. Without it margins are
    /// of the policy's own log-probs.
    #[serde(default)]
    pub reference: Option<Input>,
    /// The objective (or a list of objectives) whose loss is computed for each pair, with its knobs as in `train`.
    /// Those that are functions of a whole batch (`rpo`, `aot`, `kto`) have no loss for a pair. Margins are of what it
    /// compares: `jpo` and its kin add the prompt part, `ipo_norm`, `dpo_norm` and its kin (and without a reference
    /// `simpo` and `orpo`) count per token. With `reward` margins are differences of rewards, which are log-odds.
    #[serde(default)]
    pub objective: Option<Mixture>,
    /// With it margins are also read as probabilities, sigmoid(beta margin), and compared with `p_hat`. Without it the
    /// objective's `beta`, where that turns margins into log-odds (not for `ipo`, `hinge`, `sppo` and `orpo`).
    #[serde(default)]
    pub beta: Option<f64>,
    /// Verdicts on the policy's responses against a baseline's: gives win rates. Needs `ties`, and `baseline` or
    /// `policy_side`.
    #[serde(default)]
    pub verdicts: Option<Input>,
    /// The baseline's `responses`: of each verdict the side that is not among them is the policy's. Verdicts where that
    /// is unclear are rejected.
    #[serde(default)]
    pub baseline: Option<Input>,
    /// The side of all verdicts that is the policy's, in place of `baseline`.
    #[serde(default)]
    pub policy_side: Option<Side>,
    /// The points of a tie in `win_rate`: a `win` (GDPO's evaluation), `half` (JPO's) or a `loss` (RPO's).
    #[serde(default)]
    pub ties: Option<Ties>,
    /// The verdicts that count as ties: a `p_hat` of exactly one `half`, which a soft judge gives to equal texts only,
    /// or also verdicts whose `orders_disagree` (JPO's evaluation).
    #[serde(default, skip_serializing_if = "TieWhen::is_default")]
    pub tie_when: TieWhen,
    /// The judge's `rejects`: comparisons that it left without a verdict count as ties, as in RPO's evaluation, where
    /// they are a loss for both sides. Without it they are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<Input>,
    /// Intervals of win rates from this many bootstrap resamples of whole prompts, in place of Wilson's and the normal
    /// ones: for several responses per prompt, whose verdicts are not independent. All rates come from the same
    /// resamples. 2000 are plenty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<u32>,
    /// The judge's labels beside the sandbox's: gives their error and correlation.
    #[serde(default)]
    pub truth: Option<Input>,
    /// The sandbox's utilities of one or several models' responses, the baseline first: gives the mean of each, and
    /// the difference of each later one from the first. Needs `utility_names`.
    #[serde(default)]
    pub utilities: Option<Input>,
    /// A name for each table of `utilities`, such as `[before, after]`.
    #[serde(default)]
    pub utility_names: Vec<String>,
    /// Rules by which pairs become tokens: the same as in the `reference` stage.
    #[serde(default)]
    pub tokens: RowRules,
    /// The precision of matrix products, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Bits of the model's weights, where they are put into few: `{bits: 4}` or `{bits: 8}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Tokens in work at once, prompts and responses together; shared beginnings count once. More needs more memory.
    #[serde(default = "tokens::tokens_per_batch")]
    pub tokens_per_batch: usize,
}

/// The verdicts that count as ties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TieWhen {
    /// A `p_hat` of exactly one half.
    #[default]
    Half,
    /// That, or two orders of presentation that disagree on who is better, as in JPO's evaluation.
    OrdersDisagree,
}

impl TieWhen {
    pub(crate) fn is_default(&self) -> bool {
        *self == TieWhen::Half
    }

    pub(crate) fn note(self) -> &'static str {
        match self {
            TieWhen::Half => "p_hat = 0.5",
            TieWhen::OrdersDisagree => "p_hat = 0.5, or the orders disagree",
        }
    }
}

/// The points of a tie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// A win, as in GDPO's evaluation.
    Win,
    /// Half a win, as in JPO's.
    Half,
    /// A loss, as in RPO's.
    Loss,
}

impl Ties {
    /// The points of a tie; a win has 1, a loss 0.
    pub fn points(self) -> f64 {
        match self {
            Ties::Win => 1.0,
            Ties::Half => 0.5,
            Ties::Loss => 0.0,
        }
    }

    pub(crate) fn note(self) -> &'static str {
        match self {
            Ties::Win => "a tie counts as a win",
            Ties::Half => "a tie counts half",
            Ties::Loss => "a tie counts as a loss",
        }
    }
}

impl Evaluate {
    /// How its model computes.
    pub(crate) fn precision(&self) -> Precision {
        tokens::precision(self.dtype, self.base)
    }

    /// True where prompts are scored too.
    pub(crate) fn prompt_part(&self) -> bool {
        self.objective.as_ref().is_some_and(Mixture::needs_prompt_part)
    }

    /// True where a reward model scores the pairs.
    pub(crate) fn of_rewards(&self) -> bool {
        self.objective.as_ref().is_some_and(Mixture::needs_rewards)
    }

    /// Number of models that score the pairs, `reference` being the table that is given as one.
    pub(crate) fn models(&self, reference: Option<Table>) -> u64 {
        1 + u64::from(reference == Some(Table::Model) && !self.of_rewards())
    }

    /// The factor between margins and rewards, and whether it makes them log-odds.
    pub(crate) fn beta(&self) -> Option<(f64, bool)> {
        let lead = self.objective.as_ref().map(Mixture::lead);
        let given = self.beta.map(|beta| (beta, true));
        given.or_else(|| lead.and_then(|lead| Some((lead.beta()?, lead.margin_is_log_odds()))))
    }

    fn check_verdicts(&self, find: &mut impl FnMut(&str, String)) {
        let (baseline, side) = (self.baseline.is_some(), self.policy_side.is_some());
        if self.verdicts.is_none() {
            for (key, given) in [
                ("baseline", baseline),
                ("policy_side", side),
                ("ties", self.ties.is_some()),
                ("undecided", self.undecided.is_some()),
                ("bootstrap", self.bootstrap.is_some()),
            ] {
                if given {
                    find(key, "without effect: there are no `verdicts`".to_owned());
                }
            }
            return;
        }
        if self.bootstrap.is_some_and(|resamples| resamples < 100) {
            find("bootstrap", "wanted at least 100 resamples: fewer say little of the ends of an interval".to_owned());
        }
        if self.ties.is_none() {
            find("verdicts", "needs `ties`: what a tie counts".to_owned());
        }
        if let Some(finding) = sides::findings(self.baseline.as_ref(), self.policy_side) {
            find(&finding.path.join("."), finding.text);
        }
    }

    fn check_pairs(&self, find: &mut impl FnMut(&str, String)) {
        let given = [
            ("model", self.model.is_some()),
            ("reference", self.reference.is_some()),
            ("objective", self.objective.is_some()),
            ("beta", self.beta.is_some()),
        ];
        if self.pairs.is_none() {
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                find(key, "without effect: there are no `pairs` to score".to_owned());
            }
            return;
        }
        if self.model.is_none() {
            find("pairs", "needs `model`, the policy that scores them".to_owned());
        }
        if let Some(objective) = &self.objective {
            for (key, text) in objective.check() {
                find(format!("objective.{key}").trim_end_matches('.'), text);
            }
            if !objective.separable() {
                let name = objective.name();
                find("objective", format!("`{name}` is a function of a whole batch and has no loss for a pair"));
            }
            if objective.needs_reference() && self.reference.is_none() {
                find("objective", format!("`{}` measures against a reference: give `reference`", objective.name()));
            }
        }
        if let Some(beta) = self.beta.filter(|beta| !(*beta > 0.0 && beta.is_finite())) {
            find("beta", format!("got {beta}, wanted a number above 0"));
        }
        if self.tokens_per_batch == 0 {
            find("tokens_per_batch", "got 0, wanted at least 1".to_owned());
        }
    }
}

impl Evaluate {
    /// Keys with a default that have no effect with these values, each with the reason.
    pub(crate) fn without_effect(&self) -> Vec<Finding> {
        let all = |of: &Option<Input>, keys: &[&str], why: &str| -> Vec<Finding> {
            if of.is_some() { Vec::new() } else { keys.iter().map(|key| Finding::at(key, why)).collect() }
        };
        let pairs = ["tokens", "dtype", "base", "tokens_per_batch"];
        let mut idle = all(&self.pairs, &pairs, "without effect: there are no `pairs` to score");
        idle.extend(all(&self.verdicts, &["tie_when"], "without effect: there are no `verdicts`"));
        idle
    }

    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |key: &str, text: String| findings.push(Finding::at(key, text));
        if [&self.pairs, &self.verdicts, &self.truth, &self.utilities].iter().all(|input| input.is_none()) {
            find("", "needs `pairs` (with `model`), `verdicts`, `truth` or `utilities`".to_owned());
        }
        self.check_pairs(&mut find);
        self.check_verdicts(&mut find);
        match &self.utilities {
            None if !self.utility_names.is_empty() => {
                find("utility_names", "without effect: there are no `utilities`".to_owned());
            }
            Some(utilities) if utilities.0.len() != self.utility_names.len() => {
                let (tables, names) = (utilities.0.len(), self.utility_names.len());
                let key = if names == 0 { "utilities" } else { "utility_names" };
                find(key, format!("{tables} tables and {names} names in `utility_names`; give each table a name"));
            }
            _ => {}
        }
        let mut names = self.utility_names.clone();
        names.sort();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            find("utility_names", "a name stands twice".to_owned());
        }
        findings.extend(self.tokens.findings());
        findings.extend(Base::finding(self.base));
        findings
    }
}
