//! The form of a decoder, read from the `config.json` of a Hugging Face folder and written back to it.

use crate::error::is_there;
use crate::model::adapter_folder::{base_of, model_part};
use crate::model::families;
use crate::model::family::{Family, HeadNorms, Multiplier, Multipliers};
use crate::model::gguf::{self, is_gguf};
use crate::model::keys::Keys;
use crate::model::rope::{QueryScale, Rope, Ropes};
use crate::model::weights::refuse_pointer;
use crate::{DType, Error, Result, Text};
use models::ADAPTER_CONFIG;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The form of a decoder. Read it with [`DecoderConfig::from_folder`].
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The family, from `model_type`.
    pub family: &'static Family,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the states between blocks.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The longest sequence, in tokens.
    pub max_positions: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Rotary positions.
    pub rope: Rope,
    /// Those of blocks with windows, where they are others.
    pub windowed_rope: Option<Rope>,
    /// How queries grow with their positions, where they do.
    pub query_scale: Option<QueryScale>,
    /// For each block, whether queries and keys are rotated by their positions.
    pub rotated: Vec<bool>,
    /// Factors of embeddings, scores, states and logits.
    pub multipliers: Multipliers,
    /// Attention's scores x are cap tanh(x / cap) where there is a cap.
    pub attention_cap: Option<f64>,
    /// The same of logits.
    pub logits_cap: Option<f64>,
    /// True where queries, keys and values have biases.
    pub qkv_bias: bool,
    /// True where the attention's output has a bias.
    pub output_bias: bool,
    /// True where the feed-forward part has biases.
    pub mlp_bias: bool,
    /// The norms of queries and keys.
    pub head_norm: HeadNorms,
    /// For each block, the distance below which a key is visible; `None` for all.
    pub windows: Vec<Option<usize>>,
    /// True where the LM head is the embedding table.
    pub tied: bool,
    /// True for a reward model: one number for a text in place of logits.
    pub reward: bool,
    /// True where it stands behind a part for images, whose tensors are kept and not computed.
    pub wrapped: bool,
    /// The standard deviation that fresh weights are drawn with.
    pub initializer_range: f64,
    /// The padding token, whose embedding starts at 0.
    pub pad_token_id: Option<u32>,
    /// The tokens that end a text: those of `generation_config.json` where it names some, else of `config.json`.
    pub eos_token_ids: Vec<u32>,
    /// `config.json` as it was read; written back with what changed.
    json: Map<String, Value>,
    /// `generation_config.json` as it was read.
    generation: Option<Map<String, Value>>,
}

/// True where a folder holds a reward model: by its architecture, or an adapter with the head of one.
///
/// Errors name the file: missing or malformed.
pub fn is_reward_model(folder: &Path) -> Result<bool> {
    let read = |path: PathBuf| -> Result<Value> {
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(Error::at(&path))
    };
    if is_gguf(folder) {
        return Ok(false);
    }
    let base = base_of(folder)?;
    if base.is_some() && read(folder.join(ADAPTER_CONFIG))?["task_type"] == "SEQ_CLS" {
        return Ok(true);
    }
    let config = read(base.as_deref().unwrap_or(folder).join("config.json"))?;
    let names = config["architectures"].as_array().into_iter().flatten();
    Ok(names.filter_map(Value::as_str).any(|name| name.ends_with(REWARD)))
}

/// The end of the names of reward models' architectures.
const REWARD: &str = "ForSequenceClassification";

/// Sizes beyond any model's: what is above is a damaged or hostile file, and must not be allocated. Products of any
/// three fit into 64 bits.
pub(crate) const LIMITS: [(&str, usize); 8] = [
    ("num_hidden_layers", 1 << 12),
    ("hidden_size", 1 << 18),
    ("intermediate_size", 1 << 20),
    ("vocab_size", 1 << 24),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("head_dim", 1 << 14),
    ("max_position_embeddings", 1 << 32),
];

impl DecoderConfig {
    /// Reads `config.json` (the base's, where the folder holds an adapter), in the old style (`rope_theta`,
    /// `rope_scaling`, `torch_dtype`) or the new one (`rope_parameters`, `dtype`, `layer_types`), and
    /// `generation_config.json` where it is there. Of a GGUF file, its head.
    ///
    /// Errors name the file and the key: a missing or unreadable file, an architecture, activation, rotary type or
    /// quantisation that this crate does not compute.
    pub fn from_folder(folder: &Path) -> Result<DecoderConfig> {
        if is_gguf(folder) { gguf::config_of(folder) } else { DecoderConfig::from_files(folder, false) }
    }

