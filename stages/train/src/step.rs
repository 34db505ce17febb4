//! One step: the whole batch forward, the objective on all of it, backward, and the optimizer.

use kit::{Collective, Error, Interrupt, Result};
use lm::{LogProbs, Sequence, Training};
use objective::{Batch, Evaluation, Mixture};
use tokens::lm_error;

use crate::config::BatchOptions;
use crate::dataset::Dataset;
use crate::micro::{Assembled, Part};
use crate::sum;

/// The results of one optimizer step.
pub(crate) struct Step {
    /// The batch with the policy's log-probs.
    pub(crate) batch: Batch,
    pub(crate) evaluation: Evaluation,
    /// The loss of each part of the objective, before its weight.
    pub(crate) losses: Vec<f64>,
    pub(crate) grad_norm: f64,
    pub(crate) lr: f64,
    /// Tokens of its sequences, shared prompts once per sequence.
    pub(crate) tokens: u64,
}

/// The inputs of an optimizer step: data, settings and the other ranks.
pub(crate) struct Stepper<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) objective: &'a Mixture,
    pub(crate) batch: &'a BatchOptions,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) ranks: &'a dyn Collective,
}

impl Stepper<'_> {
    /// Takes a step on a batch that has weight, together with all ranks. On an interrupt nothing of it has happened to the
    /// weights.
    pub(crate) fn take(
        &self,
        training: &mut Training,
        rows: &[usize],
        mut assembled: Assembled,
        lr: f64,
        step: u64,
    ) -> Result<Step> {
        let cut = self.dataset.cut(&assembled, self.objective, self.batch.ranks, self.batch.tokens_per_micro_batch);
        let own = &cut[self.ranks.share(cut.len())];
        if self.objective.separable() {
            let done = self.by_parts(training, &mut assembled, own, rows, step);
            self.gather(&mut assembled, &cut, done)?;
        } else {
            let done = self.forward_all(training, &mut assembled, own, rows, step);
            self.gather(&mut assembled, &cut, done)?;
            self.backward_all(training, &assembled, own, rows, step)?;
        }
        sum::gradients(training, self.ranks)?;
        let (evaluation, losses) = self.objective.evaluate(&assembled.batch).map_err(objective_error)?;
        let grad_norm = training.step(lr).map_err(|error| match lm_error(error) {
            Error::Data(text) => Error::Data(format!("step {step}: {text}; rows {}", self.ids(rows))),
            other => other,
        })?;
        training.spread(|own| self.ranks.gather_many(own)).map_err(lm_error)??;
        if !grad_norm.is_finite() {
            return Err(Error::data(format!(
                "step {step}: the gradient's norm is {grad_norm}; rows {}; lower `optimizer.lr`, or look at these rows",
                self.ids(rows)
            )));
        }
        let tokens =
            assembled.sequences.iter().map(|&sequence| self.dataset.sequences[sequence].ids.len() as u64).sum();
        Ok(Step { batch: assembled.batch, evaluation, losses, grad_norm, lr, tokens })
    }

    /// Forward and backward part by part, for objectives that are sums.
    fn by_parts(
        &self,
        training: &mut Training,
        assembled: &mut Assembled,
        own: &[Vec<Part>],
        rows: &[usize],
        step: u64,
    ) -> Result<()> {
        let denominators = self.objective.denominators(&assembled.batch);
        self.in_tree(training, own, |training, parts| {
            for part in parts {
                self.interrupt.check()?;
                let sequences = self.sequences(assembled, part);
                let numbers = if self.objective.needs_rewards() {
                    of_rewards(training.forward_rewards(&texts(&sequences)))
                } else {
                    of_log_probs(training.forward(&sequences, self.objective.needs_prompt_part()))
                };
                put(assembled, part, numbers.map_err(lm_error)?);
                self.refuse_nan(assembled, part, rows, step)?;
                let (evaluation, _) =
                    self.objective.evaluate_part(&part.of(&assembled.batch), &denominators).map_err(objective_error)?;
                self.refuse_nan_terms(&evaluation, part, rows, step)?;
                self.backward(training, part, &evaluation)?;
            }
            Ok(())
        })?;
        self.interrupt.check()
    }

    /// Forward over all sequences of these ranks, for objectives that look at the whole batch. What backward needs is kept.
    fn forward_all(
        &self,
        training: &mut Training,
        assembled: &mut Assembled,
        own: &[Vec<Part>],
        rows: &[usize],
        step: u64,
    ) -> Result<()> {
        self.interrupt.check()?;
        let groups: Vec<Vec<&Sequence>> = own.iter().flatten().map(|part| self.sequences(assembled, part)).collect();
        let scores = training.forward_groups(&groups, self.objective.needs_prompt_part()).map_err(lm_error)?;
        for (part, scores) in own.iter().flatten().zip(scores) {
            put(assembled, part, of_log_probs(Ok(scores)).map_err(lm_error)?);
            self.refuse_nan(assembled, part, rows, step)?;
        }
        self.interrupt.check()
    }

    /// The objective on the whole batch, and backward over all sequences of these ranks.
    fn backward_all(
        &self,
        training: &mut Training,
        assembled: &Assembled,
        own: &[Vec<Part>],
        rows: &[usize],
        step: u64,
    ) -> Result<()> {
        let (evaluation, _) = self.objective.evaluate(&assembled.batch).map_err(objective_error)?;
        self.in_tree(training, own, |training, parts| {
            for part in parts {
                self.refuse_nan_terms(&evaluation, part, rows, step)?;
                self.backward(training, part, &evaluation)?;
            }
            Ok(())
        })
    }

    /// Lets each of these ranks add its gradient, beginning at 0; they are added as a balanced tree.
    fn in_tree(
        &self,
        training: &mut Training,
        own: &[Vec<Part>],
        mut add: impl FnMut(&mut Training, &[Part]) -> Result<()>,
    ) -> Result<()> {
        for (done, parts) in own.iter().enumerate() {
            if done > 0 {
                training.set_gradients_aside().map_err(lm_error)?;
            }
            add(training, parts)?;
            // Two subtrees of one size become one, as digits carry when one counts in twos.
            for _ in 0..(done + 1).trailing_zeros() {
                training.add_gradients_aside().map_err(lm_error)?;
            }
        }
        Ok(())
    }

    fn sequences(&self, assembled: &Assembled, part: &Part) -> Vec<&Sequence> {
        part.sequences.iter().map(|&place| &self.dataset.sequences[assembled.sequences[place]]).collect()
    }

    fn backward(&self, training: &mut Training, part: &Part, evaluation: &Evaluation) -> Result<()> {
        let derivatives = part.sequences.iter().map(|&place| evaluation.d_policy[place]);
        if self.objective.needs_rewards() {
            training.backward_rewards(&derivatives.map(|(reward, _)| reward).collect::<Vec<_>>())
        } else {
            let cotangents = derivatives.map(|(response, prompt)| LogProbs { response, prompt });
            training.backward(&cotangents.collect::<Vec<_>>())
        }
        .map_err(lm_error)
    }

    /// Takes the numbers of all sequences from the ranks that computed them.
    fn gather(&self, assembled: &mut Assembled, cut: &[Vec<Part>], done: Result<()>) -> Result<()> {
        let of = |parts: &[Vec<Part>]| -> Vec<usize> {
            parts.iter().flatten().flat_map(|part| part.sequences.iter().copied()).collect()
        };
        let own = of(&cut[self.ranks.share(cut.len())]).into_iter().flat_map(|place| {
            let (response, prompt) = assembled.batch.sequences[place].policy;
            [response, prompt]
        });
        let all = self.ranks.gather(done.map(|()| own.collect()))?.concat();
        for (place, two) in of(cut).into_iter().zip(all.chunks_exact(2)) {
            assembled.batch.sequences[place].policy = (two[0], two[1]);
        }
        Ok(())
    }

    fn refuse_nan(&self, assembled: &Assembled, part: &Part, rows: &[usize], step: u64) -> Result<()> {
        for &place in &part.sequences {
            let (response, prompt) = assembled.batch.sequences[place].policy;
            if !(response.is_finite() && prompt.is_finite()) {
                let sequence = assembled.sequences[place];
                let has =
                    |row: &&usize| self.dataset.examples[**row].sequences().iter().any(|(_, other)| *other == sequence);
                let owners: Vec<usize> = rows.iter().filter(has).copied().collect();
                return Err(Error::data(format!(
                    "step {step}: the policy's log-prob of response `{}` is {response} (prompt part {prompt}); rows {}; \
                     lower `optimizer.lr`, or look at these rows",
                    self.dataset.keys[sequence].response_id,
                    self.ids(&owners)
                )));
            }
        }
        Ok(())
    }

    fn refuse_nan_terms(&self, evaluation: &Evaluation, part: &Part, rows: &[usize], step: u64) -> Result<()> {
        let finite = |d: &(f64, f64)| d.0.is_finite() && d.1.is_finite();
        if evaluation.loss.is_finite() && evaluation.d_policy.iter().all(finite) {
            return Ok(());
        }
        // Terms stand in the order of the part's edges, then items; these are the batch's rows in their order.
        let of_part: Vec<usize> = part.edges.iter().chain(&part.items).map(|&place| rows[place]).collect();
        let bad: Vec<usize> =
            of_part.iter().zip(&evaluation.terms).filter(|(_, term)| !term.is_finite()).map(|(&row, _)| row).collect();
        let named = if bad.is_empty() { &of_part } else { &bad };
        Err(Error::data(format!(
            "step {step}: the loss is {} or its gradient is not finite; rows {}; lower `optimizer.lr`, or look at these \
             rows",
            evaluation.loss,
            self.ids(named)
        )))
    }

    fn ids(&self, rows: &[usize]) -> String {
        const SHOWN: usize = 8;
        let mut ids: Vec<String> =
            rows.iter().take(SHOWN).map(|&row| format!("`{}`", self.dataset.examples[row].id())).collect();
        if rows.len() > SHOWN {
            ids.push(format!("{} more", rows.len() - SHOWN));
        }
        ids.join(", ")
    }
}

