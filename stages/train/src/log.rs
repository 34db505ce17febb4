//! The measurements of a run so far: the rows of its tables, and its counters.

use std::collections::BTreeMap;

use kit::rows::{Contrast, LossPart, Metric, Split, StepRow};
use objective::{Batch, Evaluation, Measures, Mixture, NoStep};
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Example};
use crate::splits::splits;
use crate::step::Step;

/// Cross-prompt weights that are kept of each row of RPO's matrix.
const STRONGEST: usize = 3;

/// The tables that grow with training.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) counters: Counters,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) steps: Vec<StepRow>,
    pub(crate) contrasts: Vec<Contrast>,
    pub(crate) splits: Vec<Split>,
}

/// Position of a training.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Batches done, with or without a step.
    pub(crate) batches: u64,
    /// Tokens of all sequences so far.
    pub(crate) tokens: u64,
    /// Batches that made no step because their weights are all 0.
    pub(crate) without_weight: u64,
    /// Batches of unpaired RPO that lacked chosen or rejected sides.
    pub(crate) one_class: u64,
}

impl Log {
    /// Notes a batch that made no step.
    pub(crate) fn no_step(&mut self, why: NoStep, epoch: f64) {
        self.counters.batches += 1;
        match why {
            NoStep::ZeroWeight => self.counters.without_weight += 1,
            NoStep::OneClass => self.counters.one_class += 1,
        }
        self.metrics.push(Metric {
            step: self.counters.batches,
            epoch,
            num_tokens: Some(self.counters.tokens),
            ..empty()
        });
    }

    /// Notes a step.
    pub(crate) fn step(
        &mut self,
        dataset: &Dataset,
        rows: &[usize],
        step: &Step,
        objective: &Mixture,
        measures: &Measures,
        epoch: f64,
    ) {
        self.counters.batches += 1;
        self.counters.tokens += step.tokens;
        let number = self.counters.batches;
        self.metrics.push(Metric {
            step: number,
            epoch,
            loss: Some(step.evaluation.loss),
            loss_parts: loss_parts(objective, &step.losses),
            grad_norm: Some(step.grad_norm),
            learning_rate: Some(step.lr),
            num_tokens: Some(self.counters.tokens),
            rewards_chosen: measures.rewards_chosen,
            rewards_rejected: measures.rewards_rejected,
            rewards_accuracies: measures.rewards_accuracies,
            rewards_margins: measures.rewards_margins,
            logps_chosen: measures.logps_chosen,
            logps_rejected: measures.logps_rejected,
            soft_p_mean: measures.p_mean,
            soft_weight_ess: measures.weight_ess,
            mean_token_logp: measures.mean_token_logp,
            accuracy: measures.rewards_accuracies.filter(|_| objective.needs_rewards()),
            margin: measures.rewards_margins.filter(|_| objective.needs_rewards()),
            min_reward: measures.rewards.map(|[least, _, _]| least),
            mean_reward: measures.rewards.map(|[_, mean, _]| mean),
            max_reward: measures.rewards.map(|[_, _, most]| most),
            ..empty()
        });
        let seen = |&row: &usize| StepRow { step: number, row_id: dataset.examples[row].id().to_owned() };
        self.steps.extend(rows.iter().map(seen));
        self.contrasts.extend(contrasts(dataset, rows, &step.evaluation, &step.batch, number));
        self.splits.extend(splits(dataset, rows, objective, &step.batch, &step.evaluation, number));
    }
}

/// The losses of a mixture by name; one objective alone has `loss`.
fn loss_parts(objective: &Mixture, losses: &[f64]) -> Vec<LossPart> {
    if objective.single().is_some() {
        return Vec::new();
    }
    let named =
        |(part, loss): (&objective::Part, &f64)| LossPart { name: part.objective.name().to_owned(), loss: *loss };
    objective.parts.iter().zip(losses).map(named).collect()
}

/// The strongest weights of each row against other prompts, where similarities decided them.
pub(crate) fn contrasts(
    dataset: &Dataset,
    rows: &[usize],
    evaluation: &Evaluation,
    batch: &Batch,
    number: u64,
) -> Vec<Contrast> {
    let (Some(contrasts), Some(similarities)) = (&evaluation.contrasts, &batch.similarities) else {
        return Vec::new();
    };
    let (mut chosen, mut rejected) = (Vec::new(), Vec::new());
    for &row in rows {
        match &dataset.examples[row] {
            Example::Pair { id, chosen_prompt, rejected_prompt, .. } => {
                chosen.push((id, *chosen_prompt));
                rejected.push((id, *rejected_prompt));
            }
            Example::Item { id, prompt, label, .. } => {
                if *label > 0.5 { &mut chosen } else { &mut rejected }.push((id, *prompt));
            }
        }
    }
    let mut out = Vec::new();
    for (i, (pair_id, prompt)) in chosen.iter().enumerate() {
        let weight = |j: usize| contrasts.weights[i * contrasts.columns + j];
        let mut others: Vec<usize> = (0..rejected.len()).filter(|&j| rejected[j].1 != *prompt).collect();
        others.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.cmp(&b)));
        out.extend(others.into_iter().take(STRONGEST).map(|j| Contrast {
            step: number,
            pair_id: (*pair_id).clone(),
            rejected_pair_id: rejected[j].0.clone(),
            weight: weight(j),
            similarity: similarities.values[i * similarities.columns + j],
        }));
    }
    out
}

fn empty() -> Metric {
    Metric {
        step: 0,
        epoch: 0.0,
        loss: None,
        loss_parts: Vec::new(),
        grad_norm: None,
        learning_rate: None,
        num_tokens: None,
        rewards_chosen: None,
        rewards_rejected: None,
        rewards_accuracies: None,
        rewards_margins: None,
        logps_chosen: None,
        logps_rejected: None,
        soft_p_mean: None,
        soft_weight_ess: None,
        eval_loss: None,
        eval_rewards_accuracies: None,
        eval_rewards_margins: None,
        mean_token_logp: None,
        accuracy: None,
        margin: None,
        min_reward: None,
        mean_reward: None,
        max_reward: None,
    }
}

/// The figures of a metrics row by their column names.
pub(crate) fn figures(metric: &Metric) -> BTreeMap<String, f64> {
    let parts = metric.loss_parts.iter().map(|part| (format!("loss/{}", part.name), part.loss));
    let figures = [
        ("loss", metric.loss),
        ("grad_norm", metric.grad_norm),
        ("learning_rate", metric.learning_rate),
        ("rewards/chosen", metric.rewards_chosen),
        ("rewards/rejected", metric.rewards_rejected),
        ("rewards/accuracies", metric.rewards_accuracies),
        ("rewards/margins", metric.rewards_margins),
        ("logps/chosen", metric.logps_chosen),
        ("logps/rejected", metric.logps_rejected),
        ("soft/p_mean", metric.soft_p_mean),
        ("soft/weight_ess", metric.soft_weight_ess),
        ("mean_token_logp", metric.mean_token_logp),
        ("accuracy", metric.accuracy),
        ("margin", metric.margin),
        ("min_reward", metric.min_reward),
        ("mean_reward", metric.mean_reward),
        ("max_reward", metric.max_reward),
        ("eval_loss", metric.eval_loss),
        ("eval_rewards/accuracies", metric.eval_rewards_accuracies),
        ("eval_rewards/margins", metric.eval_rewards_margins),
        ("epoch", Some(metric.epoch)),
        ("num_tokens", metric.num_tokens.map(|tokens| tokens as f64)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    figures.chain(parts).collect()
}
