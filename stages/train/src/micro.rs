//! A batch for the objective, and its smallest parts.

use std::collections::BTreeMap;

use kit::{Error, Result};
use objective::{Batch, Edge, Item, Mixture, SequenceLogps, Similarities};

use crate::dataset::{Dataset, Example};

/// The rows of a batch as the objective sees them; policy log-probs are 0 until they are computed.
pub(crate) struct Assembled {
    pub(crate) batch: Batch,
    /// Index in the data set of each of the batch's sequences.
    pub(crate) sequences: Vec<usize>,
}

/// A part of a batch: places in its sequences, edges and items.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) sequences: Vec<usize>,
    pub(crate) edges: Vec<usize>,
    pub(crate) items: Vec<usize>,
}

impl Dataset {
    /// The batch of some rows. A sequence that several rows share stands once.
    pub(crate) fn assemble(&self, rows: &[usize], objective: &Mixture) -> Result<Assembled> {
        let mut assembled = Assembled { batch: Batch::default(), sequences: Vec::new() };
        let mut places = BTreeMap::new();
        let mut place = |assembled: &mut Assembled, sequence: usize| {
            *places.entry(sequence).or_insert_with(|| {
                let of = &self.sequences[sequence];
                assembled.sequences.push(sequence);
                assembled.batch.sequences.push(SequenceLogps {
                    policy: (0.0, 0.0),
                    reference: self.reference[sequence],
                    tokens: of.completion_tokens(),
                    prompt_tokens: of.start.saturating_sub(1),
                });
                assembled.sequences.len() - 1
            })
        };
        let (mut chosen_prompts, mut rejected_prompts) = (Vec::new(), Vec::new());
        for &row in rows {
            match &self.examples[row] {
                Example::Pair { chosen, rejected, chosen_prompt, rejected_prompt, p_hat, weight, .. } => {
                    let chosen = place(&mut assembled, *chosen);
                    // An objective that looks at one side alone costs one side alone.
                    let rejected = if objective.reads_rejected() { place(&mut assembled, *rejected) } else { chosen };
                    assembled.batch.edges.push(Edge { chosen, rejected, p_hat: *p_hat, weight: *weight });
                    chosen_prompts.push(*chosen_prompt);
                    rejected_prompts.push(*rejected_prompt);
                }
                Example::Item { sequence, prompt, label, weight, kl, .. } => {
                    let sequence = place(&mut assembled, *sequence);
                    assembled.batch.items.push(Item { sequence, label: *label, weight: *weight });
                    match *label {
                        label if label > 0.5 => chosen_prompts.push(*prompt),
                        label if label < 0.5 => rejected_prompts.push(*prompt),
                        _ => {} // unpaired rpo, in a mixture with one that takes it, leaves it alone
                    }
                    if let Some(kl) = kl {
                        let kl = place(&mut assembled, *kl);
                        assembled.batch.kl.push(kl);
                    }
                }
            }
        }
        if objective.needs_similarities() {
            let vectors = |prompts: &[usize]| -> Vec<&[f32]> {
                prompts.iter().map(|&prompt| self.embeddings[prompt].as_slice()).collect()
            };
            let similarities = Similarities::of(&vectors(&chosen_prompts), &vectors(&rejected_prompts));
            assembled.batch.similarities = Some(similarities.map_err(|error| Error::data(error.to_string()))?);
        }
        Ok(assembled)
    }

    /// The whole connected components of a batch, in the order of their first sequences: by shared prompts, and for
    /// objectives that are sums by shared edges and items, which are then theirs.
    pub(crate) fn components(&self, assembled: &Assembled, separable: bool) -> Vec<Part> {
        let count = assembled.sequences.len();
        let batch = &assembled.batch;
        let mut roots: Vec<usize> = (0..count).collect();
        let mut first_of_prompt: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, &sequence) in assembled.sequences.iter().enumerate() {
            let first = *first_of_prompt.entry(self.keys[sequence].prompt_id.as_str()).or_insert(place);
            join(&mut roots, first, place);
        }
        if separable {
            batch.edges.iter().for_each(|edge| join(&mut roots, edge.chosen, edge.rejected));
        }
        let mut components: BTreeMap<usize, Part> = BTreeMap::new(); // by their first sequence: in the batch's order
        for place in 0..count {
            components.entry(root(&roots, place)).or_default().sequences.push(place);
        }
        if separable {
            for (i, edge) in batch.edges.iter().enumerate() {
                components.entry(root(&roots, edge.chosen)).or_default().edges.push(i);
            }
            for (i, item) in batch.items.iter().enumerate() {
                components.entry(root(&roots, item.sequence)).or_default().items.push(i);
            }
        }
        components.into_values().collect()
    }

    /// Tokens of a part, shared prompts counted once.
    pub(crate) fn part_tokens(&self, assembled: &Assembled, part: &Part) -> usize {
        let global: Vec<usize> = part.sequences.iter().map(|&place| assembled.sequences[place]).collect();
        self.shared_tokens(&global)
    }
}

/// The smallest member of a component.
fn root(roots: &[usize], mut place: usize) -> usize {
    while roots[place] != place {
        place = roots[place];
    }
    place
}

fn join(roots: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(roots, a), root(roots, b));
    roots[a.max(b)] = a.min(b);
}
