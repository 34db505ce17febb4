//! The configuration of `sample`, and what the engine asks of it.

use std::path::Path;

use kit::{
    Ahead, Amount, Context, DistinctPrompts, Finding, Forecast, Input, InputPort, Outcome, Outlook, OutputPort,
    Rendering, Result, Stage, Table,
};
use lm::{Dtype, PromptMismatch, SamplingRules, SpecialText, TextRules, TooLong};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sampling::sample;
use crate::work::WorkList;
use crate::{ahead, rendering};

/// Draws `k` responses of a model to each distinct prompt.
///
/// Equal texts of one prompt become one response with a count. Each draw has its own randomness from the run's seed,
/// the prompt's id and its number, so that more draws or other prompts change none of the others.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The prompts, or any table that has prompts.
    pub from: Input,
    /// The model that answers: a folder in the Hugging Face format, or the `policy` of a `train` stage.
    pub model: Input,
    /// Responses drawn for each prompt.
    pub k: usize,
    /// Divides the logits; 0 takes the most likely token each time.
    pub temperature: f64,
    /// Draws only from the most likely tokens that together have this probability.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Draws only from so many most likely tokens.
    #[serde(default)]
    pub top_k: Option<usize>,
    /// Longest response in tokens.
    pub max_tokens: usize,
    /// Texts that end a response; they are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Prompts that leave no room for `max_tokens`: `reject` them, `cut_left` (they lose their beginning), or stop
    /// with an `error`.
    #[serde(default = "too_long")]
    pub too_long: TooLong,
    /// Text that looks like a special token inside a message: `escape` encodes it as ordinary text, `reject` refuses
    /// the prompt, `allow` encodes it as the special token.
    #[serde(default = "special_text")]
    pub special_text: SpecialText,
    /// Longest prompt in tokens; without it the model's positions less `max_tokens`.
    #[serde(default)]
    pub max_prompt_tokens: Option<usize>,
    /// The precision of matrix products, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Tokens held at once over all prompts and responses in work. More needs more memory.
    #[serde(default = "tokens_per_batch")]
    pub tokens_per_batch: usize,
    /// Prompts in a shard, which is committed as one file; a kill costs the batch in work.
    #[serde(default = "shard_rows")]
    pub shard_rows: usize,
}

/// Responses to a prompt, at most: each is held until the prompt's last one is there.
const MOST_RESPONSES: usize = 1 << 20;

fn too_long() -> TooLong {
    TooLong::Reject
}

fn special_text() -> SpecialText {
    SpecialText::Escape
}

fn tokens_per_batch() -> usize {
    16384
}

fn shard_rows() -> usize {
    64
}

impl Sample {
    pub(crate) fn text_rules(&self) -> TextRules {
        // A prompt alone has no border at which tokens could differ.
        let on_prefix_mismatch = PromptMismatch::Keep;
        TextRules { special_text: self.special_text, too_long: self.too_long, on_prefix_mismatch }
    }

    pub(crate) fn sampling_rules(&self) -> SamplingRules {
        SamplingRules {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
        }
    }
}

impl Stage for Sample {
    fn version(&self) -> String {
        format!("1+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let from = InputPort::new("from", &self.from, Table::Prompts);
        let from = DistinctPrompts::TABLES[1..].iter().fold(from, |from, &table| from.or(table));
        vec![from, InputPort::new("model", &self.model, Table::Model)]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Responses).without("score"), OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let at_least_one = [
            ("k", self.k),
            ("max_tokens", self.max_tokens),
            ("tokens_per_batch", self.tokens_per_batch),
            ("shard_rows", self.shard_rows),
            ("top_k", self.top_k.unwrap_or(1)),
            ("max_prompt_tokens", self.max_prompt_tokens.unwrap_or(1)),
        ];
        for (key, _) in at_least_one.into_iter().filter(|(_, value)| *value == 0) {
            findings.push(Finding::at(key, "got 0, wanted at least 1"));
        }
        if self.k > MOST_RESPONSES {
            let text = format!("got {}, wanted at most {MOST_RESPONSES} responses to a prompt", self.k);
            findings.push(Finding::at("k", text));
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let text = format!("got {}, wanted 0 (the most likely token) or more", self.temperature);
            findings.push(Finding::at("temperature", text));
        }
        if let Some(top_p) = self.top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
            findings.push(Finding::at("top_p", format!("got {top_p}, wanted more than 0 and at most 1")));
        }
        if self.temperature == 0.0 {
            let text = "without effect: at temperature 0 the most likely token is taken";
            let given = [("top_p", self.top_p.is_some()), ("top_k", self.top_k.is_some())];
            findings.extend(given.into_iter().filter(|(_, given)| *given).map(|(key, _)| Finding::at(key, text)));
            if self.k > 1 {
                findings.push(Finding::at("k", "at temperature 0 all responses to a prompt are equal; take 1"));
            }
        }
        if self.stop.iter().any(String::is_empty) {
            findings.push(Finding::at("stop", "an empty text ends every response before it begins"));
        }
        findings
    }

    fn draws(&self) -> bool {
        // At temperature 0 nothing is drawn, and another seed gives the same responses.
        self.temperature > 0.0
    }

    fn check_model(&self, _key: &str, model: &Path) -> std::result::Result<Option<String>, String> {
        lm::check_decoder(model).map(|usable| usable.no_messages)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn forecast(&self, context: &Context<'_>) -> Result<Forecast> {
        let work = WorkList::read(self, context)?;
        let prompt_tokens: usize = work.prompts.iter().map(|prompt| prompt.sequence.ids.len()).sum();
        let most = prompt_tokens + work.prompts.len() * self.k * self.max_tokens;
        Ok(Forecast {
            rows: Amount::at_most((work.prompts.len() * self.k) as u64),
            tokens: Some(Amount::at_most(most as u64)),
            too_long: Some(Amount::exact(work.too_long)),
            notes: vec![
                "equal responses to a prompt become one row".to_owned(),
                format!("{prompt_tokens} tokens of prompts, and at most {} each response", self.max_tokens),
            ],
            ..Forecast::default()
        })
    }

    fn expect(&self, ahead: &Ahead) -> Result<Outlook> {
        Ok(ahead::expect(self, ahead))
    }

    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        sample(self, context)
    }

    fn rendered_inputs(&self) -> &'static [&'static str] {
        &["from", "model"]
    }

    fn render(&self, context: &Context<'_>, rows: usize) -> Result<Vec<Rendering>> {
        rendering::render(self, context, rows)
    }
}
