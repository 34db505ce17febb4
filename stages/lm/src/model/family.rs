//! The differences between families of decoders. A family is one constant in `families`; this file has the types of its
//! fields, and how they read the keys of a `config.json`.

use crate::model::keys::Keys;
use crate::{Error, Result};
use serde_json::Value;

/// A family of decoders: what its members have in common, and which keys of `config.json` say the rest.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub name: &'static str,
    /// The norm of states, and of queries and keys.
    pub norm: Norm,
    /// Where a block's norms of states stand.
    pub norms: Norms,
    /// The gate of the feed-forward part.
    pub activation: Activation,
    /// Biases of queries, keys and values.
    pub qkv_bias: Bias,
    /// Bias of the attention's output.
    pub output_bias: Bias,
    /// Biases of the feed-forward part.
    pub mlp_bias: Bias,
    /// The norms of queries and keys.
    pub head_norm: HeadNorms,
    /// True where files hold queries, keys and values as one matrix, and gate and up as another.
    pub fused: bool,
    /// Blocks that see a window of the tokens before, and not all.
    pub window: Window,
    /// Blocks that rotate queries and keys by their positions.
    pub rotation: Rotation,
    /// The rotation of blocks with windows, where it is another.
    pub windowed_rope: Option<WindowedRope>,
    /// True where `partial_rotary_factor` is the share of a head's columns that are rotated.
    pub partial_rotation: bool,
    /// True where queries beyond the first context grow, by `llama_4_scaling_beta` of the rotary parameters.
    pub query_scale: bool,
    /// Constants that embeddings, scores, states and logits are multiplied with.
    pub multipliers: MultiplierKeys,
    /// Bounds of scores and logits.
    pub caps: CapKeys,
    /// Values of absent keys.
    pub defaults: Defaults,
    /// Its files of llama.cpp, where they are read.
    pub gguf: Option<Gguf>,
}

/// The kind of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// w x / sqrt(mean(x^2) + `rms_norm_eps`).
    Rms,
    /// The same with 1 + w in place of w.
    RmsPlusOne,
}

impl Norm {
    /// The weight with which a norm multiplies with 1.
    pub(crate) fn fresh(self) -> f32 {
        match self {
            Norm::Rms => 1.0,
            Norm::RmsPlusOne => 0.0,
        }
    }
}

/// Where the norms of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before attention and before the feed-forward part.
    Before,
    /// After each of the two, on what it adds to the states.
    After,
    /// Before and after.
    Both,
}

impl Norms {
    /// The names of the norms before attention, after it, before the feed-forward part and after it, where they are.
    pub(crate) fn names(self) -> [Option<&'static str>; 4] {
        const INPUT: Option<&str> = Some("input_layernorm");
        const ATTENTION: Option<&str> = Some("post_attention_layernorm");
        const FEED_FORWARD: Option<&str> = Some("post_feedforward_layernorm");
        match self {
            Norms::Before => [INPUT, None, ATTENTION, None],
            Norms::After => [None, ATTENTION, None, FEED_FORWARD],
            Norms::Both => [INPUT, ATTENTION, Some("pre_feedforward_layernorm"), FEED_FORWARD],
        }
    }
}

/// The norms of queries and keys, before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorms {
    /// None.
    None,
    /// Of each head, with one weight for all query heads and one for all key heads.
    Each,
    /// Of all query heads together, and of all key heads together.
    Whole,
}

/// The kind of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x), which `hidden_act` calls `silu` or `swish`.
    Silu,
    /// GELU by tanh, which this key calls `gelu_pytorch_tanh`.
    GeluTanh(&'static str),
}

impl Activation {
    /// Refuses another one.
    pub(crate) fn check(self, keys: &Keys) -> Result<()> {
        let (key, known, named) = match self {
            Activation::Silu => ("hidden_act", ["silu", "swish"], "silu"),
            // Old Gemma configs say `gelu` and mean the same.
            Activation::GeluTanh(key) => (key, ["gelu_pytorch_tanh", "gelu"], "gelu_pytorch_tanh"),
        };
        match keys.get(key) {
            Some(value) if !value.as_str().is_some_and(|name| known.contains(&name)) => {
                Err(Keys::wrong(key, value, &format!("\"{named}\", the only activation computed for this family")))
            }
            _ => Ok(()),
        }
    }
}

/// Rule for the bias of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// In no model.
    Never,
    /// In every model.
    Always,
    /// Where this key is true.
    Keyed(&'static str),
}

impl Bias {
    pub(crate) fn read(self, keys: &Keys) -> Result<bool> {
        match self {
            Bias::Never => Ok(false),
            Bias::Always => Ok(true),
            Bias::Keyed(key) => keys.flag(key, false),
        }
    }
}

/// Blocks that see `sliding_window` tokens and not all, where `layer_types` does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// None.
    Never,
    /// Every one. An absent `sliding_window` is 4096.
    Every,
    /// Every one. An absent `sliding_window` is none.
    Keyed,
    /// Where `use_sliding_window` is true, those from `max_window_layers` on. An absent `sliding_window` is 4096.
    Later,
    /// Where `use_sliding_window` is true, those without rotation. An absent `sliding_window` is none.
    Unrotated,
    /// All but every n-th, n of a key where there is one. An absent `sliding_window` is 4096.
    Alternating {
        /// n, or what an absent key stands for.
        period: usize,
        /// The key.
        key: Option<&'static str>,
    },
}

