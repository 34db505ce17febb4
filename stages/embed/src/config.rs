//! The configuration of `embed`: its field docs are the manual.

use endpoint::Endpoint;
use kit::{Finding, Input, Message};
use lm::Dtype;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokens::TokensPerBatch;

use crate::protocol::Vectors;

/// Embeds each distinct prompt once.
///
/// A text longer than the encoder's limit is cut at its end, as sentence-transformers does.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// The prompts, or any table that has prompts; of pairs and comparisons the prompts of both sides.
    pub from: Input,
    /// A sentence encoder's folder (BERT, RoBERTa, XLM-RoBERTa, MPNet, ModernBERT), with or without `modules.json`, or a
    /// decoder's folder, whose last states are pooled as its `modules.json` says, else averaged. Either this or
    /// `endpoint`.
    #[serde(default)]
    pub model: Option<Input>,
    /// The encoder behind an OpenAI-compatible endpoint (`/embeddings`), in place of `model`. It cuts or refuses texts
    /// that are too long by its own rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The length of the vectors that an endpoint is asked for, 1 or more; without it the endpoint's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<usize>,
    /// Texts in one request to an endpoint, 1 to 2048.
    #[serde(default = "texts_per_request")]
    pub texts_per_request: usize,
    /// Text of a prompt that is embedded: `all` of its messages' contents, joined by an empty line and without their
    /// roles, or its `last_user` message (for raw text: the text).
    #[serde(default = "text")]
    pub text: EmbeddedText,
    /// Put before each text, such as `query: ` for E5. Without it an encoder's folder decides by its default prompt (in
    /// `config_sentence_transformers.json`); an empty one leaves that out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The precision of matrix products, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Tokens in work at once, prompts and responses together; shared beginnings count once. More needs more memory.
    /// Left out, 4096 on a processor and 16384 on a GPU.
    #[serde(default)]
    #[schemars(with = "usize")]
    pub tokens_per_batch: TokensPerBatch,
    /// Prompts in a shard, which is committed as one file; a kill costs the batch in work.
    #[serde(default = "shard_rows")]
    pub shard_rows: usize,
}

/// The part of a prompt that is embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddedText {
    /// The last message with the role `user`, or `text`.
    LastUser,
    /// All messages, joined by an empty line.
    All,
}

impl EmbeddedText {
    /// The text of a prompt; nothing where it has no message that would do.
    pub(crate) fn of(self, messages: &[Message]) -> Option<String> {
        match self {
            EmbeddedText::All => {
                let contents: Vec<_> = messages.iter().map(Message::text).collect();
                (!contents.is_empty()).then(|| contents.join("\n\n"))
            }
            EmbeddedText::LastUser => messages
                .iter()
                .rev()
                .find(|message| matches!(message.role.as_str(), "user" | "text"))
                .map(|message| message.text().into_owned()),
        }
    }
}

fn texts_per_request() -> usize {
    64
}

fn text() -> EmbeddedText {
    EmbeddedText::All
}

fn shard_rows() -> usize {
    1024
}

impl Embed {
    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let at_least_one = [
            ("tokens_per_batch", self.tokens_per_batch.everywhere()),
            ("shard_rows", self.shard_rows),
            ("dimensions", self.dimensions.unwrap_or(1)),
        ];
        let zero = at_least_one.into_iter().filter(|(_, value)| *value == 0);
        let mut findings: Vec<Finding> = zero.map(|(key, _)| Finding::at(key, "got 0, wanted at least 1")).collect();
        if !(1..=2048).contains(&self.texts_per_request) {
            let text = format!("got {}, wanted 1 to 2048", self.texts_per_request);
            findings.push(Finding::at("texts_per_request", text));
        }
        findings.extend(self.findings_of_model());
        findings
    }

    /// Findings about where the encoder is.
    fn findings_of_model(&self) -> Vec<Finding> {
        match (&self.model, &self.endpoint) {
            (None, None) => vec![Finding::at("", "needs `model` (a folder) or `endpoint` (a remote encoder)")],
            (Some(_), Some(_)) => vec![Finding::at("endpoint", "there is a `model` too; give one of the two")],
            (Some(_), None) => Vec::new(),
            (None, Some(endpoint)) => endpoint.check::<Vectors>(),
        }
    }

    /// Keys with a default that have no effect with these values, each with the reason.
    pub(crate) fn without_effect(&self) -> Vec<Finding> {
        let (keys, text) = match self.endpoint {
            None => (["dimensions", "texts_per_request"], "without effect with `model`: it is for an `endpoint`"),
            Some(_) => (["tokens_per_batch", "dtype"], "without effect with `endpoint`: the endpoint computes"),
        };
        let idle = keys.into_iter().map(|key| Finding::at(key, text));
        idle.chain(self.endpoint.is_some().then(endpoint::no_alternatives)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_prompt() {
        let chat = [Message::new("system", "S"), Message::new("user", "U"), Message::new("assistant", "A")];
        assert_eq!(EmbeddedText::All.of(&chat).as_deref(), Some("S\n\nU\n\nA"));
        assert_eq!(EmbeddedText::LastUser.of(&chat).as_deref(), Some("U"));
        assert_eq!(EmbeddedText::LastUser.of(&[Message::new("text", "T")]).as_deref(), Some("T"));
        assert_eq!(EmbeddedText::LastUser.of(&chat[..1]), None);
        assert_eq!(EmbeddedText::All.of(&[]), None);
    }
}
