//! From a batch to a loss and its gradient.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::evaluation::{Evaluation, NoStep};
use crate::formula::Terms;
use crate::list::Objective;
use crate::side::{EdgeObjective, Side};

impl Objective {
    /// The loss of a whole batch and its gradient.
    ///
    /// # Errors
    /// When the batch lacks what the objective needs, or holds a number out of range.
    pub fn evaluate(&self, batch: &Batch) -> Result<Evaluation> {
        self.evaluate_part(batch, self.denominator(batch))
    }

    /// The reason why a batch would move nothing, from its weights and labels alone.
    pub fn no_step(&self, batch: &Batch) -> Option<NoStep> {
        match self.formula().terms() {
            Terms::Edges(_) => (self.denominator(batch) == 0.0).then_some(NoStep::ZeroWeight),
            Terms::Batch(objective) => objective.no_step(batch),
        }
    }

    /// Divisor of the sum of weighted terms: the sum of the weights, for `sft` of weights times tokens. It needs no
    /// log-probs.
    pub fn denominator(&self, batch: &Batch) -> f64 {
        match self.formula().terms() {
            Terms::Edges(_) => batch.edges.iter().map(|edge| edge.weight).sum(),
            Terms::Batch(objective) => objective.denominator(batch),
        }
    }

    /// The share of a part of the batch in loss and gradient, `denominator` being that of the whole: for
    /// [`Objective::separable`] objectives the parts' losses and gradients add up to those of the whole. Others are
    /// functions of the whole batch and take no denominator; for them this is [`Objective::evaluate`].
    ///
    /// # Errors
    /// As [`Objective::evaluate`].
    pub fn evaluate_part(&self, part: &Batch, denominator: f64) -> Result<Evaluation> {
        self.validate(part)?;
        match self.formula().terms() {
            Terms::Edges(edges) => Ok(self.evaluate_edges(edges, part, denominator)),
            Terms::Batch(objective) => objective.evaluate(part, denominator),
        }
    }

    /// The loss of one edge where the policy still equals the reference (margin 0), so what step 0 shows when all labels
    /// are `p_hat`. Nothing for objectives whose first loss depends on the model: those without a reference.
    pub fn value_at_zero(&self, p_hat: f64) -> Option<f64> {
        if !self.needs_reference() {
            return None;
        }
        match self.formula().terms() {
            Terms::Edges(edges) => {
                let still = Side { policy: 0.0, reference: 0.0, tokens: 1.0 };
                Some(edges.term(&still, &still, p_hat).loss)
            }
            Terms::Batch(objective) => objective.value_at_zero(),
        }
    }

    fn evaluate_edges(&self, objective: &dyn EdgeObjective, batch: &Batch, denominator: f64) -> Evaluation {
        let joint = self.needs_prompt_part();
        let mut evaluation = Evaluation::empty(batch, 0);
        for edge in &batch.edges {
            let side = |sequence: usize| Side::of(&batch.sequences[sequence], joint);
            let term = objective.term(&side(edge.chosen), &side(edge.rejected), edge.p_hat);
            evaluation.terms.push(term.loss);
            if denominator > 0.0 && edge.weight > 0.0 {
                let share = edge.weight / denominator;
                evaluation.loss += share * term.loss;
                for (sequence, slope) in [(edge.chosen, term.d_chosen), (edge.rejected, term.d_rejected)] {
                    evaluation.d_policy[sequence].0 += share * slope;
                    if joint {
                        evaluation.d_policy[sequence].1 += share * slope;
                    }
                }
            }
        }
        if denominator > 0.0 { evaluation } else { evaluation.without_weight() }
    }

    fn validate(&self, batch: &Batch) -> Result<()> {
        let objective = self.name();
        let in_range = |what: &dyn Fn() -> String, got: f64, ok: bool, wanted| {
            if ok { Ok(()) } else { Err(Error::OutOfRange { what: what(), got, wanted }) }
        };
        let check_weight = |what: &str, i: usize, weight: f64| {
            let ok = weight >= 0.0 && weight.is_finite();
            in_range(&|| format!("weight of {what} {i}"), weight, ok, "a finite number of at least 0")
        };
        let mut used = vec![false; batch.sequences.len()];
        if self.reads().pairs() {
            for (i, edge) in batch.edges.iter().enumerate() {
                check_weight("edge", i, edge.weight)?;
                let ok = (0.0..=1.0).contains(&edge.p_hat);
                in_range(&|| format!("p_hat of edge {i}"), edge.p_hat, ok, "0 to 1")?;
                if edge.p_hat < 0.5 && !self.swap_symmetric() {
                    return Err(Error::NotOriented { objective, edge: i, p_hat: edge.p_hat });
                }
                used[edge.chosen] = true;
                used[edge.rejected] = true;
            }
        }
        if self.reads().items() {
            for (i, item) in batch.items.iter().enumerate() {
                check_weight("item", i, item.weight)?;
                let ok = (0.0..=1.0).contains(&item.label);
                in_range(&|| format!("label of item {i}"), item.label, ok, "0 to 1")?;
                if let Err(why) = self.accepts_label(item.label) {
                    return Err(Error::Label { item: i, label: item.label, why });
                }
                used[item.sequence] = true;
            }
        }
        batch.kl.iter().for_each(|&sequence| used[sequence] = true);
        for (i, sequence) in batch.sequences.iter().enumerate().filter(|(i, _)| used[*i]) {
            if self.needs_reference() && sequence.reference.is_none() {
                return Err(Error::NoReference { objective, sequence: i });
            }
            if self.reads_length() {
                let tokens = sequence.tokens as f64;
                in_range(&|| format!("response tokens of sequence {i}"), tokens, tokens > 0.0, "at least 1")?;
            }
        }
        Ok(())
    }
}
