//! Values and gradients of every objective against PyTorch, f64 (tests/fixtures/oracles/objectives.json).

use crate::common;

use common::{items, numbers, objective, oracle, rows, similarities, soft_oracle};
use objective::{Batch, Edge, Evaluation, Item, SequenceLogps, Similarities};
use serde_json::Value;

const TOLERANCE: f64 = 1e-9;
/// The oracle computes 1 - sigmoid(z), which keeps no digits below this; ours does.
const FLOOR: f64 = 1e-15;

fn close(what: &str, got: &[f64], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let error = (got - wanted).abs();
        assert!(error <= TOLERANCE * wanted.abs() + FLOOR, "{what}[{i}]: {got}, wanted {wanted}");
    }
}

fn gradients(evaluation: &Evaluation, rows: usize) -> (Vec<f64>, Vec<f64>) {
    let of = |side: usize| (0..rows).map(|i| evaluation.d_policy[2 * i + side].0).collect();
    (of(0), of(1))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The loss is the mean of the oracle's losses in every case; its terms equal them where they are not scaled.
fn check(name: &str, knobs: &str, weighted: bool) {
    let oracle = oracle();
    let expected = &oracle["objectives"][name];
    let batch = rows(&oracle, weighted);
    let evaluation = objective(knobs).evaluate(&batch).unwrap();
    let losses = numbers(&expected["losses"]);
    if !weighted && name != "sft" && name != "aot" {
        close(&format!("{name} losses"), &evaluation.terms, &losses);
    }
    close(&format!("{name} loss"), &[evaluation.loss], &[mean(&losses)]);
    let (chosen, rejected) = gradients(&evaluation, losses.len());
    close(&format!("{name} d_chosen"), &chosen, &numbers(&expected["d_policy_chosen"]));
    close(&format!("{name} d_rejected"), &rejected, &numbers(&expected["d_policy_rejected"]));
}

/// The objectives of the file, with its parameters: beta 0.3, tau 0.5, gamma 1 and so on.
const CASES: [(&str, &str); 26] = [
    ("dpo", r#"{"name": "dpo", "beta": 0.3}"#),
    ("cdpo", r#"{"name": "cdpo", "beta": 0.3}"#),
    ("gdpo", r#"{"name": "gdpo", "beta": 0.3}"#),
    ("ipo", r#"{"name": "ipo", "beta": 0.3}"#),
    ("cipo", r#"{"name": "cipo", "beta": 0.3}"#),
    ("gipo", r#"{"name": "gipo", "beta": 0.3}"#),
    ("ropo", r#"{"name": "ropo", "beta": 0.3, "alpha": 2.0, "gamma": 0.1}"#),
    ("gropo", r#"{"name": "gropo", "beta": 0.3, "alpha": 2.0, "gamma": 0.1}"#),
    ("robust", r#"{"name": "robust", "beta": 0.3, "epsilon": 0.1}"#),
    ("hinge", r#"{"name": "hinge", "beta": 0.3}"#),
    ("exo", r#"{"name": "exo", "beta": 0.3, "clip": 1e-6}"#),
    ("sppo", r#"{"name": "sppo", "beta": 0.3}"#),
    ("nca", r#"{"name": "nca", "beta": 0.3}"#),
    ("bco", r#"{"name": "bco", "beta": 0.3}"#),
    ("apo_zero", r#"{"name": "apo_zero", "beta": 0.3}"#),
    ("apo_down", r#"{"name": "apo_down", "beta": 0.3}"#),
    ("discopop", r#"{"name": "discopop", "beta": 0.3, "tau": 0.05}"#),
    ("simpo", r#"{"name": "simpo", "beta": 0.3, "gamma": 1.0}"#),
    ("orpo", r#"{"name": "orpo", "beta": 0.3}"#),
    ("cpo", r#"{"name": "cpo", "beta": 0.3, "alpha": 1.0}"#),
    ("aot", r#"{"name": "aot", "beta": 0.3}"#),
    ("sft", r#"{"name": "sft"}"#),
    ("rpo", r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#),
    ("rpo_uniform", r#"{"name": "rpo", "beta": 0.3, "weighting": "uniform"}"#),
    ("rpo_diagonal", r#"{"name": "rpo", "beta": 0.3, "weighting": "diagonal", "diagonal_weight": 0.8}"#),
    ("dpo", r#"{"name": "jpo", "beta": 0.3}"#),
];

#[test]
fn objectives_match_pytorch() {
    for (name, knobs) in CASES {
        check(name, knobs, false);
    }
}

#[test]
fn weights_match_pytorch() {
    check("dpo_weighted", r#"{"name": "dpo", "beta": 0.3}"#, true);
    check("rpo_weighted", r#"{"name": "rpo", "beta": 0.3, "tau": 0.5}"#, true);
}

/// Edges of two prompts beside the oracle's rows: (chosen sequence, rejected sequence, p_hat); row i has 2i and 2i + 1.
fn with_joint(batch: Batch, oracle: &Value, joint: &Value) -> Batch {
    let mut batch = batch;
    let mut prompts: [Vec<usize>; 2] = [(0..12).collect(), (0..12).collect()];
    for edge in joint.as_array().unwrap().iter().map(numbers) {
        let [chosen, rejected] = [edge[0] as usize, edge[1] as usize];
        batch.edges.push(Edge { chosen, rejected, p_hat: edge[2], weight: 1.0 });
        prompts[0].push(chosen / 2);
        prompts[1].push(rejected / 2);
    }
    let whole = similarities(oracle, 0..12, 0..12);
    let [rows, columns] = &prompts;
    let cells = rows.iter().flat_map(|row| columns.iter().map(move |column| row * 12 + column));
    let values = cells.map(|at| whole.values[at]).collect();
    batch.similarities = Some(Similarities { rows: rows.len(), columns: columns.len(), values });
    batch
}

#[test]
fn soft_rpo_matches_pytorch() {
    // tests/fixtures/oracles/README.md has the lines that made the numbers.
    let oracle = oracle();
    let expected = soft_oracle();
    let soft = objective(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "labels": "soft"}"#);
    let plain = rows(&oracle, false);
    let joint = with_joint(plain.clone(), &oracle, &expected["joint_edges"]);
    for (case, batch) in [("plain", plain), ("weighted", rows(&oracle, true)), ("joint", joint)] {
        let evaluation = soft.evaluate(&batch).unwrap();
        let wanted = |key: &str| numbers(&expected[case][key]);
        close(case, &[evaluation.loss], &[expected[case]["loss"].as_f64().unwrap()]);
        close(&format!("{case} terms"), &evaluation.terms, &wanted("terms"));
        let gradient: Vec<f64> = evaluation.d_policy.iter().map(|d| d.0).collect();
        close(&format!("{case} d_policy"), &gradient, &wanted("d_policy"));
    }
}

#[test]
fn aot_terms_are_the_oracles_in_the_order_of_the_policys_margins() {
    let oracle = oracle();
    let mut terms = objective(r#"{"name": "aot", "beta": 0.3}"#).evaluate(&rows(&oracle, false)).unwrap().terms;
    let mut losses = numbers(&oracle["objectives"]["aot"]["losses"]);
    terms.sort_by(f64::total_cmp);
    losses.sort_by(f64::total_cmp);
    close("aot losses", &terms, &losses);
}

#[test]
fn kto_matches_pytorch() {
    let oracle = oracle();
    let expected = &oracle["objectives"]["kto"];
    let evaluation = objective(r#"{"name": "kto", "beta": 0.3}"#).evaluate(&items(&oracle)).unwrap();
    let losses = numbers(&expected["losses"]);
    let rows: Vec<f64> = evaluation.terms.chunks(2).map(mean).collect();
    close("kto losses", &rows, &losses);
    close("kto loss", &[evaluation.loss], &[mean(&losses)]);
    let (chosen, rejected) = gradients(&evaluation, losses.len());
    close("kto d_chosen", &chosen, &numbers(&expected["d_policy_chosen"]));
    close("kto d_rejected", &rejected, &numbers(&expected["d_policy_rejected"]));
    assert!(evaluation.d_policy[24..].iter().all(|d| *d == (0.0, 0.0)), "no gradient flows through z");
}

#[test]
fn unpaired_rpo_matches_pytorch() {
    let oracle = oracle();
    let expected = &oracle["objectives"]["rpo_unpaired"];
    // Chosen sides of rows 0 to 6 against rejected sides of rows 7 to 11, in an order that mixes them.
    let mut batch = Batch { edges: Vec::new(), ..rows(&oracle, false) };
    let item = |sequence, label| Item { sequence, label, weight: 1.0 };
    batch.items.extend((7..12).map(|i| item(2 * i + 1, 0.0)));
    batch.items.extend((0..7).map(|i| item(2 * i, 1.0)));
    batch.similarities = Some(similarities(&oracle, 0..7, 7..12));
    let evaluation =
        objective(r#"{"name": "rpo", "beta": 0.3, "tau": 0.5, "form": "unpaired"}"#).evaluate(&batch).unwrap();
    let losses = numbers(&expected["losses"]);
    close("rows", &evaluation.terms[5..], &losses);
    close("loss", &[evaluation.loss], &[mean(&losses)]);
    close("columns", &[mean(&evaluation.terms[..5])], &[mean(&losses)]);
    let wanted: Vec<f64> = expected["weights"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(Value::as_array)
        .flatten()
        .map(|weight| weight.as_f64().unwrap())
        .collect();
    let contrasts = evaluation.contrasts.unwrap();
    assert_eq!((contrasts.rows, contrasts.columns), (7, 5));
    close("weights", &contrasts.weights, &wanted);
    let chosen: Vec<f64> = (0..7).map(|i| evaluation.d_policy[2 * i].0).collect();
    let rejected: Vec<f64> = (7..12).map(|i| evaluation.d_policy[2 * i + 1].0).collect();
    close("d_chosen", &chosen, &numbers(&expected["d_policy_chosen"]));
    close("d_rejected", &rejected, &numbers(&expected["d_policy_rejected"]));
}

/// ```python
/// chosen = torch.tensor([1.5, -0.25, 40.0, 0.3], dtype=torch.float64, requires_grad=True)
/// rejected = torch.tensor([0.5, 0.75, -60.0, 0.3], dtype=torch.float64, requires_grad=True)
/// p = torch.tensor([1.0, 0.8, 0.9, 0.5], dtype=torch.float64)
/// D = chosen - rejected
/// losses = -p * logsigmoid(D) - (1 - p) * logsigmoid(-D) + c * (chosen + rejected) ** 2
/// torch.autograd.grad(losses.mean(), (chosen, rejected))
/// ```
#[test]
fn rewards_match_pytorch() {
    let rewards = [(1.5, 0.5, 1.0), (-0.25, 0.75, 0.8), (40.0, -60.0, 0.9), (0.3, 0.3, 0.5)];
    let sequence = |reward| SequenceLogps { policy: (reward, 0.0), reference: None, tokens: 3, prompt_tokens: 2 };
    let sequences = rewards.iter().flat_map(|(chosen, rejected, _)| [sequence(*chosen), sequence(*rejected)]).collect();
    let edge = |(i, (_, _, p_hat)): (usize, &(f64, f64, f64))| Edge {
        chosen: 2 * i,
        rejected: 2 * i + 1,
        p_hat: *p_hat,
        weight: 1.0,
    };
    let batch = Batch { sequences, edges: rewards.iter().enumerate().map(edge).collect(), ..Batch::default() };
    let plain = objective(r#"{"name": "reward"}"#);
    let evaluation = plain.evaluate(&batch).unwrap();
    let losses = [0.31326168751822286, 1.1132616875182229, 9.999999999999998, std::f64::consts::LN_2];
    close("losses", &evaluation.terms, &losses);
    close("loss", &[evaluation.loss], &[3.0299176388990974]);
    let (chosen, rejected) = gradients(&evaluation, 4);
    let slopes = [-0.06723535534249878, -0.1327646446575012, 0.024999999999999994, 0.0];
    close("d_chosen", &chosen, &slopes);
    close("d_rejected", &rejected, &slopes.map(|slope| -slope));
    let centered = objective(r#"{"name": "reward", "center_rewards_coefficient": 0.01}"#).evaluate(&batch).unwrap();
    close("centered", &[centered.loss], &[4.041442638899097]);
    let (chosen, rejected) = gradients(&centered, 4);
    close("d_chosen", &chosen, &[-0.057235355342498774, -0.1302646446575012, -0.07500000000000001, 0.003]);
    close("d_rejected", &rejected, &[0.07723535534249877, 0.1352646446575012, -0.125, 0.003]);
    // As TRL's RewardTrainer measures a batch.
    let measures = plain.measure(&batch);
    close("rewards", &measures.rewards.unwrap(), &[-60.0, -16.9 / 8.0, 40.0]);
    close("accuracy, margin", &[measures.rewards_accuracies.unwrap(), measures.rewards_margins.unwrap()], &[0.5, 25.0]);
    assert_eq!((measures.logps_chosen, measures.mean_token_logp), (None, None));
}
