//! The objective on held-out pairs.

use kit::rows::Metric;
use kit::{Interrupt, Result};
use lm::{Decoder, Sequence};
use objective::{Batch, Mixture};
use tokens::lm_error;

use crate::dataset::Dataset;
use crate::order::Order;
use crate::step::{objective_error, of_log_probs, of_rewards, texts};

/// Held-out pairs, in batches like those of training: RPO's matrix has the same size on both.
pub(crate) struct HeldOut {
    pub(crate) dataset: Dataset,
    pub(crate) order: Order,
}

impl HeldOut {
    /// Puts loss, accuracy and margin into a metrics row. The loss is the mean over batches, weighted as their rows
    /// are.
    pub(crate) fn measure(
        &self,
        decoder: &Decoder,
        objective: &Mixture,
        budget: usize,
        interrupt: &Interrupt,
        metric: &mut Metric,
    ) -> Result<()> {
        // Each part's loss is a mean of its own.
        let (mut sums, mut totals) = (vec![0.0; objective.parts.len()], vec![0.0; objective.parts.len()]);
        let mut all = Batch::default();
        for rows in self.order.pass(0) {
            interrupt.check()?;
            let mut assembled = self.dataset.assemble(&rows, objective)?;
            let sequences: Vec<&Sequence> =
                assembled.sequences.iter().map(|&sequence| &self.dataset.sequences[sequence]).collect();
            let numbers = if objective.needs_rewards() {
                of_rewards(decoder.rewards(&texts(&sequences), budget))
            } else {
                of_log_probs(decoder.score(&sequences, objective.needs_prompt_part(), budget))
            };
            for (of, numbers) in assembled.batch.sequences.iter_mut().zip(numbers.map_err(lm_error)?) {
                of.policy = numbers;
            }
            for (part, (sum, total)) in objective.parts.iter().zip(sums.iter_mut().zip(&mut totals)) {
                let part = Mixture::from(part.objective);
                let (evaluation, _) = part.evaluate(&assembled.batch).map_err(objective_error)?;
                if evaluation.no_step.is_none() {
                    let share = part.denominators(&assembled.batch)[0];
                    *sum += share * evaluation.loss;
                    *total += share;
                }
            }
            let before = all.sequences.len();
            all.sequences.extend(assembled.batch.sequences);
            all.edges.extend(assembled.batch.edges.into_iter().map(|mut edge| {
                edge.chosen += before;
                edge.rejected += before;
                edge
            }));
        }
        let measures = objective.measure(&all);
        let losses = objective.parts.iter().zip(sums.iter().zip(&totals));
        metric.eval_loss = totals.iter().any(|total| *total > 0.0).then(|| {
            losses.filter(|(_, (_, total))| **total > 0.0).map(|(part, (sum, total))| part.weight * (sum / total)).sum()
        });
        metric.eval_rewards_accuracies = measures.rewards_accuracies;
        metric.eval_rewards_margins = measures.rewards_margins;
        Ok(())
    }
}
