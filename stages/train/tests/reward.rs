//! Training a reward model: ten steps against PyTorch (fixtures/make_reward.py), resumption, and the folder.

use crate::common;

use std::path::Path;

use common::{Bench, model, pairs, port_bytes, tokenise};
use kit::rows::Metric;
use kit::{Error, Event, Interrupt, read_rows};
use lm::{Decoder, Device, Dtype};
use serde_json::{Value, json};

fn oracle() -> Value {
    serde_json::from_str(include_str!("fixtures/reward.json")).unwrap()
}

fn near(what: &str, got: f64, wanted: f64, tolerance: f64) {
    assert!((got - wanted).abs() <= tolerance, "{what}: {got}, wanted {wanted} within {tolerance}");
}

/// Ten steps as PyTorch took them.
fn config(changes: &Value) -> Value {
    let all = json!({
        "from": "pairs",
        "model": "m/",
        "objective": {"name": "reward", "center_rewards_coefficient": 0.01},
        "head": "zeros",
        "optimizer": {"lr": 1e-3, "schedule": "constant", "clip_norm": 1.0},
        "batch": {"pairs": 4, "shuffle": false},
        "steps": 10,
    });
    harness::with(all, changes)
}

fn rewards(folder: &Path) -> Vec<f64> {
    let decoder = Decoder::load_reward_model(folder, &Device::Cpu, Dtype::F32).unwrap();
    let tokens = tokenise(&pairs("pairs.jsonl"));
    let (chosen, rejected): (Vec<_>, Vec<_>) =
        tokens.iter().map(|(chosen, rejected)| (&*chosen.ids, &*rejected.ids)).unzip();
    decoder.rewards(&[chosen, rejected].concat(), 4096).unwrap()
}

#[test]
fn ten_steps_follow_pytorch() {
    let (oracle, pairs) = (oracle(), pairs("pairs.jsonl"));
    let bench = Bench::new().table("from", &pairs);
    for (entry, changes) in [
        ("whole", json!({})),
        (
            "cut",
            json!({"batch": {"pairs": 4, "shuffle": false, "tokens_per_micro_batch": 100}, "memory": {"schedule": "two_pass"}}),
        ),
    ] {
        bench.run_through(&config(&changes), entry);
        let metrics: Vec<Metric> = read_rows(&bench.entry(entry).join("metrics")).unwrap();
        assert_eq!(metrics.len(), 10);
        for (metric, step) in metrics.iter().zip(oracle["steps"].as_array().unwrap()) {
            let of = |key: &str| step[key].as_f64().unwrap();
            let what = |key: &str| format!("{entry}, step {}: {key}", metric.step);
            near(&what("loss"), metric.loss.unwrap(), of("loss"), 5e-4 * of("loss"));
            near(&what("grad_norm"), metric.grad_norm.unwrap(), of("grad_norm"), 1e-3 * of("grad_norm"));
            near(&what("margin"), metric.margin.unwrap(), of("margin"), 3e-4);
            near(&what("accuracy"), metric.accuracy.unwrap(), of("accuracy"), 0.0);
            near(&what("min_reward"), metric.min_reward.unwrap(), of("min_reward"), 3e-4);
            near(&what("mean_reward"), metric.mean_reward.unwrap(), of("mean_reward"), 3e-4);
            near(&what("max_reward"), metric.max_reward.unwrap(), of("max_reward"), 3e-4);
            assert_eq!((metric.rewards_margins, metric.rewards_accuracies), (metric.margin, metric.accuracy));
            assert_eq!((metric.logps_chosen, metric.mean_token_logp), (None, None));
        }
        let policy = bench.entry(entry).join("policy");
        let last = ["chosen", "rejected"].into_iter().flat_map(|side| oracle["final"][side].as_array().unwrap());
        for (i, (got, wanted)) in rewards(&policy).iter().zip(last).enumerate() {
            near(&format!("{entry}, final {i}"), *got, wanted.as_f64().unwrap(), 1e-3);
        }
        let file = std::fs::read(policy.join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let norms = oracle["norms"].as_object().unwrap();
        assert_eq!(tensors.len(), norms.len());
        for (parameter, norm) in norms {
            let data = tensors.tensor(parameter).unwrap().data().to_vec();
            let values = data.chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())));
            let got = values.map(|value| value * value).sum::<f64>().sqrt();
            near(&format!("{entry}, |{parameter}|"), got, norm.as_f64().unwrap(), 1e-4 * norm.as_f64().unwrap());
        }
    }
}

