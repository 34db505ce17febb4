//! From rows to sequences, and to the rows that are refused.

use std::path::Path;

use kit::rows::{Item, Message, Pair, Reject};
use kit::{Result, Row, ids};
use lm::{DecoderConfig, Refusal, Sequence, Text, TextRules, Turn};

use crate::error::{lm_error, of_row};
use crate::rules::RowRules;

/// The tokenizer and template of a model, with the rules that rows become sequences by.
pub struct SequenceReader {
    /// The tokenizer and template.
    pub text: Text,
    /// Rules for texts that do not become sequences as they stand.
    pub rules: TextRules,
    /// The longest sequence in tokens.
    pub limit: usize,
}

/// Identity of a sequence. The same response has another start where its pair tokenises with a shorter common prefix,
/// and another length where its pair was cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SequenceKey {
    /// The prompt.
    pub prompt_id: String,
    /// The response.
    pub response_id: String,
    /// The first token of the completion.
    pub start: usize,
    /// Tokens of the completion.
    pub length: usize,
}

impl SequenceKey {
    /// The key of a sequence.
    pub fn of(prompt_id: &str, response_id: &str, sequence: &Sequence) -> SequenceKey {
        SequenceKey {
            prompt_id: prompt_id.to_owned(),
            response_id: response_id.to_owned(),
            start: sequence.start,
            length: sequence.completion_tokens(),
        }
    }
}

/// The sequences of an item.
pub struct ItemSequences {
    /// Its response.
    pub response: Sequence,
    /// KTO: the mismatched response under its prompt, and its id.
    pub mismatched: Option<Mismatched>,
}

/// KTO's mismatched response.
pub struct Mismatched {
    /// Its id.
    pub response_id: String,
    /// It as a message in the form of the item's own response.
    pub message: Message,
    /// Its tokens.
    pub sequence: Sequence,
}

/// The reason why a row gives no sequences.
#[derive(Debug)]
pub struct RefusedRow {
    /// The reason.
    pub refusal: Refusal,
    /// The column at fault, where it is not the row's main text: `kl_response`.
    pub part: Option<&'static str>,
}

impl RefusedRow {
    /// The reason as it stands in the `rejects` table.
    pub fn reason(&self) -> String {
        self.refusal.reason().to_owned()
    }

    /// The case: what was found and what was wanted.
    pub fn detail(&self) -> String {
        self.part.map_or_else(|| self.refusal.to_string(), |part| format!("{part}: {}", self.refusal))
    }

    /// The row with the part at fault, for messages: `pair p1`, `item i1, kl_response`.
    pub fn named<R: DatasetRow>(&self, row: &R) -> String {
        format!("{}{}", row.named(), self.part.map_or_else(String::new, |part| format!(", {part}")))
    }
}

/// A row with an id that came from a line of a file.
pub trait DatasetRow: Row {
    /// The word and the id for messages: pair `p1`.
    fn named(&self) -> String;

    /// The row in the `rejects` table.
    fn reject(&self, input: &str, reason: String, detail: String) -> Reject;
}

macro_rules! dataset_row {
    ($row:ty, $word:literal, $id:ident) => {
        impl DatasetRow for $row {
            fn named(&self) -> String {
                format!(concat!($word, " `{}`"), self.$id)
            }

            fn reject(&self, input: &str, reason: String, detail: String) -> Reject {
                Reject {
                    input: input.to_owned(),
                    row_id: self.$id.clone(),
                    reason,
                    detail,
                    source_file: self.source_file.clone(),
                    source_line: self.source_line,
                }
            }
        }
    };
}

dataset_row!(Pair, "pair", pair_id);
dataset_row!(Item, "item", item_id);

impl SequenceReader {
    /// Reads the tokenizer and template of a model's folder; no weights.
    ///
    /// # Errors
    /// When the folder has none that can be used.
    pub fn open(folder: &Path, rules: TextRules, max_tokens: Option<usize>) -> Result<SequenceReader> {
        SequenceReader::of(&DecoderConfig::from_folder(folder).map_err(lm_error)?, folder, rules, max_tokens)
    }

    /// The same of a reward model.
    ///
    /// # Errors
    /// As [`SequenceReader::open`].
    pub fn of_reward_model(folder: &Path, rules: TextRules, max_tokens: Option<usize>) -> Result<SequenceReader> {
        SequenceReader::of(&DecoderConfig::of_reward_model(folder).map_err(lm_error)?, folder, rules, max_tokens)
    }

