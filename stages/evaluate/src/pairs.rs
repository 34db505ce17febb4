//! Held-out pairs as tokens.

use kit::rows::{Message, Pair, Reject};
use kit::{Context, Error, Result};
use lm::{DecoderConfig, Displaced, Sequence, Text, TooLong, Turn};
use objective::Forms;

use crate::lm_error;
use crate::stage::Evaluate;

/// A pair to be scored.
pub(crate) struct PairTokens {
    pub(crate) pair_id: String,
    pub(crate) form: String,
    pub(crate) p_hat: f64,
    pub(crate) chosen: SideTokens,
    pub(crate) rejected: SideTokens,
}

pub(crate) struct SideTokens {
    pub(crate) prompt_id: String,
    pub(crate) response_id: String,
    pub(crate) sequence: Sequence,
}

pub(crate) struct Pairs {
    /// In the order of their prompts, so that batches share them.
    pub(crate) kept: Vec<PairTokens>,
    pub(crate) rejects: Vec<Reject>,
    pub(crate) rows: u64,
    pub(crate) forms: Forms,
    /// Pairs that were refused or cut because they are too long.
    pub(crate) too_long: u64,
    /// Pairs at which the stage stops.
    pub(crate) stopped: Displaced,
}

impl Pairs {
    /// Reads and tokenises `pairs` with the tokenizer of `model`; no weights are read.
    pub(crate) fn read(stage: &Evaluate, context: &Context<'_>) -> Result<Pairs> {
        Pairs::of(stage, context, context.rows::<Pair>("pairs")?)
    }

    /// Tokenises some pairs.
    pub(crate) fn of(
        stage: &Evaluate,
        context: &Context<'_>,
        rows: impl Iterator<Item = Result<Pair>>,
    ) -> Result<Pairs> {
        let folder = &context.model("model")?.path;
        let text = Text::load(folder).map_err(lm_error)?;
        let positions = DecoderConfig::from_folder(folder).map_err(lm_error)?.max_positions;
        let limit = stage.max_tokens.unwrap_or(positions).min(positions);
        let mut pairs = Pairs {
            kept: Vec::new(),
            rejects: Vec::new(),
            rows: 0,
            forms: Forms::default(),
            too_long: 0,
            stopped: Displaced::default(),
        };
        for row in rows {
            let row = row?;
            pairs.rows += 1;
            match row.form.as_str() {
                "joint" => pairs.forms.joint += 1,
                _ => pairs.forms.same += 1,
            }
            pairs.take(stage, &text, limit, row)?;
        }
        let key = |pair: &PairTokens| (pair.chosen.prompt_id.clone(), pair.pair_id.clone());
        pairs.kept.sort_by_cached_key(key);
        Ok(pairs)
    }

    fn take(&mut self, stage: &Evaluate, text: &Text, limit: usize, row: Pair) -> Result<()> {
        let chosen = (&*turns(&row.chosen_prompt), &*turns(&row.chosen));
        let rejected = (&*turns(&row.rejected_prompt), &*turns(&row.rejected));
        let of_row = |error| match lm_error(error) {
            Error::Data(text) => Error::Data(format!("pair `{}`: {text}", row.pair_id)),
            other => other,
        };
        match text.pair(chosen, rejected, &stage.rules(), limit).map_err(of_row)? {
            Ok((chosen, rejected)) => {
                self.too_long += u64::from(chosen.cut > 0 || rejected.cut > 0);
                let side = |prompt_id, response_id, sequence| SideTokens { prompt_id, response_id, sequence };
                self.kept.push(PairTokens {
                    pair_id: row.pair_id,
                    form: row.form,
                    p_hat: row.p_hat,
                    chosen: side(row.chosen_prompt_id, row.chosen_response_id, chosen),
                    rejected: side(row.rejected_prompt_id, row.rejected_response_id, rejected),
                });
            }
            Err(refusal) => {
                self.stopped.note(&format!("pair `{}`", row.pair_id), &refusal);
                self.too_long += u64::from(stage.too_long == TooLong::Reject && refusal.reason() == "too_long");
                self.rejects.push(Reject {
                    input: "pairs".to_owned(),
                    row_id: row.pair_id,
                    reason: refusal.reason().to_owned(),
                    detail: refusal.to_string(),
                    source_file: row.source_file,
                    source_line: row.source_line,
                });
            }
        }
        Ok(())
    }

    /// What there is to say of prompts that the template writes in another way when an answer follows.
    pub(crate) fn displaced_remark(&self) -> Option<String> {
        let displaced = self.sides().filter(|side| side.sequence.displaced).count();
        let text = "whose prompt the chat template writes in another way when an answer follows";
        (displaced > 0).then(|| format!("{displaced} sequences {text}"))
    }

    /// Every side, in the order of the pairs.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &SideTokens> {
        self.kept.iter().flat_map(|pair| [&pair.chosen, &pair.rejected])
    }
}

fn turns(messages: &[Message]) -> Vec<Turn<'_>> {
    messages
        .iter()
        .map(|message| Turn { role: &message.role, content: &message.content, extra: message.extra.as_deref() })
        .collect()
}
