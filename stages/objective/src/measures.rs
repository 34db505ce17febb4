//! Measures that trainers log beside the loss, under TRL's names.

use crate::batch::{Batch, SequenceLogps};
use crate::formula::Score;
use crate::list::Objective;
use crate::side::Side;

/// Means over a batch. Over the edges; for items, those with a label above 0.5 stand for chosen and those below for
/// rejected sides. A figure that the batch cannot give is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measures {
    /// beta times the score of chosen sides: see [`Objective::score`].
    pub rewards_chosen: Option<f64>,
    /// The same for rejected sides.
    pub rewards_rejected: Option<f64>,
    /// Difference of the two.
    pub rewards_margins: Option<f64>,
    /// Share of edges whose margin is above 0.
    pub rewards_accuracies: Option<f64>,
    /// Log-prob of chosen sides, with the prompt part where the objective scores it.
    pub logps_chosen: Option<f64>,
    /// The same for rejected sides.
    pub logps_rejected: Option<f64>,
    /// Mean of `p_hat`, or of the labels.
    pub p_mean: Option<f64>,
    /// Effective sample size of the weights: (sum w)^2 / sum w^2.
    pub weight_ess: Option<f64>,
    /// `sft`: log-prob per token.
    pub mean_token_logp: Option<f64>,
    /// Of a reward model: the least, the mean and the greatest reward of the sides of all edges.
    pub rewards: Option<[f64; 3]>,
}

impl Objective {
    /// A sequence's share of a margin: its log-ratio, or its log-prob without a reference; per token where the
    /// objective divides by length. (`simpo` and `orpo` divide log-probs; against a reference they are measured as the
    /// others are.)
    pub fn score(&self, sequence: &SequenceLogps) -> f64 {
        let side = Side::of(sequence, self.needs_prompt_part());
        match self.facts().score {
            Score::LogRatioPerToken => side.log_ratio() / side.tokens,
            Score::Reward => side.policy,
            Score::LogProbPerToken if sequence.reference.is_none() => side.mean(),
            _ => side.log_ratio(),
        }
    }

    /// The figures of a batch.
    pub fn measure(&self, batch: &Batch) -> Measures {
        let joint = self.needs_prompt_part();
        let side = |sequence: usize| Side::of(&batch.sequences[sequence], joint);
        let has_reference = |sequence: usize| batch.sequences[sequence].reference.is_some();
        let edges = if self.reads().pairs() { batch.edges.as_slice() } else { &[] };
        let items = if self.reads().items() { batch.items.as_slice() } else { &[] };
        let labelled =
            |chosen: bool| items.iter().filter(move |item| if chosen { item.label > 0.5 } else { item.label < 0.5 });
        let chosen: Vec<usize> =
            edges.iter().map(|edge| edge.chosen).chain(labelled(true).map(|item| item.sequence)).collect();
        let rejected: Vec<usize> = match self.reads_rejected() {
            true => edges.iter().map(|edge| edge.rejected).chain(labelled(false).map(|item| item.sequence)).collect(),
            false => Vec::new(),
        };

        let measured = chosen.iter().chain(&rejected).all(|&sequence| has_reference(sequence));
        let reward = |sequence: usize| {
            let mut sequence = batch.sequences[sequence];
            if !measured {
                sequence.reference = None;
            }
            self.beta().map(|beta| beta * self.score(&sequence))
        };
        let rewards = |sides: &[usize]| mean(sides.iter().map(|&sequence| reward(sequence)));
        // A reward model has no log-probs.
        let speaks = !self.needs_rewards();
        let logps = |sides: &[usize]| mean(sides.iter().map(|&sequence| Some(side(sequence).policy)));
        let won = |edge: &crate::Edge| Some(f64::from(u8::from(reward(edge.chosen)? > reward(edge.rejected)?)));

        let weights = || edges.iter().map(|edge| edge.weight).chain(items.iter().map(|item| item.weight));
        let (total, squares) = (weights().sum::<f64>(), weights().map(|weight| weight * weight).sum::<f64>());
        let (rewards_chosen, rewards_rejected) = (rewards(&chosen), rewards(&rejected));
        let tokens: f64 = chosen.iter().map(|&sequence| side(sequence).tokens).sum();
        Measures {
            rewards_chosen,
            rewards_rejected,
            rewards_margins: rewards_chosen.zip(rewards_rejected).map(|(chosen, rejected)| chosen - rejected),
            rewards_accuracies: mean(edges.iter().map(won)),
            logps_chosen: logps(&chosen).filter(|_| speaks),
            logps_rejected: logps(&rejected).filter(|_| speaks),
            p_mean: mean(edges.iter().map(|edge| Some(edge.p_hat)).chain(items.iter().map(|item| Some(item.label)))),
            weight_ess: (squares > 0.0).then(|| total * total / squares),
            mean_token_logp: (!self.reads_rejected() && tokens > 0.0)
                .then(|| chosen.iter().map(|&sequence| side(sequence).policy).sum::<f64>() / tokens),
            rewards: spread(chosen.iter().chain(&rejected).map(|&sequence| side(sequence).policy)).filter(|_| !speaks),
        }
    }
}

/// The mean, where there are values and none is missing.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The least, the mean and the greatest value.
fn spread(values: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let values: Vec<f64> = values.collect();
    let (least, most) = (f64::min, f64::max);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    Some([values.iter().copied().reduce(least)?, mean, values.iter().copied().reduce(most)?])
}
