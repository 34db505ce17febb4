//! Laws of objectives that hold for all numbers.

mod batches;
mod families;
mod labels;
mod mixtures;

use std::f64::consts::LN_2;

use crate::common::{items, objective, oracle, rows, similarities};
use objective::{
    Batch, Edge, Error, Evaluation, Forms, Item, Mixture, NoStep, Objective, Part, SequenceLogps, Similarities,
};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Forms beside those that the facts begin with.
const FORMS: [&str; 6] = [
    r#"{"name": "rpo", "beta": 0.3, "weighting": "uniform"}"#,
    r#"{"name": "rpo", "beta": 0.3, "weighting": "diagonal", "diagonal_weight": 0.8}"#,
    r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "form": "unpaired"}"#,
    r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "labels": "soft"}"#,
    r#"{"name": "rpo", "beta": 0.3, "weighting": "diagonal", "diagonal_weight": 0.8, "labels": "soft"}"#,
    r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "form": "unpaired", "labels": "soft"}"#,
];

/// Every objective with the knobs to begin with, and more forms.
fn catalogue() -> impl Iterator<Item = Objective> {
    let all = Objective::all().into_iter().map(|facts| Objective::begin(facts, false));
    all.chain(FORMS.iter().map(|text| objective(text)))
}

/// Sequences with policy log-probs `spread` nats around those of the reference, responses and prompts.
fn sequences(rng: &mut ChaCha8Rng, count: usize, spread: f64) -> Vec<SequenceLogps> {
    (0..count)
        .map(|_| {
            let reference = (-rng.random_range(40.0..90.0) - spread, -rng.random_range(40.0..90.0) - spread);
            let shift = |rng: &mut ChaCha8Rng| rng.random_range(-spread..spread);
            SequenceLogps {
                policy: (reference.0 + shift(rng), reference.1 + shift(rng)),
                reference: Some(reference),
                tokens: rng.random_range(3..40),
                prompt_tokens: rng.random_range(3..40),
            }
        })
        .collect()
}

