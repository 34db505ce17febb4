//! Families beside the first ones, against transformers and PEFT: `fixtures/families/make_families.py` asked them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use harness::gguf;
use lm::{AdamW, DType, Decoder, Device, Dtype, Estimate, GenerateRequest, Load, LogProbs, Lora, Memory};
use lm::{SamplingRules, SavedDtype, Sequence, Text, Training};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Numbers {
    rows: Vec<Row>,
    prompts: Vec<Vec<u32>>,
    forms: Vec<Form>,
    adapter: Vec<Vec<f64>>,
    full: Trajectory,
    lora: Trajectory,
}

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    start: usize,
}

#[derive(Deserialize)]
struct Form {
    name: String,
    change: Map<String, Value>,
    logps: Vec<Vec<f64>>,
    #[serde(default)]
    logits: Vec<Vec<f64>>,
    #[serde(default)]
    greedy: Vec<Vec<u32>>,
    half: f64,
}

impl Form {
    /// True where texts are rotated by their length, so that the beginning of one is another text.
    fn mixed(&self) -> bool {
        self.name.starts_with("mixed")
    }
}

#[derive(Deserialize)]
struct Trajectory {
    steps: Vec<Step>,
    final_logps: Vec<f64>,
    final_norms: HashMap<String, f64>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

fn fixtures() -> PathBuf {
    harness::root().join("stages/lm/tests/fixtures/families")
}

/// Those that there is a folder of.
fn families() -> Vec<String> {
    let entries = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("numbers.json").is_file());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    names
}