impl Window {
    /// The window of each block, given which ones rotate.
    pub(crate) fn read(self, keys: &Keys, rotated: &[bool]) -> Result<Vec<Option<usize>>> {
        let layers = rotated.len();
        let absent = if matches!(self, Window::Unrotated | Window::Keyed) { None } else { Some(4096) };
        let in_use = match self {
            Window::Never => false,
            Window::Every | Window::Keyed | Window::Alternating { .. } => true,
            Window::Later | Window::Unrotated => keys.flag("use_sliding_window", false)?,
        };
        let window = match keys.get("sliding_window") {
            _ if !in_use => None,
            Some(_) => Some(keys.size("sliding_window", None)?),
            None => absent.filter(|_| !keys.names("sliding_window")),
        };
        if window == Some(0) {
            return Err(Error::input("`sliding_window` is 0; a token must at least see itself"));
        }
        match keys.get("layer_types") {
            Some(Value::Array(types)) => {
                if types.len() != layers {
                    return Err(Error::input(format!("`layer_types` has {} entries for {layers} layers", types.len())));
                }
                let one = |kind: &Value| match kind.as_str() {
                    Some("full_attention") => Ok(None),
                    Some("sliding_attention") if window.is_some() => Ok(window),
                    Some("sliding_attention") => {
                        Err(Error::input("`layer_types` names sliding_attention, but no `sliding_window` is in use"))
                    }
                    _ => Err(Keys::wrong("layer_types", kind, "\"full_attention\" or \"sliding_attention\"")),
                };
                types.iter().map(one).collect()
            }
            Some(other) => Err(Keys::wrong("layer_types", other, "a list with one entry per layer")),
            None => {
                let full = if self == Window::Later { keys.size("max_window_layers", Some(28))? } else { 0 };
                let period = match self {
                    Window::Alternating { period, key: None } => period,
                    Window::Alternating { period, key: Some(key) } => keys.size(key, Some(period))?,
                    _ => usize::MAX,
                };
                let slides = |layer: usize| match self {
                    Window::Unrotated => !rotated[layer],
                    _ => layer >= full && !(layer + 1).is_multiple_of(period.max(1)),
                };
                Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect())
            }
        }
    }
}

/// Blocks that rotate queries and keys by their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Every one.
    Every,
    /// Those whose entry in `no_rope_layers` is 1; without that key all but every n-th, n of `no_rope_layer_interval`.
    Listed,
}

impl Rotation {
    /// True at each block that rotates queries and keys.
    pub(crate) fn read(self, keys: &Keys, layers: usize) -> Result<Vec<bool>> {
        if self == Rotation::Every {
            return Ok(vec![true; layers]);
        }
        match keys.get("no_rope_layers") {
            None => match keys.size("no_rope_layer_interval", Some(4))? {
                0 => Err(Error::input("`no_rope_layer_interval` is 0; wanted 1 at least")),
                interval => Ok((1..=layers).map(|layer| layer % interval != 0).collect()),
            },
            Some(Value::Array(entries)) if entries.len() >= layers => {
                let one = |entry: &Value| match entry.as_u64() {
                    Some(0) => Ok(false),
                    Some(1) => Ok(true),
                    _ => Err(Keys::wrong("no_rope_layers", entry, "1 (rotary positions) or 0 (none) for each layer")),
                };
                entries[..layers].iter().map(one).collect()
            }
            Some(other) => Err(Keys::wrong("no_rope_layers", other, &format!("a list of {layers} entries, 1 or 0"))),
        }
    }
}

/// The rotation of blocks with windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowedRope {
    /// The key of its base in the old style of `config.json`, where there is one. In the new one,
    /// `rope_parameters` has `full_attention` and `sliding_attention`.
    pub key: Option<&'static str>,
    /// Its base where nothing says another.
    pub theta: f64,
}

/// The keys of bounds: cap tanh(x / cap) in place of x. None where a key is null.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CapKeys {
    /// Of attention's scores: its key, and what an absent one stands for.
    pub attention: Option<(&'static str, Option<f64>)>,
    /// Of logits.
    pub logits: Option<(&'static str, Option<f64>)>,
}

impl CapKeys {
    /// No bounds.
    pub const NONE: CapKeys = CapKeys { attention: None, logits: None };

    /// The bounds of scores and of logits.
    pub(crate) fn read(&self, keys: &Keys) -> Result<[Option<f64>; 2]> {
        let one = |cap: Option<(&str, Option<f64>)>| -> Result<Option<f64>> {
            let Some((key, absent)) = cap else { return Ok(None) };
            let cap = match keys.get(key) {
                Some(_) => Some(keys.number(key, None)?),
                None => absent.filter(|_| !keys.names(key)),
            };
            match cap {
                Some(cap) if !(1e-3..=1e6).contains(&cap) => {
                    Err(Error::input(format!("`{key}` is {cap}; wanted a number from 1e-3 to 1e6, or null")))
                }
                _ => Ok(cap),
            }
        };
        Ok([one(self.attention)?, one(self.logits)?])
    }
}

/// The source of a multiplier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplier {
    /// 1: it changes nothing.
    Neutral,
    /// The value of a key.
    Keyed(MultiplierKey),
    /// The root of `hidden_size`, rounded to the precision of the weights.
    RootOfWidth,
    /// 1 / sqrt of a key, and what an absent one stands for.
    InverseRoot(&'static str, u16),
}

/// Place of a multiplier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiplierKey {
    /// Its key in `config.json`. It is 1 where that is absent.
    pub key: &'static str,
    /// Its key in a GGUF file, after the name of the architecture. Nothing is multiplied where that is absent.
    pub gguf: &'static str,
}