/// Six sequences under three pairs and under five items, two of them of the same sequence.
fn batch(seed: u64, spread: f64, objective: &Objective, p_hats: [f64; 3]) -> Batch {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut batch = Batch { sequences: sequences(rng, 8, spread), ..Batch::default() };
    let equal = !objective.reads_weights();
    if objective.reads().pairs() {
        for (i, p_hat) in p_hats.into_iter().enumerate() {
            let weight = if equal { 0.7 } else { rng.random_range(0.2..1.5) };
            batch.edges.push(Edge { chosen: 2 * i, rejected: 2 * i + 1, p_hat, weight });
        }
        // A response that wins here and loses there.
        batch.edges.push(Edge { chosen: 1, rejected: 4, p_hat: p_hats[0], weight: 0.7 });
    } else {
        for (sequence, label) in [(0, 1.0), (1, 0.0), (2, 0.3), (3, p_hats[1].max(0.6)), (3, 0.9)] {
            batch.items.push(Item { sequence, label, weight: rng.random_range(0.2..1.5) });
        }
        batch.kl = vec![6, 7];
    }
    let (rows, columns) = if objective.reads().pairs() { (4, 4) } else { (3, 2) };
    let values = (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect();
    batch.similarities = Some(Similarities { rows, columns, values });
    batch
}

#[test]
fn gradients_are_those_of_the_loss() {
    for objective in catalogue() {
        for (case, p_hat) in [0.5, 0.72, 1.0].into_iter().enumerate() {
            for spread in [1e-6, 2.0, 30.0, 400.0] {
                let batch = batch(7 + case as u64, spread, &objective, [p_hat, 0.9, p_hat]);
                let evaluation = objective.evaluate(&batch).unwrap();
                let scale = evaluation.d_policy.iter().map(|d| d.0.abs()).fold(1e-3, f64::max);
                for i in 0..6 {
                    for part in 0..2 {
                        let loss = |step: f64| {
                            let mut moved = batch.clone();
                            let policy = &mut moved.sequences[i].policy;
                            *(if part == 0 { &mut policy.0 } else { &mut policy.1 }) += step;
                            objective.evaluate(&moved).unwrap().loss
                        };
                        let step = 1e-5;
                        let slope = (loss(step) - loss(-step)) / (2.0 * step);
                        let got = if part == 0 { evaluation.d_policy[i].0 } else { evaluation.d_policy[i].1 };
                        // The difference of losses of size l keeps l * 1e-16 / step.
                        let noise = 1e-9 * evaluation.loss.abs() + 2e-5 * scale;
                        assert!(
                            (got - slope).abs() < noise,
                            "{} p_hat {p_hat} spread {spread} sequence {i} part {part}: {got}, differences give {slope}",
                            objective.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn far_out_everything_is_finite() {
    for objective in catalogue() {
        let batch = batch(3, 5000.0, &objective, [0.5, 0.72, 1.0]);
        let evaluation = objective.evaluate(&batch).unwrap();
        assert!(evaluation.loss.is_finite(), "{}", objective.name());
        assert!(evaluation.d_policy.iter().all(|d| d.0.is_finite() && d.1.is_finite()), "{}", objective.name());
    }
}

#[test]
fn the_order_of_the_batch_does_not_matter() {
    for objective in catalogue() {
        let batch = batch(11, 3.0, &objective, [0.5, 0.8, 1.0]);
        let evaluation = objective.evaluate(&batch).unwrap();
        let mut order: Vec<usize> = (0..batch.edges.len().max(batch.items.len())).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(5));
        let mut shuffled = batch.clone();
        let similarities = batch.similarities.clone().unwrap();
        let (rows, columns): (Vec<usize>, Vec<usize>) = if batch.items.is_empty() {
            shuffled.edges = order.iter().map(|&i| batch.edges[i]).collect();
            (order.clone(), order.clone())
        } else {
            shuffled.items = order.iter().map(|&i| batch.items[i]).collect();
            let places = |chosen: bool| -> Vec<usize> {
                let old: Vec<usize> =
                    (0..batch.items.len()).filter(|&i| (batch.items[i].label > 0.5) == chosen).collect();
                order.iter().filter_map(|i| old.iter().position(|j| j == i)).collect()
            };
            (places(true), places(false))
        };
        let cell = |i: usize, j: usize| similarities.values[i * similarities.columns + j];
        let values = rows.iter().flat_map(|&i| columns.iter().map(move |&j| cell(i, j))).collect();
        shuffled.similarities = Some(Similarities { values, ..similarities.clone() });
        let other = objective.evaluate(&shuffled).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * a.abs().max(1.0);
        assert!(near(evaluation.loss, other.loss), "{}", objective.name());
        for (a, b) in evaluation.d_policy.iter().zip(&other.d_policy) {
            assert!(near(a.0, b.0) && near(a.1, b.1), "{}", objective.name());
        }
        for (place, &i) in order.iter().enumerate() {
            if objective.name() != "aot" {
                assert!(near(evaluation.terms[i], other.terms[place]), "{}", objective.name());
            }
        }
    }
}

#[test]
fn parts_of_a_separable_batch_add_up() {
    for objective in catalogue().filter(Objective::separable) {
        let batch = batch(13, 3.0, &objective, [0.5, 0.8, 1.0]);
        let whole = objective.evaluate(&batch).unwrap();
        let denominator = objective.denominator(&batch);
        let mut loss = 0.0;
        let mut gradient = vec![(0.0, 0.0); batch.sequences.len()];
        for edges in batch.edges.chunks(2) {
            let part = Batch { edges: edges.to_vec(), ..batch.clone() };
            let evaluation = objective.evaluate_part(&part, denominator).unwrap();
            loss += evaluation.loss;
            gradient.iter_mut().zip(evaluation.d_policy).for_each(|(sum, d)| *sum = (sum.0 + d.0, sum.1 + d.1));
        }
        assert!((loss - whole.loss).abs() < 1e-12 * whole.loss.abs().max(1.0), "{}", objective.name());
        for (a, b) in gradient.iter().zip(whole.d_policy) {
            assert!((a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12, "{}", objective.name());
        }
    }
}

/// Loss and gradient (by the chosen side) of one edge at a margin, all other numbers plain.
fn at(objective: &Objective, margin: f64, p_hat: f64) -> (f64, f64) {
    let evaluation = edge_at(objective, margin, p_hat);
    (evaluation.loss, evaluation.d_policy[0].0)
}

fn edge_at(objective: &Objective, margin: f64, p_hat: f64) -> Evaluation {
    let sequence =
        |policy| SequenceLogps { policy: (policy, 0.0), reference: Some((-5.0, 0.0)), tokens: 1, prompt_tokens: 1 };
    let sequences = vec![sequence(-5.0 + margin / 2.0), sequence(-5.0 - margin / 2.0)];
    let edges = vec![Edge { chosen: 0, rejected: 1, p_hat, weight: 1.0 }];
    let similarities = Some(Similarities { rows: 1, columns: 1, values: vec![1.0] });
    objective.evaluate(&Batch { sequences, edges, similarities, ..Batch::default() }).unwrap()
}

fn same(a: (f64, f64), b: (f64, f64)) -> bool {
    (a.0 - b.0).abs() < 1e-12 * a.0.abs().max(1.0) && (a.1 - b.1).abs() < 1e-12 * a.1.abs().max(1.0)
}

const MARGINS: [f64; 7] = [-80.0, -3.0, -0.2, 0.0, 0.2, 3.0, 80.0];
