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
    /// The norm of the states before each part of a block and before the head.
    pub norm: Norm,
    /// The gate of the feed-forward part.
    pub activation: Activation,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: Bias,
    /// Bias of the attention's output.
    pub output_bias: Bias,
    /// Whether the feed-forward part has biases.
    pub mlp_bias: Bias,
    /// Whether queries and keys have norms, one for the heads of each.
    pub head_norm: bool,
    /// Which blocks see a window of the tokens before, and not all.
    pub window: Window,
    /// Which blocks rotate queries and keys by their positions.
    pub rotation: Rotation,
    /// Constants that embeddings, scores, states and logits are multiplied with.
    pub multipliers: MultiplierKeys,
    /// What an absent key stands for.
    pub defaults: Defaults,
    /// Its files of llama.cpp.
    pub gguf: Gguf,
}

/// The kind of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// w x / sqrt(mean(x^2) + `rms_norm_eps`).
    Rms,
}

/// The kind of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x), which `hidden_act` calls `silu` or `swish`.
    Silu,
}

impl Activation {
    /// Refuses another `hidden_act`.
    pub(crate) fn check(self, keys: &Keys) -> Result<()> {
        let Activation::Silu = self;
        match keys.get("hidden_act") {
            Some(value) if !matches!(value.as_str(), Some("silu" | "swish")) => {
                Err(Keys::wrong("hidden_act", value, "\"silu\", the only activation computed here"))
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
    Said(&'static str),
}

impl Bias {
    pub(crate) fn read(self, keys: &Keys) -> Result<bool> {
        match self {
            Bias::Never => Ok(false),
            Bias::Always => Ok(true),
            Bias::Said(key) => keys.flag(key, false),
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
    /// Where `use_sliding_window` is true, those from `max_window_layers` on. An absent `sliding_window` is 4096.
    Later,
    /// Where `use_sliding_window` is true, those without rotation. An absent `sliding_window` is none.
    Unrotated,
}

impl Window {
    /// The window of each block, given which ones rotate.
    pub(crate) fn read(self, keys: &Keys, rotated: &[bool]) -> Result<Vec<Option<usize>>> {
        let layers = rotated.len();
        let absent = if self == Window::Unrotated { None } else { Some(4096) };
        let in_use = match self {
            Window::Never => false,
            Window::Every => true,
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
                let slides = |layer: usize| layer >= full && !(self == Window::Unrotated && rotated[layer]);
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

/// Where a multiplier stands.
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
    pub embedding: Option<MultiplierKey>,
    /// Of attention's scores, in place of 1 / sqrt(head_dim).
    pub attention: Option<MultiplierKey>,
    /// Of what each part of a block adds to the states.
    pub residual: Option<MultiplierKey>,
    /// What logits are divided by.
    pub logits: Option<MultiplierKey>,
}

impl MultiplierKeys {
    /// No multipliers.
    pub const NONE: MultiplierKeys = MultiplierKeys { embedding: None, attention: None, residual: None, logits: None };

    /// The multipliers of a model with heads of a width.
    pub(crate) fn read(&self, keys: &Keys, head_dim: usize) -> Result<Multipliers> {
        let mut values = Multipliers::none(head_dim);
        for (key, value) in self.into_iter().zip(values.each()) {
            let Some(MultiplierKey { key, .. }) = key else { continue };
            *value = keys.number(key, Some(1.0))?;
            // A softmax keeps the order of scores under a positive one; f32 has to hold the squares.
            if !(1e-6..=1e6).contains(value) {
                return Err(Error::input(format!("`{key}` is {value}; wanted a number from 1e-6 to 1e6")));
            }
        }
        Ok(values)
    }

    /// In the order of [`Multipliers::each`].
    fn into_iter(self) -> impl Iterator<Item = Option<MultiplierKey>> {
        [self.embedding, self.attention, self.residual, self.logits].into_iter()
    }

    /// Those that there are, each with the value that changes nothing in a model with heads of a width.
    pub(crate) fn with_neutral(self, head_dim: usize) -> impl Iterator<Item = (MultiplierKey, f64)> {
        let neutral = Multipliers::none(head_dim).each().map(|value| *value);
        self.into_iter().zip(neutral).filter_map(|(key, neutral)| Some((key?, neutral)))
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

/// What an absent key of `config.json` stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// `num_key_value_heads`; without a number, as many as query heads. So many too where the key is null.
    pub kv_heads: Option<usize>,
    /// `head_dim`; without a number, `hidden_size` / `num_attention_heads`.
    pub head_dim: Option<usize>,
    /// `max_position_embeddings`.
    pub max_positions: usize,
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
