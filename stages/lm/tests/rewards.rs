//! Reward models against transformers: `fixtures/rewards/make_rewards.py` asked it.

use lm::{AdamW, Decoder, Device, Dtype, Memory, SavedDtype, Sequence, Training};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 6] = ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text"];

#[derive(Deserialize)]
struct Numbers {
    texts: Vec<Vec<u32>>,
    rewards: Vec<f64>,
    steps: Vec<Step>,
    #[serde(rename = "final")]
    last: Vec<f64>,
    norms: HashMap<String, f64>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

fn fixture(family: &str) -> PathBuf {
    harness::root().join("stages/lm/tests/fixtures/rewards").join(family)
}

fn numbers(family: &str) -> Numbers {
    serde_json::from_str(&std::fs::read_to_string(fixture(family).join("numbers.json")).unwrap()).unwrap()
}

fn load(folder: &Path) -> Decoder {
    Decoder::load_reward_model(folder, &Device::Cpu, Dtype::F32).unwrap()
}

fn rewards(decoder: &Decoder, texts: &[Vec<u32>], budget: usize) -> Vec<f64> {
    decoder.rewards(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>(), budget).unwrap()
}

fn worst(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max)
}

#[test]
fn rewards_are_those_of_transformers_however_texts_are_packed() {
    for family in FAMILIES {
        let (decoder, numbers) = (load(&fixture(family)), numbers(family));
        for budget in [1, 20, 4096] {
            let off = worst(&rewards(&decoder, &numbers.texts, budget), &numbers.rewards);
            assert!(off < 1e-5, "{family}, {budget}: {off}");
        }
        let half = Decoder::load_reward_model(&fixture(family), &Device::Cpu, Dtype::Bf16).unwrap();
        let off = worst(&rewards(&half, &numbers.texts, 4096), &numbers.rewards);
        assert!(off > 0.0 && off < 0.1, "{family}, bf16: {off}");
    }
}

#[test]
fn ten_steps_are_those_of_pytorch() {
    for family in FAMILIES {
        let numbers = numbers(family);
        for memory in [Memory::Keep, Memory::Boundaries, Memory::TwoPass] {
            let mut training = Training::new(load(&fixture(family)), AdamW::default(), Some(1.0), memory, 30).unwrap();
            for (step, want) in numbers.steps.iter().enumerate() {
                let rows: Vec<&[u32]> = (0..4).map(|i| numbers.texts[(4 * step + i) % 16].as_slice()).collect();
                let values = training.forward_rewards(&rows).unwrap();
                let (mut loss, mut slopes) = (0.0, Vec::new());
                for pair in values.chunks(2) {
                    let margin = pair[0] - pair[1];
                    loss += (-margin).exp().ln_1p() / 2.0;
                    let slope = -1.0 / (1.0 + margin.exp()) / 2.0;
                    slopes.extend([slope, -slope]);
                }
                training.backward_rewards(&slopes).unwrap();
                let norm = training.step(1e-3).unwrap();
                let off = [(loss / want.loss - 1.0).abs(), (norm / want.grad_norm - 1.0).abs()];
                assert!(off.iter().all(|off| *off < 1e-3), "{family}, step {step}: {off:?}");
            }
            let off = worst(&rewards(training.decoder(), &numbers.texts, 4096), &numbers.last);
            assert!(off < 1e-3, "{family}: {off}");
            let folder = tempfile::tempdir().unwrap();
            training.save(folder.path(), SavedDtype::AsLoaded, &fixture(family)).unwrap();
            let saved = candle_core::safetensors::load(folder.path().join("model.safetensors"), &Device::Cpu).unwrap();
            assert_eq!(saved.len(), numbers.norms.len());
            for (name, want) in &numbers.norms {
                let norm = saved[name].sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
                assert!((f64::from(norm) / want - 1.0).abs() < 1e-4, "{family}, {name}: {norm} {want}");
            }
            let again = rewards(&load(folder.path()), &numbers.texts, 4096);
            assert_eq!(again, rewards(training.decoder(), &numbers.texts, 4096), "{family}");
        }
    }
}

