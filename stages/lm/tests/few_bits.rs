//! Weights in few bits against bitsandbytes and gguf (fixtures/make_few_bits.py), and the laws they keep.

use crate::common;

use common::{Scored, numbers, oracle};
use harness::gguf;
use lm::{AdamW, Bits, Decoder, DecoderConfig, Device, Dtype, LogProbs, Lora, Memory, Precision, SavedDtype, Sequence};
use lm::{GenerateRequest, SamplingRules, Text, Training, check_bits, check_decoder, export, in_few_bits};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/few-bits").join(name)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn sequences() -> Vec<Sequence> {
    let numbers = numbers("llama");
    let of = |side: &str| numbers["pairs"]["chat"][side].iter().map(Scored::sequence).collect::<Vec<_>>();
    of("chosen").into_iter().chain(of("rejected")).collect()
}

fn scores(decoder: &Decoder) -> Vec<f64> {
    scores_of(decoder, &sequences(), 4096)
}

fn scores_of(decoder: &Decoder, sequences: &[Sequence], budget: usize) -> Vec<f64> {
    let scored = decoder.score(&sequences.iter().collect::<Vec<_>>(), false, budget).unwrap();
    scored.iter().map(|scored| scored.response).collect()
}

fn load(folder: &Path, bits: Option<Bits>) -> Decoder {
    Decoder::load_in(folder, &Device::Cpu, Precision { dtype: Dtype::F32, bits }).unwrap()
}

/// The three ways that weights come into few bits, each with the name of its numbers.
fn ways() -> [(&'static str, PathBuf, Option<Bits>); 3] {
    [
        ("nf4", fixture("nf4"), None),
        ("four", oracle("llama"), Some(Bits::Four)),
        ("eight", oracle("llama"), Some(Bits::Eight)),
    ]
}

/// The decoder with numbers in place of few bits, as a folder.
fn as_numbers(decoder: Decoder) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    decoder.merged().unwrap().save(to.path()).unwrap();
    to
}

fn fnv(bytes: &[u8]) -> String {
    let value = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{value:016x}")
}

#[test]
fn numbers_are_those_of_bitsandbytes_and_gguf_to_the_bit() {
    let wanted = json_of(&fixture("numbers.json"));
    for (name, folder, bits) in ways() {
        let decoder = load(&folder, bits);
        assert!(decoder.in_few_bits());
        let to = as_numbers(decoder);
        let file = std::fs::read(to.path().join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let digests = wanted[name]["digests"].as_object().unwrap();
        assert_eq!(digests.len(), 3 * 7);
        for (tensor, digest) in digests {
            assert_eq!(fnv(tensors.tensor(tensor).unwrap().data()), digest.as_str().unwrap(), "{name}: {tensor}");
        }
    }
}

#[test]
fn log_probs_are_those_of_the_numbers() {
    let wanted = json_of(&fixture("numbers.json"));
    for (name, folder, bits) in ways() {
        let few = scores(&load(&folder, bits));
        let of =
            |side: &str| wanted[name][side].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        for (got, wanted) in few.iter().zip([of("chosen"), of("rejected")].concat()) {
            assert!((got - wanted).abs() < 1e-3, "{name}: {got}, wanted {wanted}");
        }
        // To the bit those of a folder with the same numbers, in whatever precision.
        let to = as_numbers(load(&folder, bits));
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let of = |folder: &Path, bits| {
                scores(&Decoder::load_in(folder, &Device::Cpu, Precision { dtype, bits }).unwrap())
            };
            assert_eq!(of(&folder, bits), of(to.path(), None), "{name}");
        }
    }
}

#[test]
fn the_loss_of_few_bits_is_small_and_more_bits_lose_less() {
    let whole = scores(&load(&oracle("llama"), None));
    let tokens: usize = sequences().iter().map(|sequence| sequence.ids.len() - sequence.start).sum();
    let off = |bits| {
        let few = scores(&load(&oracle("llama"), Some(bits)));
        few.iter().zip(&whole).map(|(few, whole)| (few - whole).abs()).sum::<f64>() / tokens as f64
    };
    let (four, eight) = (off(Bits::Four), off(Bits::Eight));
    assert!(eight < 0.01 && four < 0.2 && eight < four / 5.0, "{eight} and {four} nats a token");
}