    /// The same of a reward model: `...ForSequenceClassification` with one output, or an adapter with such a head over
    /// that or a language model.
    ///
    /// Errors: as [`from_folder`](DecoderConfig::from_folder); a model with a language-model head, or several outputs.
    pub fn of_reward_model(folder: &Path) -> Result<DecoderConfig> {
        if is_gguf(folder) {
            return Err(Error::file(folder, "a GGUF file holds no reward model here; use the Hugging Face folder"));
        }
        match is_reward_model(folder)? && !is_reward_model(&model_part(folder)?)? {
            true => DecoderConfig::from_files(folder, false)?.as_reward_model(Text::load(folder)?.pad_id()),
            false => DecoderConfig::from_files(folder, true),
        }
    }

    /// The same of a folder whose states are wanted: also of a body without a head, such as `Qwen3Model`.
    pub(crate) fn of_body(folder: &Path) -> Result<DecoderConfig> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let mut json: Map<String, Value> = serde_json::from_str(&text).map_err(Error::at(&path))?;
        match without_head(&mut json) {
            true => DecoderConfig::read(json, false).map_err(Error::at(&path)),
            false => DecoderConfig::from_folder(folder),
        }
    }

    fn from_files(folder: &Path, reward: bool) -> Result<DecoderConfig> {
        let folder = &model_part(folder)?;
        let path = folder.join("config.json");
        refuse_pointer(&path)?;
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let json: Map<String, Value> = serde_json::from_str(&text).map_err(Error::at(&path))?;
        let mut config = DecoderConfig::read(json, reward).map_err(Error::at(&path))?;
        let path = folder.join("generation_config.json");
        if is_there(&path)? {
            let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
            let generation: Map<String, Value> = serde_json::from_str(&text).map_err(Error::at(&path))?;
            let eos = Keys(&generation).ids("eos_token_id").map_err(Error::at(&path))?;
            if !eos.is_empty() {
                config.eos_token_ids = eos;
            }
            config.generation = Some(generation);
        }
        Ok(config)
    }

    /// Reads the object that `config.json` holds.
    ///
    /// Errors name the key, what was found and what was wanted.
    pub fn from_json(json: Map<String, Value>) -> Result<DecoderConfig> {
        DecoderConfig::read(json, false)
    }

    /// The same of a reward model or a language model, as `architectures` says.
    pub(crate) fn of_either(json: Map<String, Value>) -> Result<DecoderConfig> {
        let names = json.get("architectures").and_then(Value::as_array).into_iter().flatten();
        let reward = names.filter_map(Value::as_str).any(|name| name.ends_with(REWARD));
        DecoderConfig::read(json, reward)
    }

    fn read(json: Map<String, Value>, reward: bool) -> Result<DecoderConfig> {
        let text = of_decoder(&json)?;
        let (keys, wrapped) = (Keys(text.as_ref().unwrap_or(&json)), text.is_some());
        let family = families::named(keys.get("model_type").and_then(Value::as_str))?;
        let defaults = &family.defaults;
        keys.refuse_what_is_not_computed(family)?;
        keys.check_outputs(wrapped, reward)?;
        let (hidden_size, heads) = (keys.size("hidden_size", None)?, keys.size("num_attention_heads", defaults.heads)?);
        // Null is as many as query heads, whatever an absent key is.
        let kv_heads = defaults.kv_heads.filter(|_| !keys.names("num_key_value_heads")).unwrap_or(heads);
        let kv_heads = keys.size("num_key_value_heads", Some(kv_heads))?;
        let head_dim = keys.size("head_dim", Some(defaults.head_dim.unwrap_or(hidden_size / heads.max(1))))?;
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            return Err(Error::input(format!("{heads} query heads cannot share {kv_heads} key-value heads")));
        }
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(Error::input(format!("head_dim is {head_dim}; rotary positions want an even number")));
        }
        let layers = keys.size("num_hidden_layers", None)?;
        for key in ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"] {
            if keys.size(key, if key == "vocab_size" { defaults.vocab } else { None })? == 0 {
                return Err(Error::input(format!("`{key}` is 0; wanted 1 at least")));
            }
        }
        for (key, most) in LIMITS {
            let value = keys.size(key, Some(0))?;
            if value > most {
                return Err(Error::input(format!("`{key}` is {value}; at most {most} are computed here")));
            }
        }
        let rotated = family.rotation.read(&keys, layers)?;
        let Ropes { every: rope, windowed: windowed_rope, query_scale } = keys.ropes(family, head_dim)?;
        let [attention_cap, logits_cap] = family.caps.read(&keys)?;
        Ok(DecoderConfig {
            family,
            vocab_size: keys.size("vocab_size", defaults.vocab)?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size", None)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            max_positions: keys.size("max_position_embeddings", Some(defaults.max_positions))?,
            rms_norm_eps: keys.number("rms_norm_eps", Some(defaults.eps))?,
            rope,
            windowed_rope,
            query_scale,
            attention_cap,
            logits_cap,
            multipliers: family.multipliers.read(&keys, head_dim)?,
            qkv_bias: family.qkv_bias.read(&keys)?,
            output_bias: family.output_bias.read(&keys)?,
            mlp_bias: family.mlp_bias.read(&keys)?,
            head_norm: family.head_norm,
            windows: family.window.read(&keys, &rotated)?,
            rotated,
            tied: reward || keys.flag("tie_word_embeddings", defaults.tied)?,
            reward,
            wrapped,
            initializer_range: keys.number("initializer_range", Some(0.02))?,
            pad_token_id: keys.ids("pad_token_id")?.first().copied(),
            eos_token_ids: keys.ids("eos_token_id")?,
            generation: None,
            json,
        })
    }

    /// Writes `config.json` and `generation_config.json`: as they were read, with the dtype of the weights that are
    /// written beside them and whether the head is tied.
    pub fn save(&self, folder: &Path, dtype: DType) -> Result<()> {
        let mut json = self.json.clone();
        let old_style = json.contains_key("torch_dtype") && !json.contains_key("dtype");
        json.insert(if old_style { "torch_dtype" } else { "dtype" }.to_owned(), json!(dtype_name(dtype)));
        if !old_style {
            json.remove("torch_dtype");
        }
        if let Some(Value::Object(inner)) = json.get_mut("text_config").filter(|_| self.wrapped) {
            for key in ["dtype", "torch_dtype"] {
                inner.entry(key).and_modify(|value| *value = json!(dtype_name(dtype)));
            }
        }
        if !self.reward {
            json.insert("tie_word_embeddings".to_owned(), json!(self.tied));
        }
        write_json(&folder.join("config.json"), &json)?;
        let generation = self.generation.clone().unwrap_or_else(|| {
            let mut generation = Map::new();
            for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
                if let Some(value) = self.json.get(key).filter(|value| !value.is_null()) {
                    generation.insert(key.to_owned(), value.clone());
                }
            }
            generation
        });
        write_json(&folder.join("generation_config.json"), &generation)
    }

    /// The multiplier of embeddings in a stream of states that are divided by the residual multiplier r. With
    /// s = x / r, x + r f(x) is s + f(x), and the norm of x is that of s with eps / r^2: no block multiplies anything.
    /// A root is rounded to the precision of the weights, as transformers does it.
    pub(crate) fn embedding_scale(&self, dtype: DType) -> f64 {
        let own = self.multipliers.embedding;
        let own = match (self.family.multipliers.embedding, dtype) {
            (Multiplier::RootOfWidth, DType::BF16) => half::bf16::from_f64(own).to_f64(),
            (Multiplier::RootOfWidth, DType::F16) => half::f16::from_f64(own).to_f64(),
            (Multiplier::RootOfWidth, DType::F32) => f64::from(own as f32),
            _ => own,
        };
        own / self.multipliers.residual
    }

    /// The epsilon that the norms of such states add to the mean square.
    pub(crate) fn states_eps(&self) -> f64 {
        self.rms_norm_eps / (self.multipliers.residual * self.multipliers.residual)
    }

    /// The form of a reward model with the body of this one. `pad` becomes its padding token where it has none: without
    /// one transformers takes no more than one text at a time.
    ///
    /// Errors: a model of images too.
    pub fn as_reward_model(&self, pad: Option<u32>) -> Result<DecoderConfig> {
        if self.wrapped {
            return Err(Error::input("a model of images too becomes no reward model; take its decoder alone"));
        }
        let mut json = self.json.clone();
        let names = json.get("architectures").and_then(Value::as_array).cloned().unwrap_or_default();
        let named = |name: &Value| {
            let name = name.as_str().unwrap_or_default().trim_end_matches("ForCausalLM");
            // Gemma 3's text models have a name of their own there.
            let name = if self.family.name == "gemma3_text" { "Gemma3Text" } else { name };
            json!(format!("{name}ForSequenceClassification"))
        };
        json.insert("architectures".to_owned(), names.iter().map(named).collect());
        json.insert("id2label".to_owned(), json!({"0": "LABEL_0"}));
        json.insert("label2id".to_owned(), json!({"LABEL_0": 0}));
        json.remove("num_labels");
        let pad_token_id = self.pad_token_id.or(pad);
        json.insert("pad_token_id".to_owned(), json!(pad_token_id));
        Ok(DecoderConfig { reward: true, tied: true, pad_token_id, json, ..self.clone() })
    }

    /// The first part of the names of the decoder's tensors, but that of the head.
    pub(crate) fn body(&self) -> &'static str {
        if self.wrapped { "model.language_model." } else { "model." }
    }

    /// The length above which texts are rotated as long ones, where there is another rotation for these.
    pub(crate) fn long_beyond(&self) -> Option<usize> {
        self.rope.long_beyond()
    }

    /// Numbers in all weights, a tied head counted once.
    pub fn parameter_count(&self) -> usize {
        crate::model::weights::shapes(self).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// Takes `architectures` out where they are a body alone (`...Model`); says whether they were.
pub(crate) fn without_head(json: &mut Map<String, Value>) -> bool {
    let names = json.get("architectures").and_then(Value::as_array);
    let is_body = names.is_some_and(|names| {
        !names.is_empty() && names.iter().all(|name| name.as_str().is_some_and(|name| name.ends_with("Model")))
    });
    if is_body {
        json.remove("architectures");
    }
    is_body
}

/// The keys of the decoder of a model that has another part, with those beside them that hold for all of it.
fn of_decoder(json: &Map<String, Value>) -> Result<Option<Map<String, Value>>> {
    let name = json.get("model_type").and_then(Value::as_str);
    let Some((name, inner)) = families::WRAPPERS.into_iter().find(|(wrapper, _)| Some(*wrapper) == name) else {
        return Ok(None);
    };
    let mut text = match json.get("text_config") {
        Some(Value::Object(text)) => text.clone(),
        other => {
            let got = other.map_or("is missing".to_owned(), |value| format!("is {value}"));
            return Err(Error::input(format!("`text_config` {got}; a model of `{name}` has its decoder's keys there")));
        }
    };
    for key in ["architectures", "eos_token_id", "pad_token_id", "tie_word_embeddings", "quantization_config"] {
        if let Some(value) = json.get(key).filter(|value| !value.is_null()) {
            text.insert(key.to_owned(), value.clone());
        }
    }
    text.entry("model_type").or_insert(json!(inner));
    // Where nothing is said, a head that is there is one.
    text.entry("tie_word_embeddings").or_insert(json!(false));
    Ok(Some(text))
}

/// The name of a dtype in `config.json`.
fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

fn write_json(path: &Path, json: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(json).map_err(Error::at(path))?;
    std::fs::write(path, text + "\n").map_err(Error::io(path))
}

impl Keys<'_> {
    /// Refuses settings that would otherwise be computed wrongly without a word.
    fn refuse_what_is_not_computed(&self, family: &Family) -> Result<()> {
        family.activation.check(self)?;
        if self.flag("use_bidirectional_attention", false)? {
            return Err(Error::input("`use_bidirectional_attention` is true; a decoder looks back alone"));
        }
        if self.get("quantization_config").is_some() {
            return Err(Error::input(
                "`quantization_config` is set; quantised weights are not read, use the full ones",
            ));
        }
        Ok(())
    }

    /// Refuses a model with other outputs than those that are wanted.
    fn check_outputs(&self, wrapped: bool, reward: bool) -> Result<()> {
        if reward && wrapped {
            return Err(Error::input("a model of images too is no reward model here; take its decoder alone"));
        }
        let (ends, what) = match (reward, wrapped) {
            (true, _) => (REWARD, "a reward model"),
            (false, true) => ("ForConditionalGeneration", "a model with a language-model head"),
            (false, false) => ("ForCausalLM", "a model with a language-model head"),
        };
        if let Some(architectures) = self.get("architectures").and_then(Value::as_array)
            && let Some(other) =
                architectures.iter().find(|name| name.as_str().is_none_or(|name| !name.ends_with(ends)))
        {
            return Err(Self::wrong("architectures", other, &format!("{what} (...{ends})")));
        }
        let labels = match self.get("id2label") {
            Some(Value::Object(labels)) => Some(labels.len()),
            _ => self.get("num_labels").and_then(Value::as_u64).map(|labels| labels as usize),
        };
        match labels.filter(|labels| reward && *labels != 1) {
            Some(labels) => Err(Error::input(format!("the model has {labels} outputs; a reward model has one"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RopeKind;

    fn parse(changes: Value) -> Result<DecoderConfig> {
        let mut json = json!({"model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2});
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        DecoderConfig::from_json(json.as_object().unwrap().clone())
    }

    #[test]
    fn old_and_new_style_say_the_same() {
        let old = parse(json!({"rope_theta": 5e5, "torch_dtype": "bfloat16", "rope_scaling": {"type": "llama3",
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}));
        let new = parse(json!({"dtype": "bfloat16", "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5,
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}));
        let (old, new) = (old.unwrap(), new.unwrap());
        assert_eq!(old.rope, new.rope);
        assert_eq!(old.rope.theta, 5e5);
        assert!(matches!(old.rope.kind, RopeKind::Llama3 { factor: 8.0, .. }));
        assert_eq!(parse(json!({"rope_scaling": null, "head_dim": null})).unwrap().head_dim, 16);
        assert_eq!(parse(json!({})).unwrap().rope, Rope { theta: 10_000.0, kind: RopeKind::Default, share: 1.0 });
    }

    #[test]
    fn windows_by_family() {
        let windows = |changes| parse(changes).unwrap().windows;
        assert_eq!(windows(json!({"sliding_window": 8})), [None; 3], "llama has none");
        assert_eq!(windows(json!({"model_type": "mistral"})), [Some(4096); 3]);
        assert_eq!(windows(json!({"model_type": "mistral", "sliding_window": null})), [None; 3]);
        assert_eq!(windows(json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 1})), [None; 3]);
        let on =
            json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 1, "use_sliding_window": true});
        assert_eq!(windows(on), [None, Some(8), Some(8)]);
        let listed = json!({"model_type": "qwen3", "sliding_window": 8, "use_sliding_window": true,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]});
        assert_eq!(windows(listed), [Some(8), None, Some(8)]);
    }

    #[test]
    fn rotation_and_windows_of_smollm3() {
        let smol = |changes: Value| {
            let mut form = json!({"model_type": "smollm3", "num_hidden_layers": 8});
            form.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            parse(form)
        };
        let config = smol(json!({})).unwrap();
        assert_eq!(config.rotated, [true, true, true, false, true, true, true, false]);
        assert_eq!((config.tied, config.rope.theta, config.max_positions), (true, 2e6, 32_768));
        assert_eq!(config.windows, [None; 8]);
        let config = smol(json!({"no_rope_layer_interval": 3, "use_sliding_window": true, "sliding_window": 9}));
        let windows = [None, None, Some(9), None, None, Some(9), None, None];
        assert_eq!(config.unwrap().windows, windows, "where nothing rotates");
        let config = smol(json!({"use_sliding_window": true})).unwrap();
        assert_eq!(config.windows, [None; 8], "an absent window is none");
        let config = smol(json!({"no_rope_layers": [0, 1, 1, 1, 1, 1, 1, 0, 1], "sliding_window": 9})).unwrap();
        assert_eq!(config.rotated, [false, true, true, true, true, true, true, false], "a longer list is cut");
        let refused = |changes| smol(changes).unwrap_err().to_string();
        assert!(refused(json!({"no_rope_layers": [1, 0]})).contains("`no_rope_layers` is [1,0]; wanted a list of 8"));
        assert!(refused(json!({"no_rope_layers": [1, 2, 1, 1, 1, 1, 1, 1]})).contains("`no_rope_layers` is 2"));
        assert!(refused(json!({"no_rope_layer_interval": 0})).contains("`no_rope_layer_interval` is 0"));
        assert!(parse(json!({"no_rope_layers": [0, 0, 0]})).unwrap().rotated.iter().all(|&rotated| rotated), "llama");
    }

    #[test]
    fn multipliers_of_granite() {
        let granite = |key: &str, value: Value| parse(json!({"model_type": "granite", key: value}));
        let config = granite("attention_multiplier", json!(0.3)).unwrap();
        assert_eq!(config.multipliers, Multipliers { embedding: 1.0, attention: 0.3, residual: 1.0, logits: 1.0 });
        let config = granite("residual_multiplier", json!(0.5)).unwrap();
        assert_eq!((config.multipliers.attention, config.embedding_scale(DType::F32)), (1.0, 2.0), "absent is 1");
        assert_eq!(config.states_eps(), 4e-6);
        let refused = |key: &str, value: Value| granite(key, value).unwrap_err().to_string();
        assert!(refused("logits_scaling", json!(0)).contains("`logits_scaling` is 0; wanted a number from"));
        assert!(refused("attention_multiplier", json!(-1.0)).contains("`attention_multiplier` is -1"));
        assert!(refused("embedding_multiplier", json!("12")).contains("`embedding_multiplier` is \"12\""));
        let llama = parse(json!({"residual_multiplier": 0.5, "attention_multiplier": 0.3})).unwrap();
        assert_eq!(llama.multipliers, Multipliers { attention: 0.25, ..config_of_ones() }, "as in transformers");
    }

    fn config_of_ones() -> Multipliers {
        Multipliers { embedding: 1.0, attention: 1.0, residual: 1.0, logits: 1.0 }
    }

    /// As in the configs of the hub, which leave out what their classes have as defaults.
    #[test]
    fn gemma_3_behind_images() {
        let hub = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
            "eos_token_id": [1, 106], "torch_dtype": "bfloat16", "vision_config": {"model_type": "siglip_vision_model"},
            "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}});
        let config = DecoderConfig::from_json(hub.as_object().unwrap().clone()).unwrap();
        assert_eq!((config.vocab_size, config.heads, config.kv_heads, config.head_dim), (262_208, 8, 4, 256));
        assert_eq!((config.rope.theta, &config.rope.kind), (1e6, &RopeKind::Linear { factor: 8.0 }));
        let windowed = config.windowed_rope.as_ref().unwrap();
        assert_eq!((windowed.theta, &windowed.kind), (10_000.0, &RopeKind::Default));
        assert_eq!(config.windows[..7], [Some(1024), Some(1024), Some(1024), Some(1024), Some(1024), None, Some(1024)]);
        assert_eq!((config.multipliers.attention, config.embedding_scale(DType::F64)), (0.0625, 2560f64.sqrt()));
        assert_eq!(config.embedding_scale(DType::BF16), 50.5, "rounded");
        assert_eq!((config.eos_token_ids, config.wrapped), (vec![1, 106], true));
        let refused = DecoderConfig::from_json(json!({"model_type": "mistral3"}).as_object().unwrap().clone());
        assert!(refused.unwrap_err().to_string().contains("`text_config` is missing; a model of `mistral3`"));
    }

    #[test]
    fn gemma_2_by_its_defaults() {
        let config = parse(json!({"model_type": "gemma2", "num_key_value_heads": 4})).unwrap();
        assert_eq!((config.attention_cap, config.logits_cap, config.tied), (Some(50.0), Some(30.0), true));
        assert_eq!(config.windows, [Some(4096), None, Some(4096)]);
        let config = parse(json!({"model_type": "gemma2", "attn_logit_softcapping": null})).unwrap();
        assert_eq!((config.attention_cap, config.logits_cap), (None, Some(30.0)));
        let config = parse(json!({"model_type": "gemma3_text"})).unwrap();
        assert_eq!((config.attention_cap, config.logits_cap), (None, None));
    }

    #[test]
    fn absent_is_not_null() {
        let heads = |form: Value| {
            let mut json = json!({"vocab_size": 10, "hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 16});
            json.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
            DecoderConfig::from_json(json.as_object().unwrap().clone()).unwrap().kv_heads
        };
        assert_eq!(heads(json!({"model_type": "llama"})), 16);
        assert_eq!(heads(json!({"model_type": "mistral"})), 8);
        assert_eq!(heads(json!({"model_type": "mistral", "num_key_value_heads": null})), 16);
        assert_eq!(heads(json!({"model_type": "smollm3"})), 4);
        assert_eq!(heads(json!({"model_type": "granite"})), 16);
    }

    #[test]
    fn ends_of_text_may_be_one_or_many() {
        assert_eq!(parse(json!({"eos_token_id": 7})).unwrap().eos_token_ids, [7]);
        assert_eq!(parse(json!({"eos_token_id": [7, 9]})).unwrap().eos_token_ids, [7, 9]);
        assert!(parse(json!({"eos_token_id": null, "pad_token_id": -1})).unwrap().pad_token_id.is_none());
    }

    #[test]
    fn what_is_not_computed_is_refused() {
        let check = |changes, want: &str| {
            let error = parse(changes).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        };
        check(json!({"model_type": "gpt2"}), "`model_type` is \"gpt2\"; computed are llama, qwen2, ");
        check(json!({"model_type": "qwen3_moe"}), "a judge of another family is asked through an endpoint");
        check(json!({"model_type": null}), "`model_type` is missing; computed are llama");
        check(json!({"architectures": ["LlamaForSequenceClassification"]}), "`architectures`");
        check(json!({"hidden_act": "gelu"}), "`hidden_act` is \"gelu\"");
        check(json!({"rope_scaling": {"type": "su", "factor": 4.0}}), "in `rope_scaling`: `rope_type` is \"su\"");
        check(json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}), "`low_freq_factor` is missing");
        check(
            json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
            "`partial_rotary_factor` is 0.5; wanted 1: heads of this family",
        );
        let phi = |changes: Value| {
            let mut form = json!({"model_type": "phi3"});
            form.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            form
        };
        check(phi(json!({"partial_rotary_factor": 1.5})), "`partial_rotary_factor` is 1.5; wanted a share");
        let short = |n: usize| json!({"type": "longrope", "short_factor": vec![1.0; n], "long_factor": [1.0, 2.0]});
        check(phi(json!({"rope_scaling": short(8)})), "`long_factor` is \"2 entries\"; wanted a list of 8 numbers");
        check(phi(json!({"rope_scaling": short(7)})), "`short_factor` is \"7 entries\"");
        check(json!({"use_bidirectional_attention": true}), "`use_bidirectional_attention` is true");
        check(
            json!({"model_type": "olmo3", "rope_parameters": {"rope_type": "default"}}),
            "`rope_parameters` has `rope_type`; wanted `full_attention`",
        );
        check(json!({"model_type": "gemma2", "final_logit_softcapping": 0}), "`final_logit_softcapping` is 0");
        check(json!({"model_type": "gemma2", "hidden_activation": "silu"}), "`hidden_activation` is \"silu\"");
        let default = json!({"rope_type": "default", "rope_theta": 10000.0});
        let both = |old| json!({"rope_parameters": default, "rope_scaling": old});
        check(both(json!({"type": "yarn", "factor": 4.0})), "differ in");
        check(both(json!({"rope_type": "llama3"})), "differ in `rope_type`");
        check(both(json!({"factor": 8.0})), "differ in `factor`");
        assert!(parse(both(json!({"type": "default"}))).is_ok() && parse(both(json!(null))).is_ok());
        check(json!({"quantization_config": {"bits": 4}}), "quantization_config");
        check(json!({"num_key_value_heads": 3}), "4 query heads cannot share 3");
        check(json!({"num_hidden_layers": 0}), "`num_hidden_layers` is 0");
        check(json!({"vocab_size": null}), "`vocab_size` is missing");
        check(json!({"vocab_size": "many"}), "`vocab_size` is \"many\"");
        check(json!({"layer_types": ["full_attention"]}), "1 entries for 3 layers");
        check(json!({"layer_types": ["linear_attention", "x", "y"]}), "linear_attention");
    }
}
