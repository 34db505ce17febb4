//! Laws of objectives that hold for all numbers.

mod common;

use std::f64::consts::LN_2;

use common::{items, objective, oracle, rows, similarities};
use objective::{
    Batch, Edge, Error, Evaluation, Forms, Item, Mixture, NoStep, Objective, Part, SequenceLogps, Similarities,
};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const CATALOGUE: [&str; 34] = [
    r#"{"name": "sft"}"#,
    r#"{"name": "dpo", "beta": 0.3}"#,
    r#"{"name": "cdpo", "beta": 0.3}"#,
    r#"{"name": "gdpo", "beta": 0.3}"#,
    r#"{"name": "dpo_norm", "beta": 0.3}"#,
    r#"{"name": "cdpo_norm", "beta": 0.3}"#,
    r#"{"name": "gdpo_norm", "beta": 0.3}"#,
    r#"{"name": "ipo", "beta": 0.3}"#,
    r#"{"name": "cipo", "beta": 0.3}"#,
    r#"{"name": "gipo", "beta": 0.3}"#,
    r#"{"name": "ipo_norm", "beta": 0.3}"#,
    r#"{"name": "ropo", "beta": 0.3, "alpha": 2.0, "gamma": 0.1}"#,
    r#"{"name": "gropo", "beta": 0.3, "alpha": 2.0, "gamma": 0.1}"#,
    r#"{"name": "robust", "beta": 0.3, "epsilon": 0.1}"#,
    r#"{"name": "hinge", "beta": 0.3}"#,
    r#"{"name": "exo", "beta": 0.3}"#,
    r#"{"name": "sppo", "beta": 0.3}"#,
    r#"{"name": "nca", "beta": 0.3}"#,
    r#"{"name": "bco", "beta": 0.3}"#,
    r#"{"name": "apo_zero", "beta": 0.3}"#,
    r#"{"name": "apo_down", "beta": 0.3}"#,
    r#"{"name": "discopop", "beta": 0.3, "tau": 0.05}"#,
    r#"{"name": "aot", "beta": 0.3}"#,
    r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#,
    r#"{"name": "rpo", "beta": 0.3, "weighting": "uniform"}"#,
    r#"{"name": "rpo", "beta": 0.3, "weighting": "diagonal", "diagonal_weight": 0.8}"#,
    r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "form": "unpaired"}"#,
    r#"{"name": "jpo", "beta": 0.3}"#,
    r#"{"name": "cjpo", "beta": 0.3}"#,
    r#"{"name": "gjpo", "beta": 0.3}"#,
    r#"{"name": "kto", "beta": 0.3}"#,
    r#"{"name": "simpo", "beta": 0.3, "gamma": 1.0}"#,
    r#"{"name": "cpo", "beta": 0.3, "alpha": 1.0}"#,
    r#"{"name": "orpo", "beta": 0.3}"#,
];