fn adapted(folder: &Path, bits: Option<Bits>) -> Decoder {
    let mut decoder = load(folder, bits);
    decoder.add_adapter(&Lora::new(4, 8.0, &["all-linear".to_owned()]).unwrap(), 17).unwrap();
    decoder
}

fn training(decoder: Decoder, memory: Memory, budget: usize) -> Training {
    Training::new(decoder, AdamW::default(), Some(1.0), memory, budget).unwrap()
}

/// A step that makes the first rows likelier and the others less.
fn step(training: &mut Training) -> f64 {
    let sequences: Vec<Sequence> = sequences().into_iter().step_by(6).collect();
    let n = sequences.len();
    training.forward(&sequences.iter().collect::<Vec<_>>(), false).unwrap();
    let slopes: Vec<LogProbs> =
        (0..n).map(|i| LogProbs { response: if i < n / 2 { -0.01 } else { 0.01 }, prompt: 0.0 }).collect();
    training.backward(&slopes).unwrap();
    training.step(1e-3).unwrap()
}

/// Twelve steps that make all rows likelier: the rows' log-probabilities before each, in nats a token.
fn course(bits: Option<Bits>) -> Vec<Vec<f64>> {
    let sequences: Vec<Sequence> = sequences().into_iter().step_by(3).collect();
    let tokens: Vec<f64> = sequences.iter().map(|sequence| (sequence.ids.len() - sequence.start) as f64).collect();
    let mut training = training(adapted(&oracle("llama"), bits), Memory::Keep, 4096);
    let mut step = || -> Vec<f64> {
        let scores = training.forward(&sequences.iter().collect::<Vec<_>>(), false).unwrap();
        let slopes = tokens.iter().map(|tokens| LogProbs { response: -1.0 / tokens, prompt: 0.0 });
        training.backward(&slopes.collect::<Vec<_>>()).unwrap();
        training.step(1e-2).unwrap();
        scores.iter().zip(&tokens).map(|(score, tokens)| score.response / tokens).collect()
    };
    (0..12).map(|_| step()).collect()
}

/// An adapter learns over few bits what it learns over the whole weights, which is 0.9 nats a token here: all the way,
/// losses lie within 0.02 in four bits and 0.005 in eight. Rounding itself moves a row by 0.014 and 0.0009.
#[test]
fn training_over_few_bits_loses_what_the_bits_lose() {
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    let whole = course(None);
    let learned = mean(&whole[11]) - mean(&whole[0]);
    assert!(learned > 0.8, "{learned}");
    for (bits, most) in [(Bits::Four, 0.02), (Bits::Eight, 0.005)] {
        let few = course(Some(bits));
        let moved: Vec<f64> = few[0].iter().zip(&whole[0]).map(|(few, whole)| (few - whole).abs()).collect();
        assert!(mean(&moved) < most, "{bits:?}: rounding moved rows by {}", mean(&moved));
        let off: Vec<f64> = few.iter().zip(&whole).map(|(few, whole)| (mean(few) - mean(whole)).abs()).collect();
        assert!(off.iter().all(|off| *off < most), "{bits:?}: {off:?}");
    }
}

fn adapter_bytes(training: &Training, base: &Path) -> Vec<u8> {
    let to = tempfile::tempdir().unwrap();
    training.save_adapter(to.path(), SavedDtype::F32, base).unwrap();
    std::fs::read(to.path().join("adapter_model.safetensors")).unwrap()
}

#[test]
fn steps_are_to_the_bit_those_above_the_same_numbers() {
    for (name, folder, bits) in ways() {
        let to = as_numbers(load(&folder, bits));
        for memory in [Memory::Keep, Memory::Boundaries, Memory::TwoPass] {
            let mut few = training(adapted(&folder, bits), memory, 300);
            let mut whole = training(adapted(to.path(), None), memory, 300);
            assert_eq!(few.gradients().unwrap().len(), 2 * 7 * 3, "the adapter alone is trained");
            for _ in 0..2 {
                assert_eq!(step(&mut few), step(&mut whole), "{name}, {memory:?}");
            }
            let bytes = adapter_bytes(&few, &folder);
            assert!(bytes == adapter_bytes(&whole, to.path()), "{name}, {memory:?}");
        }
    }
}

