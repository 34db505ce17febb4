//! Training an adapter: six steps against PEFT (lm's fixtures/make_lora.py), and what becomes of the folder.

use crate::common;

use common::{Bench, config, model, pairs, port_bytes, reference, reference_of, tokenise};
use kit::rows::Metric;
use kit::{Error, Interrupt, read_rows};
use lm::{Decoder, Device, Dtype, Precision, Sequence};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokens::Base;

fn near(what: &str, got: f64, wanted: f64, tolerance: f64) {
    assert!((got - wanted).abs() <= tolerance, "{what}: {got}, wanted {wanted} within {tolerance}");
}

fn adapted(targets: &[&str]) -> Value {
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    config["adapter"] = json!({"rank": 4, "alpha": 8, "targets": targets});
    config["optimizer"]["lr"] = json!(1e-3);
    config
}

fn scores(folder: &Path, side: usize) -> Vec<f64> {
    scores_in(folder, side, Dtype::F32.into())
}

fn scores_in(folder: &Path, side: usize, precision: Precision) -> Vec<f64> {
    let decoder = Decoder::load_in(folder, &Device::Cpu, precision).unwrap();
    let tokens = tokenise(&pairs("pairs.jsonl"));
    let sequences: Vec<&Sequence> = tokens.iter().map(|pair| if side == 0 { &pair.0 } else { &pair.1 }).collect();
    decoder.score(&sequences, false, 4096).unwrap().iter().map(|scored| scored.response).collect()
}

/// Tolerances of the oracles' README.
#[test]
fn dpo_with_an_adapter_follows_peft() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../lm/tests/fixtures/lora/train.json");
    let oracle: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let pairs = pairs("pairs.jsonl");
    let bench = Bench::new().table("from", &pairs).table("reference", &reference(&pairs));
    bench.run_through(&adapted(&["all-linear"]), "entry");
    follows(&bench, "entry", &peft_folder().join("train.json"), Dtype::F32.into());
    let policy = bench.entry("entry").join("policy");
    let file = std::fs::read(policy.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let norms = oracle["final_param_norms"].as_object().unwrap();
    assert_eq!(tensors.len(), norms.len());
    for (parameter, norm) in norms {
        let tensor = tensors.tensor(parameter).unwrap();
        let values = tensor.data().chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())));
        let got = values.map(|value| value * value).sum::<f64>().sqrt();
        // Early steps of AdamW turn the signs of tiny gradients into whole steps; B starts at 0.
        near(&format!("|{parameter}|"), got, norm.as_f64().unwrap(), 1e-4 * norm.as_f64().unwrap());
    }
    // The output is a PEFT folder with a tokenizer; merged it gives the same log-probs.
    let config: Value = serde_json::from_slice(&std::fs::read(policy.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["base_model_name_or_path"], model().canonicalize().unwrap().to_str().unwrap());
    assert!(policy.join("tokenizer.json").is_file() && !policy.join("model.safetensors").exists());
    let merged = bench.entry("merged");
    std::fs::create_dir_all(&merged).unwrap();
    train::export_model(&policy, &merged, None).unwrap();
    for (merged, adapter) in scores(&merged, 0).iter().zip(scores(&policy, 0)) {
        near("merged", *merged, adapter, 1e-5 * adapter.abs());
    }
}

/// Six steps above weights in few bits, against PEFT above the same numbers (lm's fixtures/make_few_bits.py).
#[test]
fn dpo_with_an_adapter_over_few_bits_follows_peft() {
    let few_bits = peft_folder().with_file_name("few-bits");
    let pairs = pairs("pairs.jsonl");
    for (name, folder, base) in [
        ("nf4", few_bits.join("nf4"), None),
        ("four", model(), Some(Base { bits: 4 })),
        ("eight", model(), Some(Base { bits: 8 })),
    ] {
        let precision = tokens::precision(Dtype::F32, base);
        let reference = reference_of(&pairs, &folder, precision);
        let bench = Bench::with_model(&folder).table("from", &pairs).table("reference", &reference);
        let mut config = adapted(&["all-linear"]);
        config["base"] = json!(base);
        bench.run_through(&config, name);
        follows(&bench, name, &few_bits.join(format!("{name}.json")), precision);
        let policy = bench.entry(name).join("policy");
        assert!(!policy.join("model.safetensors").exists());
        let written = std::fs::read(policy.join("adapter_config.json")).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(written["base_model_name_or_path"], folder.canonicalize().unwrap().to_str().unwrap());
    }
}

