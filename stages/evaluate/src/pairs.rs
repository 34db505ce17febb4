//! Held-out pairs as tokens.

use kit::rows::{Pair, Reject};
use kit::{Context, Result};
use lm::{Displaced, Sequence, TooLong};
use objective::Forms;
use tokens::rendering::displaced_remark;
use tokens::{DatasetRow, SequenceReader};

use crate::config::Evaluate;

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
        let reader = match stage.of_rewards() {
            true => SequenceReader::of_reward_model(folder, stage.tokens.text_rules(), stage.tokens.max_tokens)?,
            false => SequenceReader::of_rows(folder, &stage.tokens)?,
        };
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
            pairs.take(&reader, row)?;
        }
        let key = |pair: &PairTokens| (pair.chosen.prompt_id.clone(), pair.pair_id.clone());
        pairs.kept.sort_by_cached_key(key);
        Ok(pairs)
    }

    fn take(&mut self, reader: &SequenceReader, row: Pair) -> Result<()> {
        match reader.pair(&row)? {
            Ok([chosen, rejected]) => {
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
            Err(refused) => {
                self.stopped.note(&refused.named(&row), &refused.refusal);
                self.too_long += u64::from(reader.rules.too_long == TooLong::Reject && refused.reason() == "too_long");
                self.rejects.push(row.reject("pairs", refused.reason(), refused.detail()));
            }
        }
        Ok(())
    }

    /// A remark on prompts that the template writes in another way when an answer follows; none where there are none.
    pub(crate) fn displaced_remark(&self) -> Option<String> {
        displaced_remark(self.sides().filter(|side| side.sequence.displaced).count() as u64)
    }

    /// Every side, in the order of the pairs.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &SideTokens> {
        self.kept.iter().flat_map(|pair| [&pair.chosen, &pair.rejected])
    }
}