fn catalogue() -> impl Iterator<Item = Objective> {
    CATALOGUE.iter().map(|text| objective(text))
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

#[test]
fn a_certain_label_gives_the_hard_objective() {
    for (soft, hard) in [
        (r#"{"name": "gdpo", "beta": 0.3}"#, r#"{"name": "dpo", "beta": 0.3}"#),
        (r#"{"name": "cdpo", "beta": 0.3}"#, r#"{"name": "dpo", "beta": 0.3}"#),
        (r#"{"name": "gdpo_norm", "beta": 0.3}"#, r#"{"name": "dpo_norm", "beta": 0.3}"#),
        (r#"{"name": "cdpo_norm", "beta": 0.3}"#, r#"{"name": "dpo_norm", "beta": 0.3}"#),
        (r#"{"name": "gipo", "beta": 0.3}"#, r#"{"name": "ipo", "beta": 0.3}"#),
        (r#"{"name": "cipo", "beta": 0.3}"#, r#"{"name": "ipo", "beta": 0.3}"#),
        (r#"{"name": "gjpo", "beta": 0.3}"#, r#"{"name": "jpo", "beta": 0.3}"#),
        (r#"{"name": "cjpo", "beta": 0.3}"#, r#"{"name": "jpo", "beta": 0.3}"#),
        (
            r#"{"name": "gropo", "beta": 0.3, "alpha": 2, "gamma": 0.1}"#,
            r#"{"name": "ropo", "beta": 0.3, "alpha": 2, "gamma": 0.1}"#,
        ),
        (r#"{"name": "dpo", "beta": 0.3}"#, r#"{"name": "robust", "beta": 0.3, "epsilon": 0.0}"#),
    ] {
        for margin in MARGINS {
            assert!(same(at(&objective(soft), margin, 1.0), at(&objective(hard), margin, 1.0)), "{soft} at {margin}");
        }
    }
}

#[test]
fn swapped_edges_mirror_the_soft_label() {
    for objective in catalogue().filter(Objective::swap_symmetric).filter(|objective| objective.reads().pairs()) {
        for p_hat in [0.0, 0.28, 0.5, 0.9] {
            let batch = batch(17, 3.0, &objective, [p_hat, 0.8, 1.0]);
            let mut swapped = batch.clone();
            for edge in &mut swapped.edges {
                (edge.chosen, edge.rejected, edge.p_hat) = (edge.rejected, edge.chosen, 1.0 - edge.p_hat);
            }
            let (a, b) = (objective.evaluate(&batch).unwrap(), objective.evaluate(&swapped).unwrap());
            assert!((a.loss - b.loss).abs() < 1e-10 * a.loss.abs().max(1.0), "{}", objective.name());
            for (a, b) in a.d_policy.iter().zip(&b.d_policy) {
                assert!((a.0 - b.0).abs() < 1e-9, "{}", objective.name());
            }
        }
    }
}

#[test]
fn the_others_refuse_edges_against_their_orientation() {
    for objective in catalogue().filter(|objective| objective.reads().pairs() && !objective.swap_symmetric()) {
        let batch = batch(17, 3.0, &objective, [0.3, 0.8, 1.0]);
        let error = objective.evaluate(&batch).unwrap_err();
        assert!(matches!(error, Error::NotOriented { edge: 0, p_hat: 0.3, .. }), "{error}");
    }
}

#[test]
fn an_undecided_label_does_what_the_card_says() {
    for name in ["gdpo", "gdpo_norm", "gipo", "gjpo"] {
        let objective = objective(&format!(r#"{{"name": "{name}", "beta": 0.3}}"#));
        for margin in MARGINS {
            let (loss, slope) = at(&objective, margin, 0.5);
            assert_eq!(slope, 0.0, "{name}");
            assert_eq!(loss, if name == "gipo" { 0.0 } else { LN_2 });
        }
    }
    let gropo = objective(r#"{"name": "gropo", "beta": 0.3, "alpha": 2.0, "gamma": 0.1}"#);
    assert!(same(at(&gropo, 7.0, 0.5), (1.0 + 0.1 * LN_2, 0.0)));
    for name in ["cdpo", "cdpo_norm", "cipo", "exo", "cjpo"] {
        let objective = objective(&format!(r#"{{"name": "{name}", "beta": 0.3}}"#));
        assert!(at(&objective, 3.0, 0.5).1 > 0.0 && at(&objective, -3.0, 0.5).1 < 0.0, "{name} pulls to 0");
        assert!(at(&objective, 0.0, 0.5).1.abs() < 1e-15);
    }
    for objective in catalogue().filter(|objective| objective.reads() == objective::Reads::Pairs) {
        if objective.facts().at_half.starts_with("still pushes") {
            let pull = edge_at(&objective, 0.0, 0.5).d_policy;
            assert!(pull[0].0.abs().max(pull[1].0.abs()) > 1e-3, "{}", objective.name());
        }
    }
}

/// Worked out by hand: log-ratios 3 over 6 tokens and -2 over 4 tokens, so that D = 0.5 + 0.5; and as the objectives that
/// do not normalise see log-ratios which are divided already.
#[test]
fn length_normalised_forms_divide_each_log_ratio_by_its_tokens() {
    let sequence = |ratio: f64, tokens| SequenceLogps {
        policy: (ratio - 20.0, 0.0),
        reference: Some((-20.0, 0.0)),
        tokens,
        prompt_tokens: 1,
    };
    let edge = |p_hat| vec![Edge { chosen: 0, rejected: 1, p_hat, weight: 1.0 }];
    let long =
        |p_hat| Batch { sequences: vec![sequence(3.0, 6), sequence(-2.0, 4)], edges: edge(p_hat), ..Batch::default() };
    let short =
        |p_hat| Batch { sequences: vec![sequence(0.5, 1), sequence(-0.5, 1)], edges: edge(p_hat), ..Batch::default() };
    let dpo_norm = objective(r#"{"name": "dpo_norm", "beta": 2.0}"#).evaluate(&long(1.0)).unwrap();
    // -log sigmoid(2) and -2 sigmoid(-2) / 6.
    assert!((dpo_norm.loss - 0.126_928_011_042_972_5).abs() < 1e-15, "{}", dpo_norm.loss);
    assert!((dpo_norm.d_policy[0].0 + 2.0 * 0.119_202_922_022_117_55 / 6.0).abs() < 1e-15);
    for name in ["dpo", "cdpo", "gdpo"] {
        for p_hat in [0.5, 0.72, 1.0] {
            let norm = objective(&format!(r#"{{"name": "{name}_norm", "beta": 2.0}}"#)).evaluate(&long(p_hat)).unwrap();
            let plain = objective(&format!(r#"{{"name": "{name}", "beta": 2.0}}"#)).evaluate(&short(p_hat)).unwrap();
            assert!((norm.loss - plain.loss).abs() < 1e-15, "{name} {p_hat}");
            for (i, tokens) in [6.0, 4.0].into_iter().enumerate() {
                let apart = norm.d_policy[i].0 * tokens - plain.d_policy[i].0;
                assert!(apart.abs() < 1e-15, "{name} {p_hat}, side {i}");
            }
        }
    }
    // Rewards and margins are those of the loss.
    let measures = objective(r#"{"name": "dpo_norm", "beta": 2.0}"#).measure(&long(1.0));
    assert_eq!(measures.rewards_margins, Some(2.0));
}

#[test]
fn identities_of_the_family() {
    let (beta, p_hat) = (0.3, 0.72f64);
    let of = |text: &str| objective(text);
    let (dpo, cdpo, gdpo) = (
        of(r#"{"name": "dpo", "beta": 0.3}"#),
        of(r#"{"name": "cdpo", "beta": 0.3}"#),
        of(r#"{"name": "gdpo", "beta": 0.3}"#),
    );
    let scaled = of(&format!(r#"{{"name": "dpo", "beta": {}}}"#, beta * (2.0 * p_hat - 1.0)));
    let (ipo, cipo) = (of(r#"{"name": "ipo", "beta": 0.3}"#), of(r#"{"name": "cipo", "beta": 0.3}"#));
    let constant = at(&cipo, 0.0, p_hat).0 - (p_hat * at(&ipo, 0.0, 1.0).0 + (1.0 - p_hat) * at(&ipo, 0.0, 1.0).0);
    for margin in MARGINS {
        // DPO on labels drawn with p_hat is cDPO in expectation.
        let (up, down) = (at(&dpo, margin, 1.0), at(&dpo, -margin, 1.0));
        let drawn = (p_hat * up.0 + (1.0 - p_hat) * down.0, p_hat * up.1 - (1.0 - p_hat) * down.1);
        assert!(same(drawn, at(&cdpo, margin, p_hat)));
        // GDPO is DPO with its own beta for each edge, and is not cDPO.
        assert!(same(at(&scaled, margin, 1.0), at(&gdpo, margin, p_hat)));
        assert!(margin == 0.0 || (at(&gdpo, margin, p_hat).0 - at(&cdpo, margin, p_hat).0).abs() > 1e-4);
        // cIPO is IPO in expectation, up to a constant.
        let (up, down) = (at(&ipo, margin, 1.0), at(&ipo, -margin, 1.0));
        let drawn = (p_hat * up.0 + (1.0 - p_hat) * down.0 + constant, p_hat * up.1 - (1.0 - p_hat) * down.1);
        assert!(same(drawn, at(&cipo, margin, p_hat)));
    }
    // Minima: beta Delta = logit(p_hat); Delta = (2 p_hat - 1) c; Delta = c.
    let logit = (p_hat / (1.0 - p_hat)).ln();
    assert!(at(&cdpo, logit / beta, p_hat).1.abs() < 1e-12);
    assert!(at(&of(r#"{"name": "exo", "beta": 0.3}"#), logit / beta, p_hat).1.abs() < 1e-12);
    assert!(at(&cipo, (2.0 * p_hat - 1.0) * 0.5 / beta, p_hat).1.abs() < 1e-12);
    assert!(at(&of(r#"{"name": "gipo", "beta": 0.3}"#), 0.5 / beta, p_hat).1.abs() < 1e-12);
}

#[test]
fn margin_zero_has_the_stated_value() {
    for objective in catalogue() {
        let mut still = batch(19, 3.0, &objective, [0.8; 3]);
        still.edges.iter_mut().for_each(|edge| edge.p_hat = 0.8);
        still.sequences.iter_mut().for_each(|sequence| sequence.policy = sequence.reference.unwrap());
        let loss = objective.evaluate(&still).unwrap().loss;
        match objective.value_at_zero(0.8) {
            Some(value) => assert!((loss - value).abs() < 1e-12, "{}: {loss}, stated {value}", objective.name()),
            None => assert!(!objective.needs_reference(), "{}", objective.name()),
        }
    }
    assert_eq!(objective(r#"{"name": "gdpo", "beta": 0.3}"#).value_at_zero(0.6), Some(LN_2));
}

#[test]
fn jpo_is_dpo_under_one_prompt_and_is_not_across_prompts() {
    for (joint, response) in [("jpo", "dpo"), ("cjpo", "cdpo"), ("gjpo", "gdpo")] {
        let of = |name: &str| objective(&format!(r#"{{"name": "{name}", "beta": 0.3}}"#));
        let mut pairs = batch(23, 3.0, &of("dpo"), [0.6, 0.8, 1.0]);
        pairs.edges.truncate(3);
        let across = of(joint).evaluate(&pairs).unwrap();
        let plain = of(response).evaluate(&pairs).unwrap();
        assert!((across.loss - plain.loss).abs() > 1e-3, "the prompt part counts across prompts");
        assert!(across.d_policy.iter().all(|d| d.0 == d.1), "the margin is prompt part + response part");
        for i in 0..3 {
            let prompt = pairs.sequences[2 * i];
            let rejected = &mut pairs.sequences[2 * i + 1];
            rejected.policy.1 = prompt.policy.1;
            rejected.reference = rejected.reference.map(|reference| (reference.0, prompt.reference.unwrap().1));
        }
        let same = of(joint).evaluate(&pairs).unwrap();
        assert!((same.loss - plain.loss).abs() < 1e-12);
        for (i, (a, b)) in same.d_policy.iter().zip(&plain.d_policy).enumerate() {
            assert!((a.0 - b.0).abs() < 1e-12, "{i}");
        }
        // What reaches a shared prompt is the sum over its two responses: nothing.
        assert!((0..3).all(|i| same.d_policy[2 * i].1 + same.d_policy[2 * i + 1].1 == 0.0));
    }
}

#[test]
fn rpo_in_its_limits() {
    let oracle = oracle();
    let whole = rows(&oracle, false);
    let dpo = objective(r#"{"name": "dpo", "beta": 0.3}"#);
    let rpo = |tau: f64| objective(&format!(r#"{{"name": "rpo", "beta": 0.3, "tau": {tau}}}"#));
    // One pair: DPO.
    for i in 0..12 {
        let one = Batch {
            edges: vec![whole.edges[i]],
            similarities: Some(similarities(&oracle, i..i + 1, i..i + 1)),
            ..whole.clone()
        };
        let (a, b) = (rpo(0.5).evaluate(&one).unwrap(), dpo.evaluate(&one).unwrap());
        assert!((a.loss - b.loss).abs() < 1e-9 && a.d_policy == b.d_policy);
    }
    // tau to 0, every prompt once: each row sees its own prompt alone, the rest is log 2. DPO, scaled by 1/N.
    let values = (0..144).map(|k| if k % 13 == 0 { 1.0 } else { 0.1 }).collect();
    let distinct = Some(Similarities { rows: 12, columns: 12, values });
    let whole = Batch { similarities: distinct, ..whole };
    let (a, b) = (rpo(1e-4).evaluate(&whole).unwrap(), dpo.evaluate(&whole).unwrap());
    assert!((a.loss - (b.loss + 11.0 * LN_2) / 12.0).abs() < 1e-9);
    for (a, b) in a.d_policy.iter().zip(&b.d_policy) {
        assert!((a.0 - b.0 / 12.0).abs() < 1e-9);
    }
    // tau to infinity: 1/N everywhere. Rows always sum to 1.
    assert!(
        rpo(1e12).evaluate(&whole).unwrap().contrasts.unwrap().weights.iter().all(|w| (w - 1.0 / 12.0).abs() < 1e-9)
    );
    let weights = rpo(0.5).evaluate(&whole).unwrap().contrasts.unwrap().weights;
    assert!(weights.chunks(12).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    assert!(weights.chunks(12).enumerate().all(|(i, row)| row.iter().all(|w| *w <= row[i])), "the diagonal is largest");
    // Duplicates are kept: the same rows twice are 24 x 24 cells, with half the weight for each copy.
    let mut twice = whole.clone();
    twice.edges.extend(whole.edges.clone());
    let half = whole.similarities.as_ref().unwrap();
    let values = (0..24 * 24).map(|k| half.values[(k / 24) % 12 * 12 + (k % 24) % 12]).collect();
    twice.similarities = Some(Similarities { rows: 24, columns: 24, values });
    let contrasts = rpo(0.5).evaluate(&twice).unwrap().contrasts.unwrap();
    assert_eq!((contrasts.rows, contrasts.columns), (24, 24));
    assert!((contrasts.weights[0] - weights[0] / 2.0).abs() < 1e-12);
}

#[test]
fn weights_repeat_rows_and_zero_drops_them() {
    for objective in catalogue().filter(|objective| objective.separable() || objective.name() == "kto") {
        let mut batch = batch(29, 3.0, &objective, [0.6, 0.8, 1.0]);
        let weights = [1.0, 3.0, 0.0, 2.0, 1.0];
        batch.edges.iter_mut().zip(weights).for_each(|(edge, weight)| edge.weight = weight);
        batch.items.iter_mut().zip(weights).for_each(|(item, weight)| item.weight = weight);
        let mut repeated = Batch { edges: Vec::new(), items: Vec::new(), ..batch.clone() };
        for edge in &batch.edges {
            repeated.edges.extend(vec![Edge { weight: 1.0, ..*edge }; edge.weight as usize]);
        }
        for item in &batch.items {
            repeated.items.extend(vec![Item { weight: 1.0, ..*item }; item.weight as usize]);
        }
        let (a, b) = (objective.evaluate(&batch).unwrap(), objective.evaluate(&repeated).unwrap());
        assert!((a.loss - b.loss).abs() < 1e-10 * a.loss.abs().max(1.0), "{}", objective.name());
    }
}

#[test]
fn a_batch_without_weight_or_without_a_class_makes_no_step() {
    for objective in catalogue() {
        let mut batch = batch(31, 3.0, &objective, [0.6, 0.8, 1.0]);
        batch.edges.iter_mut().for_each(|edge| edge.weight = 0.0);
        batch.items.iter_mut().for_each(|item| item.weight = 0.0);
        assert_eq!(objective.no_step(&batch), Some(NoStep::ZeroWeight), "{}", objective.name());
        let evaluation = objective.evaluate(&batch).unwrap();
        assert_eq!(evaluation.no_step, Some(NoStep::ZeroWeight), "{}", objective.name());
        assert!(evaluation.loss == 0.0 && evaluation.d_policy.iter().all(|d| *d == (0.0, 0.0)));
    }
    let unpaired = objective(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "form": "unpaired"}"#);
    let mut batch = items(&oracle());
    batch.items.retain(|item| item.label > 0.5);
    batch.similarities = Some(Similarities { rows: 12, columns: 0, values: Vec::new() });
    assert_eq!(unpaired.evaluate(&batch).unwrap().no_step, Some(NoStep::OneClass));
}

#[test]
fn what_is_missing_is_named() {
    let whole = rows(&oracle(), false);
    let mut batch = whole.clone();
    batch.sequences[3].reference = None;
    let dpo = objective(r#"{"name": "dpo", "beta": 0.3}"#);
    assert!(matches!(dpo.evaluate(&batch), Err(Error::NoReference { sequence: 3, .. })));
    let simpo = objective(r#"{"name": "simpo", "beta": 2, "gamma": 1}"#);
    assert!(simpo.evaluate(&batch).is_ok());
    batch = Batch { similarities: None, ..whole.clone() };
    let rpo = objective(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#);
    assert!(matches!(rpo.evaluate(&batch), Err(Error::Similarities { rows: 12, .. })));
    assert!(matches!(objective(r#"{"name": "kto", "beta": 0.3}"#).evaluate(&whole), Err(Error::NoKl)));
    batch = rows(&oracle(), true);
    assert!(matches!(objective(r#"{"name": "aot", "beta": 0.3}"#).evaluate(&batch), Err(Error::UnequalWeights { .. })));
    let mut batch = items(&oracle());
    assert!(matches!(objective(r#"{"name": "sft"}"#).evaluate(&batch), Err(Error::Label { item: 1, .. })));
    batch.items.retain(|item| item.label > 0.5);
    assert!(objective(r#"{"name": "sft"}"#).evaluate(&batch).is_ok());
    let mut batch = whole;
    batch.edges[2].p_hat = f64::NAN;
    assert!(matches!(dpo.evaluate(&batch), Err(Error::OutOfRange { .. })));
}

#[test]
fn forms_are_checked() {
    let of = |text: &str| objective(text);
    let (same, joint) = (Forms { same: 4, joint: 0 }, Forms { same: 4, joint: 2 });
    let dpo = of(r#"{"name": "dpo", "beta": 0.3}"#);
    assert!(dpo.check_forms(same, false).is_ok());
    assert!(dpo.check_forms(joint, true).unwrap_err().contains("`jpo`"));
    let gdpo = of(r#"{"name": "gdpo", "beta": 0.3}"#);
    assert!(gdpo.check_forms(joint, false).unwrap_err().contains("`gjpo`"));
    let jpo = of(r#"{"name": "jpo", "beta": 0.3}"#);
    assert!(jpo.check_forms(joint, false).is_ok() && jpo.check_forms(same, true).is_ok());
    let refused = jpo.check_forms(same, false).unwrap_err();
    assert!(refused.contains("`joint: {random: 1}`") && refused.contains("allow_same_prompt: true"), "{refused}");
    assert!(of(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#).check_forms(joint, false).is_ok());
    assert!(of(r#"{"name": "simpo", "beta": 0.3, "gamma": 1}"#).check_forms(joint, false).is_err());
}

#[test]
fn measures_have_trls_meaning() {
    let batch = rows(&oracle(), true);
    let dpo = objective(r#"{"name": "dpo", "beta": 0.3}"#);
    let measures = dpo.measure(&batch);
    let ratio = |i: usize| batch.sequences[i].policy.0 - batch.sequences[i].reference.unwrap().0;
    let chosen = (0..12).map(|i| 0.3 * ratio(2 * i)).sum::<f64>() / 12.0;
    let won = (0..12).filter(|i| ratio(2 * i) > ratio(2 * i + 1)).count() as f64 / 12.0;
    assert!((measures.rewards_chosen.unwrap() - chosen).abs() < 1e-12);
    assert_eq!(measures.rewards_accuracies, Some(won));
    assert_eq!(measures.rewards_margins, Some(measures.rewards_chosen.unwrap() - measures.rewards_rejected.unwrap()));
    let (w, squares) = batch.edges.iter().fold((0.0, 0.0), |sum, e| (sum.0 + e.weight, sum.1 + e.weight * e.weight));
    assert!((measures.weight_ess.unwrap() - w * w / squares).abs() < 1e-12);
    // SimPO with a reference at hand shows the reference's rewards, without one its own comparison.
    let simpo = objective(r#"{"name": "simpo", "beta": 0.3, "gamma": 1}"#);
    assert_eq!(simpo.measure(&batch).rewards_margins, measures.rewards_margins);
    let mut bare = batch.clone();
    bare.sequences.iter_mut().for_each(|sequence| sequence.reference = None);
    let per_token = |i: usize| 0.3 * bare.sequences[i].policy.0 / bare.sequences[i].tokens as f64;
    let wanted = (0..12).map(|i| per_token(2 * i)).sum::<f64>() / 12.0;
    assert!((simpo.measure(&bare).rewards_chosen.unwrap() - wanted).abs() < 1e-12);
    // Items: no pair, so no accuracy.
    let kto = objective(r#"{"name": "kto", "beta": 0.3}"#).measure(&items(&oracle()));
    assert!(kto.rewards_accuracies.is_none() && (kto.rewards_chosen.unwrap() - chosen).abs() < 1e-12);
    assert_eq!(kto.p_mean, Some(0.5));
}

fn mixture(text: &str) -> Mixture {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_mixture_of_one_is_that_objective() {
    for objective in catalogue() {
        let batch = batch(5, 2.0, &objective, [0.6, 0.8, 1.0]);
        let mixture = Mixture::from(objective);
        let want = objective.evaluate(&batch).unwrap();
        assert_eq!(mixture.evaluate(&batch).unwrap(), (want.clone(), vec![want.loss]), "{}", objective.name());
        assert_eq!(mixture.measure(&batch), objective.measure(&batch));
        assert_eq!(mixture.no_step(&batch), objective.no_step(&batch));
    }
}

#[test]
fn the_weights_of_a_mixture_add_linearly() {
    for (other, weight) in [(r#"{"name": "sft"}"#, 0.2), (r#"{"name": "gjpo", "beta": 0.1}"#, 1.5)] {
        let other = objective(other);
        for first in catalogue().filter(|first| first.reads_weights() && first.name() != other.name()) {
            if !(first.reads().pairs() && other.reads().pairs() || first.reads().items() && other.reads().items()) {
                continue;
            }
            let batch = batch(6, 2.0, &first, [0.6, 0.8, 1.0]);
            let parts = vec![Part { objective: first, weight: 0.7 }, Part { objective: other, weight }];
            let mixture = Mixture { parts };
            let (sum, losses) = mixture.evaluate(&batch).unwrap();
            // In a mixture sft leaves the items alone that it would refuse.
            let mut of_other = batch.clone();
            of_other.items.retain(|item| other.accepts_label(item.label).is_ok());
            let (one, two) = (first.evaluate(&batch).unwrap(), other.evaluate(&of_other).unwrap());
            assert_eq!(losses, [one.loss, two.loss], "{}", mixture.name());
            assert_eq!(sum.loss, 0.7 * one.loss + weight * two.loss, "{}", mixture.name());
            for ((sum, one), two) in sum.d_policy.iter().zip(&one.d_policy).zip(&two.d_policy) {
                assert_eq!(*sum, (0.7 * one.0 + weight * two.0, 0.7 * one.1 + weight * two.1), "{}", mixture.name());
            }
            assert_eq!(sum.contrasts, one.contrasts);
        }
    }
}

#[test]
fn the_parts_of_a_batch_add_up_in_a_mixture_too() {
    let mixture = mixture(
        r#"[{"name": "gdpo", "beta": 0.3}, {"name": "sft", "weight": 0.2}, {"name": "jpo", "beta": 0.1, "weight": 3}]"#,
    );
    let batch = batch(9, 2.0, &mixture.parts[0].objective, [0.6, 0.8, 1.0]);
    let (whole, losses) = mixture.evaluate(&batch).unwrap();
    let denominators = mixture.denominators(&batch);
    let (mut loss, mut each) = (0.0, [0.0; 3]);
    let mut d_policy = vec![(0.0, 0.0); batch.sequences.len()];
    for edge in &batch.edges {
        let part = Batch { edges: vec![*edge], ..batch.clone() };
        let (share, losses) = mixture.evaluate_part(&part, &denominators).unwrap();
        loss += share.loss;
        each.iter_mut().zip(losses).for_each(|(each, loss)| *each += loss);
        d_policy.iter_mut().zip(share.d_policy).for_each(|(sum, d)| *sum = (sum.0 + d.0, sum.1 + d.1));
    }
    assert!((loss - whole.loss).abs() < 1e-12);
    assert!(each.iter().zip(losses).all(|(each, whole)| (each - whole).abs() < 1e-12));
    assert!(d_policy.iter().zip(&whole.d_policy).all(|(a, b)| (a.0 - b.0).abs() < 1e-14 && (a.1 - b.1).abs() < 1e-14));
    assert_eq!(whole.terms.len(), batch.edges.len());
}

#[test]
fn a_part_without_weight_does_not_stop_the_others() {
    let objective = objective(r#"{"name": "rpo", "beta": 0.3, "weighting": "uniform", "form": "unpaired"}"#);
    let mut batch = batch(3, 2.0, &objective, [0.6, 0.8, 1.0]);
    batch.items.retain(|item| item.label > 0.5); // unpaired rpo has one class alone
    let mixture = Mixture {
        parts: vec![
            Part { objective, weight: 1.0 },
            Part { objective: self::objective(r#"{"name": "sft"}"#), weight: 0.1 },
        ],
    };
    assert_eq!((objective.no_step(&batch), mixture.no_step(&batch)), (Some(NoStep::OneClass), None));
    let (evaluation, losses) = mixture.evaluate(&batch).unwrap();
    assert_eq!((evaluation.no_step, losses[0]), (None, 0.0));
    assert!(losses[1] > 0.0 && evaluation.d_policy.iter().any(|d| d.0 != 0.0));
    batch.items.iter_mut().for_each(|item| item.weight = 0.0);
    assert!(mixture.no_step(&batch).is_some());
}
