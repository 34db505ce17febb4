//! The work list: each distinct prompt once, tokenised, and the rows whose prompt was refused.

use std::collections::BTreeMap;

use kit::rows::{Message, Reject};
use kit::{Context, DistinctPrompts, Error, Result};
use lm::{Sequence, Text, TooLong};
use tokens::SequenceReader;

use crate::config::Sample;

pub(crate) struct WorkList {
    /// The prompts to answer, by id.
    pub(crate) prompts: Vec<PromptTokens>,
    /// The rows whose prompt was refused, in the order of the input.
    pub(crate) refused: Vec<Reject>,
    /// Rows read.
    pub(crate) rows: u64,
    /// Prompts that were refused or cut because they are too long.
    pub(crate) too_long: u64,
    pub(crate) text: Text,
}

/// A prompt ready for generation.
pub(crate) struct PromptTokens {
    pub(crate) id: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) sequence: Sequence,
}

/// The reader of a stage's prompts: answers of `max_tokens` have room after each.
pub(crate) fn reader(stage: &Sample, context: &Context<'_>) -> Result<SequenceReader> {
    let folder = &context.model("model")?.path;
    let mut reader = SequenceReader::open(folder, stage.tokens.text_rules(), None)?;
    let positions = reader.limit;
    let room = positions.saturating_sub(stage.max_tokens);
    if room == 0 {
        return Err(Error::Pipeline(format!(
            "`max_tokens` is {}, and the model has {positions} positions for prompt and response together",
            stage.max_tokens
        )));
    }
    reader.limit = stage.tokens.max_tokens.unwrap_or(room).min(room);
    Ok(reader)
}

impl WorkList {
    pub(crate) fn read(stage: &Sample, context: &Context<'_>) -> Result<WorkList> {
        let reader = reader(stage, context)?;
        let mut distinct = DistinctPrompts::read(context, "from")?;
        let (mut prompts, mut refused, mut too_long) = (Vec::new(), BTreeMap::new(), 0);
        for (id, messages) in std::mem::take(&mut distinct.messages) {
            match reader.prompt(&id, &messages)? {
                Ok(sequence) => {
                    too_long += u64::from(sequence.cut > 0);
                    prompts.push(PromptTokens { id, messages, sequence });
                }
                Err(refusal) => {
                    too_long += u64::from(reader.rules.too_long == TooLong::Reject && refusal.reason() == "too_long");
                    refused.insert(id, (refusal.reason().to_owned(), refusal.to_string()));
                }
            }
        }
        let rows = distinct.rows.len() as u64;
        let refused = distinct.rejects("from", &refused).into_iter().map(|(_, reject)| reject).collect();
        Ok(WorkList { prompts, refused, rows, too_long, text: reader.text })
    }
}