#[test]
fn the_folder_is_that_of_a_reward_model_and_is_trained_on() {
    let bench = Bench::new().table("from", &pairs("pairs.jsonl"));
    let outcome = bench.run_through(&config(&json!({"steps": 2, "save": {"dtype": "bf16"}})), "first");
    assert!(outcome.figures["weights changed"].as_u64().unwrap() > 0);
    bench.run_through(&config(&json!({"steps": 2})), "first");
    let policy = bench.entry("first").join("policy");
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(policy.join(name)).unwrap()).unwrap() };
    let saved = read("config.json");
    assert_eq!(saved["architectures"], json!(["LlamaForSequenceClassification"]));
    assert_eq!((&saved["id2label"], &saved["pad_token_id"]), (&json!({"0": "LABEL_0"}), &oracle()["pad"]));
    assert!(policy.join("tokenizer.json").is_file() && policy.join("chat_template.jinja").is_file());
    assert_eq!(lm::check_reward_model(&policy).unwrap().no_messages, None);
    // A reward model is trained further from its own head, and a language model is none.
    let again = Bench::with_model(&policy).table("from", &pairs("pairs.jsonl"));
    let mut next = config(&json!({"steps": 1}));
    next.as_object_mut().unwrap().remove("head");
    again.run_through(&next, "second");
    let metrics: Vec<Metric> = read_rows(&again.entry("second").join("metrics")).unwrap();
    let before = rewards(&policy);
    let chosen = before[..4].iter().sum::<f64>() / 4.0;
    near("rewards/chosen", metrics[0].rewards_chosen.unwrap(), chosen, 1e-5);
    let refused =
        |config: &Value| again.run(config, "refused", &|_| (), &Interrupt::default()).unwrap_err().to_string();
    let text = refused(&config(&json!({"steps": 1})));
    assert!(
        text.contains("`head` has no effect") && text.contains("has a head of its own")
            || text.contains("with a head of its own"),
        "{text}"
    );
    let (stage, _) = (train::KIND.configure)(config(&json!({"objective": {"name": "sft"}, "head": null}))).unwrap();
    let text = stage.check_model("model", &policy).unwrap_err().to_string();
    assert!(text.contains("it is a reward model") && text.contains("`judge` takes it as `reward`"), "{text}");
    // Exported, it stands alone.
    let to = bench.entry("exported");
    std::fs::create_dir_all(&to).unwrap();
    train::export_model(&policy, &to, None).unwrap();
    assert_eq!(rewards(&to), before);
}

#[test]
fn a_head_is_drawn_from_the_seed_or_zero() {
    let pairs = pairs("pairs.jsonl");
    let bench = Bench::new().table("from", &pairs);
    let first = |head: Value, entry: &str| -> Metric {
        bench.run_through(&config(&json!({"steps": 1, "head": head})), entry);
        read_rows(&bench.entry(entry).join("metrics")).unwrap().remove(0)
    };
    let (zeros, normal, default) =
        (first(json!("zeros"), "zeros"), first(json!("normal"), "normal"), first(Value::Null, "default"));
    assert_eq!((zeros.loss, zeros.max_reward), (Some(std::f64::consts::LN_2), Some(0.0)));
    assert!(normal.max_reward.unwrap() != 0.0);
    assert_eq!(normal, default);
    let draws = |head: &str| (train::KIND.configure)(config(&json!({"head": head}))).unwrap().0.draws();
    assert_eq!((draws("zeros"), draws("normal")), (false, true));
}

/// Shuffled, with held-out pairs and the choice among evaluations.
fn chosen() -> Value {
    config(&json!({
        "head": "normal",
        "batch": {"pairs": 4, "shuffle": true, "tokens_per_micro_batch": 160},
        "eval_pairs": "held.out",
        "eval_every": 1,
        "best": {"metric": "eval_rewards/accuracies", "keep": 2},
        "steps": 4,
    }))
}