#[test]
fn a_saved_folder_is_the_same_model() {
    for family in FAMILIES {
        let to = tempfile::tempdir().unwrap();
        load(&fixture(family)).save(to.path()).unwrap();
        let read = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
        assert!(read(to.path(), "model.safetensors") == read(&fixture(family), "model.safetensors"), "{family}");
        let config = |folder: &Path| serde_json::from_slice::<Value>(&read(folder, "config.json")).unwrap();
        assert_eq!(config(to.path()), config(&fixture(family)), "{family}");
    }
}

/// The fixture's folder with another `config.json`.
fn changed(family: &str, change: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture(family).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change.iter().for_each(|(key, value)| config[*key] = value.clone());
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixture(family).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    folder
}

#[test]
fn what_is_no_reward_model_is_refused() {
    let refused = |change: &[(&str, Value)]| {
        let folder = changed("llama", change);
        Decoder::load_reward_model(folder.path(), &Device::Cpu, Dtype::F32).unwrap_err().to_string()
    };
    let two = refused(&[("id2label", json!({"0": "A", "1": "B"}))]);
    assert!(two.contains("the model has 2 outputs; a reward model has one"), "{two}");
    let language = refused(&[("architectures", json!(["LlamaForCausalLM"]))]);
    assert!(language.contains("wanted a reward model (...ForSequenceClassification)"), "{language}");
    // A reward model is no language model, and says so at each door.
    let error = Decoder::load(&fixture("llama"), &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("wanted a model with a language-model head (...ForCausalLM)"), "{error}");
    let decoder = load(&fixture("llama"));
    let none = "a reward model has no language-model head";
    let sequence = Sequence::new(vec![3, 4, 5], 1);
    assert!(decoder.score(&[&sequence], false, 10).unwrap_err().to_string().contains(none));
    assert!(decoder.likeliest(&[3, 4]).unwrap_err().to_string().contains(none));
    assert!(decoder.prefill(&[&[3, 4]], 4).unwrap_err().to_string().contains(none));
    let empty = decoder.rewards(&[&[]], 10).unwrap_err().to_string();
    assert!(empty.contains("sequence 0: the completion starts at token 0 of 0"), "{empty}");
    assert!(decoder.rewards(&[&[3, 64]], 10).unwrap_err().to_string().contains("token id 64 is outside"));
    let mut training = Training::new(decoder, AdamW::default(), None, Memory::Keep, 30).unwrap();
    assert!(training.forward(&[&sequence], false).unwrap_err().to_string().contains(none));
    training.forward_rewards(&[&[3, 4]]).unwrap();
    assert!(training.backward(&[lm::LogProbs::default()]).is_err());
}

#[test]
fn a_language_model_becomes_a_reward_model() {
    let language =
        changed("qwen3", &[("architectures", json!(["Qwen3ForCausalLM"])), ("tie_word_embeddings", json!(true))]);
    let body = candle_core::safetensors::load(fixture("qwen3").join("model.safetensors"), &Device::Cpu).unwrap();
    let body: HashMap<_, _> = body.into_iter().filter(|(name, _)| name != "score.weight").collect();
    candle_core::safetensors::save(&body, language.path().join("model.safetensors")).unwrap();
    let decoder = Decoder::load(language.path(), &Device::Cpu).unwrap();
    let refused = decoder.rewards(&[&[3, 4]], 10).unwrap_err().to_string();
    assert!(refused.contains("a language model gives no number for a text"), "{refused}");
    let reward = decoder.into_reward_model(Some(5), None).unwrap();
    let to = tempfile::tempdir().unwrap();
    reward.save(to.path()).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(to.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["Qwen3ForSequenceClassification"]));
    assert_eq!(config["id2label"], json!({"0": "LABEL_0"}));
    let texts = numbers("qwen3").texts;
    let values = rewards(&reward, &texts, 4096);
    assert_eq!(rewards(&load(to.path()), &texts, 4096), values);
    assert!(values.iter().any(|value| *value != values[0]));
}
