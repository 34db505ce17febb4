//! What values of a row are to us, and the names they have in files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! columns {
    ($( $(#[$doc:meta])* $name:ident [$($alias:literal),*] )*) => {
        /// What a value of a row is to us. `columns:` maps these names to those of the file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Column { $( $(#[$doc])* $name, )* }

        impl Column {
            /// The names under which it is found in files, the likeliest first; the first is ours.
            pub fn names(self) -> &'static [&'static str] {
                match self { $( Column::$name => &[$($alias),*], )* }
            }
        }
    };
}

columns! {
    /// The prompt: text or messages.
    Prompt ["prompt", "instruction", "question", "query"]
    /// More text of the prompt, as in Alpaca files: appended to it on a new line.
    Input ["input"]
    /// A system message before the prompt; for `form: chat`.
    System ["system", "system_prompt"]
    /// The better response, or the whole conversation with it.
    Chosen ["chosen", "r_chosen"]
    /// The worse response, or the whole conversation with it.
    Rejected ["rejected", "r_reject", "r_rejected"]
    /// The prompt of the better response.
    ChosenPrompt ["chosen_prompt", "i_chosen"]
    /// The prompt of the worse response.
    RejectedPrompt ["rejected_prompt", "i_reject", "i_rejected"]
    /// The prompt of the first response.
    Prompt0 ["prompt_0", "instruction_0"]
    /// The prompt of the second response.
    Prompt1 ["prompt_1", "instruction_1"]
    /// The first response.
    Response0 ["response_0", "output_1"]
    /// The second response.
    Response1 ["response_1", "output_2"]
    /// 0: the first response is better; 1: the second; 2: neither.
    Feedback ["feedback"]
    /// 1: the first response is better; 2: the second; between, how sure it is.
    Preference ["preference"]
    /// The response.
    Completion ["completion", "response", "output", "answer", "gold_response"]
    /// Whether the response is a good one, or how good, in [0, 1].
    Label ["label"]
    /// A conversation.
    Messages ["messages", "conversations"]
    /// The embedding of the prompt: a list of numbers.
    Embedding ["embedding", "embeddings"]
    /// P(chosen better), or P(the first better), in [0, 1].
    PHat ["p_hat"]
    /// The row's weight in the loss, at least 0.
    Weight ["weight"]
    /// A score of the response.
    Score ["score"]
    /// A score of the better response.
    ChosenScore ["chosen_score", "score_chosen", "chosen-rating", "chosen_reward"]
    /// A score of the worse response.
    RejectedScore ["rejected_score", "score_rejected", "rejected-rating", "rejected_reward"]
    /// Who wrote the response.
    Model ["model", "generator"]
    /// Who wrote the better response.
    ChosenModel ["chosen_model", "chosen-model"]
    /// Who wrote the worse response.
    RejectedModel ["rejected_model", "rejected-model"]
    /// Who wrote the first response.
    Model0 ["model_0", "generator_1"]
    /// Who wrote the second response.
    Model1 ["model_1", "generator_2"]
    /// Who gave the label.
    Judge ["judge", "annotator"]
    /// The prompt's id.
    PromptId ["prompt_id", "instruction_id"]
    /// The id of the better response's prompt.
    ChosenPromptId ["chosen_prompt_id"]
    /// The id of the worse response's prompt.
    RejectedPromptId ["rejected_prompt_id"]
    /// The id of the first response's prompt.
    PromptId0 ["prompt_id_0", "instruction_id_0"]
    /// The id of the second response's prompt.
    PromptId1 ["prompt_id_1", "instruction_id_1"]
    /// The response's id.
    ResponseId ["response_id"]
    /// The better response's id.
    ChosenResponseId ["chosen_response_id"]
    /// The worse response's id.
    RejectedResponseId ["rejected_response_id"]
    /// The first response's id.
    ResponseId0 ["response_id_0"]
    /// The second response's id.
    ResponseId1 ["response_id_1"]
    /// The pair's id.
    PairId ["pair_id", "id"]
    /// The comparison's id.
    ComparisonId ["comparison_id", "id"]
    /// The id of a response with its label.
    ItemId ["item_id", "id"]
}

impl Column {
    /// Our name for it.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// Whether it is a prompt or a response: text or messages.
    pub(crate) fn is_said(self) -> bool {
        use Column::*;
        let prompt = matches!(self, Prompt | ChosenPrompt | RejectedPrompt | Prompt0 | Prompt1);
        prompt || matches!(self, Chosen | Rejected | Completion | Response0 | Response1)
    }

    /// Whether a row that lacks it would silently mean something else: with a soft label in some rows, a row without
    /// one is not a hard label.
    pub(crate) fn all_or_none(self) -> bool {
        use Column::*;
        matches!(self, Prompt | PHat | Weight | Feedback | Preference | Label)
    }
}
