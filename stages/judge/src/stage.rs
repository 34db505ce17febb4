//! The configuration of `judge`, and what the engine asks of it.

use std::path::{Path, PathBuf};

use kit::{
    Ahead, Amount, Context, Error, Finding, Forecast, Input, InputPort, Outcome, Outlook, OutputPort, Rendering,
    Result, Stage, Table,
};
use lm::{Dtype, PrefixMismatch, SpecialText, TextRules, TooLong};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::judging;
use crate::labels::Labels;
use crate::template::{AsksFor, Template};
use crate::verdict::Debias;
use crate::work::{Questions, Wording, WorkList};
use crate::{ahead, rendering};

/// Asks a language model which side of each comparison is better and keeps the probabilities, not the verdict.
///
/// Each comparison is asked twice, with either side shown first. The answer is read from the log-probs of the labels;
/// nothing is generated.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// What is judged.
    pub comparisons: Input,
    /// The judge: a decoder folder in the Hugging Face format, or a GGUF file (Llama, Mistral, Qwen2, Qwen3) with its
    /// `tokenizer.json` and chat template beside it. Either this or `endpoint`.
    #[serde(default)]
    pub model: Option<Input>,
    /// The judge behind an OpenAI-compatible endpoint, in place of `model`.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// The question for comparisons under one prompt: `helpful`, `harmless`, `harmful` (asks for the more harmful
    /// one), `summary`, or the path of a minijinja file (with a `/` in it).
    ///
    /// A template sees the text of `prompt`, `a`, `b`, `a_prompt` and `b_prompt`, and the same with `_messages` at
    /// the end as lists of `role` and `content`; `a` is what is shown first. `form` is `chat` or `text`.
    #[serde(default)]
    pub template: Option<String>,
    /// The question for joint comparisons, each side under its own prompt: `helpful-joint`, `harmless-joint`,
    /// `summary-joint`, or the path of a minijinja file. It sees `a_prompt` and `b_prompt`, not `prompt`.
    #[serde(default)]
    pub joint_template: Option<String>,
    /// What a template from a file asks for: the `better` side (so it is without this key), or the `worse` one.
    #[serde(default)]
    pub asks_for: Option<AsksFor>,
    /// `chat`: the question becomes a user message under the judge's chat template. `text`: it stands alone and the
    /// label follows it directly.
    #[serde(default = "form")]
    pub form: Form,
    /// The spellings of the two labels.
    #[serde(default)]
    pub labels: Labels,
    /// How the two orders become one probability: `probability` (the mean of both, as in the GDPO paper) or `logit`
    /// (the mean of their log-odds). Needed with `orders: both`.
    #[serde(default)]
    pub debias: Option<Debias>,
    /// `both` orders, or `one`: a first only, with whatever bias for the first place the judge has.
    #[serde(default = "orders")]
    pub orders: Orders,
    /// The least probability, 0 to 1, that both labels get together in each order. A comparison with less has no verdict:
    /// it is rejected as `low_label_mass` with the token that the judge would rather begin with.
    #[serde(default = "least_mass")]
    pub least_mass: f64,
    /// The largest share of comparisons, 0 to 1, that may have no verdict because the labels get less than `least_mass`, or
    /// are not among an endpoint's alternatives at all; beyond it the stage stops.
    #[serde(default = "max_low_mass")]
    pub max_low_mass: f64,
    /// Comparisons whose question is longer than the limit: `reject` them, `cut_left` (the question loses its
    /// beginning), or stop with an `error`.
    #[serde(default = "too_long")]
    pub too_long: TooLong,
    /// Text that looks like a special token inside a question: `escape` encodes it as ordinary text, `reject`
    /// refuses the comparison, `allow` encodes it as the special token.
    #[serde(default = "special_text")]
    pub special_text: SpecialText,
    /// Questions whose tokens change when a label follows: `keep` scores from the common prefix on, `reject` refuses
    /// the comparison.
    #[serde(default = "on_prefix_mismatch")]
    pub on_prefix_mismatch: PrefixMismatch,
    /// Longest question with its label in tokens; without it the model's positions.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// The precision of matrix products, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Tokens computed at once, shared prefixes counted once. More needs more memory.
    #[serde(default = "tokens_per_batch")]
    pub tokens_per_batch: usize,
    /// Comparisons in a shard, at least, which is committed as one file; a kill costs the batch in work.
    #[serde(default = "shard_rows")]
    pub shard_rows: usize,
}

