//! The configuration of `evaluate`, and what the engine asks of it.

use std::path::Path;

use kit::rows::{Score, SummaryRow};
use kit::{
    Ahead, Amount, Context, Error, Finding, Forecast, Input, InputPort, Outcome, Outlook, OutputPort, Result, Stage,
    Table,
};
use lm::{Dtype, PromptMismatch, SpecialText, TextRules, TooLong};
use objective::Mixture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pairs::Pairs;
use crate::summary::Summary;
use crate::win_rate::{TieWhen, Ties};
use crate::{ahead, preference, scores, truth, utility, win_rate};

/// Measures a policy: on held-out pairs, by verdicts on its responses, and against the sandbox's truth.
///
/// Each group of keys is optional; at least one is given. Intervals are at 95 % and take rows as independent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Held-out pairs: gives `scores`, accuracy and margins. Needs `model`.
    #[serde(default)]
    pub pairs: Option<Input>,
    /// The policy that the pairs are scored with.
    #[serde(default)]
    pub model: Option<Input>,
    /// What the policy is measured against: the reference model, or a `reference` table of these pairs. Without it
    /// margins are of the policy's own log-probs.
    #[serde(default)]
    pub reference: Option<Input>,
    /// The objective (or a list of objectives) whose loss is computed for each pair, with its knobs as in `train`. Those
    /// that are functions of a whole batch (`rpo`, `aot`, `kto`) have no loss for a pair. Margins are of what it compares:
    /// `jpo` and its kin add the prompt part, `ipo_norm`, `dpo_norm` and its kin (and without a reference `simpo` and
    /// `orpo`) count per token.
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
    /// The baseline's `responses`: of each verdict the side that is not among them is the policy's. Verdicts where
    /// that cannot be told are rejected.
    #[serde(default)]
    pub baseline: Option<Input>,
    /// The side of all verdicts that is the policy's, in place of `baseline`.
    #[serde(default)]
    pub policy_side: Option<Side>,
    /// What a tie counts in `win_rate`: a `win` (GDPO's evaluation), `half` (JPO's) or a `loss` (RPO's).
    #[serde(default)]
    pub ties: Option<Ties>,
    /// What is a tie: a `p_hat` of exactly one `half`, which a soft judge gives to equal texts only, or also verdicts whose
    /// `orders_disagree` (JPO's evaluation).
    #[serde(default, skip_serializing_if = "TieWhen::is_default")]
    pub tie_when: TieWhen,
    /// The judge's `rejects`: comparisons that it left without a verdict count as ties, as in RPO's evaluation, where they
    /// are a loss for both sides. Without it they are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<Input>,
    /// Intervals of win rates from this many bootstrap resamples of whole prompts, in place of Wilson's and the normal
    /// ones: for several responses per prompt, whose verdicts are not independent. 2000 are plenty.
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
    /// Pairs with a sequence longer than the limit: `reject` them, `cut_left` (the prompt's beginning goes, equally
    /// on both sides), or stop with an `error`.
    #[serde(default = "too_long")]
    pub too_long: TooLong,
    /// Text that looks like a special token inside a message: `escape` encodes it as ordinary text, `reject` refuses
    /// the pair, `allow` encodes it as the special token.
    #[serde(default = "special_text")]
    pub special_text: SpecialText,
    /// Rows whose prompt, tokenised by itself, is not what stands before its answer. The last token or two may always
    /// differ, where they merge with the answer's. Where a chat template writes the prompt in another way when an answer
    /// follows: `stop`, or `append` the answer, as the template writes it, to the prompt's own rendering, or `keep` the
    /// whole and score whatever follows the common beginning. `reject` refuses every row whose prompt is not a prefix to
    /// the last token.
    #[serde(default = "on_prefix_mismatch")]
    pub on_prefix_mismatch: PromptMismatch,
    /// Longest sequence in tokens; without it the model's positions.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// The precision of matrix products, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Tokens computed at once. More needs more memory.
    #[serde(default = "tokens_per_batch")]
    pub tokens_per_batch: usize,
}

/// A side of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Side a.
    A,
    /// Side b.
    B,
}

fn too_long() -> TooLong {
    TooLong::Reject
}

fn special_text() -> SpecialText {
    SpecialText::Escape
}

fn on_prefix_mismatch() -> PromptMismatch {
    PromptMismatch::Stop
}

fn tokens_per_batch() -> usize {
    lm::TOKENS_AT_ONCE
}

impl Evaluate {
    pub(crate) fn rules(&self) -> TextRules {
        TextRules {
            special_text: self.special_text,
            too_long: self.too_long,
            on_prefix_mismatch: self.on_prefix_mismatch,
        }
    }

    /// Whether prompts are scored too.
    pub(crate) fn prompt_part(&self) -> bool {
        self.objective.as_ref().is_some_and(Mixture::needs_prompt_part)
    }

    /// What margins are multiplied with for rewards, and whether that makes them log-odds.
    fn beta(&self) -> Option<(f64, bool)> {
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
                ("tie_when", self.tie_when != TieWhen::Half),
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
        if !baseline && !side {
            find(
                "verdicts",
                "needs `baseline` (its `responses`), or `policy_side` where it is always the same".to_owned(),
            );
        } else if baseline && side {
            find("policy_side", "without effect: `baseline` tells the sides apart".to_owned());
        }
    }