fn fixture(family: &str) -> PathBuf {
    fixtures().join(family)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(family: &str) -> Numbers {
    serde_json::from_value(json(&fixture(family).join("numbers.json"))).unwrap()
}

/// Keys of a change that null does not take away: they are null.
const NULL: [&str; 3] = ["rope_scaling", "attn_logit_softcapping", "final_logit_softcapping"];

/// A folder with the weights of a family and another `config.json`.
fn folder_of(family: &str, change: &Map<String, Value>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (from, name) in [
        (family, "model.safetensors"),
        ("tokenizer", "tokenizer.json"),
        ("tokenizer", "tokenizer_config.json"),
        ("tokenizer", "chat_template.jinja"),
    ] {
        std::fs::copy(fixture(from).join(name), folder.path().join(name)).unwrap();
    }
    let mut config = json(&fixture(family).join("config.json"));
    for (key, value) in change {
        config.as_object_mut().unwrap().remove(key);
        if !value.is_null() || NULL.contains(&key.as_str()) {
            config[key] = value.clone();
        }
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// Every form of every family: its names, its folder, what it gives.
fn each_form(mut check: impl FnMut(&str, &Path, &Numbers, &Form)) {
    for family in &families() {
        let numbers = numbers(family);
        assert!(numbers.forms.len() >= 3);
        for form in &numbers.forms {
            let folder = folder_of(family, &form.change);
            check(&format!("{family}, {}", form.name), folder.path(), &numbers, form);
        }
    }
}

fn load(folder: &Path) -> Decoder {
    Decoder::load(folder, &Device::Cpu).unwrap()
}

/// The log-probability of each token but the first of each row. What begins alike is computed once.
fn token_logps(decoder: &Decoder, numbers: &Numbers) -> Vec<Vec<f64>> {
    let cut = |row: &Row| (2..=row.ids.len()).map(|n| Sequence::new(row.ids[..n].to_vec(), n - 1)).collect::<Vec<_>>();
    let sequences: Vec<Sequence> = numbers.rows.iter().flat_map(cut).collect();
    let scores = decoder.score(&sequences.iter().collect::<Vec<_>>(), false, 4096).unwrap();
    let mut rest = scores.iter().map(|score| score.response);
    numbers.rows.iter().map(|row| rest.by_ref().take(row.ids.len() - 1).collect()).collect()
}

fn responses(decoder: &Decoder, numbers: &Numbers, budget: usize) -> Vec<f64> {
    let sequences: Vec<Sequence> = numbers.rows.iter().map(|row| Sequence::new(row.ids.clone(), row.start)).collect();
    let scores = decoder.score(&sequences.iter().collect::<Vec<_>>(), false, budget).unwrap();
    scores.iter().map(|score| score.response).collect()
}

fn worst<'a>(got: impl IntoIterator<Item = &'a f64>, want: impl IntoIterator<Item = &'a f64>) -> f64 {
    let (got, want): (Vec<_>, Vec<_>) = (got.into_iter().collect(), want.into_iter().collect());
    assert_eq!(got.len(), want.len());
    got.into_iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max)
}

#[test]
fn tokens_and_logits_are_those_of_transformers() {
    each_form(|name, folder, numbers, form| {
        let decoder = load(folder);
        let wanted =
            numbers.rows.iter().zip(&form.logps).map(|(row, logps)| logps[row.start - 1..].iter().sum::<f64>());
        let off = worst(&responses(&decoder, numbers, 4096), &wanted.collect::<Vec<_>>());
        assert!(off < 1e-4, "{name}: {off}");
        if form.mixed() {
            return;
        }
        let off = worst(token_logps(&decoder, numbers).iter().flatten(), form.logps.iter().flatten());
        let prompts: Vec<&[u32]> = numbers.prompts.iter().take(form.logits.len()).map(Vec::as_slice).collect();
        let (_, logits) = decoder.prefill(&prompts, 0).unwrap();
        let logits: Vec<f64> =
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
        let off_logits = worst(&logits, form.logits.iter().flatten());
        println!("{name}: token log-probabilities off by {off:.1e}, logits by {off_logits:.1e}");
        assert!(off < 2e-5 && off_logits < 2e-5, "{name}: {off}, logits {off_logits}");
    });
}

/// The log-probability of each token after what precedes it, a text of its own.
fn logp_by_its_length(decoder: &Decoder, prompt: &[u32], ids: &[u32]) -> f64 {
    let text = [prompt, ids].concat();
    let one = |at: usize| {
        let (_, logits) = decoder.prefill(&[&text[..at]], 0).unwrap();
        let logits = logits.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        logits[text[at] as usize] - logits.iter().map(|logit| logit.exp()).sum::<f64>().ln()
    };
    (prompt.len()..text.len()).map(one).sum()
}

/// By the cache, all prompts at once. Sampled tokens have the log-probability that scoring gives them.
#[test]
fn generation_is_that_of_transformers_and_its_log_probability_the_score() {
    each_form(|name, folder, numbers, form| {
        let (text, decoder) = (Text::load(folder).unwrap(), load(folder));
        let rules =
            |temperature| SamplingRules { temperature, top_p: None, top_k: None, max_tokens: 24, stop: Vec::new() };
        let requests: Vec<_> = numbers.prompts.iter().map(|ids| GenerateRequest { ids, seeds: vec![1, 2] }).collect();
        let greedy = decoder.generate(&text, &requests, &rules(0.0), 4096).unwrap();
        for (samples, want) in greedy.iter().zip(&form.greedy) {
            assert_eq!(samples[0].ids, *want, "{name}");
        }
        let drawn = decoder.generate(&text, &requests, &rules(1.0), 100).unwrap();
        if form.mixed() {
            let at_once = decoder.generate(&text, &requests, &rules(1.0), 4096).unwrap();
            for (request, (samples, other)) in requests.iter().zip(drawn.iter().zip(&at_once)) {
                for (sample, other) in samples.iter().zip(other) {
                    assert_eq!(sample.ids, other.ids, "{name}");
                    let logp = logp_by_its_length(&decoder, request.ids, &sample.ids);
                    assert!((sample.logp - logp).abs() < 1e-4, "{name}: {} {logp}", sample.logp);
                }
            }
            assert!(requests.iter().zip(&drawn).any(|(request, all)| request.ids.len() + all[0].ids.len() > 20));
            return;
        }
        for (prompt, sample) in numbers.prompts.iter().zip(&drawn).flat_map(|(p, all)| all.iter().map(move |s| (p, s)))
        {
            let sequence = Sequence::new([&prompt[..], &sample.ids].concat(), prompt.len());
            let score = decoder.score(&[&sequence], false, 4096).unwrap()[0].response;
            assert!((sample.logp - score).abs() < 1e-4, "{name}: {} {score}", sample.logp);
        }
    });
}

#[test]
fn a_forest_is_its_sequences_one_by_one() {
    each_form(|name, folder, numbers, _| {
        let decoder = load(folder);
        let together = responses(&decoder, numbers, 4096);
        let alone = numbers.rows.iter().map(|row| {
            let sequence = Sequence::new(row.ids.clone(), row.start);
            decoder.score(&[&sequence], false, 4096).unwrap()[0].response
        });
        let off = worst(&together, &alone.collect::<Vec<_>>());
        assert!(off < 1e-4, "{name}: {off}");
    });
}

#[test]
fn a_saved_folder_is_the_same_model() {
    each_form(|name, folder, numbers, _| {
        let decoder = load(folder);
        let to = tempfile::tempdir().unwrap();
        std::fs::write(folder.join("preprocessor_config.json"), "{}").unwrap();
        lm::export(folder, to.path(), None).unwrap();
        assert!(to.path().join("preprocessor_config.json").is_file(), "{name}: of models of images");
        let saved = json(&to.path().join("config.json"));
        for (key, value) in json(&folder.join("config.json")).as_object().unwrap() {
            assert_eq!(saved[key], *value, "{name}: {key}");
        }
        assert_eq!(responses(&load(to.path()), numbers, 4096), responses(&decoder, numbers, 4096), "{name}");
        let read = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        assert!(read(to.path()) == read(folder), "{name}: the bytes that transformers wrote");
        assert!(lm::check_decoder(to.path()).unwrap().no_messages.is_none(), "{name}");
    });
}

/// Products of rounded numbers, as on a CPU, and weights and states in bf16, as on a GPU: no farther from f32 than
/// PyTorch in bf16.
#[test]
fn half_precision_is_near() {
    each_form(|name, folder, numbers, form| {
        if form.mixed() {
            return;
        }
        let tokens: usize = form.logps.iter().map(Vec::len).sum();
        let mean = |decoder: &Decoder| {
            let got = token_logps(decoder, numbers);
            let all = got.iter().flatten().zip(form.logps.iter().flatten());
            all.map(|(got, want)| (got - want).abs()).sum::<f64>() / tokens as f64
        };
        let rounded = mean(&Decoder::load_in(folder, &Device::Cpu, Dtype::Bf16).unwrap());
        let half = mean(&Decoder::load_as(folder, &Device::Cpu, DType::BF16).unwrap());
        let of_torch = form.half;
        println!(
            "{name}: a token off by {rounded:.1e} with rounded products, {half:.1e} in bf16, PyTorch {of_torch:.1e}"
        );
        assert!(rounded > 1e-6 && rounded < of_torch && half < 1.2 * of_torch, "{name}: {rounded} {half} {of_torch}");
        // Stored in bf16, a model is what its rounded weights are.
        let to = tempfile::tempdir().unwrap();
        lm::export(folder, to.path(), Some(SavedDtype::Bf16)).unwrap();
        let again = Decoder::load_as(to.path(), &Device::Cpu, DType::BF16).unwrap();
        assert_eq!(mean(&again), half, "{name}");
    });
}

fn training(decoder: Decoder, memory: Memory) -> Training {
    Training::new(decoder, AdamW::default(), Some(1.0), memory, 40).unwrap()
}

/// Ten steps of DPO on two pairs each; how far off losses and gradient norms are, relatively, and log-probabilities at
/// the end.
fn follow(training: &mut Training, numbers: &Numbers, want: &Trajectory) -> [f64; 3] {
    let sequences: Vec<Sequence> = numbers.rows.iter().map(|row| Sequence::new(row.ids.clone(), row.start)).collect();
    let reference = responses(training.decoder(), numbers, 4096);
    let [mut off_loss, mut off_norm] = [0.0_f64; 2];
    assert_eq!(want.steps.len(), 10);
    for (step, want) in want.steps.iter().enumerate() {
        let rows: Vec<usize> = (0..4).map(|i| (4 * step + i) % sequences.len()).collect();
        let batch: Vec<&Sequence> = rows.iter().map(|&row| &sequences[row]).collect();
        let logps = training.forward(&batch, false).unwrap();
        let (mut loss, mut slopes) = (0.0, Vec::new());
        for (rows, logps) in rows.chunks(2).zip(logps.chunks(2)) {
            let ratio = |side: usize| logps[side].response - reference[rows[side]];
            let margin = 0.3 * (ratio(0) - ratio(1));
            loss += (-margin).exp().ln_1p() / 2.0;
            let slope = -0.3 / (1.0 + margin.exp()) / 2.0;
            slopes.extend([slope, -slope].map(|response| LogProbs { response, prompt: 0.0 }));
        }
        training.backward(&slopes).unwrap();
        let norm = training.step(1e-3).unwrap();
        off_loss = off_loss.max((loss / want.loss - 1.0).abs());
        off_norm = off_norm.max((norm / want.grad_norm - 1.0).abs());
    }
    let last = responses(training.decoder(), numbers, 4096);
    [off_loss, off_norm, worst(&last, &want.final_logps)]
}

/// Norms of the tensors of a file against those that are wanted.
fn norms_agree(file: &Path, want: &HashMap<String, f64>) -> f64 {
    let saved = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    assert_eq!(saved.len(), want.len());
    let norm = |name: &str| saved[name].sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    want.iter().map(|(name, want)| (f64::from(norm(name)) / want - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn ten_steps_of_all_weights_are_those_of_pytorch() {
    for family in &families() {
        let numbers = numbers(family);
        for memory in [Memory::Keep, Memory::TwoPass] {
            let mut training = training(load(&fixture(family)), memory);
            let off = follow(&mut training, &numbers, &numbers.full);
            let folder = tempfile::tempdir().unwrap();
            training.decoder().save(folder.path()).unwrap();
            let off_norms = norms_agree(&folder.path().join("model.safetensors"), &numbers.full.final_norms);
            println!("{family}: losses, norms, log-probabilities off by {off:?}, weights' norms by {off_norms:.1e}");
            assert!(
                off[0] < 1e-3 && off[1] < 1e-3 && off[2] < 5e-3 && off_norms < 1e-5,
                "{family}: {off:?} {off_norms}"
            );
        }
    }
}

#[test]
fn ten_steps_of_an_adapter_are_those_of_peft() {
    for family in &families() {
        let numbers = numbers(family);
        let mut decoder = load(&fixture(family));
        decoder.add_adapter(&Lora::new(4, 8.0, &["all-linear".to_owned()]).unwrap(), 17).unwrap();
        let mut training = training(decoder, Memory::Boundaries);
        let off = follow(&mut training, &numbers, &numbers.lora);
        let folder = tempfile::tempdir().unwrap();
        training.decoder().save_adapter(folder.path(), &fixture(family)).unwrap();
        let file = folder.path().join("adapter_model.safetensors");
        let off_norms = norms_agree(&file, &numbers.lora.final_norms);
        println!("{family}: losses, norms, log-probabilities off by {off:?}, weights' norms by {off_norms:.1e}");
        assert!(off[0] < 1e-3 && off[1] < 1e-3 && off[2] < 5e-3 && off_norms < 1e-4, "{family}: {off:?} {off_norms}");
    }
}

#[test]
fn an_adapter_of_peft_gives_its_numbers_and_is_written_as_it_was() {
    for family in &families() {
        let numbers = numbers(family);
        let from = fixture(family).join("adapter");
        let decoder = load(&from);
        let off = worst(token_logps(&decoder, &numbers).iter().flatten(), numbers.adapter.iter().flatten());
        println!("{family}: an adapter of PEFT is off by {off:.1e}");
        assert!(off < 2e-5, "{family}: {off}");
        let base = worst(numbers.forms[0].logps.iter().flatten(), numbers.adapter.iter().flatten());
        assert!(base > 0.01, "{family}: the adapter does something");
        let to = tempfile::tempdir().unwrap();
        decoder.save_adapter(to.path(), &fixture(family)).unwrap();
        let read = |folder: &Path| {
            let file = folder.join("adapter_model.safetensors");
            let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
            let flat = |t: candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            tensors.into_iter().map(|(name, tensor)| (name, flat(tensor))).collect::<HashMap<_, _>>()
        };
        assert!(read(to.path()) == read(&from), "{family}");
        let merged = decoder.merged().unwrap();
        let off = worst(token_logps(&merged, &numbers).iter().flatten(), numbers.adapter.iter().flatten());
        assert!(off < 5e-5, "{family}, merged: {off}");
    }
}

/// Sizes are counted from the same keys as those of a Llama; some of these families add norms.
#[test]
fn the_estimate_of_cost_knows_them() {
    for family in &families() {
        let config = json(&fixture(family).join("config.json"));
        let mut llama = config.clone();
        llama["model_type"] = "llama".into();
        let load = Load { tokens: 1000.0, scored: 300.0, context: 80.0 };
        let of = |config: &Value| Estimate::of(config, Dtype::F32, "cpu").unwrap().forward(load);
        llama["hidden_act"] = "silu".into();
        llama["rope_parameters"] = Value::Null;
        llama["layer_types"] = Value::Null;
        let parameters = self::load(&fixture(family)).config().parameter_count();
        let file = std::fs::metadata(fixture(family).join("model.safetensors")).unwrap().len() as usize;
        // What stands beside a decoder is not computed.
        if config["text_config"].is_object() {
            assert!(of(&config) > 0.0 && parameters * 4 < file, "{family}");
            continue;
        }
        let more = of(&config) / of(&llama) - 1.0;
        assert!((-1e-9..0.05).contains(&more), "{family}: {more}");
        assert!(parameters * 4 < file && file < parameters * 4 + 10_000, "{family}: {parameters} {file}");
    }
}

#[test]
fn gguf_files_give_the_folders_numbers() {
    for family in &families() {
        let numbers = numbers(family);
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        // Files of llama.cpp are not read for these, whose rotations are scaled there.
        if ["olmo3", "phi3", "ministral3", "gemma3", "mistral3"].contains(&family.as_str()) {
            continue;
        }
        gguf::write(&fixture(family), family, &file);
        let off = worst(token_logps(&load(&file), &numbers).iter().flatten(), numbers.forms[0].logps.iter().flatten());
        assert!(off < 2e-5, "{family}: {off}");
        assert_eq!(load(&file).config().family.name, *family);
    }
}
