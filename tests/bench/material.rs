//! Inputs of the workloads: a model, preference data and texts, made from a seed or given on the command line.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kit::rows::Embedding;
use lm::{Decoder, DecoderConfig, Device, PromptMismatch, SpecialText, Text, TextRules, TooLong, Turn};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// Prompts whose nearest are looked for.
pub const PROMPTS: usize = 100_000;
/// Judged comparisons that become pairs.
pub const COMPARISONS: usize = 1_000_000;
const WORDS: usize = 8_183;

/// Everything on disk, gone with it.
pub struct Material {
    /// A folder to work in.
    pub folder: tempfile::TempDir,
    /// The policy and judge.
    pub model: PathBuf,
    /// The sentence encoder, if one was given.
    pub encoder: Option<PathBuf>,
    /// Preference pairs, each under a prompt of its own.
    pub pairs: PathBuf,
    /// The prompts and responses of the pairs, a row for each text.
    pub texts: PathBuf,
    /// Sixteen prompts of 400 tokens with four responses of 60 tokens each, and all pairs of those.
    pub shared: PathBuf,
    /// The judge's question.
    pub question: PathBuf,
}

impl Material {
    /// Makes what is not given.
    pub fn new(model: Option<&Path>, data: Option<&Path>, encoder: Option<&Path>, shape: &str) -> Material {
        let folder = tempfile::tempdir().unwrap();
        let own = |path: &Path| path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let at = |name: &str| folder.path().join(name);
        let material = Material {
            model: model.map_or_else(|| at("model"), own),
            encoder: encoder.map(own),
            pairs: data.map_or_else(|| at("pairs.jsonl"), own),
            texts: at("texts.jsonl"),
            shared: at("shared.jsonl"),
            question: at("question.jinja"),
            folder,
        };
        if model.is_none() {
            make_model(&material.model, shape);
            std::fs::write(&material.pairs, pairs()).unwrap();
        }
        let texts = BTreeSet::from_iter(texts_of(&material.pairs)).into_iter();
        let texts = texts.map(|text| format!("{}\n", json!({"prompt": text})));
        std::fs::write(&material.texts, texts.collect::<String>()).unwrap();
        let mut random = StdRng::seed_from_u64(2);
        let shared = match data {
            None => shared(|count| words(&mut random, count)),
            Some(_) => {
                let text = Text::load(&material.model).unwrap();
                let ids = tokens_of(&text, &material.pairs);
                assert!(ids.len() > 400, "{} tokens of plain text, wanted more than 400", ids.len());
                shared(|count| {
                    let start = random.random_range(0..ids.len() - count);
                    text.decode(&ids[start..start + count]).unwrap()
                })
            }
        };
        std::fs::write(&material.shared, shared).unwrap();
        std::fs::write(&material.question, QUESTION).unwrap();
        material
    }

    /// A folder of its own for a workload.
    pub fn room(&self, name: &str) -> PathBuf {
        let room = self.folder.path().join(name);
        std::fs::create_dir_all(&room).unwrap();
        room
    }
}

const QUESTION: &str = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20\n\
                        {{ prompt }}\nA: {{ a }}\nB: {{ b }}\nw21 w22 w23 w24:";

/// The config of a model: a Llama of 15.7 million parameters, or a Qwen2 of 0.5 or 1.5 billion.
fn shape_of(name: &str) -> Value {
    let qwen = |hidden: usize, inner: usize, layers: usize, heads: usize| {
        json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": hidden,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": 2, "max_position_embeddings": 2048, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": 1, "pad_token_id": 0,
            "bos_token_id": null, "use_sliding_window": false
        })
    };
    match name {
        "0.5b" => qwen(896, 4864, 24, 14),
        "1.5b" => qwen(1536, 8960, 28, 12),
        _ => json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8192, "hidden_size": 384,
            "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2,
            "max_position_embeddings": 2048, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
            "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "eos_token_id": 1, "pad_token_id": 0,
            "bos_token_id": null
        }),
    }
}

/// A model with random weights, and a token for each word.
fn make_model(folder: &Path, shape: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let Value::Object(config) = shape_of(shape) else { unreachable!() };
    let config = DecoderConfig::from_json(config).unwrap();
    Decoder::init(config, 17, &Device::Cpu).unwrap().save(folder).unwrap();
    let mut tokens: Vec<String> =
        ["<pad>", "<eos>", "<unk>", "\n", "A", "B", ":", " A", " B"].map(str::to_owned).into();
    tokens.extend((0..WORDS).map(|word| format!("w{word}")));
    assert_eq!(tokens.len(), 8192, "a token for each row of the embedding");
    let vocabulary: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let special = |id: usize| json!({"id": id, "content": tokens[id], "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(0), special(1), special(2)],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": " [AB]|\\n|w[0-9]+|[AB:]"}, "behavior": "Removed", "invert": true},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "bos_token": null});
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
}