    fn check_pairs(&self, find: &mut impl FnMut(&str, String)) {
        let given = [
            ("model", self.model.is_some()),
            ("reference", self.reference.is_some()),
            ("objective", self.objective.is_some()),
            ("beta", self.beta.is_some()),
            ("max_tokens", self.max_tokens.is_some()),
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
        if self.max_tokens == Some(0) {
            find("max_tokens", "got 0, wanted at least 1".to_owned());
        }
        if self.tokens_per_batch == 0 {
            find("tokens_per_batch", "got 0, wanted at least 1".to_owned());
        }
    }
}

impl Stage for Evaluate {
    fn version(&self) -> String {
        format!("3+lm{}+objective{}", lm::VERSION, objective::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let mut inputs = Vec::new();
        inputs.extend(self.pairs.iter().map(|from| InputPort::new("pairs", from, Table::Pairs)));
        inputs.extend(self.model.iter().map(|from| InputPort::new("model", from, Table::Model)));
        inputs.extend(self.reference.iter().map(|from| {
            let input = InputPort::new("reference", from, Table::Reference).or(Table::Model);
            let input = input.shares("dtype", self.dtype.name());
            let fix = "set `prompt_part: true` in the stage that scores the reference";
            if self.prompt_part() { input.needs("prompt_logp").fixed_by(fix) } else { input }
        }));
        inputs.extend(self.verdicts.iter().map(|from| InputPort::new("verdicts", from, Table::Verdicts)));
        inputs.extend(self.baseline.iter().map(|from| InputPort::new("baseline", from, Table::Responses)));
        inputs.extend(self.undecided.iter().map(|from| InputPort::new("undecided", from, Table::Rejects)));
        inputs.extend(self.truth.iter().map(|from| InputPort::new("truth", from, Table::Truth)));
        inputs.extend(self.utilities.iter().map(|from| InputPort::new("utilities", from, Table::Utilities)));
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let mut outputs = vec![OutputPort::new(Table::Summary), OutputPort::new(Table::Rejects)];
        if self.pairs.is_some() {
            outputs.insert(0, OutputPort::new(Table::Scores));
        }
        outputs
    }

    fn check(&self) -> Vec<Finding> {
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
        findings
    }

    fn draws(&self) -> bool {
        self.bootstrap.is_some()
    }

    fn check_model(&self, _key: &str, model: &Path) -> std::result::Result<Option<String>, String> {
        lm::check_decoder(model).map(|usable| usable.no_messages)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        self.pairs.is_some()
    }

    fn forecast(&self, context: &Context<'_>) -> Result<Forecast> {
        let tables = context.count_rows_of(&["verdicts", "truth", "utilities"])?;
        if self.pairs.is_none() {
            return Ok(Forecast::of_rows(Amount::exact(tables)));
        }
        let pairs = Pairs::read(self, context)?;
        let mut notes = vec!["sequences share their prompts, so fewer tokens are computed".to_owned()];
        notes.extend(pairs.displaced_remark());
        notes.extend(pairs.stopped.remark());
        let tokens: u64 = pairs.sides().map(|side| side.sequence.ids.len() as u64).sum();
        let models = 1 + u64::from(context.table_of("reference") == Some(Table::Model));
        Ok(Forecast {
            rows: Amount::exact(pairs.rows + tables),
            tokens: Some(Amount::at_most(tokens * models)),
            too_long: Some(Amount::exact(pairs.too_long)),
            notes,
            ..Forecast::default()
        })
    }

    fn expect(&self, ahead: &Ahead) -> Result<Outlook> {
        Ok(ahead::expect(self, ahead))
    }

    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        let mut summary = Summary::default();
        let mut outcome = Outcome::default();
        let mut rejects = Vec::new();
        if self.pairs.is_some() {
            let pairs = Pairs::read(self, context)?;
            if let Some(text) = pairs.stopped.stop(pairs.rows) {
                return Err(Error::Data(format!("`pairs`: {text}")));
            }
            pairs.displaced_remark().into_iter().for_each(|text| context.warn(text));
            if let Some(objective) = &self.objective {
                let checked = objective.check_forms(pairs.forms, true);
                checked.map_err(|text| Error::Pipeline(format!("`pairs`: {text}")))?;
            }
            let scores = scores::score(self, context, &pairs)?;
            preference::summarise(&scores, self.beta(), &mut summary);
            outcome = outcome.balance("pairs", pairs.rows, scores.len() as u64, pairs.rejects.len() as u64);
            rejects = pairs.rejects;
            let mut writer = context.writer::<Score>("scores")?;
            writer.extend(scores)?;
            writer.finish()?;
        }
        if let (Some(_), Some(ties)) = (&self.verdicts, self.ties) {
            outcome = win_rate::summarise(self, context, ties, &mut summary, &mut rejects, outcome)?;
        }
        if self.truth.is_some() {
            outcome = truth::summarise(context, &mut summary, outcome)?;
        }
        if self.utilities.is_some() {
            outcome = utility::summarise(context, &self.utility_names, &mut summary, outcome)?;
        }
        for row in &summary.rows {
            outcome = outcome.figure(&row.metric, (row.value * 1e6).round() / 1e6);
        }
        for row in summary.headlines() {
            let note = row.note.split(';').next().unwrap_or_default();
            outcome = outcome.headline(&row.metric, row.value, row.low.zip(row.high), note);
        }
        let mut writer = context.writer::<SummaryRow>("summary")?;
        writer.extend(summary.rows)?;
        writer.finish()?;
        context.write_rejects(rejects)?;
        Ok(outcome)
    }
}
