//! The oracle's rows as a batch.

pub mod world;

use objective::{Batch, Edge, Item, Objective, SequenceLogps, Similarities};
use serde_json::Value;

pub fn oracle() -> Value {
    fixture("objectives.json")
}

/// RPO with soft labels on the same rows.
pub fn soft_oracle() -> Value {
    fixture("rpo_soft.json")
}

fn fixture(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/oracles");
    serde_json::from_str(&std::fs::read_to_string(format!("{folder}/{name}")).unwrap()).unwrap()
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

pub fn objective(text: &str) -> Objective {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Sequences 2i and 2i + 1 are the chosen and rejected side of row i.
pub fn rows(oracle: &Value, weighted: bool) -> Batch {
    let of = |key: &str| numbers(&oracle[key]);
    let (policy_chosen, policy_rejected) = (of("policy_chosen_logps"), of("policy_rejected_logps"));
    let (reference_chosen, reference_rejected) = (of("reference_chosen_logps"), of("reference_rejected_logps"));
    let (chosen_tokens, rejected_tokens) = (of("chosen_tokens"), of("rejected_tokens"));
    let (p_hat, weights) = (of("p_hat"), of("weights"));
    let mut batch = Batch::default();
    for i in 0..p_hat.len() {
        for (policy, reference, tokens) in [
            (policy_chosen[i], reference_chosen[i], chosen_tokens[i]),
            (policy_rejected[i], reference_rejected[i], rejected_tokens[i]),
        ] {
            batch.sequences.push(SequenceLogps {
                policy: (policy, 0.0),
                reference: Some((reference, 0.0)),
                tokens: tokens as usize,
                prompt_tokens: 0,
            });
        }
        let weight = if weighted { weights[i] } else { 1.0 };
        batch.edges.push(Edge { chosen: 2 * i, rejected: 2 * i + 1, p_hat: p_hat[i], weight });
    }
    batch.similarities = Some(similarities(oracle, 0..p_hat.len(), 0..p_hat.len()));
    batch
}

pub fn similarities(oracle: &Value, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) -> Similarities {
    let embeddings: Vec<Vec<f64>> = oracle["embeddings"].as_array().unwrap().iter().map(numbers).collect();
    let of = |range: std::ops::Range<usize>| range.map(|i| embeddings[i].as_slice()).collect::<Vec<_>>();
    Similarities::of(&of(rows), &of(columns)).unwrap()
}

/// The same rows as items: row i's chosen side desirable, its rejected side not; with the oracle's KL sequences.
pub fn items(oracle: &Value) -> Batch {
    let mut batch = rows(oracle, false);
    for edge in std::mem::take(&mut batch.edges) {
        batch.items.push(Item { sequence: edge.chosen, label: 1.0, weight: 1.0 });
        batch.items.push(Item { sequence: edge.rejected, label: 0.0, weight: 1.0 });
    }
    let (policy, reference) = (numbers(&oracle["kl_policy_logps"]), numbers(&oracle["kl_reference_logps"]));
    for (policy, reference) in policy.into_iter().zip(reference) {
        batch.kl.push(batch.sequences.len());
        batch.sequences.push(SequenceLogps {
            policy: (policy, 0.0),
            reference: Some((reference, 0.0)),
            tokens: 1,
            prompt_tokens: 0,
        });
    }
    batch
}
