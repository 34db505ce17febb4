//! The configuration of `sample`: its field docs are the manual.

use endpoint::{Completions, Endpoint};
use kit::{Finding, Input};
use lm::{Dtype, Precision, SamplingRules};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokens::{Base, PromptRules};

/// Draws `k` responses of a model to each distinct prompt.
///
/// Equal texts of one prompt become one response with a count. Each draw has its own randomness from the run's seed,
/// the prompt's id and its number, so that more draws or other prompts change none of the others.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The prompts, or any table that has prompts.
    pub from: Input,
    /// The model that answers: a folder in the Hugging Face format, or the `policy` of a `train` stage. Either this or
    /// `endpoint`.
    #[serde(default)]
    pub model: Option<Input>,
    /// The model behind an OpenAI-compatible endpoint, in place of `model`: chat completions, with `n` and `seed` where
    /// the endpoint takes them. Log-prob and number of tokens are null where it does not say them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
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
    /// Rules by which prompts become tokens.
    #[serde(default)]
    pub tokens: PromptRules,
    /// The precision of matrix products, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Bits of the model's weights, where they are put into few: `{bits: 4}` or `{bits: 8}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Tokens in work at once, prompts and responses together; shared beginnings count once. More needs more memory.
    /// Of a token in work, sampling keeps keys and values alone: more fit than where rows are scored.
    #[serde(default = "tokens_per_batch")]
    pub tokens_per_batch: usize,
    /// Prompts in a shard, which is committed as one file; a kill costs the batch in work.
    #[serde(default = "shard_rows")]
    pub shard_rows: usize,
}

/// Responses to a prompt, at most: each is kept until the prompt's last one is there.
const MOST_RESPONSES: usize = 1 << 20;

/// Completions in one request, at most, as OpenAI has it.
const MOST_TOGETHER: usize = 128;

fn tokens_per_batch() -> usize {
    16384
}

fn shard_rows() -> usize {
    64
}

impl Sample {
    /// How its model computes.
    pub(crate) fn precision(&self) -> Precision {
        tokens::precision(self.dtype, self.base)
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

impl Sample {
    /// The requests to an endpoint.
    pub(crate) fn completions(&self) -> Completions {
        Completions {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            together: self.k.clamp(1, MOST_TOGETHER),
            unit: "response",
        }
    }

    /// Findings about where the model is.
    fn findings_of_model(&self) -> Vec<Finding> {
        let endpoint = match (&self.model, &self.endpoint) {
            (Some(_), None) => return Vec::new(),
            (None, None) => {
                return vec![Finding::at("", "needs `model` (a folder) or `endpoint` (a remote model)")];
            }
            (Some(_), Some(_)) => {
                return vec![Finding::at("endpoint", "there is a `model` too; give one of the two")];
            }
            (None, Some(endpoint)) => endpoint,
        };
        endpoint.check::<Completions>()
    }

    /// Keys with a default that have no effect with these values, each with the reason.
    pub(crate) fn without_effect(&self) -> Vec<Finding> {
        if self.endpoint.is_none() {
            return Vec::new();
        }
        let text = "without effect with `endpoint`: the endpoint makes the tokens and computes";
        let of_model = ["tokens", "tokens_per_batch", "dtype", "base"].map(|key| Finding::at(key, text));
        of_model.into_iter().chain([endpoint::no_alternatives()]).collect()
    }
}

impl Sample {
    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let at_least_one = [
            ("k", self.k),
            ("max_tokens", self.max_tokens),
            ("tokens_per_batch", self.tokens_per_batch),
            ("shard_rows", self.shard_rows),
            ("top_k", self.top_k.unwrap_or(1)),
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
        findings.extend(self.tokens.findings());
        findings.extend(Base::finding(self.base));
        findings.extend(self.findings_of_model());
        findings
    }
}
