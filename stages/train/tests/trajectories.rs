//! Six steps of full fine-tuning against PyTorch (tests/fixtures/oracles/train-llama-*.json), through the stage itself.

use crate::common;

use common::{Bench, config, embeddings, fixtures, pairs, reference, tokenise};
use kit::read_rows;
use kit::rows::{Contrast, Metric, Split, StepRow};
use lm::{Decoder, Device, Sequence};
use serde_json::{Value, json};

fn near(what: &str, got: f64, wanted: f64, tolerance: f64) {
    assert!((got - wanted).abs() <= tolerance, "{what}: {got}, wanted {wanted} within {tolerance}");
}

/// The whole batch at once.
fn check(name: &str, objective: Value) {
    check_with(name, config(objective));
}

/// In small micro-batches, with nothing and with little kept between forward and backward.
fn check_cut(name: &str, objective: &Value) {
    for schedule in ["two_pass", "boundaries"] {
        let mut config = config(objective.clone());
        config["batch"]["tokens_per_micro_batch"] = json!(100);
        config["memory"] = json!({"schedule": schedule});
        check_with(name, config);
    }
}

/// Tolerances of the oracles' README.
fn check_with(name: &str, config: Value) {
    let oracle: Value =
        serde_json::from_str(&std::fs::read_to_string(fixtures().join(format!("train-llama-{name}.json"))).unwrap())
            .unwrap();
    let pairs = pairs(if name == "jpo" { "joint.jsonl" } else { "pairs.jsonl" });
    let bench =
        Bench::new().table("from", &pairs).table("reference", &reference(&pairs)).table("embeddings", &embeddings());
    bench.run_through(&config, "entry");
    let entry = bench.entry("entry");
    let metrics: Vec<Metric> = read_rows(&entry.join("metrics")).unwrap();
    let steps = oracle["steps"].as_array().unwrap();
    assert_eq!(metrics.len(), steps.len());
    for (metric, step) in metrics.iter().zip(steps) {
        let of = |key: &str| step[key].as_f64().unwrap();
        let what = |key: &str| format!("{name} step {}: {key}", metric.step);
        near(&what("loss"), metric.loss.unwrap(), of("loss"), 5e-4 * of("loss").abs());
        near(&what("grad_norm"), metric.grad_norm.unwrap(), of("grad_norm"), 5e-4 * of("grad_norm"));
        near(&what("margins"), metric.rewards_margins.unwrap(), of("margins"), 3e-4);
        near(&what("logps_chosen"), metric.logps_chosen.unwrap(), of("logps_chosen"), 1e-3);
        near(&what("logps_rejected"), metric.logps_rejected.unwrap(), of("logps_rejected"), 1e-3);
        if metric.step > 1 {
            // At step 1 every margin is 0 up to rounding, and its sign is noise.
            near(&what("accuracies"), metric.rewards_accuracies.unwrap(), of("accuracies"), 0.0);
        }
    }
    // The parts of a step are those of its whole: by form, and by tenth of the labels.
    let splits: Vec<Split> = read_rows(&entry.join("splits")).unwrap();
    let form = if name == "jpo" { "joint" } else { "same" };
    assert!(splits.iter().all(|split| split.form == form && split.p_hat_low >= 0.5));
    for metric in &metrics {
        let own: Vec<&Split> = splits.iter().filter(|split| split.step == metric.step).collect();
        assert_eq!(own.iter().map(|split| split.pairs).sum::<u64>(), 4);
        let mean = |of: fn(&Split) -> Option<f64>| {
            own.iter().map(|split| split.pairs as f64 / 4.0 * of(split).unwrap()).sum::<f64>()
        };
        near("loss of the splits", mean(|it| it.loss), metric.loss.unwrap(), 1e-9);
        near("margins of the splits", mean(|it| it.rewards_margins), metric.rewards_margins.unwrap(), 1e-9);
        near("accuracies of the splits", mean(|it| it.rewards_accuracies), metric.rewards_accuracies.unwrap(), 1e-9);
    }
    assert!(splits.len() > metrics.len(), "labels of several tenths");
    let seen: Vec<StepRow> = read_rows(&entry.join("steps")).unwrap();
    assert!(
        seen.iter()
            .zip(&pairs)
            .enumerate()
            .all(|(i, (row, pair))| { row.row_id == pair.pair_id && row.step == i as u64 / 4 + 1 })
    );

    let policy = Decoder::load(&entry.join("policy"), &Device::Cpu).unwrap();
    let tokens = tokenise(&pairs);
    for (side, key) in [(0, "final_chosen_logp"), (1, "final_rejected_logp")] {
        let sequences: Vec<&Sequence> = tokens.iter().map(|pair| if side == 0 { &pair.0 } else { &pair.1 }).collect();
        let scored = policy.score(&sequences, false, 4096).unwrap();
        for (i, (scored, wanted)) in scored.iter().zip(oracle[key].as_array().unwrap()).enumerate() {
            near(&format!("{name} {key}[{i}]"), scored.response, wanted.as_f64().unwrap(), 5e-3);
        }
    }
    let file = std::fs::read(entry.join("policy/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    for (parameter, norm) in oracle["final_param_norms"].as_object().unwrap() {
        let tensor = tensors.tensor(parameter).unwrap();
        let values = tensor.data().chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())));
        let got = values.map(|value| value * value).sum::<f64>().sqrt();
        near(&format!("{name} |{parameter}|"), got, norm.as_f64().unwrap(), 1e-5 * norm.as_f64().unwrap());
    }
    if name == "rpo" {
        let contrasts: Vec<Contrast> = read_rows(&entry.join("contrasts")).unwrap();
        assert_eq!(contrasts.len(), 24 * 3, "the three strongest of the other three columns");
        assert!(contrasts.iter().all(|row| row.pair_id != row.rejected_pair_id && row.weight > 0.0));
    }
}

#[test]
fn dpo_follows_pytorch() {
    check("dpo", json!({"name": "dpo", "beta": 0.3}));
}

#[test]
fn cdpo_follows_pytorch() {
    check("cdpo", json!({"name": "cdpo", "beta": 0.3}));
}

#[test]
fn gdpo_follows_pytorch() {
    check("gdpo", json!({"name": "gdpo", "beta": 0.3}));
}

#[test]
fn ipo_follows_pytorch() {
    check("ipo", json!({"name": "ipo", "beta": 0.3}));
}

#[test]
fn gropo_follows_pytorch() {
    check("gropo", json!({"name": "gropo", "beta": 0.3, "alpha": 2.0, "gamma": 0.1}));
}

#[test]
fn simpo_follows_pytorch_and_its_margins_use_the_reference() {
    check("simpo", json!({"name": "simpo", "beta": 0.3, "gamma": 1.0}));
}

#[test]
fn rpo_follows_pytorch() {
    check("rpo", json!({"name": "rpo", "beta": 0.3, "tau": 0.5}));
}

#[test]
fn jpo_follows_pytorch() {
    check("jpo", json!({"name": "jpo", "beta": 0.3}));
}

#[test]
fn dpo_follows_pytorch_in_small_micro_batches() {
    check_cut("dpo", &json!({"name": "dpo", "beta": 0.3}));
}

#[test]
fn rpo_follows_pytorch_in_small_micro_batches() {
    check_cut("rpo", &json!({"name": "rpo", "beta": 0.3, "tau": 0.5}));
}

#[test]
fn jpo_follows_pytorch_in_small_micro_batches() {
    check_cut("jpo", &json!({"name": "jpo", "beta": 0.3}));
}
