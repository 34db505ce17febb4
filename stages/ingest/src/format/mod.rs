//! The formats that are known and the columns they have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::column::Column;

/// How rows are to be read. Names on the right of each line are columns; those with a `?` may be absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// By the columns of the first rows.
    #[default]
    Auto,
    /// TRL preference and UltraFeedback binarized: `prompt?, chosen, rejected`. Text or messages; without a prompt, it is
    /// what both sides begin with, or `conversations` where the sides are a message each (LLaMA-Factory).
    Preference,
    /// Anthropic's HH transcripts: `chosen, rejected`, each a whole dialogue with `Human:` and `Assistant:`.
    Hh,
    /// JPO training pairs: `chosen_prompt, chosen, rejected_prompt, rejected` (`i_chosen, r_chosen, i_reject, r_reject`).
    JpoPairs,
    /// JPO's judge files: `prompt, response_0, response_1`, or for joint comparisons `prompt_0, response_0, prompt_1,
    /// response_1`; with `feedback` (0: the first, 1: the second, 2: equal) they are labelled. Also alpaca_eval's
    /// `output_1, output_2, preference`, and the JSON file of JPO's evaluation, `{run: {"prompt<SEP>x4 gold<SEP>x4 answer":
    /// model | gold | equal}}`: the run's answer comes first.
    JpoJudge,
    /// TRL unpaired preference: `prompt, completion, label`; the label is a truth value or a number in [0, 1].
    Unpaired,
    /// Demonstrations: `prompt, completion`.
    PromptCompletion,
    /// Demonstrations as conversations: `messages`; the last one, of the assistant, is the response.
    Conversations,
    /// `prompt`, or `messages` that end before the response.
    Prompts,
    /// `prompt_id, embedding`, or `prompt, embedding`.
    Embeddings,
}

impl Format {
    /// The word for it in pipeline files.
    pub fn name(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::Preference => "preference",
            Format::Hh => "hh",
            Format::JpoPairs => "jpo_pairs",
            Format::JpoJudge => "jpo_judge",
            Format::Unpaired => "unpaired",
            Format::PromptCompletion => "prompt_completion",
            Format::Conversations => "conversations",
            Format::Prompts => "prompts",
            Format::Embeddings => "embeddings",
        }
    }

    /// The columns a row cannot do without.
    pub(crate) fn needs(self) -> &'static [Column] {
        use Column::*;
        match self {
            Format::Auto | Format::Prompts => &[],
            Format::Preference | Format::Hh => &[Chosen, Rejected],
            Format::JpoPairs => &[ChosenPrompt, Chosen, RejectedPrompt, Rejected],
            Format::JpoJudge => &[Response0, Response1],
            Format::Unpaired => &[Prompt, Completion, Label],
            Format::PromptCompletion => &[Prompt, Completion],
            Format::Conversations => &[Messages],
            Format::Embeddings => &[Embedding],
        }
    }

    /// The columns it can read, those it needs included.
    pub(crate) fn reads(self) -> &'static [Column] {
        use Column::*;
        match self {
            Format::Auto => &[],
            Format::Preference => &[
                Prompt,
                Input,
                System,
                Messages,
                Chosen,
                Rejected,
                PHat,
                Weight,
                ChosenScore,
                RejectedScore,
                PairId,
                PromptId,
                ChosenResponseId,
                RejectedResponseId,
                ChosenModel,
                RejectedModel,
            ],
            Format::Hh => &[
                Chosen,
                Rejected,
                PHat,
                Weight,
                ChosenScore,
                RejectedScore,
                PairId,
                PromptId,
                ChosenResponseId,
                RejectedResponseId,
                ChosenModel,
                RejectedModel,
            ],
            Format::JpoPairs => &[
                ChosenPrompt,
                Chosen,
                RejectedPrompt,
                Rejected,
                System,
                PHat,
                Weight,
                ChosenScore,
                RejectedScore,
                PairId,
                ChosenPromptId,
                RejectedPromptId,
                ChosenResponseId,
                RejectedResponseId,
                ChosenModel,
                RejectedModel,
            ],
            Format::JpoJudge => &[
                Prompt,
                Prompt0,
                Prompt1,
                Input,
                System,
                Response0,
                Response1,
                Feedback,
                Preference,
                PHat,
                Weight,
                Judge,
                ComparisonId,
                PromptId,
                PromptId0,
                PromptId1,
                ResponseId0,
                ResponseId1,
                Model0,
                Model1,
            ],
            Format::Unpaired => {
                &[Prompt, Input, System, Completion, Label, Weight, Score, ItemId, PromptId, ResponseId, Model]
            }
            Format::PromptCompletion => {
                &[Prompt, Input, System, Completion, Weight, Score, ItemId, PromptId, ResponseId, Model]
            }
            Format::Conversations => &[Messages, System, Weight, Score, ItemId, PromptId, ResponseId, Model],
            Format::Prompts => &[Prompt, Input, System, Messages, PromptId],
            Format::Embeddings => &[PromptId, Prompt, Input, System, Embedding],
        }
    }
}

/// What plain strings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Messages of a user and an assistant: models see them through their chat template.
    Chat,
    /// Raw text: no chat template touches it.
    Text,
}
