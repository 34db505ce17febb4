//! The formats that are known. Each is a file: how it is found, the columns it needs and reads, and how a row is read.

mod arena;
mod conversations;
mod embeddings;
mod help_steer;
mod hh;
mod jpo_judge;
mod jpo_pairs;
mod open_assistant;
mod open_assistant_rows;
mod preference;
mod prompt_completion;
mod prompts;
mod ranked;
mod scored;
mod unpaired;
mod votes;

use kit::Table;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bad_row::BadRow;
use crate::column::Column;
use crate::columns::Places;
use crate::head::Head;
use crate::record::{Part, Record};
use crate::row::Row;

/// A format.
pub struct Known {
    /// Checks that the first rows are of the format. Formats are tried in the order of [`Format`].
    pub detect: fn(&Head<'_>) -> bool,
    /// The columns a row cannot do without.
    pub needs: &'static [Column],
    /// Groups of columns of which a row needs one; none where it needs none.
    pub needs_one_of: &'static [&'static [Column]],
    /// The columns it can read, those it needs included.
    pub reads: &'static [Column],
    /// The column of a row's own id.
    pub row_id: Option<Column>,
    /// Columns of well-known files that look like labels and are left out on purpose.
    pub aside: &'static [&'static str],
    /// Takes away columns that were found and are not meant.
    pub settle: fn(&Head<'_>, &mut Places),
    /// The tables that it fills.
    pub tables: fn(&Places) -> Vec<Table>,
    /// The records of a row.
    pub read: fn(&mut Row<'_>) -> Result<Vec<Record>, BadRow>,
    /// The records of rows that mean nothing alone, in place of `read`: gets all rows of all files, gives the part of
    /// each.
    pub join: Option<Join>,
}

/// All rows of all files to the part of each.
pub type Join = fn(&mut [Row<'_>]) -> Vec<Result<Part, BadRow>>;

impl Known {
    /// A format that needs and reads nothing yet.
    const NONE: Known = Known {
        detect: |_| false,
        needs: &[],
        needs_one_of: &[],
        reads: &[],
        row_id: None,
        aside: &[],
        settle: |_, _| (),
        tables: |_| Vec::new(),
        read: |_| unreachable!("a layout has a format"),
        join: None,
    };
}

macro_rules! formats {
    ($( $(#[$doc:meta])* $name:ident in $module:ident )*) => {
        /// Formats of rows. Names on the right of each line are columns; those with a `?` may be absent.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Format {
            /// By the columns of the first rows.
            #[default]
            Auto,
            $( $(#[$doc])* $name, )*
        }

        impl Format {
            /// All but `auto`, in the order in which they are looked for.
            pub(crate) const ALL: &[Format] = &[$( Format::$name, )*];

            /// The word for it in pipeline files.
            pub fn name(self) -> &'static str {
                match self {
                    Format::Auto => "auto",
                    $( Format::$name => stringify!($module), )*
                }
            }

            pub(crate) fn known(self) -> &'static Known {
                match self {
                    Format::Auto => &Known::NONE,
                    $( Format::$name => &$module::FORMAT, )*
                }
            }
        }
    };
}

formats! {
    /// `prompt_id, embedding`, or `prompt, embedding`.
    Embeddings in embeddings
    /// JPO training pairs: `chosen_prompt, chosen, rejected_prompt, rejected` (`i_chosen, r_chosen, i_reject,
    /// r_reject`).
    JpoPairs in jpo_pairs
    /// Trees of Open Assistant: `prompt`, a message with `replies`. Ranked replies to one message are compared two by
    /// two; all that comes before them is their prompt.
    OpenAssistant in open_assistant
    /// Open Assistant, a message a row: `message_id, parent_id, text, role, rank`, as on the hub. The trees are made
    /// from the parents, over all files of the stage; then as `open_assistant`.
    OpenAssistantRows in open_assistant_rows
    /// Votes of several annotators: `response_0, response_1` with a column for each (`annotator1`, `annotator2`), a
    /// list or an object `votes`, counts (`votes_a, votes_b, ties?`), or a row for each vote (`annotator, vote`); or,
    /// where the texts stand elsewhere, `comparison_id` in their place. `votes:` says what their values mean.
    Votes in votes
    /// LMSYS and Chatbot Arena: `response_0, response_1, winner?`, each side a conversation (`conversation_a`), or
    /// lists of texts beside a list of prompts (`response_a`), also where these are JSON as text; `winner` or
    /// `winner_model_a, winner_model_b, winner_tie`. The prompt is what both conversations begin with.
    Arena in arena
    /// HelpSteer: `prompt, completion, helpfulness`. The label is helpfulness / 4, in [0, 1].
    HelpSteer in help_steer
    /// JPO's judge files: `prompt, response_0, response_1`, or for joint comparisons `prompt_0, response_0, prompt_1,
    /// response_1`; with `feedback` (0: the first, 1: the second, 2: equal) they are labelled. Also alpaca_eval
    /// (`output_1, output_2, preference`), PKU-SafeRLHF (`better_response_id`), SHP (`human_ref_A, labels`),
    /// preferences of HelpSteer 2 and 3 (`strength`, from -3 to 3), and the JSON file of JPO's evaluation, `{run:
    /// {"prompt<SEP>x4 gold<SEP>x4 answer": model | gold | equal}}`: the run's answer comes first.
    JpoJudge in jpo_judge
    /// Anthropic's HH transcripts: `chosen, rejected`, each a whole dialogue with `Human:` and `Assistant:`.
    Hh in hh
    /// TRL preference and UltraFeedback binarized: `prompt?, chosen, rejected`. Text or messages; without a prompt, it
    /// is what both sides begin with, or `conversations` where the sides are a message each (LLaMA-Factory).
    Preference in preference
    /// Several responses to a prompt, each with a score or a rank: `prompt, responses`, objects as in UltraFeedback
    /// (`completions`) and Nectar (`answers`), or texts beside a list of `scores` or `ranks` as in distilabel
    /// (`generations, ratings`). They are compared two by two; equal ones are ties.
    Ranked in ranked
    /// Responses with scores, one a row: `prompt, completion, score`, or the weighted criteria of `scores:`, such as
    /// HelpSteer's attributes. Those to one prompt are compared, over all files of the stage. Never found, always said.
    Scored in scored
    /// TRL unpaired preference: `prompt, completion, label`; the label is a truth value or a number in [0, 1].
    Unpaired in unpaired
    /// Demonstrations: `prompt, completion`.
    PromptCompletion in prompt_completion
    /// Demonstrations as conversations: `messages`; the last one, of the assistant, is the response. With `label?`.
    Conversations in conversations
    /// `prompt`, or `messages` that end before the response.
    Prompts in prompts
}