#[test]
fn few_bits_without_an_adapter_or_beside_another_reference_are_refused() {
    let pairs = pairs("pairs.jsonl");
    let few_bits = peft_folder().with_file_name("few-bits").join("nf4");
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    let run = |model: &Path, config: &Value| {
        let bench = Bench::with_model(model).table("from", &pairs).table("reference", &reference(&pairs));
        bench.run(config, "refused", &|_| (), &Interrupt::default()).unwrap_err().to_string()
    };
    let text = run(&few_bits, &config);
    assert!(text.contains("its weights are in few bits, which are frozen: give `adapter`"), "{text}");
    config["base"] = json!({"bits": 4});
    let findings = (train::KIND.configure)(config.clone()).unwrap().0.check();
    assert!(findings.iter().any(|finding| finding.text.contains("weights in few bits are frozen")), "{findings:?}");
    let mut adapter = adapted(&["q_proj"]);
    adapter["base"] = json!({"bits": 4});
    let text = run(&model(), &adapter);
    assert!(text.contains("`reference` was computed in f32 and the policy would be in f32 over 4 bits"), "{text}");
    adapter["base"] = json!({"bits": 5});
    let findings = (train::KIND.configure)(adapter.clone()).unwrap().0.check();
    assert!(findings.iter().any(|finding| finding.text == "got 5, wanted 4 or 8"), "{findings:?}");
    adapter["base"] = json!({"bits": 4});
    adapter["model_adapter"] = json!("merge");
    let findings = (train::KIND.configure)(adapter).unwrap().0.check();
    assert!(
        findings.iter().any(|finding| finding.text.contains("is not merged into weights in few bits")),
        "{findings:?}"
    );
}

#[test]
fn stops_leave_no_trace_in_an_adapter_and_its_seed_decides_it() {
    let mut pairs = pairs("pairs.jsonl");
    pairs.truncate(6);
    let bench = Bench::new().table("from", &pairs).table("reference", &reference(&pairs));
    let mut config = adapted(&["q_proj", "v_proj", "down_proj"]);
    config["adapter"]["dropout"] = json!(0.2);
    config["batch"] = json!({"pairs": 2, "tokens_per_micro_batch": 160});
    config["epochs"] = json!(2);
    bench.run_through(&config, "whole");
    for stop in 1..5 {
        let interrupt = Interrupt::default();
        let raise = |event: kit::Event| {
            if matches!(event, kit::Event::Progressed { done, unit: "steps", .. } if done == stop) {
                interrupt.raise();
            }
        };
        assert!(matches!(bench.run(&config, "stopped", &raise, &interrupt), Err(Error::Interrupted)), "stop {stop}");
    }
    bench.run_through(&config, "stopped");
    let (stopped, whole) = (port_bytes(&bench.entry("stopped")), port_bytes(&bench.entry("whole")));
    for (file, bytes) in &whole {
        assert!(stopped.get(file) == Some(bytes), "{file} differs");
    }
    assert_eq!(stopped.len(), whole.len());
    let (stage, _) = (train::KIND.configure)(config).unwrap();
    assert!(stage.draws());

    // Training from an adapter has to say what becomes of it; from whole weights there is none.
    let again = Bench::with_model(&bench.entry("whole").join("policy"))
        .table("from", &pairs)
        .table("reference", &reference(&pairs));
    let error = again.run(&adapted(&["q_proj"]), "again", &|_| (), &Interrupt::default()).unwrap_err();
    assert!(matches!(&error, Error::Pipeline(text) if text.contains("`model_adapter: continue`")), "{error}");
    // Trained on, it keeps its dropout, and the run says so.
    let notes = std::sync::Mutex::new(Vec::new());
    let events = |event: kit::Event| {
        if let kit::Event::Noted { text } = event {
            notes.lock().unwrap().push(text);
        }
    };
    let mut config = adapted(&[]);
    config.as_object_mut().unwrap().remove("adapter");
    config["model_adapter"] = json!("continue");
    again.run(&config, "on", &events, &Interrupt::default()).unwrap();
    let notes = notes.into_inner().unwrap();
    assert!(notes.iter().any(|note| note.ends_with("trained on with the dropout of its own, 0.2")), "{notes:?}");
    let written = std::fs::read(again.entry("on").join("policy/adapter_config.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap()["lora_dropout"], 0.2);

    let mut config = adapted(&["q_proj"]);
    config["model_adapter"] = json!("merge");
    let error = bench.run(&config, "none", &|_| (), &Interrupt::default()).unwrap_err();
    assert!(matches!(&error, Error::Pipeline(text) if text.contains("is no adapter")), "{error}");
}

fn peft_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/fixtures/lora")
}

fn follows(bench: &Bench, entry: &str, oracle: &Path, precision: Precision) {
    let oracle: Value = serde_json::from_str(&std::fs::read_to_string(oracle).unwrap()).unwrap();
    let metrics: Vec<Metric> = read_rows(&bench.entry(entry).join("metrics")).unwrap();
    let steps = oracle["steps"].as_array().unwrap();
    assert_eq!(metrics.len(), steps.len());
    for (metric, step) in metrics.iter().zip(steps) {
        let of = |key: &str| step[key].as_f64().unwrap();
        let what = |key: &str| format!("step {}: {key}", metric.step);
        near(&what("loss"), metric.loss.unwrap(), of("loss"), 5e-4 * of("loss").abs());
        near(&what("grad_norm"), metric.grad_norm.unwrap(), of("grad_norm"), 5e-4 * of("grad_norm"));
        near(&what("margins"), metric.rewards_margins.unwrap(), of("margins"), 3e-4 * of("margins").abs().max(1.0));
        near(&what("logps_chosen"), metric.logps_chosen.unwrap(), of("logps_chosen"), 1e-3);
        near(&what("logps_rejected"), metric.logps_rejected.unwrap(), of("logps_rejected"), 1e-3);
    }
    let policy = bench.entry(entry).join("policy");
    for (side, key) in [(0, "final_chosen_logp"), (1, "final_rejected_logp")] {
        for (i, (got, wanted)) in
            scores_in(&policy, side, precision).iter().zip(oracle[key].as_array().unwrap()).enumerate()
        {
            near(&format!("{key}[{i}]"), *got, wanted.as_f64().unwrap(), 5e-3);
        }
    }
}

#[test]
fn an_adapter_is_trained_on_as_peft_does() {
    let pairs = pairs("pairs.jsonl");
    let bench = Bench::with_model(&peft_folder()).table("from", &pairs).table("reference", &reference(&pairs));
    let mut config = adapted(&[]);
    config.as_object_mut().unwrap().remove("adapter");
    config["model_adapter"] = json!("continue");
    bench.run_through(&config, "continued");
    follows(&bench, "continued", &peft_folder().join("continued.json"), Dtype::F32.into());
    let read = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
    };
    let written = read(&bench.entry("continued").join("policy"));
    assert_eq!((&written["r"], &written["lora_alpha"]), (&json!(4), &json!(8)));
    assert_eq!(written["base_model_name_or_path"], model().canonicalize().unwrap().to_str().unwrap());
}