#[test]
fn resumed_is_unbroken_and_micro_batches_change_rounding_alone() {
    for (name, folder, bits) in ways() {
        let place = tempfile::tempdir().unwrap();
        let start = || training(adapted(&folder, bits), Memory::Boundaries, 4096);
        let mut whole = start();
        step(&mut whole);
        whole.save_state(place.path()).unwrap();
        let norm = step(&mut whole);
        let mut resumed = start();
        resumed.load_state(place.path()).unwrap();
        assert_eq!(step(&mut resumed), norm);
        assert!(adapter_bytes(&resumed, &folder) == adapter_bytes(&whole, &folder), "{name}");
        let mut cut = training(adapted(&folder, bits), Memory::TwoPass, 100);
        step(&mut cut);
        let cut = step(&mut cut);
        assert!((cut - norm).abs() < 1e-4 * norm, "{name}: {cut}, {norm}");
    }
    // Alone and together, prefixes shared or not.
    let decoder = load(&oracle("llama"), Some(Bits::Four));
    let sequences = sequences();
    let together = scores_of(&decoder, &sequences, 4096);
    for (sequence, together) in sequences.iter().zip(&together) {
        let alone = scores_of(&decoder, std::slice::from_ref(sequence), 4096)[0];
        assert!((alone - together).abs() < 1e-3, "{alone}, {together}");
    }
}

/// A folder with a GGUF file of the oracles' llama, its tokenizer beside it.
fn gguf_folder(write: impl Fn(&Path, &str, &Path)) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    write(&oracle("llama"), "llama", &file);
    for part in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(oracle("llama").join(part), place.path().join(part)).unwrap();
    }
    (place, file)
}

#[test]
fn an_adapter_is_trained_over_a_gguf_file_saved_and_read_again() {
    for (write, bits) in [(gguf::write as fn(&Path, &str, &Path), None), (gguf::write_q8, Some(Bits::Eight))] {
        let (place, file) = gguf_folder(write);
        // Blocks of eight bits are those that the folder is put into at load, but for the table.
        let to = tempfile::tempdir().unwrap();
        export(&file, to.path(), None).unwrap();
        let mut over_file = training(adapted(&file, None), Memory::Keep, 300);
        let mut over_folder = training(adapted(to.path(), bits), Memory::Keep, 300);
        for _ in 0..2 {
            assert_eq!(step(&mut over_file), step(&mut over_folder));
        }
        let folder = place.path().join("adapter");
        std::fs::create_dir(&folder).unwrap();
        over_file.save_adapter(&folder, SavedDtype::F32, &file).unwrap();
        let refused = over_file.save_adapter(&folder, SavedDtype::AsLoaded, &file).unwrap_err().to_string();
        assert!(refused.contains("name `f32` or `bf16`"), "{refused}");
        let config = json_of(&folder.join("adapter_config.json"));
        assert_eq!(Path::new(config["base_model_name_or_path"].as_str().unwrap()), file.canonicalize().unwrap());
        assert_eq!(lm::base_of(&folder).unwrap(), Some(file.canonicalize().unwrap()));
        check_decoder(&folder).unwrap();
        let again = load(&folder, None);
        assert_eq!(scores(&again), scores(over_file.decoder()));
        assert_eq!(Text::load(&folder).unwrap().eos_ids(), Text::load(&file).unwrap().eos_ids());
        // Merged it is a folder of numbers.
        let merged = tempfile::tempdir().unwrap();
        export(&folder, merged.path(), None).unwrap();
        let merged = load(merged.path(), None);
        assert!(!merged.in_few_bits());
        for (merged, adapter) in scores(&merged).iter().zip(scores(&again)) {
            assert!((merged - adapter).abs() <= 1e-5 * adapter.abs(), "{merged}, wanted {adapter}");
        }
    }
}

#[test]
fn a_model_in_few_bits_writes_what_its_numbers_write() {
    let (_place, file) = gguf_folder(gguf::write_q8);
    for (folder, bits) in [(file, None), (fixture("nf4"), None), (oracle("llama"), Some(Bits::Four))] {
        let to = as_numbers(load(&folder, bits));
        let text = Text::load(&folder).unwrap();
        let requests = [GenerateRequest { ids: &[5, 9, 33, 7], seeds: vec![1, 2] }];
        let rules = SamplingRules { temperature: 1.0, top_p: None, top_k: None, max_tokens: 12, stop: Vec::new() };
        let written = |decoder: Decoder| {
            let all = decoder.generate(&text, &requests, &rules, 4096).unwrap();
            all.into_iter().flatten().map(|one| format!("{one:?}")).collect::<Vec<_>>()
        };
        assert_eq!(written(load(&folder, bits)), written(load(to.path(), None)));
    }
}

