//! Questions that a judge writes behind: their tokens, and the seeds of what is drawn.

use kit::{Context, Error, Result, id_of};
use lm::{Sequence, TextRules, Turn};
use tokens::{SequenceReader, lm_error};

use crate::answers::Order;
use crate::config::Judge;
use crate::modes::Mode;
use crate::rationale;
use crate::work::{Refused, Worded, sides};

/// The tokenizer of a judge that writes, and the room that it needs.
pub(crate) struct Writing<'a> {
    stage: &'a Judge,
    pub(crate) reader: SequenceReader,
    pub(crate) rules: TextRules,
    /// The longest question.
    limit: usize,
}

/// A question ready to be answered.
pub(crate) struct Prompt<'a> {
    pub(crate) order: Order,
    pub(crate) question: &'a str,
    pub(crate) sequence: Sequence,
    /// The id of what is drawn: of the comparison and of the side that is shown first, so that exchanging a and b
    /// exchanges the draws too.
    pub(crate) seed_id: String,
}

impl<'a> Writing<'a> {
    /// # Errors
    /// When the model's folder cannot be read, or when its positions leave no room for a question.
    pub(crate) fn open(stage: &'a Judge, context: &Context<'_>) -> Result<Writing<'a>> {
        let rules = stage.tokens.text_rules();
        let reader = SequenceReader::open(&context.model("model")?.path, rules, None)?;
        let (_, drawing) = stage.writing().ok_or_else(|| Error::internal("a judge that writes nothing"))?;
        let behind = match stage.mode() {
            Mode::Rationale(rationale) => rationale::room(rationale, &stage.labels),
            _ => 0,
        };
        let positions = reader.limit;
        let room = positions.saturating_sub(drawing.max_tokens + behind);
        if room == 0 {
            return Err(Error::Pipeline(format!(
                "`max_tokens` is {}, and the judge has {positions} positions for question and answer together",
                drawing.max_tokens
            )));
        }
        let limit = stage.tokens.max_tokens.unwrap_or(room).min(room);
        Ok(Writing { stage, reader, rules, limit })
    }

    /// The message that carries a question.
    pub(crate) fn turn<'q>(&self, question: &'q str) -> Turn<'q> {
        Turn::new(self.stage.form.role(), question)
    }

    /// Remarks on what comes behind a question, for people.
    pub(crate) fn behind(&self) -> Vec<String> {
        match self.stage.mode() {
            Mode::Reasoning(reasoning) => {
                vec![format!("{} answers of at most {} tokens", reasoning.samples, reasoning.max_tokens)]
            }
            Mode::Rationale(rationale) => vec![
                format!("a rationale of at most {} tokens", rationale.max_tokens),
                format!("then {:?} and a label of {:?}", rationale.ending, self.stage.labels.texts()),
            ],
            Mode::Labels | Mode::Rating(_) => Vec::new(),
        }
    }

    /// The orders of a comparison, in a sequence that exchanging a and b does not change.
    ///
    /// # Errors
    /// When the rules say to stop at this comparison.
    pub(crate) fn prompts<'w>(&self, worded: &'w Worded<'_>) -> Result<Result<Vec<Prompt<'w>>, Refused>> {
        let (a, b) = sides(worded.comparison);
        let orders = [(Order::Ab, Some(worded.ab.as_str()), a), (Order::Ba, worded.ba.as_deref(), b)];
        let orders = if a <= b {
            orders
        } else {
            let [ab, ba] = orders;
            [ba, ab]
        };
        let mut prompts = Vec::new();
        for (order, question, first) in orders {
            let Some(question) = question else { continue };
            let tokenised = self.reader.text.prompt(&[self.turn(question)], &self.rules, self.limit);
            let tokenised = tokenised.map_err(|error| match lm_error(error) {
                Error::Data(text) => Error::Data(format!("comparison `{}`: {text}", worded.comparison.comparison_id)),
                other => other,
            })?;
            let sequence = match tokenised {
                Ok(sequence) => sequence,
                Err(refusal) => return Ok(Err((refusal.reason().to_owned(), refusal.to_string()))),
            };
            let seed_id = id_of(&[worded.comparison.comparison_id.as_str(), first.0, first.1]);
            prompts.push(Prompt { order, question, sequence, seed_id });
        }
        Ok(Ok(prompts))
    }
}