#[test]
fn a_fresh_adapter_over_an_old_one_is_the_same_merged_or_frozen() {
    let pairs = pairs("pairs.jsonl");
    let bench = Bench::with_model(&peft_folder()).table("from", &pairs).table("reference", &reference(&pairs));
    let mut logps = Vec::new();
    for how in ["merge", "freeze"] {
        let mut config = adapted(&["q_proj", "up_proj"]);
        config["model_adapter"] = json!(how);
        bench.run_through(&config, how);
        let metrics: Vec<Metric> = read_rows(&bench.entry(how).join("metrics")).unwrap();
        // At first, nothing is added to the old adapter.
        let first = &metrics[0];
        let of = |side: usize| scores(&peft_folder(), side)[..4].iter().sum::<f64>() / 4.0;
        near(how, first.logps_chosen.unwrap(), of(0), 1e-3);
        near(how, first.logps_rejected.unwrap(), of(1), 1e-3);
        logps.push(metrics.iter().map(|metric| metric.logps_chosen.unwrap()).collect::<Vec<_>>());
        logps.push(scores(&bench.entry(how).join("policy"), 0));
    }
    for (merged, frozen) in logps[..2].iter().flatten().zip(logps[2..].iter().flatten()) {
        near("merged or frozen", *merged, *frozen, 5e-3);
    }
    // All weights of the merged model are trained without `adapter`.
    let mut config = adapted(&[]);
    config.as_object_mut().unwrap().remove("adapter");
    config["model_adapter"] = json!("merge");
    bench.run_through(&config, "whole");
    assert!(bench.entry("whole").join("policy/model.safetensors").is_file());
    let metrics: Vec<Metric> = read_rows(&bench.entry("whole").join("metrics")).unwrap();
    near("whole", metrics[0].logps_chosen.unwrap(), logps[0][0], 1e-3);
}
