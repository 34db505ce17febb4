//! The passes over one micro-batch, and what is kept between them.

use crate::cost::estimate::{self, Schedule};
use crate::model::block::{RowContext, Saved};
use crate::model::forest::Forest;
use crate::model::parameter::Parameter;
use crate::model::row_keys::RowKeys;
use crate::model::scoring::targets;
use crate::ops::pointwise::scaled;
use crate::ops::targets::HeadScores;
use crate::ops::tiles::tiles;
use crate::ops::{embed, head};
use crate::{Error, Result, Training};
use candle_core::Tensor;

// T rows, R of them scored, H hidden width.

/// Values kept of a micro-batch.
#[derive(Debug)]
pub(crate) enum Kept {
    All(Vec<Option<Saved>>, Final),
    Inputs(Vec<Option<Tensor>>, Final),
    Nothing,
}

/// The end of a forward.
#[derive(Debug)]
pub(crate) struct Final {
    /// States of the scored rows before the last norm [R, H].
    rows: Tensor,
    /// 1 / rms of these rows [R].
    rms: Tensor,
    /// Log-sum-exps of their logits.
    lse: Vec<f64>,
    /// Values kept of the logits themselves.
    logits: Vec<head::Kept>,
}

impl Training {
    /// The lowest block that needs a backward, and whether the embeddings below need one.
    fn lowest(&self) -> (usize, bool) {
        if self.decoder.embed.gradient.is_some() {
            return (0, true);
        }
        let trained = |p: &&Parameter| p.gradient.is_some();
        let blocks = &self.decoder.blocks;
        (blocks.iter().position(|block| block.parameters().iter().any(trained)).unwrap_or(blocks.len()), false)
    }

    /// The schedule for a batch.
    pub(crate) fn schedule<'f>(&self, forests: impl Iterator<Item = &'f Forest> + Clone) -> Schedule {
        let config = self.decoder.config();
        let size = self.decoder.dtype().size_in_bytes() as u64;
        let blocks = (config.layers - self.lowest().0) as u64;
        let rows: u64 = forests.clone().map(|forest| forest.ids.len() as u64).sum();
        let most = forests.clone().map(|forest| forest.ids.len() as u64).max().unwrap_or(0);
        let scored: u64 = forests.map(|forest| forest.scored_rows.len() as u64).sum();
        estimate::schedule(config, blocks, size, estimate::Rows { all: rows, most, scored }, self.memory)
    }

    /// The keys of rows in this step, where an adapter trains with dropout.
    fn keys(&self, forest: &Forest) -> Option<RowKeys> {
        let dropped = self.decoder.adapter().is_some_and(|lora| lora.dropout > 0.0);
        dropped.then(|| RowKeys::of(forest, self.dropout_seed, self.steps))
    }

    /// The first half of a step over a micro-batch: log-probabilities of its targets, or of a reward model the numbers
    /// of its rows in their place.
    pub(crate) fn forward_kept(&self, forest: &Forest, schedule: Schedule) -> Result<(Kept, HeadScores)> {
        let decoder = &self.decoder;
        let tables = decoder.tables_for(forest)?;
        let keys = self.keys(forest);
        let (depths, tiles) = ((&forest.depths).into(), &tiles(forest));
        let context = RowContext { tables: &tables, depths, tiles, keys: keys.as_ref() };
        let (lowest, _) = self.lowest();
        let mut x = decoder.embedded(&forest.ids)?;
        let (mut saved, mut inputs) = (Vec::new(), Vec::new());
        for (layer, block) in decoder.blocks.iter().enumerate() {
            let rows = decoder.is_last(layer).then_some(&forest.scored_rows[..]);
            if matches!(schedule, Schedule::Keep { .. }) && layer >= lowest {
                let (y, of_block) = block.forward_saving(&x, &context, rows)?;
                saved.push(Some(of_block));
                x = y;
            } else {
                let y = block.forward(&x, &context, rows)?;
                saved.push(None);
                inputs.push((layer >= lowest && schedule == Schedule::Boundaries).then_some(x));
                x = y;
            }
        }
        let rows = x; // [R, H]
        let (h, rms) = if decoder.score.is_some() { decoder.last_norm(&rows)? } else { decoder.head_input(&rows)? };
        let (scores, logits) = match schedule {
            _ if decoder.score.is_some() => (HeadScores { logps: decoder.values(&h)?, lse: Vec::new() }, Vec::new()),
            Schedule::Keep { logits: true } => {
                head::forward_keeping(&h, decoder.head_weight(), &targets(forest), decoder.head_form())?
            }
            _ => (head::forward(&h, decoder.head_weight(), &targets(forest), decoder.head_form())?, Vec::new()),
        };
        let last = Final { rows, rms, lse: scores.lse.clone(), logits };
        let kept = match schedule {
            Schedule::Keep { .. } => Kept::All(saved, last),
            Schedule::Boundaries => Kept::Inputs(inputs, last),
            Schedule::TwoPass => Kept::Nothing,
        };
        Ok((kept, scores))
    }

    /// The other half, given the derivatives by what the first one gave.
    pub(crate) fn backward_kept(&self, forest: &Forest, kept: Kept, derivatives: &[f64]) -> Result<()> {
        let (mut saved, mut inputs, last) = match kept {
            Kept::All(saved, last) => (saved, Vec::new(), last),
            Kept::Inputs(inputs, last) => (Vec::new(), inputs, last),
            Kept::Nothing => {
                let (kept, _) = self.forward_kept(forest, Schedule::Keep { logits: false })?;
                return self.backward_kept(forest, kept, derivatives);
            }
        };
        let decoder = &self.decoder;
        let tables = decoder.tables_for(forest)?;
        let keys = self.keys(forest);
        let (depths, tiles) = ((&forest.depths).into(), &tiles(forest));
        let context = RowContext { tables: &tables, depths, tiles, keys: keys.as_ref() };
        let Final { rows, rms, lse, logits } = last;
        let normed = decoder.norm.again(&rows, &rms)?;
        let dh = match &decoder.score {
            Some(_) => decoder.values_backward(&normed, derivatives)?,
            None => {
                let h = scaled(&normed, decoder.head_scale())?;
                let dh = head::backward(
                    &h,
                    decoder.head_weight(),
                    &targets(forest),
                    (&lse, logits),
                    derivatives,
                    decoder.head().gradient.as_ref(),
                    decoder.head_form(),
                )?;
                scaled(&dh, decoder.head_scale())?
            }
        };
        let mut dx = decoder.norm.backward(&rows, &rms, &dh, None)?;
        let (lowest, embeddings) = self.lowest();
        if lowest == decoder.blocks.len() && !embeddings {
            return Ok(());
        }
        for (layer, block) in decoder.blocks.iter().enumerate().skip(lowest).rev() {
            let rows = decoder.is_last(layer).then_some(&forest.scored_rows[..]);
            let of_block = match saved.get_mut(layer).and_then(Option::take) {
                Some(of_block) => of_block,
                None => {
                    let input = inputs.get_mut(layer).and_then(Option::take);
                    let input = input.ok_or_else(|| Error::internal("a block's input was not kept"))?;
                    block.forward_saving(&input, &context, rows)?.1
                }
            };
            dx = block.backward(&of_block, dx, &context, rows, forest)?;
        }
        if let Some(gradient) = &decoder.embed.gradient {
            embed::backward(&scaled(&dx, decoder.config().embedding_scale(decoder.dtype()))?, &forest.ids, gradient)?;
        }
        Ok(())
    }
}
