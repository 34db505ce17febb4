//! The form of a decoder, read from the `config.json` of a Hugging Face folder and written back to it.

use crate::error::is_there;
use crate::model::adapter_folder::model_part;
use crate::model::families;
use crate::model::family::{Family, Multipliers};
use crate::model::gguf::{self, is_gguf};
use crate::model::keys::Keys;
use crate::model::weights::refuse_pointer;
use crate::{DType, Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// How positions turn into angles.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// What is done to the frequencies.
    pub kind: RopeKind,
}

/// What is done to the rotary frequencies to reach longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeKind {
    /// Nothing.
    Default,
    /// All divided by `factor`.
    Linear {
        /// By how much.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// By how much the low frequencies are divided.
        factor: f64,
        /// Full turns within the original context below which a frequency is low.
        low_freq_factor: f64,
        /// Full turns within the original context above which a frequency is high.
        high_freq_factor: f64,
        /// The context the model was first trained with, in tokens.
        original_max_position_embeddings: usize,
    },
}

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
    /// For each block, whether queries and keys are rotated by their positions.
    pub rotated: Vec<bool>,
    /// What embeddings, scores, states and logits are multiplied with.
    pub multipliers: Multipliers,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward part has biases.
    pub mlp_bias: bool,
    /// Whether queries and keys have norms.
    pub qk_norm: bool,
    /// For each block, the distance below which a key is visible; `None` for all.
    pub windows: Vec<Option<usize>>,
    /// Whether the LM head is the embedding table.
    pub tied: bool,
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
        if is_gguf(folder) {
            return gguf::config_of(folder);
        }
        let folder = &model_part(folder)?;
        let path = folder.join("config.json");
        refuse_pointer(&path)?;
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let json: Map<String, Value> = serde_json::from_str(&text).map_err(Error::at(&path))?;
        let mut config = DecoderConfig::from_json(json).map_err(Error::at(&path))?;
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
        let keys = Keys(&json);
        let family = families::named(keys.get("model_type").and_then(Value::as_str))?;
        let defaults = &family.defaults;
        keys.refuse_what_is_not_computed(family)?;
        let (hidden_size, heads) = (keys.size("hidden_size", None)?, keys.size("num_attention_heads", None)?);
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
            if keys.size(key, None)? == 0 {
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
        Ok(DecoderConfig {
            family,
            vocab_size: keys.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size", None)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            max_positions: keys.size("max_position_embeddings", Some(defaults.max_positions))?,
            rms_norm_eps: keys.number("rms_norm_eps", Some(1e-6))?,
            rope: keys.rope(defaults.theta)?,
            multipliers: family.multipliers.read(&keys, head_dim)?,
            qkv_bias: family.qkv_bias.read(&keys)?,
            output_bias: family.output_bias.read(&keys)?,
            mlp_bias: family.mlp_bias.read(&keys)?,
            qk_norm: family.head_norm,
            windows: family.window.read(&keys, &rotated)?,
            rotated,
            tied: keys.flag("tie_word_embeddings", defaults.tied)?,
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
        json.insert("tie_word_embeddings".to_owned(), json!(self.tied));
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
    pub(crate) fn embedding_scale(&self) -> f64 {
        self.multipliers.embedding / self.multipliers.residual
    }

    /// What the norms of such states add to the mean square.
    pub(crate) fn states_eps(&self) -> f64 {
        self.rms_norm_eps / (self.multipliers.residual * self.multipliers.residual)
    }

    /// Numbers in all weights, a tied head counted once.
    pub fn parameter_count(&self) -> usize {
        crate::model::weights::shapes(self).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
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
    /// What would otherwise be computed wrongly without a word.
    fn refuse_what_is_not_computed(&self, family: &Family) -> Result<()> {
        family.activation.check(self)?;
        if self.get("quantization_config").is_some() {
            return Err(Error::input(
                "`quantization_config` is set; quantised weights are not read, use the full ones",
            ));
        }
        if let Some(architectures) = self.get("architectures").and_then(Value::as_array)
            && let Some(other) =
                architectures.iter().find(|name| name.as_str().is_none_or(|name| !name.ends_with("ForCausalLM")))
        {
            return Err(Self::wrong("architectures", other, "a model with a language-model head (...ForCausalLM)"));
        }
        Ok(())
    }

    /// `rope_parameters`, or `rope_theta` with `rope_scaling`.
    fn rope(&self, default_theta: f64) -> Result<Rope> {
        let table = match self.get("rope_parameters") {
            Some(value) => Some(("rope_parameters", value)),
            None => self.get("rope_scaling").map(|value| ("rope_scaling", value)),
        };
        // Beside each other they have to say the same: which of them a model was trained with is not known here.
        if let (Some(Value::Object(new)), Some(Value::Object(old))) =
            (self.get("rope_parameters"), self.get("rope_scaling"))
        {
            let of = |table: &Map<String, Value>, key: &str| match key {
                "type" | "rope_type" => {
                    let kind = table.get("rope_type").or_else(|| table.get("type"));
                    Some(kind.cloned().unwrap_or_else(|| "default".into()))
                }
                _ => table.get(key).cloned(),
            };
            let differs = |key: &&String| !old[*key].is_null() && of(new, key) != of(old, key);
            if let Some(key) = old.keys().find(differs) {
                let text = "`rope_scaling` and `rope_parameters` differ in";
                return Err(Error::input(format!(
                    "{text} `{key}`; leave only the one that the model was trained with"
                )));
            }
        }
        let empty = Map::new();
        let (name, inner) = match table {
            Some((name, Value::Object(inner))) => (name, inner),
            Some((name, other)) => return Err(Self::wrong(name, other, "an object")),
            None => ("rope_parameters", &empty),
        };
        let within = |error: Error| Error::input(format!("in `{name}`: {error}"));
        let inner = Keys(inner);
        let theta = match inner.get("rope_theta") {
            Some(_) => inner.number("rope_theta", None).map_err(within)?,
            None => self.number("rope_theta", Some(default_theta))?,
        };
        for keys in [self, &inner] {
            if let Some(value) = keys.get("partial_rotary_factor")
                && value.as_f64() != Some(1.0)
            {
                return Err(Self::wrong("partial_rotary_factor", value, "1: heads are rotated as a whole here"));
            }
        }
        let kind = match inner.get("rope_type").or_else(|| inner.get("type")) {
            None if inner.0.keys().any(|key| key != "rope_theta" && key != "partial_rotary_factor") => {
                return Err(Error::input(format!("`{name}` has no `rope_type`")));
            }
            None => RopeKind::Default,
            Some(value) => match value.as_str() {
                Some("default") => RopeKind::Default,
                Some("linear") => RopeKind::Linear { factor: inner.number("factor", None).map_err(within)? },
                Some("llama3") => RopeKind::Llama3 {
                    factor: inner.number("factor", None).map_err(within)?,
                    low_freq_factor: inner.number("low_freq_factor", None).map_err(within)?,
                    high_freq_factor: inner.number("high_freq_factor", None).map_err(within)?,
                    original_max_position_embeddings: inner
                        .size("original_max_position_embeddings", None)
                        .map_err(within)?,
                },
                _ => return Err(within(Self::wrong("rope_type", value, "\"default\", \"linear\" or \"llama3\""))),
            },
        };
        Ok(Rope { theta, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(parse(json!({})).unwrap().rope, Rope { theta: 10_000.0, kind: RopeKind::Default });
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
        assert_eq!((config.multipliers.attention, config.embedding_scale()), (1.0, 2.0), "absent is 1");
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
        check(json!({"model_type": "gpt2"}), "a judge of another family is asked through an endpoint");
        check(json!({"model_type": null}), "`model_type` is missing; computed are llama");
        check(json!({"architectures": ["LlamaForSequenceClassification"]}), "`architectures`");
        check(json!({"hidden_act": "gelu"}), "`hidden_act` is \"gelu\"");
        check(json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}), "in `rope_scaling`: `rope_type` is \"yarn\"");
        check(json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}), "`low_freq_factor` is missing");
        check(
            json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
            "partial_rotary_factor",
        );
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