/// How a question reaches the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As a user message under the chat template.
    Chat,
    /// As it is.
    Text,
}

impl Form {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Chat => "chat",
            Form::Text => "text",
        }
    }
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

fn least_mass() -> f64 {
    0.05
}

fn max_low_mass() -> f64 {
    0.1
}

fn too_long() -> TooLong {
    TooLong::Reject
}

fn special_text() -> SpecialText {
    SpecialText::Escape
}

fn on_prefix_mismatch() -> PrefixMismatch {
    PrefixMismatch::Keep
}

fn tokens_per_batch() -> usize {
    lm::TOKENS_AT_ONCE
}

fn shard_rows() -> usize {
    128
}

impl Judge {
    pub(crate) fn rules(&self) -> TextRules {
        TextRules {
            special_text: self.special_text,
            too_long: self.too_long,
            on_prefix_mismatch: self.on_prefix_mismatch.into(),
        }
    }

    /// Keys that need the tokens, which only a judge in this process shows.
    fn without_effect_remotely(&self) -> Vec<Finding> {
        let given = [
            ("special_text", self.special_text != special_text()),
            ("too_long", self.too_long != too_long()),
            ("on_prefix_mismatch", self.on_prefix_mismatch != on_prefix_mismatch()),
            ("max_tokens", self.max_tokens.is_some()),
            ("tokens_per_batch", self.tokens_per_batch != tokens_per_batch()),
            ("dtype", !self.dtype.is_default()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        let mut findings: Vec<Finding> = given
            .map(|(key, _)| {
                Finding::at(key, "without effect with `endpoint`: the endpoint makes the tokens and computes")
            })
            .collect();
        if self.form == Form::Text {
            findings.push(Finding::at("form", "an endpoint is asked in chat completions; `text` needs `model`"));
        }
        findings
    }

    fn forecast_remotely(&self, endpoint: &Endpoint, work: &WorkList) -> Forecast {
        let requests = work.comparisons().count() as u64 * self.order_count();
        Forecast {
            rows: Amount::exact(work.rows),
            requests: Some(Amount::at_most(requests)),
            notes: vec![format!("requests go to {}; nothing is asked before the run", endpoint.shown())],
            ..Forecast::default()
        }
    }

    /// How often a comparison is asked.
    pub(crate) fn order_count(&self) -> u64 {
        if self.orders == Orders::Both { 2 } else { 1 }
    }

    /// The templates by key, each with whether it is for joint comparisons.
    fn templates(&self) -> impl Iterator<Item = (&'static str, &String, bool)> {
        let same = self.template.iter().map(|name| ("template", name, false));
        same.chain(self.joint_template.iter().map(|name| ("joint_template", name, true)))
    }
}

/// The keys that change how the judge is asked and not what it says.
const EXECUTION_KEYS: [&str; 10] = [
    "max_low_mass",
    "endpoint.api_key_env",
    "endpoint.api_key_file",
    "endpoint.api_key_header",
    "endpoint.concurrency",
    "endpoint.timeout_seconds",
    "endpoint.retries",
    "endpoint.backoff_seconds",
    "endpoint.give_up_after",
    "endpoint.max_rejects",
];

impl Stage for Judge {
    fn version(&self) -> String {
        format!("4+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let mut inputs = vec![InputPort::new("comparisons", &self.comparisons, Table::Comparisons)];
        inputs.extend(self.model.iter().map(|model| InputPort::new("model", model, Table::Model).or_gguf()));
        inputs
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let mut verdicts = OutputPort::new(Table::Verdicts);
        if self.orders == Orders::One {
            for column in ["ba_logp_a", "ba_logp_b", "ba_mass", "ba_p", "position_gap"] {
                verdicts = verdicts.without(column);
            }
        }
        if self.endpoint.is_none() {
            verdicts = verdicts.without("bounded");
        }
        vec![verdicts, OutputPort::new(Table::Summary), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut from_file = false;
        for (key, name, joint) in self.templates() {
            let file = Template::file(name);
            from_file |= file.is_some();
            // A missing file is found with the other files that the configuration names.
            if file.is_none_or(|path| path.is_file()) {
                let asks_for = if name.contains('/') { self.asks_for } else { None };
                match Template::open(name, joint, asks_for) {
                    Ok(_) => {}
                    Err(error @ Error::Data(_)) => findings.push(Finding::at(key, error.to_string()).in_data()),
                    Err(error) => findings.push(Finding::at(key, error.to_string())),
                }
            }
        }
        if self.template.is_none() && self.joint_template.is_none() {
            let text = "needs `template` (comparisons under one prompt), `joint_template` (joint ones), or both";
            findings.push(Finding::at("", text));
        } else if self.asks_for.is_some() && !from_file {
            findings.push(Finding::at("asks_for", "without effect: a built-in template says itself what it asks for"));
        }
        match (self.orders, self.debias) {
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
        let at_least_one = [
            ("tokens_per_batch", self.tokens_per_batch),
            ("shard_rows", self.shard_rows),
            ("max_tokens", self.max_tokens.unwrap_or(1)),
        ];
        for (key, value) in [("least_mass", self.least_mass), ("max_low_mass", self.max_low_mass)] {
            if !(0.0..=1.0).contains(&value) {
                findings.push(Finding::at(key, format!("got {value}, wanted 0 to 1")));
            }
        }
        let zero = at_least_one.into_iter().filter(|(_, value)| *value == 0);
        findings.extend(zero.map(|(key, _)| Finding::at(key, "got 0, wanted at least 1")));
        match (&self.model, &self.endpoint) {
            (None, None) => findings.push(Finding::at("", "needs `model` (a folder) or `endpoint` (a remote judge)")),
            (Some(_), Some(_)) => {
                findings.push(Finding::at("endpoint", "there is a `model` too; give one of the two judges"));
            }
            (None, Some(endpoint)) => {
                findings.extend(endpoint.check());
                findings.extend(self.without_effect_remotely());
            }
            (Some(_), None) => {}
        }
        findings
    }

    fn execution_keys(&self) -> &'static [&'static str] {
        &EXECUTION_KEYS
    }

    fn files(&self) -> Vec<PathBuf> {
        self.templates().filter_map(|(_, name, _)| Template::file(name)).collect()
    }

    fn check_model(&self, _key: &str, model: &Path) -> std::result::Result<Option<String>, String> {
        let usable = lm::check_decoder(model)?;
        // Every question is a message under the chat template.
        match usable.no_messages.filter(|_| self.form == Form::Chat) {
            Some(text) => Err(text),
            None => Ok(None),
        }
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        self.endpoint.is_none()
    }

    fn forecast(&self, context: &Context<'_>) -> Result<Forecast> {
        let work = WorkList::read(context)?;
        let wording = Wording::open(self)?;
        if let Some(endpoint) = &self.endpoint {
            return Ok(self.forecast_remotely(endpoint, &work));
        }
        let questions = Questions::open(self, context, &wording)?;
        let (mut tokens, mut too_long) = (0, 0);
        for comparison in work.comparisons() {
            match questions.ask(comparison)? {
                Ok(asked) => {
                    tokens += asked.shared_tokens() as u64;
                    too_long += u64::from(asked.cut());
                }
                Err(refusal) => too_long += u64::from(refusal.0 == "too_long"),
            }
        }
        Ok(Forecast {
            rows: Amount::exact(work.rows),
            tokens: Some(Amount::at_most(tokens)),
            too_long: Some(Amount::exact(too_long)),
            notes: vec![
                "questions share more tokens than counted where comparisons have a prompt in common".to_owned(),
            ],
            ..Forecast::default()
        })
    }

    fn expect(&self, ahead: &Ahead) -> Result<Outlook> {
        ahead::expect(self, ahead)
    }

    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        judging::judge(self, context)
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        &["comparisons", "model"]
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        rendering::render(self, context, rows)
    }
}
