//! The configuration of `judge`: its field docs are the manual.

use endpoint::Endpoint;
use kit::{Error, Finding, Input};
use lm::{Dtype, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokens::{Base, QuestionRules, TokensPerBatch};

use crate::completion::Completion;
use crate::labels::Labels;
use crate::modes::{Mode, Rating, Rationale, Reasoning};
use crate::protocol::OneToken;
use crate::template::{AsksFor, Form, Task, Template};
use crate::verdict::Debias;

/// Asks a language model which side of each comparison is better and keeps the probabilities, not the verdict.
///
/// Each comparison is asked twice, with either side shown first. The answer is read from the log-probs of the labels, and
/// nothing is generated; with `rating`, `reasoning` or `rationale` in other ways.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The comparisons to judge.
    pub comparisons: Input,
    /// The judge: a decoder folder in the Hugging Face format, or a GGUF file with its `tokenizer.json` and chat
    /// template beside it, of a family in `stages/lm/README.md`. Either this or `endpoint`.
    #[serde(default)]
    pub model: Option<Input>,
    /// The judge behind an OpenAI-compatible endpoint, in place of `model`.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// Rates each response by itself on a scale, in place of comparing two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<Rating>,
    /// Lets the judge write several answers in each order, in which a pattern finds the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// Lets the judge write a rationale in each order, behind which the labels' log-probs are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rationale: Option<Rationale>,
    /// A reward model as judge, in place of `model`: a `...ForSequenceClassification` folder with one output, or the
    /// `policy` of a `train` stage with the objective `reward`. Each response is scored once, under the model's own chat
    /// template; the difference of two scores is the log-odds of a verdict. There is no question, no label and no order
    /// of presentation, so their keys are findings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<Input>,
    /// `reward` alone: p_hat = sigmoid(scale (score of a - score of b)); above 0, without it 1, which is the probability
    /// that a reward model is trained to give. `calibrate` fits it to gold labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The question for comparisons under one prompt: `helpful`, `harmless`, `harmful` (asks for the more harmful
    /// one), `summary`, or the path of a minijinja file (with a `/` in it). With `rating`: `helpful-rating`; with
    /// `reasoning`: `helpful-reasoning`; with `rationale`: `helpful-rationale`, `summary-rationale`.
    ///
    /// A template sees the text of `prompt`, `a`, `b`, `a_prompt` and `b_prompt`, and the same with `_messages` at
    /// the end as lists of `role` and `content`; `a` is what is shown first. `form` is `chat` or `text`. With `rating`
    /// it sees `prompt`, `response`, `criterion`, `rubric` and `levels`.
    #[serde(default)]
    pub template: Option<String>,
    /// The question for joint comparisons, each side under its own prompt: `helpful-joint`, `harmless-joint`,
    /// `summary-joint`, or the path of a minijinja file. It sees `a_prompt` and `b_prompt`, not `prompt`.
    #[serde(default)]
    pub joint_template: Option<String>,
    /// The side that a template from a file asks for: the `better` side (so it is without this key), or the `worse`
    /// one.
    #[serde(default)]
    pub asks_for: Option<AsksFor>,
    /// `chat`: the question becomes a user message under the judge's chat template. `text`: it stands alone and the
    /// label follows it directly.
    #[serde(default = "form")]
    pub form: Form,
    /// The spellings of the two labels. With `reasoning` they are the words for a verdict.
    #[serde(default)]
    pub labels: Labels,
    /// Combination of the two orders into one probability: `probability` (the mean of both, as in the GDPO paper) or
    /// `logit` (the mean of their log-odds). Needed with `orders: both`, unless there is a `rating`.
    #[serde(default)]
    pub debias: Option<Debias>,
    /// `both` orders, or `one`: a first only, with whatever bias for the first place the judge has.
    #[serde(default = "orders")]
    pub orders: Orders,
    /// The least probability, 0 to 1, that both labels, or the levels of a `rating`, get together in each order. A
    /// comparison with less has no verdict: it is rejected as `low_label_mass` with the token that the judge would rather
    /// begin with.
    #[serde(default = "least_mass")]
    pub least_mass: f64,
    /// The largest share of comparisons, 0 to 1, that may have no verdict because the labels get less than
    /// `least_mass`, are not among an endpoint's alternatives at all, or because too few answers have a verdict; beyond it
    /// the stage stops. With `rating` also the share of responses without one.
    #[serde(default = "max_low_mass")]
    pub max_low_mass: f64,
    /// Rules by which questions become tokens. For a judge in this process alone: an endpoint makes the tokens itself.
    #[serde(default)]
    pub tokens: QuestionRules,
    /// The precision of matrix products, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Bits of the model's weights, where they are put into few: `{bits: 4}` or `{bits: 8}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Tokens in work at once, prompts and responses together; shared beginnings count once. More needs more memory.
    /// Left out, 4096 on a processor and 16384 on a GPU; 4096 everywhere for a judge that rates, reasons or explains.
    #[serde(default)]
    #[schemars(with = "usize")]
    pub tokens_per_batch: TokensPerBatch,
    /// Comparisons in a shard, at least, which is committed as one file; a kill costs the batch in work.
    #[serde(default = "shard_rows")]
    pub shard_rows: usize,
}

