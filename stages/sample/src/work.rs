//! The work list: each distinct prompt once, tokenised, and the rows whose prompt was refused.

use std::collections::BTreeMap;

use kit::rows::{Message, Reject};
use kit::{Context, DistinctPrompts, Error, Result};
use lm::{DecoderConfig, Sequence, Text, TooLong, Turn};

use crate::lm_error;
use crate::stage::Sample;

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

/// How prompts become tokens.
pub(crate) struct Tokens {
    pub(crate) text: Text,
    /// The longest prompt.
    pub(crate) limit: usize,
}

impl Tokens {
    pub(crate) fn open(stage: &Sample, context: &Context<'_>) -> Result<Tokens> {
        let folder = &context.model("model")?.path;
        let text = Text::load(folder).map_err(lm_error)?;
        let positions = DecoderConfig::from_folder(folder).map_err(lm_error)?.max_positions;
        let room = positions.saturating_sub(stage.max_tokens);
        if room == 0 {
            return Err(Error::Pipeline(format!(
                "`max_tokens` is {}, and the model has {positions} positions for prompt and response together",
                stage.max_tokens
            )));
        }
        Ok(Tokens { text, limit: stage.max_prompt_tokens.unwrap_or(room).min(room) })
    }
}

impl WorkList {
    pub(crate) fn read(stage: &Sample, context: &Context<'_>) -> Result<WorkList> {
        let Tokens { text, limit } = Tokens::open(stage, context)?;
        let mut distinct = DistinctPrompts::read(context, "from")?;
        let (mut prompts, mut refused, mut too_long) = (Vec::new(), BTreeMap::new(), 0);
        for (id, messages) in std::mem::take(&mut distinct.messages) {
            let turns: Vec<Turn<'_>> = messages
                .iter()
                .map(|message| Turn { role: &message.role, content: &message.content, extra: message.extra.as_deref() })
                .collect();
            let of_prompt = |error| match lm_error(error) {
                Error::Data(text) => Error::Data(format!("prompt `{id}`: {text}")),
                other => other,
            };
            match text.prompt(&turns, &stage.text_rules(), limit).map_err(of_prompt)? {
                Ok(sequence) => {
                    too_long += u64::from(sequence.cut > 0);
                    prompts.push(PromptTokens { id, messages, sequence });
                }
                Err(refusal) => {
                    too_long += u64::from(stage.too_long == TooLong::Reject && refusal.reason() == "too_long");
                    refused.insert(id, (refusal.reason().to_owned(), refusal.to_string()));
                }
            }
        }
        let rows = distinct.rows.len() as u64;
        let refused = distinct.rejects("from", &refused).into_iter().map(|(_, reject)| reject).collect();
        Ok(WorkList { prompts, refused, rows, too_long, text })
    }
}