    fn of(
        config: &DecoderConfig,
        folder: &Path,
        rules: TextRules,
        max_tokens: Option<usize>,
    ) -> Result<SequenceReader> {
        let text = Text::load(folder).map_err(lm_error)?;
        let positions = config.max_positions;
        Ok(SequenceReader { text, rules, limit: max_tokens.unwrap_or(positions).min(positions) })
    }

    /// The reader of a stage on training rows.
    ///
    /// # Errors
    /// As [`SequenceReader::open`].
    pub fn of_rows(folder: &Path, rules: &RowRules) -> Result<SequenceReader> {
        SequenceReader::open(folder, rules.text_rules(), rules.max_tokens)
    }

    /// The chosen and the rejected side.
    ///
    /// # Errors
    /// When the template or tokenizer fails, or when the rules say to stop at this row.
    pub fn pair(&self, row: &Pair) -> Result<Result<[Sequence; 2], RefusedRow>> {
        let chosen = (&*turns(&row.chosen_prompt), &*turns(&row.chosen));
        let rejected = (&*turns(&row.rejected_prompt), &*turns(&row.rejected));
        let tokenised = self.text.pair(chosen, rejected, &self.rules, self.limit);
        let sides = tokenised.map_err(|error| of_row(&row.named(), error))?;
        Ok(sides.map(|(chosen, rejected)| [chosen, rejected]).map_err(|refusal| RefusedRow { refusal, part: None }))
    }

    /// The response of an item; with `mismatched` also KTO's, where it has one.
    ///
    /// # Errors
    /// As [`SequenceReader::pair`].
    pub fn item(&self, row: &Item, mismatched: bool) -> Result<Result<ItemSequences, RefusedRow>> {
        let prompt = turns(&row.prompt);
        let single = |response: &[Message], part| {
            let tokenised = self.text.single(&prompt, &turns(response), &self.rules, self.limit);
            let tokenised = tokenised.map_err(|error| of_row(&row.named(), error))?;
            Ok(tokenised.map_err(|refusal| RefusedRow { refusal, part }))
        };
        let response = match single(&row.response, None)? {
            Ok(sequence) => sequence,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some((message, response_id)) = kl_response(row).filter(|_| mismatched) else {
            return Ok(Ok(ItemSequences { response, mismatched: None }));
        };
        Ok(single(std::slice::from_ref(&message), Some("kl_response"))?.map(|sequence| {
            let mismatched = Some(Mismatched { response_id, message, sequence });
            ItemSequences { response, mismatched }
        }))
    }

    /// A question with each of some continuations, such as the labels of a judge; `row` names it in messages.
    ///
    /// # Errors
    /// As [`SequenceReader::pair`].
    pub fn continuations(
        &self,
        row: &str,
        question: Turn<'_>,
        continuations: &[&str],
    ) -> Result<Result<Vec<Sequence>, Refusal>> {
        let tokenised = self.text.continuations(&[question], continuations, &self.rules, self.limit);
        tokenised.map_err(|error| of_row(row, error))
    }

    /// A response under its prompt; `row` names it in messages.
    ///
    /// # Errors
    /// As [`SequenceReader::pair`].
    pub fn response(&self, row: &str, prompt: &[Message], response: &[Message]) -> Result<Result<Sequence, Refusal>> {
        let tokenised = self.text.single(&turns(prompt), &turns(response), &self.rules, self.limit);
        tokenised.map_err(|error| of_row(row, error))
    }

    /// A prompt as a model goes on from it.
    ///
    /// # Errors
    /// As [`SequenceReader::pair`].
    pub fn prompt(&self, id: &str, messages: &[Message]) -> Result<Result<Sequence, Refusal>> {
        let tokenised = self.text.prompt(&turns(messages), &self.rules, self.limit);
        tokenised.map_err(|error| of_row(&format!("prompt `{id}`"), error))
    }
}

/// KTO's mismatched response as a message in the form of the item's own response, and its id.
fn kl_response(row: &Item) -> Option<(Message, String)> {
    let text = row.kl_response.as_ref()?;
    let role = row.response.last().map_or("assistant", |message| message.role.as_str());
    let message = Message::new(role, text);
    let made = || ids::response_id(&row.prompt_id, std::slice::from_ref(&message));
    let response_id = row.kl_response_id.clone().unwrap_or_else(made);
    Some((message, response_id))
}

/// Messages as a template takes them.
pub fn turns(messages: &[Message]) -> Vec<Turn<'_>> {
    messages
        .iter()
        .map(|message| Turn { role: &message.role, content: &message.content, extra: message.extra.as_deref() })
        .collect()
}