/// Takes up the numbers of a part's sequences.
fn put(assembled: &mut Assembled, part: &Part, numbers: Vec<Numbers>) {
    for (&place, numbers) in part.sequences.iter().zip(numbers) {
        assembled.batch.sequences[place].policy = numbers;
    }
}

/// What the objective reads of a sequence under the policy: two log-probs, or a reward and 0.
type Numbers = (f64, f64);

/// The tokens of sequences, as a reward model reads them.
pub(crate) fn texts<'s>(sequences: &[&'s Sequence]) -> Vec<&'s [u32]> {
    sequences.iter().map(|sequence| sequence.ids.as_slice()).collect()
}

pub(crate) fn of_rewards(rewards: lm::Result<Vec<f64>>) -> lm::Result<Vec<Numbers>> {
    Ok(rewards?.into_iter().map(|reward| (reward, 0.0)).collect())
}

pub(crate) fn of_log_probs(log_probs: lm::Result<Vec<LogProbs>>) -> lm::Result<Vec<Numbers>> {
    Ok(log_probs?.into_iter().map(|of| (of.response, of.prompt)).collect())
}

impl Part {
    /// The part as a batch, with all sequences of the whole; what is not in the part is not looked at.
    fn of(&self, batch: &Batch) -> Batch {
        Batch {
            sequences: batch.sequences.clone(),
            edges: self.edges.iter().map(|&place| batch.edges[place]).collect(),
            items: self.items.iter().map(|&place| batch.items[place]).collect(),
            kl: batch.kl.clone(),
            similarities: batch.similarities.clone(),
        }
    }
}

/// A batch that an objective refuses has passed the checks of the data before: only numbers can be at fault.
pub(crate) fn objective_error(error: objective::Error) -> Error {
    Error::internal(error.to_string())
}
