//! The form of a decoder, read from the `config.json` of a Hugging Face folder and written back to it.

use crate::model::families;
use crate::model::family::{Family, HeadNorms, Multiplier, Multipliers};
use crate::model::keys::Keys;
use crate::model::rope::{QueryScale, Rope, Ropes};
use crate::{DType, Error, Result};
use serde_json::{Map, Value, json};

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
    /// True where the weights of linear layers are stored in bitsandbytes' NF4.
    pub nf4: bool,
    /// True where it stands behind a part for images, whose tensors are kept and not computed.
    pub wrapped: bool,
    /// The standard deviation that fresh weights are drawn with.
    pub initializer_range: f64,
    /// The padding token, whose embedding starts at 0.
    pub pad_token_id: Option<u32>,
    /// The tokens that end a text: those of `generation_config.json` where it names some, else of `config.json`.
    pub eos_token_ids: Vec<u32>,
    /// `config.json` as it was read; written back with what changed.
    pub(super) json: Map<String, Value>,
    /// `generation_config.json` as it was read.
    pub(super) generation: Option<Map<String, Value>>,
}

/// The end of the names of reward models' architectures.
pub(super) const REWARD: &str = "ForSequenceClassification";

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

    pub(super) fn read(json: Map<String, Value>, reward: bool) -> Result<DecoderConfig> {
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
        for (key, absent) in [
            ("num_hidden_layers", None),
            ("hidden_size", None),
            ("intermediate_size", None),
            ("vocab_size", defaults.vocab),
            ("max_position_embeddings", Some(defaults.max_positions)),
        ] {
            if keys.size(key, absent)? == 0 {
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
            nf4: keys.nf4()?,
            wrapped,
            initializer_range: keys.number("initializer_range", Some(0.02))?,
            pad_token_id: keys.ids("pad_token_id")?.first().copied(),
            eos_token_ids: keys.ids("eos_token_id")?,
            generation: None,
            json,
        })
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

    /// Ties the head of a model of images too as its decoder's family does, where nothing is said: without its files it is
    /// not known whether there is one.
    pub(crate) fn assume_ties(&mut self) {
        let said = |keys: Option<&Value>| keys.is_some_and(|keys| !keys["tie_word_embeddings"].is_null());
        if self.wrapped && self.json.get("tie_word_embeddings").is_none() && !said(self.json.get("text_config")) {
            self.tied = self.family.defaults.tied;
        }
    }

    /// The first part of the names of the decoder's tensors, but that of the head.
    pub(crate) fn body(&self) -> &'static str {
        if self.wrapped { "model.language_model." } else { "model." }
    }

    /// The length above which texts are rotated as long ones, where there is another rotation for these.
    pub(crate) fn long_beyond(&self) -> Option<usize> {
        self.rope.long_beyond()
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

/// The keys of a quantisation that say which one it is.
fn shown(form: &Value) -> Map<String, Value> {
    let named = ["quant_method", "bits", "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type"];
    let keys = form.as_object().into_iter().flatten().filter(|(key, _)| named.contains(&key.as_str()));
    keys.map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Keys<'_> {
    /// Refuses settings that would otherwise be computed wrongly without a word.
    fn refuse_what_is_not_computed(&self, family: &Family) -> Result<()> {
        family.activation.check(self)?;
        if self.flag("use_bidirectional_attention", false)? {
            return Err(Error::input("`use_bidirectional_attention` is true; a decoder looks back alone"));
        }
        Ok(())
    }

    /// True for weights in bitsandbytes' NF4; other quantised ones are refused.
    fn nf4(&self) -> Result<bool> {
        let Some(form) = self.get("quantization_config") else { return Ok(false) };
        let is = |key: &str, value: Value| form.get(key) == Some(&value);
        let nf4 = is("quant_method", json!("bitsandbytes")) && is("load_in_4bit", json!(true));
        match nf4 && is("bnb_4bit_quant_type", json!("nf4")) {
            true => Ok(true),
            false => {
                let text = "bitsandbytes with `load_in_4bit` and `bnb_4bit_quant_type: nf4`; others are not read: use the \
                            full weights";
                Err(Self::wrong("quantization_config", &Value::Object(shown(form)), text))
            }
        }
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