#[test]
fn what_cannot_be_in_few_bits_is_refused() {
    let all = Training::new(load(&fixture("nf4"), None), AdamW::default(), None, Memory::Keep, 64);
    let refused = all.unwrap_err().to_string();
    assert!(refused.contains("q_proj.weight cannot be trained; weights in few bits are frozen"), "{refused}");
    let refused = load(&fixture("nf4"), None).save(&std::env::temp_dir()).unwrap_err().to_string();
    assert!(refused.contains("weights in few bits are not saved"), "{refused}");

    // Few bits of few bits.
    let (_place, file) = gguf_folder(gguf::write_q8);
    for model in [&fixture("nf4"), &file] {
        assert!(in_few_bits(model).unwrap());
        check_bits(model, None).unwrap();
        let early = check_bits(model, Some(Bits::Four)).unwrap_err().to_string();
        assert!(early.contains("in few bits already: `bits: 4` has no effect"), "{early}");
        let precision = Precision { dtype: Dtype::F32, bits: Some(Bits::Eight) };
        let late = Decoder::load_in(model, &Device::Cpu, precision).unwrap_err().to_string();
        assert!(late.contains("`bits: 8` has no effect"), "{late}");
    }
    assert!(!in_few_bits(&oracle("llama")).unwrap());
    check_bits(&oracle("llama"), Some(Bits::Eight)).unwrap();

    // Other kinds of bitsandbytes, and rows that are no whole blocks.
    let config = json_of(&fixture("nf4/config.json"));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut config = config.clone();
        change(&mut config);
        DecoderConfig::from_json(config.as_object().unwrap().clone())
    };
    let refused = |key: &str, value: Value| {
        with(&|config| config["quantization_config"][key] = value.clone()).unwrap_err().to_string()
    };
    assert!(
        refused("quant_method", json!("gptq")).contains("`quantization_config` is {\"bnb_4bit_quant_type\":\"nf4\"")
    );
    assert!(refused("bnb_4bit_quant_type", json!("fp4")).contains("wanted bitsandbytes with `load_in_4bit`"));
    assert!(refused("load_in_4bit", json!(false)).contains("`quantization_config` is"));
    let place = tempfile::tempdir().unwrap();
    let narrow = json!({"model_type": "llama", "vocab_size": 40, "hidden_size": 24, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4});
    let narrow = DecoderConfig::from_json(narrow.as_object().unwrap().clone()).unwrap();
    Decoder::init(narrow, 3, &Device::Cpu).unwrap().save(place.path()).unwrap();
    let early = check_bits(place.path(), Some(Bits::Eight)).unwrap_err().to_string();
    assert!(early.contains("has rows of 24 numbers; 8 bits want a multiple of 32: take 4 bits"), "{early}");
    let precision = Precision { dtype: Dtype::F32, bits: Some(Bits::Eight) };
    let late = Decoder::load_in(place.path(), &Device::Cpu, precision).unwrap_err().to_string();
    assert!(late.contains("model.safetensors: tensor model.layers.0") && late.contains("take 4 bits"), "{late}");
    load(place.path(), Some(Bits::Four));
}

/// Each part of what bitsandbytes writes missing, and of another size.
#[test]
fn damaged_nf4_is_refused_with_the_tensor() {
    let file = std::fs::read(fixture("nf4/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let place = tempfile::tempdir().unwrap();
    for part in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("nf4").join(part), place.path().join(part)).unwrap();
    }
    let weight = "model.layers.1.mlp.up_proj.weight";
    for part in ["", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4"] {
        for cut in [None, Some(1), Some(3)] {
            let name = format!("{weight}{part}");
            let kept = tensors.tensors().into_iter().filter_map(|(other, view)| {
                if other != name {
                    return Some((other, view));
                }
                let size = view.data().len() / view.shape().iter().product::<usize>();
                let data = &view.data()[(cut? * size).min(view.data().len())..];
                Some((
                    other,
                    safetensors::tensor::TensorView::new(view.dtype(), vec![data.len() / size], data).unwrap(),
                ))
            });
            safetensors::serialize_to_file(kept, None, &place.path().join("model.safetensors")).unwrap();
            let error = Decoder::load(place.path(), &Device::Cpu).unwrap_err();
            assert!(error.is_data() && error.to_string().contains(weight), "{part}, {cut:?}: {error}");
        }
    }
}
