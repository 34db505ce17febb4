//! Rules for texts that do not become sequences as they stand.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Treatment of a message that contains the text of a special token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialText {
    /// Encode that span as ordinary text, and count it.
    Escape,
    /// Reject the row.
    Reject,
    /// Let it be the special token, as TRL does.
    Allow,
}

/// Treatment of a sequence longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// Reject the row.
    Reject,
    /// Cut tokens from the left of the prompt, both sides of a same-prompt pair equally; a leading BOS stays, and the
    /// completion is never cut. Rows whose completion leaves no room for a prompt token are rejected.
    CutLeft,
    /// Stop the stage.
    Error,
}

/// Treatment of a question whose tokens change when a label follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrefixMismatch {
    /// The label starts where the two part.
    Keep,
    /// Reject the row.
    Reject,
}

/// Treatment of a prompt whose own tokens are not those before its answer.
///
/// The last token or two may differ, where they merge with the answer's or where the template opens an answer in
/// another way than it writes one: the completion then starts where the two part. More is another text, such as a
/// system message that a template moves into the last message and so loses when an answer is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptMismatch {
    /// Stop the stage where more than the last two tokens of a rendering differ.
    Stop,
    /// There, put the answer, as the template writes it, after the prompt's own rendering.
    Append,
    /// The completion starts where the two part, whatever it is that follows there.
    Keep,
    /// Reject each row whose prompt is not a prefix to the last token.
    Reject,
}

impl From<PrefixMismatch> for PromptMismatch {
    fn from(rule: PrefixMismatch) -> PromptMismatch {
        match rule {
            PrefixMismatch::Keep => PromptMismatch::Keep,
            PrefixMismatch::Reject => PromptMismatch::Reject,
        }
    }
}

/// Rules by which rows become sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRules {
    /// Special-token text in messages.
    pub special_text: SpecialText,
    /// Sequences over the limit.
    pub too_long: TooLong,
    /// Prompts that are no prefix.
    pub on_prefix_mismatch: PromptMismatch,
}

/// The reason why a row gives no sequence. Its text has the details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More tokens than the limit (under `cut_left`: even without the prompt).
    #[error("{tokens} tokens, the limit is {limit}")]
    TooLong {
        /// Tokens of the sequence before any cut.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenised prompt is not a prefix.
    #[error(
        "the {prompt_tokens} tokens of the prompt agree with those of prompt + completion only up to token {start}"
    )]
    PrefixMismatch {
        /// Length of the common prefix.
        start: usize,
        /// Tokens of the prompt alone.
        prompt_tokens: usize,
    },
    /// The template writes the prompt in another way when an answer follows.
    #[error(
        "the chat template writes the prompt in another way when an answer follows: only the first {start} of the \
         prompt's own {prompt_tokens} tokens stand before the answer; then comes {own:?} in the prompt, and with the \
         answer {}",
        match scored.as_str() {
            "" => "nothing".to_owned(),
            scored => format!("{scored:?}, which would be scored as if the model had said it"),
        }
    )]
    Displaced {
        /// Length of the common prefix.
        start: usize,
        /// Tokens of the prompt alone.
        prompt_tokens: usize,
        /// The beginning of what the prompt alone has after the common prefix.
        own: String,
        /// The beginning of what follows the common prefix where there is an answer; empty where nothing does.
        scored: String,
    },
    /// No completion token.
    #[error("the completion has no token of its own")]
    EmptyCompletion,
    /// The template leaves out the calls of tools that a message makes.
    #[error(
        "the answer calls tools, and the chat template writes nothing of its `tool_calls`: the model would learn to end \
         where it should call; take a template that writes them, such as that of a model made for tools"
    )]
    CallsLeftOut,
    /// The template leaves out the text of an answer.
    #[error(
        "the chat template writes nothing of the answer's text, so that every answer would give the same tokens; take \
         the template that belongs to the model"
    )]
    WordsLeftOut,
    /// Nothing of the completion is marked.
    #[error("the chat template marks with {{% generation %}} what is scored, and nothing of the completion is marked")]
    NothingMarked,
    /// No token before the completion.
    #[error("no token stands before the completion")]
    EmptyPrompt,
    /// A message contains special-token text (under `escape`: and the tokenizer cannot encode it as ordinary text).
    #[error("a message contains the special token `{token}`")]
    SpecialText {
        /// The token.
        token: String,
    },
    /// The chat template refuses these messages (by `raise_exception`, such as a system message for Gemma).
    #[error("the chat template refuses the messages: {detail}")]
    Template {
        /// The template's own words.
        detail: String,
    },
    /// Raw text and messages do not go together in this way.
    #[error("{detail}")]
    Form {
        /// The value found and the value wanted.
        detail: String,
    },
}

impl Refusal {
    /// The reason as it stands in the `rejects` table.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::TooLong { .. } => "too_long",
            Refusal::PrefixMismatch { .. } => "prefix_mismatch",
            Refusal::Displaced { .. } => "prompt_displaced",
            Refusal::CallsLeftOut => "tool_calls_left_out",
            Refusal::WordsLeftOut => "words_left_out",
            Refusal::NothingMarked => "nothing_marked",
            Refusal::EmptyCompletion => "empty_completion",
            Refusal::EmptyPrompt => "empty_prompt",
            Refusal::SpecialText { .. } => "special_text",
            Refusal::Template { .. } => "template",
            Refusal::Form { .. } => "form",
        }
    }
}

/// Rows whose prompt is written in another way when an answer follows: how many, and the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Displaced {
    /// Number of rows.
    pub rows: u64,
    first: Option<String>,
}

impl Displaced {
    /// Takes up a row by its name, such as pair `p1`, where it is refused for this.
    pub fn note(&mut self, row: &str, refusal: &Refusal) {
        if matches!(refusal, Refusal::Displaced { .. }) {
            self.rows += 1;
            self.first.get_or_insert_with(|| format!("{row}: {refusal}"));
        }
    }

    /// The message where the stage stops at them; none where there are none.
    pub fn stop(&self, of: u64) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!(
            "{} of {of} rows cannot be scored as they stand. {first}. Say `on_prefix_mismatch: append` (the answer after \
             the prompt's own rendering), `reject` (without such rows) or `keep` (scored from there on), in all stages \
             over these rows; or take a chat template that writes a prompt in one way",
            self.rows
        ))
    }

    /// The same in short, for a forecast.
    pub fn remark(&self) -> Option<String> {
        let text = "whose prompt the chat template writes in another way when an answer follows: the run stops there";
        (self.rows > 0).then(|| format!("{} rows {text}", self.rows))
    }
}