#[test]
fn signals_at_every_step_leave_no_trace() {
    let all = pairs("pairs.jsonl");
    for adapter in [Value::Null, json!({"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]})] {
        let bench = Bench::new().table("from", &all[..10]).table("eval_pairs", &all[10..]);
        let config = harness::with(chosen(), &json!({"adapter": adapter}));
        let whole = bench.run_through(&config, "whole");
        for stop in 1..4 {
            let interrupt = Interrupt::default();
            let raise = |event: Event| {
                if matches!(event, Event::Progressed { done, unit: "steps", .. } if done == stop) {
                    interrupt.raise();
                }
            };
            assert!(
                matches!(bench.run(&config, "stopped", &raise, &interrupt), Err(Error::Interrupted)),
                "stop {stop}"
            );
        }
        assert_eq!(bench.run_through(&config, "stopped"), whole);
        let (a, b) = (port_bytes(&bench.entry("whole")), port_bytes(&bench.entry("stopped")));
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (file, bytes) in &a {
            assert!(b[file] == *bytes, "{file} differs");
        }
        assert!(a.keys().any(|file| file.starts_with("policy_2/")), "{:?}", a.keys());
        let metrics: Vec<Metric> = read_rows(&bench.entry("whole").join("metrics")).unwrap();
        let best = metrics.iter().map(|metric| metric.eval_rewards_accuracies.unwrap()).fold(0.0, f64::max);
        let values = rewards(&bench.entry("whole").join("policy"));
        let won = (10..24).filter(|&i| values[i] > values[24 + i]).count();
        near("the best accuracy is that of the policy", won as f64 / 14.0, best, 1e-12);
    }
}

#[test]
fn an_adapter_is_saved_with_the_head() {
    let all = pairs("pairs.jsonl");
    let bench = Bench::new().table("from", &all);
    let adapter = json!({"rank": 4, "alpha": 8, "targets": ["all-linear"]});
    bench.run_through(&config(&json!({"adapter": adapter, "head": "normal", "optimizer": {"lr": 1e-2}})), "entry");
    let policy = bench.entry("entry").join("policy");
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(policy.join(name)).unwrap()).unwrap() };
    let saved = read("adapter_config.json");
    assert_eq!((&saved["task_type"], &saved["modules_to_save"]), (&json!("SEQ_CLS"), &json!(["score"])));
    assert_eq!(saved["base_model_name_or_path"], model().canonicalize().unwrap().to_str().unwrap());
    let file = std::fs::read(policy.join("adapter_model.safetensors")).unwrap();
    let names = safetensors::SafeTensors::deserialize(&file)
        .unwrap()
        .names()
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    assert!(names.contains(&"base_model.model.score.weight".to_owned()), "{names:?}");
    assert!(lm::is_reward_model(&policy).unwrap() && !lm::is_reward_model(&model()).unwrap());
    assert_eq!(lm::check_reward_model(&policy).unwrap().no_messages, None);
    // It moves apart what is chosen and rejected; merged it gives the same rewards.
    let values = rewards(&policy);
    let won = (0..24).filter(|&i| values[i] > values[24 + i]).count();
    assert!(won > 16, "{won} of 24");
    let merged = bench.entry("merged");
    std::fs::create_dir_all(&merged).unwrap();
    train::export_model(&policy, &merged, None).unwrap();
    for (merged, adapter) in rewards(&merged).iter().zip(&values) {
        near("merged", *merged, *adapter, 1e-4);
    }
    // Trained on, it starts where it ended; so does a fresh one over it.
    for how in ["continue", "freeze", "merge"] {
        let again = Bench::with_model(&policy).table("from", &all);
        let mut next = config(&json!({"steps": 1, "model_adapter": how}));
        next.as_object_mut().unwrap().remove("head");
        if how != "continue" {
            next["adapter"] = adapter.clone();
        }
        again.run_through(&next, "next");
        let metrics: Vec<Metric> = read_rows(&again.entry("next").join("metrics")).unwrap();
        near(how, metrics[0].rewards_chosen.unwrap(), values[..4].iter().sum::<f64>() / 4.0, 1e-4);
        let after = rewards(&again.entry("next").join("policy"));
        assert!(after != values && after.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1.0), "{how}: {after:?}");
    }
}

#[test]
fn what_a_reward_model_does_not_take_is_found() {
    let findings = |changes: Value| -> Vec<String> {
        let (stage, _) = (train::KIND.configure)(config(&changes)).unwrap();
        stage.check().iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect()
    };
    assert_eq!(findings(json!({})), Vec::<String>::new());
    let found = findings(json!({"objective": {"name": "dpo", "beta": 0.1}, "reference": "reference"}));
    assert_eq!(found, ["head: has no effect: `dpo` trains a language model; `reward` trains a model with such a head"]);
    let found = findings(json!({"objective": [{"name": "reward"}, {"name": "sft", "weight": 0.1}]}));
    assert!(found[0].contains("a mixture trains one"), "{found:?}");
    let found = findings(json!({"batch": {"items": 4}}));
    assert!(found[0].contains("`reward` is computed on pairs"), "{found:?}");
    // A reference is not read.
    let (stage, _) = (train::KIND.configure)(config(&json!({"reference": "reference"}))).unwrap();
    let reference = stage.inputs().into_iter().find(|input| input.key == "reference").unwrap();
    assert_eq!(reference.idle.as_deref(), Some("`reward` measures no log-ratio"));
    // An adapter of a language model becomes a reward model once it is merged.
    let peft = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/fixtures/lora");
    let all = pairs("pairs.jsonl");
    let bench = Bench::with_model(&peft).table("from", &all);
    let frozen = config(&json!({"adapter": {"rank": 2, "alpha": 4, "targets": ["q_proj"]}, "model_adapter": "freeze"}));
    let error = bench.run(&frozen, "frozen", &|_| (), &Interrupt::default()).unwrap_err().to_string();
    assert!(error.contains("a reward model over it starts from both merged"), "{error}");
    bench.run_through(&config(&json!({"steps": 1, "model_adapter": "merge"})), "merged");
    assert!(lm::is_reward_model(&bench.entry("merged").join("policy")).unwrap());
}
