//! A step seen through the form and the soft label of its pairs.

use std::collections::BTreeMap;

use kit::rows::Split;
use objective::{Batch, Edge, Evaluation, Mixture};

use crate::dataset::{Dataset, Example};

/// Parts that [0, 1] is cut into.
const TENTHS: usize = 10;

/// Loss, accuracy and margin by form and tenth of the labels, for a batch of pairs; the edges stand in the order of the
/// rows.
pub(crate) fn splits(
    dataset: &Dataset,
    rows: &[usize],
    objective: &Mixture,
    batch: &Batch,
    evaluation: &Evaluation,
    step: u64,
) -> Vec<Split> {
    let mut places: BTreeMap<(bool, usize), Vec<usize>> = BTreeMap::new();
    for (place, &row) in rows.iter().enumerate() {
        if let Example::Pair { joint, p_hat, .. } = &dataset.examples[row] {
            places.entry((*joint, tenth(*p_hat))).or_default().push(place);
        }
    }
    let split = |((joint, tenth), places): ((bool, usize), Vec<usize>)| {
        let edges: Vec<Edge> = places.iter().map(|&place| batch.edges[place]).collect();
        let weight: f64 = edges.iter().map(|edge| edge.weight).sum();
        let terms = (evaluation.terms.len() == batch.edges.len() && weight > 0.0).then_some(&evaluation.terms);
        let loss = terms.map(|terms| {
            places.iter().zip(&edges).map(|(&place, edge)| edge.weight * terms[place]).sum::<f64>() / weight
        });
        let measures = objective.measure(&Batch { sequences: batch.sequences.clone(), edges, ..Batch::default() });
        Split {
            step,
            form: if joint { "joint" } else { "same" }.to_owned(),
            p_hat_low: tenth as f64 / TENTHS as f64,
            p_hat_high: (tenth + 1) as f64 / TENTHS as f64,
            pairs: places.len() as u64,
            loss,
            rewards_accuracies: measures.rewards_accuracies,
            rewards_margins: measures.rewards_margins,
        }
    };
    places.into_iter().map(split).collect()
}

/// The tenth of [0, 1] that a label lies in.
fn tenth(p_hat: f64) -> usize {
    ((p_hat * TENTHS as f64) as usize).min(TENTHS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lie_in_the_tenth_that_begins_with_them() {
        assert_eq!([0.0, 0.49, 0.5, 0.59, 0.6, 0.7, 0.9, 0.99, 1.0].map(tenth), [0, 4, 5, 5, 6, 7, 9, 9, 9]);
    }
}
