//! Log-probabilities and states of sequences.

use crate::model::forest::{Forest, Part, Want, forests};
use crate::ops::head;
use crate::ops::head::Pending;
use crate::ops::pointwise::{capped, scaled};
use crate::ops::targets::{HeadScores, Target};
use crate::{DType, Decoder, Error, Result, Sequence};
use candle_core::Tensor;

/// The log-probabilities of one sequence, natural logarithms; or anything that there is one of for each of the two,
/// such as a loss's derivatives by them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LogProbs {
    /// Sum over the completion tokens.
    pub response: f64,
    /// Sum over the prompt tokens but the first, which nothing predicts; 0 where it was not asked for.
    pub prompt: f64,
}

/// Sequences laid out for a decoder: micro-batches of rows with shared prefixes once, and the tokens they predict.
#[derive(Debug)]
pub struct Packed {
    forests: Vec<Forest>,
    sequences: usize,
}

impl Decoder {
    /// The log-probabilities of sequences, in their order. Shared prefixes are computed once, at most `budget_tokens`
    /// rows at a time. The prompt part is summed where `prompt_part` asks for it.
    ///
    /// Errors: a sequence with no token before its completion, longer than the model's positions or with tokens
    /// outside the vocabulary, and log-probabilities that are not finite.
    pub fn score(&self, sequences: &[&Sequence], prompt_part: bool, budget_tokens: usize) -> Result<Vec<LogProbs>> {
        self.score_packed(&self.pack(sequences, prompt_part, budget_tokens)?)
    }

    /// Lays sequences out to be scored, at most `budget_tokens` rows at a time. Computes nothing with the model, so that
    /// it can be done while another batch computes.
    ///
    /// Errors: a sequence with no token before its completion, longer than the model's positions or with tokens
    /// outside the vocabulary; a reward model.
    pub fn pack(&self, sequences: &[&Sequence], prompt_part: bool, budget_tokens: usize) -> Result<Packed> {
        self.speaking()?;
        let forests = self.forests(sequences, Want::Scores { prompt_part }, budget_tokens)?;
        Ok(Packed { forests, sequences: sequences.len() })
    }

    /// The log-probabilities of sequences, in the order in which they were laid out. A GPU has the next micro-batch
    /// before it is asked for the scores of the last one.
    ///
    /// Errors: log-probabilities that are not finite.
    pub fn score_packed(&self, packed: &Packed) -> Result<Vec<LogProbs>> {
        let mut sums = vec![LogProbs::default(); packed.sequences];
        let mut last: Option<(&Forest, Pending)> = None;
        for forest in &packed.forests {
            let rows = self.states_of(forest, Some(&forest.scored_rows))?; // [R, H]
            let (h, _) = self.head_input(&rows)?;
            let scores = head::begin(&h, self.head_weight(), &targets(forest), self.head_form())?;
            if let Some((before, scores)) = last.replace((forest, scores)) {
                add_scores(before, &scores.wait()?, &mut sums)?;
            }
        }
        if let Some((forest, scores)) = last {
            add_scores(forest, &scores.wait()?, &mut sums)?;
        }
        Ok(sums)
    }

    /// The final states, after the last norm, of all tokens of each sequence: [n, H] each, in the model's dtype.
    /// Shared prefixes are computed once, at most `budget_tokens` rows at a time.
    pub fn states(&self, sequences: &[&[u32]], budget_tokens: usize) -> Result<Vec<Tensor>> {
        let owned: Vec<Sequence> = sequences.iter().map(|ids| Sequence::new(ids.to_vec(), ids.len())).collect();
        let mut states = vec![None; sequences.len()];
        for forest in self.forests(&owned.iter().collect::<Vec<_>>(), Want::States, budget_tokens)? {
            let (normed, _) = self.last_norm(&self.states_of(&forest, None)?)?;
            for &(index, end) in &forest.ends {
                let rows = Tensor::new(forest.path_rows(end), &self.device)?;
                states[index] = Some(normed.index_select(&rows, 0)?);
            }
        }
        states.into_iter().map(|s| s.ok_or_else(|| Error::internal("a sequence without states"))).collect()
    }

    /// The most likely token after some, and its log-probability.
    pub fn likeliest(&self, ids: &[u32]) -> Result<(u32, f64)> {
        self.speaking()?;
        let states = self.states(&[ids], ids.len())?.remove(0); // [n, H]
        let last = states.narrow(0, ids.len() - 1, 1)?.to_dtype(DType::F32)?;
        let last = scaled(&last, self.head_scale())?;
        let logits = last.matmul(&self.head_weight().to_dtype(DType::F32)?.t()?)?; // [1, V]
        let logits = capped(logits, self.config.logits_cap)?;
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let token = logits.iter().position(|logit| *logit == largest);
        let token = token.ok_or_else(|| Error::NotFinite("the logits after a text are not finite".to_owned()))?;
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        Ok((u32::try_from(token).expect("a token id"), -sum.ln()))
    }

    /// Micro-batches of sequences, each checked against the model's positions.
    pub(crate) fn forests(&self, sequences: &[&Sequence], want: Want, budget_tokens: usize) -> Result<Vec<Forest>> {
        let limit = self.config.max_positions;
        if let Some((i, s)) = sequences.iter().enumerate().find(|(_, s)| s.ids.len() > limit) {
            let len = s.ids.len();
            return Err(Error::input(format!("sequence {i} has {len} tokens; the model has {limit} positions")));
        }
        let pack = |sequences: &[&Sequence]| forests(sequences, want, self.config.vocab_size, budget_tokens);
        let Some(beyond) = self.config.long_beyond() else { return pack(sequences) };
        // Long texts have another rotation, so that they share no rows with others.
        let mut all = Vec::new();
        for long in [false, true] {
            let chosen: Vec<usize> =
                (0..sequences.len()).filter(|&i| (sequences[i].ids.len() > beyond) == long).collect();
            for mut forest in pack(&chosen.iter().map(|&i| sequences[i]).collect::<Vec<_>>())? {
                forest.long = long;
                forest.ends.iter_mut().for_each(|(index, _)| *index = chosen[*index]);
                let owners = forest.scored.iter_mut().flat_map(|scored| &mut scored.owners);
                owners.for_each(|(index, _)| *index = chosen[*index]);
                all.push(forest);
            }
        }
        Ok(all)
    }
}

/// The tokens that a forest asks the head for.
pub(crate) fn targets(forest: &Forest) -> Vec<Target> {
    forest.scored.iter().map(|scored| Target { row: scored.row, token: scored.target }).collect()
}

/// Adds the scores of a forest to the sums of its sequences.
pub(crate) fn add_scores(forest: &Forest, scores: &HeadScores, sums: &mut [LogProbs]) -> Result<()> {
    for (scored, &logp) in forest.scored.iter().zip(&scores.logps) {
        if !logp.is_finite() {
            let (token, index) = (scored.target, scored.owners[0].0);
            return Err(Error::NotFinite(format!(
                "the log-probability of token {token} in sequence {index} is {logp}; the model's weights may be damaged or have diverged"
            )));
        }
        for &(index, part) in &scored.owners {
            match part {
                Part::Prompt => sums[index].prompt += logp,
                Part::Response => sums[index].response += logp,
            }
        }
    }
    Ok(())
}
