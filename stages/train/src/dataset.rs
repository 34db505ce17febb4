//! The rows of an input as tokens.

use std::collections::BTreeMap;

use kit::rows::Reject;
use lm::{Displaced, Sequence, TooLong};
use tokens::SequenceKey;
use tokens::rendering::displaced_remark;

/// The rows of `from` or `eval_pairs`. Sequences and prompts stand once and are referred to by number.
pub(crate) struct Dataset {
    /// The config key it was read from.
    pub(crate) input: &'static str,
    /// Distinct token sequences.
    pub(crate) sequences: Vec<Sequence>,
    /// Keys of the sequences, in their order.
    pub(crate) keys: Vec<SequenceKey>,
    /// Ids of the distinct prompts.
    pub(crate) prompts: Vec<String>,
    /// The rows kept, in file order.
    pub(crate) examples: Vec<Example>,
    /// Reference log-probs (response, prompt) of each sequence.
    pub(crate) reference: Vec<Option<(f64, f64)>>,
    /// Embeddings of the prompts, where the objective asks for them.
    pub(crate) embeddings: Vec<Vec<f32>>,
    /// The rows not kept.
    pub(crate) rejects: Vec<Reject>,
    /// Rows read.
    pub(crate) read: u64,
    /// Rows at which the stage stops.
    pub(crate) stopped: Displaced,
}

/// A row to train on.
pub(crate) enum Example {
    /// Two sequences.
    Pair {
        /// Its id.
        id: String,
        /// The chosen side's sequence.
        chosen: usize,
        /// The rejected side's.
        rejected: usize,
        /// True where the row's form is `joint`.
        joint: bool,
        /// The chosen side's prompt.
        chosen_prompt: usize,
        /// The rejected side's.
        rejected_prompt: usize,
        /// Its soft label.
        p_hat: f64,
        /// Its weight.
        weight: f64,
    },
    /// One sequence.
    Item {
        /// Its id.
        id: String,
        /// The sequence.
        sequence: usize,
        /// Its prompt.
        prompt: usize,
        /// Its label.
        label: f64,
        /// Its weight.
        weight: f64,
        /// KTO: the mismatched sequence.
        kl: Option<usize>,
        /// KTO: its group.
        group: Option<u64>,
    },
}

impl Example {
    pub(crate) fn id(&self) -> &str {
        match self {
            Example::Pair { id, .. } | Example::Item { id, .. } => id,
        }
    }

    /// The prompt that it is gathered by.
    pub(crate) fn prompt(&self) -> usize {
        match self {
            Example::Pair { chosen_prompt, .. } => *chosen_prompt,
            Example::Item { prompt, .. } => *prompt,
        }
    }

    pub(crate) fn weight(&self) -> f64 {
        match self {
            Example::Pair { weight, .. } | Example::Item { weight, .. } => *weight,
        }
    }

    /// Its sequences, and what each is to it.
    pub(crate) fn sequences(&self) -> Vec<(&'static str, usize)> {
        match self {
            Example::Pair { chosen, rejected, .. } => vec![("chosen", *chosen), ("rejected", *rejected)],
            Example::Item { sequence, kl, .. } => {
                [("response", *sequence)].into_iter().chain(kl.map(|kl| ("kl_response", kl))).collect()
            }
        }
    }

    /// Its prompts.
    pub(crate) fn prompts(&self) -> Vec<usize> {
        match self {
            Example::Pair { chosen_prompt, rejected_prompt, .. } => vec![*chosen_prompt, *rejected_prompt],
            Example::Item { prompt, .. } => vec![*prompt],
        }
    }
}

impl Dataset {
    pub(crate) fn empty(input: &'static str) -> Dataset {
        Dataset {
            input,
            sequences: Vec::new(),
            keys: Vec::new(),
            prompts: Vec::new(),
            examples: Vec::new(),
            reference: Vec::new(),
            embeddings: Vec::new(),
            rejects: Vec::new(),
            read: 0,
            stopped: Displaced::default(),
        }
    }

    /// Tokens of the batch of some rows, prompts counted once.
    pub(crate) fn tokens(&self, rows: &[usize]) -> usize {
        let mut sequences: Vec<usize> =
            rows.iter().flat_map(|&row| self.examples[row].sequences()).map(|(_, sequence)| sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        self.shared_tokens(&sequences)
    }

    /// Tokens of some sequences, what they share at the start with one of their prompt counted once.
    pub(crate) fn shared_tokens(&self, sequences: &[usize]) -> usize {
        let mut prompts = BTreeMap::new();
        let mut tokens = 0;
        for &sequence in sequences {
            let Sequence { ids, start, .. } = &self.sequences[sequence];
            let longest = prompts.entry(&self.keys[sequence].prompt_id).or_insert(0);
            *longest = (*longest).max(*start);
            tokens += ids.len() - start;
        }
        tokens + prompts.values().sum::<usize>()
    }

    /// Rows whose label is neither 0 nor 1.
    pub(crate) fn soft_labels(&self) -> usize {
        let soft = |example: &&Example| match example {
            Example::Pair { p_hat: label, .. } | Example::Item { label, .. } => *label != 0.0 && *label != 1.0,
        };
        self.examples.iter().filter(soft).count()
    }

    /// Sequences whose prompt is no token prefix, and those of them whose prompt the template writes otherwise.
    pub(crate) fn mismatched(&self) -> (usize, usize) {
        let count = |of: fn(&Sequence) -> bool| self.sequences.iter().filter(|sequence| of(sequence)).count();
        (count(|sequence| sequence.start < sequence.prompt_tokens), count(|sequence| sequence.displaced))
    }

    /// A remark on prompts that the template writes in another way when an answer follows; none where there are none.
    pub(crate) fn displaced_remark(&self) -> Option<String> {
        let (_, displaced) = self.mismatched();
        displaced_remark(displaced as u64).map(|text| format!("`{}`: {text}", self.input))
    }

    /// Rows refused or cut because of the limit.
    pub(crate) fn too_long(&self, rule: TooLong) -> u64 {
        match rule {
            TooLong::CutLeft => self.sequences.iter().filter(|sequence| sequence.cut > 0).count() as u64,
            TooLong::Reject | TooLong::Error => {
                self.rejects.iter().filter(|reject| reject.reason == "too_long").count() as u64
            }
        }
    }
}
