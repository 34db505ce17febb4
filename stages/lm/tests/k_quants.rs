//! Whole models in K-quants, the mix of llama.cpp's Q4_K_M: what a file of them gives, and an adapter over it.

use crate::common;

use common::oracle;
use harness::gguf;
use lm::{AdamW, Decoder, DecoderConfig, Device, Dtype, GenerateRequest, LogProbs, Lora, Memory, SamplingRules};
use lm::{SavedDtype, Sequence, Text, Training, check_decoder, export, in_few_bits};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Blocks of K-quants are 256 numbers of a row: the width of the states, and half of that within the feed-forward part.
const WIDTH: usize = 256;
const LAYERS: usize = 4;

/// A random Llama whose matrices are whole blocks, its file in K-quants, and a folder of the numbers in that file, each
/// with the oracles' tokenizer.
struct Models {
    place: tempfile::TempDir,
}

impl Models {
    fn new() -> Models {
        let place = tempfile::tempdir().unwrap();
        let models = Models { place };
        let mut config: Value = json_of(&oracle("llama").join("config.json"));
        for (key, value) in
            [("hidden_size", WIDTH), ("intermediate_size", 2 * WIDTH), ("num_hidden_layers", LAYERS), ("head_dim", 64)]
        {
            config[key] = json!(value);
        }
        // Layers that do something, so that rounding shows.
        config["initializer_range"] = json!(0.05);
        let config = DecoderConfig::from_json(config.as_object().unwrap().clone()).unwrap();
        for folder in [models.whole(), models.rounded(), models.file().parent().unwrap().to_owned()] {
            std::fs::create_dir(&folder).unwrap();
            for part in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
                std::fs::copy(oracle("llama").join(part), folder.join(part)).unwrap();
            }
        }
        Decoder::init(config, 3, &Device::Cpu).unwrap().save(&models.whole()).unwrap();
        gguf::write_q4_k_m(&models.whole(), "llama", &models.file());
        for part in ["config.json", "generation_config.json"] {
            std::fs::copy(models.whole().join(part), models.rounded().join(part)).unwrap();
        }
        let weights = weights(&models.whole());
        let rounded =
            weights.iter().map(|(name, tensor)| (name.clone(), gguf::rounded_in_q4_k_m(name, tensor, LAYERS)));
        candle_core::safetensors::save(&rounded.collect(), models.rounded().join("model.safetensors")).unwrap();
        models
    }

    fn whole(&self) -> PathBuf {
        self.place.path().join("whole")
    }

    fn rounded(&self) -> PathBuf {
        self.place.path().join("rounded")
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("file/model.gguf")
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn weights(folder: &Path) -> std::collections::HashMap<String, candle_core::Tensor> {
    candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap()
}

fn load(path: &Path) -> Decoder {
    Decoder::load(path, &Device::Cpu).unwrap()
}

fn sequences() -> Vec<Sequence> {
    let texts: [(&[u32], usize); 4] = [
        (&[5, 9, 33, 7, 102, 44, 8], 3),
        (&[5, 9, 33, 8, 21, 40], 3),
        (&[17, 3, 300, 251, 4], 1),
        (&[5, 9, 61, 11], 2),
    ];
    texts.iter().map(|&(ids, start)| Sequence::new(ids.to_vec(), start)).collect()
}

fn scores(decoder: &Decoder) -> Vec<f64> {
    let sequences = sequences();
    let scored = decoder.score(&sequences.iter().collect::<Vec<_>>(), true, 4096).unwrap();
    scored.iter().flat_map(|scored| [scored.response, scored.prompt]).collect()
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_file_gives_the_logits_of_its_numbers() {
    let models = Models::new();
    assert!(in_few_bits(&models.file()).unwrap());
    check_decoder(&models.file()).unwrap();
    let (file, rounded, whole) = (load(&models.file()), load(&models.rounded()), load(&models.whole()));
    let logits = |decoder: &Decoder| -> Vec<f64> {
        let (_, logits) = decoder.prefill(&[&[5, 9, 33, 7], &[17, 3, 300]], 0).unwrap();
        logits.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
    };
    assert!(worst(&logits(&file), &logits(&rounded)) < 1e-4);
    assert!(worst(&scores(&file), &scores(&rounded)) < 1e-4);
    // The bits cost something, and as much as they do cost.
    let lost = worst(&logits(&file), &logits(&whole));
    assert!(lost > 1e-3, "the file is not of few bits: {lost}");
    assert_eq!(file.likeliest(&[5, 9, 33]).unwrap().0, rounded.likeliest(&[5, 9, 33]).unwrap().0);
    // Made numbers of, it is the folder.
    let to = tempfile::tempdir().unwrap();
    export(&models.file(), to.path(), None).unwrap();
    let (got, wanted) = (weights(to.path()), weights(&models.rounded()));
    assert_eq!(got.len(), wanted.len());
    for (name, wanted) in wanted {
        let numbers = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(numbers(&got[&name]) == numbers(&wanted), "{name}");
    }
    assert_eq!(scores(&load(to.path())), scores(&file));
}

#[test]
fn a_file_writes_what_its_numbers_write() {
    let models = Models::new();
    let rules = SamplingRules { temperature: 1.0, top_p: None, top_k: None, max_tokens: 12, stop: Vec::new() };
    let written = |path: &Path| {
        let requests = [GenerateRequest { ids: &[5, 9, 33, 7], seeds: vec![1, 2] }];
        let all = load(path).generate(&Text::load(path).unwrap(), &requests, &rules, 4096).unwrap();
        all.into_iter().flatten().map(|one| (one.ids, one.text)).collect::<Vec<_>>()
    };
    assert_eq!(written(&models.file()), written(&models.rounded()));
}

/// Steps of an adapter over a model, in some precision of products: the norm of each gradient.
fn steps(base: &Path, dtype: Dtype, memory: Memory) -> (Vec<f64>, Training) {
    let mut decoder = Decoder::load_in(base, &Device::Cpu, dtype).unwrap();
    let lora = Lora { dropout: 0.1, ..Lora::new(4, 8.0, &["all-linear".to_owned()]).unwrap() };
    decoder.add_adapter(&lora, 17).unwrap();
    let mut training = Training::new(decoder, AdamW::default(), Some(1.0), memory, 300).unwrap();
    let sequences = sequences();
    let slopes: Vec<LogProbs> =
        (0..4).map(|i| LogProbs { response: if i < 2 { -0.5 } else { 0.5 }, prompt: 0.0 }).collect();
    let norms = (0..3).map(|_| {
        training.forward(&sequences.iter().collect::<Vec<_>>(), false).unwrap();
        training.backward(&slopes).unwrap();
        training.step(1e-3).unwrap()
    });
    (norms.collect(), training)
}

#[test]
fn an_adapter_is_trained_over_a_file_as_over_its_numbers() {
    let models = Models::new();
    let base = scores(&load(&models.file()));
    for (dtype, memory) in
        [(Dtype::F32, Memory::Keep), (Dtype::F32, Memory::TwoPass), (Dtype::Bf16, Memory::Boundaries)]
    {
        let (norms, over_file) = steps(&models.file(), dtype, memory);
        let to = tempfile::tempdir().unwrap();
        export(&models.file(), to.path(), None).unwrap();
        let (wanted, over_folder) = steps(to.path(), dtype, memory);
        assert_eq!(norms, wanted, "{dtype:?}");
        assert_eq!(scores(over_file.decoder()), scores(over_folder.decoder()), "{dtype:?}");
        assert!(worst(&scores(over_file.decoder()), &base) > 0.01, "three steps move something");
        let folder = tempfile::tempdir().unwrap();
        over_file.save_adapter(folder.path(), SavedDtype::F32, &models.file()).unwrap();
        let again = Decoder::load_in(folder.path(), &Device::Cpu, dtype).unwrap();
        assert_eq!(scores(&again), scores(over_file.decoder()), "{dtype:?}");
    }
}

/// A head and an adapter over a file are a reward model; a file alone is none.
#[test]
fn a_reward_model_over_a_file_is_that_over_its_numbers() {
    let models = Models::new();
    let alone = Decoder::load_reward_model(&models.file(), &Device::Cpu, Dtype::F32).unwrap_err().to_string();
    assert!(alone.contains("a GGUF file holds no reward model here; use the Hugging Face folder"), "{alone}");
    let texts: [&[u32]; 3] = [&[5, 9, 33, 7], &[5, 9, 33, 8, 21], &[17, 3]];
    let made = |base: &Path| {
        let mut decoder = load(base).into_reward_model(Some(5), Some(0)).unwrap();
        decoder.add_adapter(&Lora::new(4, 8.0, &["all-linear".to_owned()]).unwrap(), 17).unwrap();
        let mut training = Training::new(decoder, AdamW::default(), Some(1.0), Memory::Keep, 300).unwrap();
        for _ in 0..3 {
            training.forward_rewards(&texts).unwrap();
            training.backward_rewards(&[-1.0, 1.0, 0.5]).unwrap();
            training.step(1e-2).unwrap();
        }
        training
    };
    let to = tempfile::tempdir().unwrap();
    export(&models.file(), to.path(), None).unwrap();
    let (over_file, over_folder) = (made(&models.file()), made(to.path()));
    let rewards = over_file.decoder().rewards(&texts, 4096).unwrap();
    assert_eq!(rewards, over_folder.decoder().rewards(&texts, 4096).unwrap());
    let folder = tempfile::tempdir().unwrap();
    over_file.save_adapter(folder.path(), SavedDtype::F32, &models.file()).unwrap();
    lm::check_reward_model(folder.path()).unwrap();
    let again = Decoder::load_reward_model(folder.path(), &Device::Cpu, Dtype::F32).unwrap();
    assert_eq!(again.rewards(&texts, 4096).unwrap(), rewards);
}
