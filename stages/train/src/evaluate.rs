//! The objective on held-out pairs.

use kit::rows::Metric;
use kit::{Collective, Interrupt, Result};
use lm::{Decoder, Sequence};
use objective::{Batch, Mixture};
use tokens::lm_error;

use crate::dataset::Dataset;
use crate::micro::Assembled;
use crate::order::Order;
use crate::step::{objective_error, of_log_probs, of_rewards, texts};

/// Held-out pairs, in batches like those of training: RPO's matrix has the same size on both.
pub(crate) struct HeldOut {
    pub(crate) dataset: Dataset,
    pub(crate) order: Order,
}

impl HeldOut {
    /// Puts loss, accuracy and margin into a metrics row. The loss is the mean over batches, weighted as their rows
    /// are. Each rank computes some of the batches; all have the result.
    pub(crate) fn measure(
        &self,
        decoder: &Decoder,
        objective: &Mixture,
        budget: usize,
        interrupt: &Interrupt,
        ranks: &dyn Collective,
        metric: &mut Metric,
    ) -> Result<()> {
        let batches = self.order.pass(0);
        let own = batches.iter().skip(ranks.rank()).step_by(ranks.size());
        let scored = own.map(|rows| {
            interrupt.check()?;
            self.score(decoder, objective, budget, &self.dataset.assemble(rows, objective)?)
        });
        let scored = ranks.gather(scored.collect::<Result<Vec<_>>>().map(|scored| scored.concat()))?;
        let mut of_ranks: Vec<_> = scored.iter().map(|numbers| numbers.chunks_exact(2)).collect();
        // Each part's loss is a mean of its own.
        let (mut sums, mut totals) = (vec![0.0; objective.parts.len()], vec![0.0; objective.parts.len()]);
        let mut all = Batch::default();
        for (batch, rows) in batches.iter().enumerate() {
            let mut assembled = self.dataset.assemble(rows, objective)?;
            for (of, two) in assembled.batch.sequences.iter_mut().zip(&mut of_ranks[batch % ranks.size()]) {
                of.policy = (two[0], two[1]);
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

    /// Two numbers of each sequence of a batch under the policy.
    fn score(&self, decoder: &Decoder, objective: &Mixture, budget: usize, assembled: &Assembled) -> Result<Vec<f64>> {
        let sequences: Vec<&Sequence> =
            assembled.sequences.iter().map(|&sequence| &self.dataset.sequences[sequence]).collect();
        let numbers = if objective.needs_rewards() {
            of_rewards(decoder.rewards(&texts(&sequences), budget))
        } else {
            of_log_probs(decoder.score(&sequences, objective.needs_prompt_part(), budget))
        };
        Ok(numbers.map_err(lm_error)?.into_iter().flat_map(|(response, prompt)| [response, prompt]).collect())
    }
}
