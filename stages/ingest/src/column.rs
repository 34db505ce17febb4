//! Columns: the role of a row's value, and its names in files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! columns {
    ($( $(#[$doc:meta])* $name:ident [$first:tt $(, $alias:tt)*] )*) => {
        /// The role of a row's value. `columns:` maps these names to those of the file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Column { $( $(#[$doc])* #[serde(rename = $first)] $name, )* }

        impl Column {
            /// All of them.
            pub const ALL: &[Column] = &[$( Column::$name, )*];

            /// The names under which it is found in files, the likeliest first; the first is ours.
            pub fn names(self) -> &'static [&'static str] {
                match self { $( Column::$name => &[$first $(, $alias)*], )* }
            }
        }
    };
}

columns! {
    /// The prompt: text or messages.
    Prompt ["prompt", "instruction", "question", "query", "context", "history", "input"]
    /// More text of the prompt, as in Alpaca files: appended to it on a new line.
    Input ["input"]
    /// A system message before the prompt; for `form: chat`.
    System ["system", "system_prompt"]
    /// The tools that the conversation may call: a list of JSON schemas, or its JSON as text; for messages.
    Tools ["tools"]
    /// The better response, or the whole conversation with it.
    Chosen ["chosen", "r_chosen", "chosen_response", "response_j"]
    /// The worse response, or the whole conversation with it.
    Rejected ["rejected", "r_reject", "r_rejected", "rejected_response", "response_k"]
    /// The prompt of the better response.
    ChosenPrompt ["chosen_prompt", "i_chosen"]
    /// The prompt of the worse response.
    RejectedPrompt ["rejected_prompt", "i_reject", "i_rejected"]
    /// The prompt of the first response.
    Prompt0 ["prompt_0", "instruction_0"]
    /// The prompt of the second response.
    Prompt1 ["prompt_1", "instruction_1"]
    /// The first response, or the whole conversation with it.
    Response0 [
        "response_0", "output_1", "response_1", "response1", "response_a", "conversation_a", "human_ref_A", "answer_0",
        "answer_a"
    ]
    /// The second response, or the whole conversation with it.
    Response1 [
        "response_1", "output_2", "response_2", "response2", "response_b", "conversation_b", "human_ref_B", "answer_1",
        "answer_b"
    ]
    /// 0: the first response is better; 1: the second; 2: neither.
    Feedback ["feedback", "better_response_id"]
    /// 1: the first response is better; 2: the second; between, how sure it is.
    Preference ["preference"]
    /// 1: the first response is better; 0: the second.
    FirstIsBetter ["first_is_better", "labels"]
    /// -3: the first response is much better; 3: the second; 0: neither. P(the first better) is (3 - strength) / 6.
    Strength ["strength", "overall_preference", "preference_strength"]
    /// `model_a`: the first response is better; `model_b`: the second; `tie` or `both_bad`: neither.
    Winner ["winner"]
    /// 1 where the first response is better; exactly one of the three is 1.
    WinnerModelA ["winner_model_a"]
    /// 1 where the second response is better.
    WinnerModelB ["winner_model_b"]
    /// 1 where neither is.
    WinnerTie ["winner_tie"]
    /// A vote of each annotator: one value, a list, an object of annotators, or counts; `columns:` takes a list of
    /// names.
    Votes ["votes", "vote", "annotator_votes", "human_votes"]
    /// Annotator, where a row is a vote.
    Annotator ["annotator", "annotator_id", "rater", "rater_id", "voter", "voter_id", "worker_id"]
    /// Votes for the first response.
    VotesA ["votes_a", "votes_first", "num_votes_a", "n_votes_a"]
    /// Votes for the second response.
    VotesB ["votes_b", "votes_second", "num_votes_b", "n_votes_b"]
    /// Votes for neither.
    VotesTie ["ties", "votes_tie", "num_ties", "n_ties"]
    /// Length of the first response, where the file has no text of it.
    Length0 ["length_0", "length_a"]
    /// Length of the second response.
    Length1 ["length_1", "length_b"]
    /// The response.
    Completion ["completion", "response", "output", "answer", "gold_response", "generation"]
    /// Several responses: a list of texts, of messages, or of objects with a text and a score or a rank.
    Responses ["responses", "completions", "answers", "generations", "candidates"]
    /// The scores of several responses, higher is better.
    Scores ["scores", "ratings", "rating"]
    /// The ranks of several responses, lower is better.
    Ranks ["ranks", "rank"]
    /// Authors of several responses.
    Models ["models", "model_names", "generation_models"]
    /// Label of the response: good or bad, or the degree in [0, 1].
    Label ["label", "kto_tag"]
    /// Helpfulness of the response, from 0 to 4.
    Helpfulness ["helpfulness"]
    /// A conversation.
    Messages ["messages", "conversations", "conversation"]
    /// The id of a message that is a row.
    MessageId ["message_id"]
    /// The id of the message that it replies to; null where it begins a conversation.
    ParentId ["parent_id"]
    /// Text of a message that is a row.
    Text ["text"]
    /// Author of the message: `prompter` or `user`, `assistant`.
    Role ["role"]
    /// The rank of a message among the replies to the same one, lower is better.
    Rank ["rank"]
    /// The embedding of the prompt: a list of numbers.
    Embedding ["embedding", "embeddings"]
    /// P(chosen better), or P(the first better), in [0, 1].
    PHat ["p_hat"]
    /// Share of the annotators who prefer the chosen response, in [0.5, 1].
    Agreement ["agreement", "pair_agreement", "annotator_agreement"]
    /// The row's weight in the loss, at least 0.
    Weight ["weight"]
    /// A score of the response.
    Score ["score"]
    /// A score of the better response.
    ChosenScore [
        "chosen_score", "score_chosen", "chosen-rating", "chosen_rating", "rating_chosen", "chosen_reward"
    ]
    /// A score of the worse response.
    RejectedScore [
        "rejected_score", "score_rejected", "rejected-rating", "rejected_rating", "rating_rejected", "rejected_reward"
    ]
    /// A score of the first response.
    Score0 ["score_0", "score_A"]
    /// A score of the second response.
    Score1 ["score_1", "score_B"]
    /// Author of the response.
    Model ["model", "generator", "model_name"]
    /// Author of the better response.
    ChosenModel ["chosen_model", "chosen-model"]
    /// Author of the worse response.
    RejectedModel ["rejected_model", "rejected-model"]
    /// Author of the first response.
    Model0 ["model_0", "generator_1", "model_a", "response_0_source"]
    /// Author of the second response.
    Model1 ["model_1", "generator_2", "model_b", "response_1_source"]
    /// Author of the label.
    Judge ["judge", "annotator"]
    /// The row's own id: `pair_id`, `comparison_id`, `item_id` or, where a row is a prompt, `prompt_id`.
    Id ["id"]
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

/// Words in the names of columns that hold labels.
const LABELS: [&str; 26] = [
    "label",
    "labels",
    "score",
    "scores",
    "rating",
    "ratings",
    "rank",
    "ranks",
    "winner",
    "preference",
    "preferences",
    "preferred",
    "feedback",
    "reward",
    "rewards",
    "vote",
    "votes",
    "better",
    "safer",
    "choice",
    "weight",
    "helpfulness",
    "margin",
    "confidence",
    "agreement",
    "certainty",
];
/// Words in the names of columns that hold responses.
const RESPONSES: [&str; 14] = [
    "response",
    "responses",
    "answer",
    "answers",
    "completion",
    "completions",
    "output",
    "outputs",
    "chosen",
    "rejected",
    "generation",
    "generations",
    "candidate",
    "candidates",
];

impl Column {
    /// Our name for it.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// True where it is a prompt or a response: text or messages.
    pub(crate) fn is_said(self) -> bool {
        use Column::*;
        let prompt = matches!(self, Prompt | ChosenPrompt | RejectedPrompt | Prompt0 | Prompt1 | Messages);
        prompt || matches!(self, Chosen | Rejected | Completion | Response0 | Response1)
    }

    /// True where it is an id.
    pub(crate) fn is_id(self) -> bool {
        self.name().split('_').any(|word| word == "id")
    }

    /// True where it holds numbers, truth values or lists of numbers.
    pub(crate) fn is_number(self) -> bool {
        use Column::*;
        let label = matches!(
            self,
            Feedback | Preference | FirstIsBetter | Strength | Label | Helpfulness | PHat | Agreement | Weight
        );
        let score = matches!(self, Score | ChosenScore | RejectedScore | Score0 | Score1 | Scores | Ranks | Rank);
        let count = matches!(self, VotesA | VotesB | VotesTie | Length0 | Length1);
        label || score || count || matches!(self, Embedding | WinnerModelA | WinnerModelB | WinnerTie)
    }

    /// True where it says yes or no: numbers of it may be truth values.
    pub(crate) fn is_truth(self) -> bool {
        use Column::*;
        matches!(self, FirstIsBetter | WinnerModelA | WinnerModelB | WinnerTie)
    }

    /// The column of the first response where this is that of the second: one column of a file is not both.
    pub(crate) fn of_the_first(self) -> Option<Column> {
        use Column::*;
        Some(match self {
            Response1 => Response0,
            Prompt1 => Prompt0,
            Score1 => Score0,
            Model1 => Model0,
            VotesB => VotesA,
            Length1 => Length0,
            PromptId1 => PromptId0,
            ResponseId1 => ResponseId0,
            _ => return None,
        })
    }

    /// True where a row that lacks it would silently mean something else: with a soft label in some rows, a row without
    /// one is not a hard label.
    pub(crate) fn all_or_none(self) -> bool {
        use Column::*;
        let label =
            matches!(self, PHat | Feedback | Preference | FirstIsBetter | Strength | Winner | Label | Helpfulness);
        label || matches!(self, Prompt | Agreement | Weight | WinnerModelA | WinnerModelB | WinnerTie)
    }
}

/// True where some column has this name.
pub(crate) fn is_known(name: &str) -> bool {
    Column::ALL.iter().any(|column| column.names().contains(&name))
}

/// True for a name of labels.
pub(crate) fn is_label(name: &str) -> bool {
    words(name).any(|word| LABELS.contains(&word.as_str())) || name == "p_hat"
}

/// True for a name of responses.
pub(crate) fn is_response(name: &str) -> bool {
    words(name).any(|word| RESPONSES.contains(&word.as_str()))
}

/// The words of a name, without the digits at their ends.
pub(crate) fn words(name: &str) -> impl Iterator<Item = String> {
    let parts = name.split(|letter: char| !letter.is_alphanumeric());
    parts.map(|part| part.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_pipeline_files_are_those_of_messages() {
        for column in Column::ALL {
            assert_eq!(serde_json::to_value(column).unwrap(), column.name());
        }
    }

    #[test]
    fn labels_and_responses_are_known_by_their_words() {
        for name in ["score_A", "chosen-rating", "labels", "safer_response_id", "overall_preference", "p_hat"] {
            assert!(is_label(name), "{name}");
        }
        for name in ["source", "scored_by", "domain", "upvote_ratio", "labelling_model", "created_at", "is_safe"] {
            assert!(!is_label(name), "{name}");
        }
        assert!(is_response("response2") && is_response("answer_text") && !is_response("responsible"));
    }
}