fn words(random: &mut StdRng, count: usize) -> String {
    let mut text = String::new();
    for _ in 0..count {
        // Few words are frequent, most are rare.
        let word = ((WORDS as f64).powf(random.random::<f64>()) - 1.0) as usize;
        write!(text, " w{word}").unwrap();
    }
    text
}

/// 363 pairs, as long as those of people who ask for help.
fn pairs() -> String {
    let mut random = StdRng::seed_from_u64(1);
    let mut text = String::new();
    for _ in 0..363 {
        let mut some = |least: usize, most: usize| {
            let count = random.random_range(least..most);
            words(&mut random, count)
        };
        let row = json!({"prompt": some(8, 130), "chosen": some(8, 110), "rejected": some(8, 110)});
        writeln!(text, "{row}").unwrap();
    }
    text
}

/// The texts in all rows of a JSON Lines file.
fn texts_of(file: &Path) -> Vec<String> {
    let file = std::fs::read_to_string(file).unwrap();
    let rows = file.lines().map(|line| serde_json::from_str::<serde_json::Map<String, Value>>(line).unwrap());
    rows.flat_map(|row| row.into_values().filter_map(|value| value.as_str().map(str::to_owned))).collect()
}

/// All that a JSON Lines file says, as tokens.
fn tokens_of(text: &Text, file: &Path) -> Vec<u32> {
    let rules = TextRules {
        special_text: SpecialText::Escape,
        too_long: TooLong::Reject,
        on_prefix_mismatch: PromptMismatch::Keep,
    };
    let texts = texts_of(file).join(" ");
    text.prompt(&[Turn::new("text", &texts)], &rules, usize::MAX).unwrap().unwrap().ids
}

/// Prompts and responses of so many tokens, which `cut` gives.
fn shared(mut cut: impl FnMut(usize) -> String) -> String {
    let mut text = String::new();
    for _ in 0..16 {
        let prompt = cut(400);
        let responses: Vec<String> = (0..4).map(|_| cut(60)).collect();
        for (i, chosen) in responses.iter().enumerate() {
            for rejected in &responses[i + 1..] {
                writeln!(text, "{}", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})).unwrap();
            }
        }
    }
    text
}

/// A million judged comparisons with 100 bytes of text a side, as a file.
pub fn comparisons(path: &Path) {
    let mut random = StdRng::seed_from_u64(3);
    let mut text = String::new();
    for row in 0..COMPARISONS {
        let (a, b): (u64, u64) = (random.random(), random.random());
        let feedback = u32::from(a > b);
        writeln!(
            text,
            r#"{{"instruction":"question {} {:060}","response_0":"{a:0100}","response_1":"{b:0100}","feedback":{feedback}}}"#,
            row / 4,
            row / 4
        )
        .unwrap();
    }
    std::fs::write(path, text).unwrap();
}

/// Two responses to each of 100,000 prompts as a file, and the prompts' embeddings of 384 numbers as a table.
pub fn prompts(responses: &Path, embeddings: &Path) {
    let mut random = StdRng::seed_from_u64(4);
    let mut text = String::new();
    let mut rows = Vec::with_capacity(PROMPTS);
    let mut vector = || (0..384).map(|_| random.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let topics: Vec<Vec<f32>> = (0..1000).map(|_| vector()).collect();
    for prompt in 0..PROMPTS {
        for response in 0..2 {
            writeln!(
                text,
                r#"{{"prompt_id":"p{prompt}","prompt":"question {prompt}","response":"answer {prompt} {response}"}}"#
            )
            .unwrap();
        }
        // As far from its topic as the topic is from 0.
        let mut embedding = vector();
        embedding.iter_mut().zip(&topics[prompt * 7919 % topics.len()]).for_each(|(x, topic)| *x += topic);
        let length = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
        embedding.iter_mut().for_each(|x| *x /= length);
        rows.push(Embedding { prompt_id: format!("p{prompt}"), embedding, source_file: None, source_line: None });
    }
    std::fs::write(responses, text).unwrap();
    std::fs::create_dir_all(embeddings).unwrap();
    kit::write_part(&embeddings.join("part-00000.parquet"), &rows).unwrap();
}
