//! The configuration of `embed`, and what the engine asks of it.

use std::path::Path;

use kit::{
    Ahead, Amount, CHARACTERS_PER_TOKEN, Context, DistinctPrompts, Expected, Finding, Forecast, Input, InputPort,
    Message, Outcome, Outlook, OutputPort, Result, Stage, Table, Work,
};
use lm::{Dtype, Estimate, Load, Purpose};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embedding::embed;

/// Embeds each distinct prompt once.
///
/// A text longer than the encoder's limit is cut at its end, as sentence-transformers does.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// The prompts, or any table that has prompts; of pairs and comparisons the prompts of both sides.
    pub from: Input,
    /// A sentence encoder's folder (BERT with `modules.json`), or a decoder's folder, whose last states are averaged.
    pub model: Input,
    /// Which text of a prompt is embedded: `all` of its messages' contents, joined by an empty line and without
    /// their roles, or its `last_user` message (for raw text: the text).
    #[serde(default = "text")]
    pub text: EmbeddedText,
    /// The precision of matrix products. BERT encoders compute in f32 alone on a GPU.
    #[serde(default, skip_serializing_if = "Dtype::is_default")]
    pub dtype: Dtype,
    /// Tokens computed at once. More needs more memory.
    #[serde(default = "tokens_per_batch")]
    pub tokens_per_batch: usize,
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

fn text() -> EmbeddedText {
    EmbeddedText::All
}

fn tokens_per_batch() -> usize {
    lm::TOKENS_AT_ONCE
}

fn shard_rows() -> usize {
    1024
}

impl Stage for Embed {
    fn version(&self) -> String {
        format!("1+lm{}", lm::VERSION)
    }

    fn inputs(&self) -> Vec<InputPort> {
        let from = InputPort::new("from", &self.from, Table::Prompts);
        let from = DistinctPrompts::TABLES[1..].iter().fold(from, |from, &table| from.or(table));
        vec![from, InputPort::new("model", &self.model, Table::Model)]
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let embeddings = OutputPort::new(Table::Embeddings).without("source_file").without("source_line");
        vec![embeddings, OutputPort::new(Table::Rejects)]
    }

    fn check(&self) -> Vec<Finding> {
        let at_least_one = [("tokens_per_batch", self.tokens_per_batch), ("shard_rows", self.shard_rows)];
        let zero = at_least_one.into_iter().filter(|(_, value)| *value == 0);
        zero.map(|(key, _)| Finding::at(key, "got 0, wanted at least 1")).collect()
    }

    fn check_model(&self, _key: &str, model: &Path) -> std::result::Result<Option<String>, String> {
        lm::check_sentence_encoder(model).map(|()| None)
    }

    fn remarks(&self) -> Vec<Finding> {
        self.dtype.remark().map(|text| Finding::at("dtype", text)).into_iter().collect()
    }

    fn needs_device(&self) -> bool {
        true
    }

    fn forecast(&self, context: &Context<'_>) -> Result<Forecast> {
        let prompts = DistinctPrompts::read(context, "from")?;
        let texts = prompts.messages.values().filter_map(|messages| self.text.of(messages));
        let characters: usize = texts.map(|text| text.chars().count()).sum();
        Ok(Forecast {
            rows: Amount::exact(prompts.messages.len() as u64),
            tokens: Some(Amount::about((characters as f64 / CHARACTERS_PER_TOKEN).ceil() as u64)),
            ..Forecast::default()
        })
    }

    fn expect(&self, ahead: &Ahead) -> Result<Outlook> {
        let Some(from) = ahead.input("from") else { return Ok(Outlook::default()) };
        let Some(prompts) = from.prompts else { return Ok(Outlook::default()) };
        let mut forecast = Forecast::of_rows(prompts);
        if let Some(of_prompt) = from.prompt_tokens {
            let tokens = prompts.value as f64 * of_prompt;
            forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
            let model = ahead.model("model").and_then(|config| Estimate::of(config, self.dtype, &ahead.device).ok());
            if let Some(model) = model {
                let load = Load { tokens, scored: 0.0, context: of_prompt };
                forecast.work = Some(Work { operations: model.forward(load), width: model.width() });
                let tokens_at_once = (self.tokens_per_batch as u64).min(tokens as u64);
                forecast.memory = Some(model.bytes(Purpose::Score { tokens_at_once }));
            }
        }
        let embeddings = Expected { prompts: Some(prompts), ..Expected::of_rows(Table::Embeddings, prompts.bounded()) };
        Ok(Outlook::of(forecast).port("embeddings", embeddings))
    }

    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        embed(self, context)
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