/// The multipliers that a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiplierKeys {
    /// Of embeddings.
    pub embedding: Multiplier,
    /// Of attention's scores, in place of 1 / sqrt(head_dim).
    pub attention: Multiplier,
    /// Of what each part of a block adds to the states.
    pub residual: Multiplier,
    /// Divisor of the logits.
    pub logits: Multiplier,
}

impl MultiplierKeys {
    /// No multipliers.
    pub const NONE: MultiplierKeys = MultiplierKeys {
        embedding: Multiplier::Neutral,
        attention: Multiplier::Neutral,
        residual: Multiplier::Neutral,
        logits: Multiplier::Neutral,
    };

    /// The multipliers of a model with heads of a width.
    pub(crate) fn read(&self, keys: &Keys, head_dim: usize) -> Result<Multipliers> {
        let mut values = Multipliers::none(head_dim);
        for (multiplier, value) in self.into_iter().zip(values.each()) {
            let key = match multiplier {
                Multiplier::Neutral => continue,
                Multiplier::Keyed(MultiplierKey { key, .. }) => {
                    *value = keys.number(key, Some(1.0))?;
                    key
                }
                Multiplier::RootOfWidth => {
                    *value = (keys.size("hidden_size", None)? as f64).sqrt();
                    "hidden_size"
                }
                Multiplier::InverseRoot(key, absent) => {
                    *value = 1.0 / keys.number(key, Some(absent.into()))?.sqrt();
                    key
                }
            };
            // A softmax keeps the order of scores under a positive one; f32 has to hold the squares.
            if !(1e-6..=1e6).contains(value) {
                let what = if matches!(multiplier, Multiplier::InverseRoot(..)) { " to multiply with" } else { "" };
                return Err(Error::input(format!("`{key}` is {value}{what}; wanted a number from 1e-6 to 1e6")));
            }
        }
        Ok(values)
    }

    /// In the order of [`Multipliers::each`].
    fn into_iter(self) -> impl Iterator<Item = Multiplier> {
        [self.embedding, self.attention, self.residual, self.logits].into_iter()
    }

    /// Those that keys say, each with the value that changes nothing in a model with heads of a width.
    pub(crate) fn with_neutral(self, head_dim: usize) -> impl Iterator<Item = (MultiplierKey, f64)> {
        let neutral = Multipliers::none(head_dim).each().map(|value| *value);
        self.into_iter().zip(neutral).filter_map(|(multiplier, neutral)| match multiplier {
            Multiplier::Keyed(key) => Some((key, neutral)),
            _ => None,
        })
    }
}

/// The multipliers of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers {
    /// Of embeddings; 1 in most families.
    pub embedding: f64,
    /// Of attention's scores; 1 / sqrt(head_dim) in most families.
    pub attention: f64,
    /// Of what each part of a block adds to the states; 1 in most families.
    pub residual: f64,
    /// Divisor of the logits; 1 in most families.
    pub logits: f64,
}

impl Multipliers {
    /// Those of a family without any.
    fn none(head_dim: usize) -> Multipliers {
        Multipliers { embedding: 1.0, attention: 1.0 / (head_dim as f64).sqrt(), residual: 1.0, logits: 1.0 }
    }

    fn each(&mut self) -> [&mut f64; 4] {
        [&mut self.embedding, &mut self.attention, &mut self.residual, &mut self.logits]
    }
}

/// Values of absent keys of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// `vocab_size`; without a number it has to be there.
    pub vocab: Option<usize>,
    /// `num_attention_heads`; without a number it has to be there.
    pub heads: Option<usize>,
    /// `num_key_value_heads`; without a number, as many as query heads. So many too where the key is null.
    pub kv_heads: Option<usize>,
    /// `head_dim`; without a number, `hidden_size` / `num_attention_heads`.
    pub head_dim: Option<usize>,
    /// `max_position_embeddings`.
    pub max_positions: usize,
    /// `rms_norm_eps`.
    pub eps: f64,
    /// `rope_theta`.
    pub theta: f64,
    /// `tie_word_embeddings`.
    pub tied: bool,
}

/// The form of a family's GGUF files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gguf {
    /// `general.architecture`, with which the names of its sizes begin.
    pub architecture: &'static str,
    /// True where the rotary halves of a head stand beside each other in the rows of queries and keys.
    pub interleaved: bool,
}