/// The orders of presentation that are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Orders {
    /// a first, and b first.
    Both,
    /// a first only.
    One,
}

fn form() -> Form {
    Form::Chat
}

fn orders() -> Orders {
    Orders::Both
}

pub(crate) fn least_mass() -> f64 {
    0.05
}

pub(crate) fn max_low_mass() -> f64 {
    0.1
}

fn shard_rows() -> usize {
    128
}

impl Judge {
    /// How its model computes.
    pub(crate) fn precision(&self) -> Precision {
        tokens::precision(self.dtype, self.base)
    }

    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        if self.reward.is_some() {
            return self.reward_findings();
        }
        let mut findings = Vec::new();
        let mut from_file = false;
        let task = self.task();
        for (key, name, joint) in self.templates() {
            let file = Template::file(name);
            from_file |= file.is_some();
            // A missing file is found with the other files that the configuration names.
            if file.is_none_or(|path| path.exists()) {
                let asks_for = if name.contains('/') { self.asks_for } else { None };
                match Template::open(name, task, joint, asks_for) {
                    Ok(_) => {}
                    Err(error @ Error::Data(_)) => findings.push(Finding::at(key, error.to_string()).in_data()),
                    Err(error @ Error::Io { .. }) => findings.push(Finding::at(key, error.to_string()).in_system()),
                    Err(error) => findings.push(Finding::at(key, error.to_string())),
                }
            }
        }
        findings.extend(self.mode_findings());
        if self.template.is_none() && (self.joint_template.is_none() || !self.has_orders()) {
            let text = match self.has_orders() {
                true => "needs `template` (comparisons under one prompt), `joint_template` (joint ones), or both",
                false => "needs `template`, the question about one response",
            };
            findings.push(Finding::at("", text));
        } else if self.asks_for.is_some() && !from_file {
            findings.push(Finding::at("asks_for", "without effect: a built-in template says itself what it asks for"));
        }
        match (self.orders, self.debias) {
            _ if !self.has_orders() => {}
            (Orders::Both, None) => {
                findings.push(Finding::at("", "needs `debias`: `probability` (the GDPO paper's) or `logit`"));
            }
            (Orders::One, Some(_)) => findings.push(Finding::at("debias", "without effect with `orders: one`")),
            _ => {}
        }
        for (key, spellings) in [("labels.first", &self.labels.first), ("labels.second", &self.labels.second)] {
            if spellings.is_empty() || spellings.iter().any(String::is_empty) {
                findings.push(Finding::at(key, "needs at least one spelling, and none of them empty"));
            }
        }
        let at_least_one = [("tokens_per_batch", self.tokens_per_batch.everywhere()), ("shard_rows", self.shard_rows)];
        for (key, value) in [("least_mass", self.least_mass), ("max_low_mass", self.max_low_mass)] {
            if !(0.0..=1.0).contains(&value) {
                findings.push(Finding::at(key, format!("got {value}, wanted 0 to 1")));
            }
        }
        let zero = at_least_one.into_iter().filter(|(_, value)| *value == 0);
        findings.extend(zero.map(|(key, _)| Finding::at(key, "got 0, wanted at least 1")));
        match (&self.model, &self.endpoint) {
            (None, None) => findings.push(Finding::at(
                "",
                "needs `model` (a folder), `endpoint` (a remote judge) or `reward` (a reward model)",
            )),
            (Some(_), Some(_)) => {
                findings.push(Finding::at("endpoint", "there is a `model` too; give one of the two judges"));
            }
            (None, Some(endpoint)) => {
                findings.extend(match self.mode() {
                    Mode::Reasoning(_) => endpoint.check::<Completion>(),
                    _ => endpoint.check::<OneToken>(),
                });
                if !(2..=20).contains(&endpoint.top_logprobs) {
                    let text = format!("got {}, wanted 2 to 20", endpoint.top_logprobs);
                    findings.push(Finding::at("endpoint.top_logprobs", text));
                }
                if self.form == Form::Text {
                    let text = "an endpoint is asked in chat completions; `text` needs `model`";
                    findings.push(Finding::at("form", text));
                }
            }
            (Some(_), None) => {}
        }
        if self.scale.is_some() {
            findings.push(Finding::at("scale", "without effect: only a reward model's scores have one; see `reward`"));
        }
        findings.extend(self.tokens.findings());
        findings.extend(Base::finding(self.base));
        findings
    }

    /// The answer that templates ask for.
    pub(crate) fn task(&self) -> Task {
        match self.mode() {
            Mode::Labels => Task::Label,
            Mode::Rating(_) => Task::Rating,
            Mode::Reasoning(_) => Task::Reasoning,
            Mode::Rationale(_) => Task::Rationale,
        }
    }

    /// Number of questions about one comparison.
    pub(crate) fn order_count(&self) -> u64 {
        if self.orders == Orders::Both { 2 } else { 1 }
    }

    /// The templates by key, each with whether it is for joint comparisons.
    pub(crate) fn templates(&self) -> impl Iterator<Item = (&'static str, &String, bool)> {
        let same = self.template.iter().map(|name| ("template", name, false));
        same.chain(self.joint_template.iter().map(|name| ("joint_template", name, true)))
    }
}
