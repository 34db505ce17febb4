//! How positions turn into angles, and how `config.json` says it.

use crate::model::family::{Family, WindowedRope};
use crate::model::keys::Keys;
use crate::{Error, Result};
use serde_json::{Map, Value};

/// How positions turn into angles.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// The change of the frequencies.
    pub kind: RopeKind,
    /// The share of a head's columns that are rotated, from the first one on; 1 in most families.
    pub share: f64,
}

/// How queries grow with their positions: by 1 + beta ln(1 + floor(position / context)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryScale {
    /// How fast.
    pub beta: f64,
    /// The context the model was first trained with, in tokens, within which nothing grows.
    pub context: usize,
}

/// The change of the rotary frequencies that reaches longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeKind {
    /// Nothing; so it is with `dynamic` too, which changes frequencies beyond `max_position_embeddings` alone.
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
    /// YaRN: low frequencies divided by `factor`, high ones kept, a ramp over their numbers between.
    Yarn {
        /// By how much the low frequencies are divided.
        factor: f64,
        /// Full turns within the original context above which a frequency is kept.
        beta_fast: f64,
        /// Full turns within the original context below which a frequency is divided.
        beta_slow: f64,
        /// True where the ramp begins and ends at whole numbers.
        truncate: bool,
        /// The factor of cosines and sines.
        attention_factor: f64,
        /// The context the model was first trained with, in tokens.
        original_max_position_embeddings: usize,
    },
    /// LongRoPE: each frequency divided by a number of its own, another one in texts longer than the original context.
    LongRope {
        /// For each pair of columns, in texts within the original context.
        short_factor: Vec<f64>,
        /// The same in longer texts.
        long_factor: Vec<f64>,
        /// The factor of cosines and sines.
        attention_factor: f64,
        /// The context the model was first trained with, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// The rotations of a model's blocks.
pub(crate) struct Ropes {
    pub every: Rope,
    /// Those of blocks with windows, where they are others.
    pub windowed: Option<Rope>,
    pub query_scale: Option<QueryScale>,
}

/// A table of rotary parameters, with the keys beside it that count where it does not say something.
struct Table<'a> {
    /// Its name in messages.
    name: String,
    inner: Keys<'a>,
    outer: &'a Keys<'a>,
    /// The key beside it of the base, and the base where nothing says one.
    theta: (Option<&'static str>, f64),
    family: &'a Family,
}

const KINDS: &str = "\"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\" or \"longrope\"";

impl Keys<'_> {
    /// `rope_parameters`, or `rope_theta` with `rope_scaling`.
    pub(crate) fn ropes(&self, family: &Family, head_dim: usize) -> Result<Ropes> {
        let empty = Map::new();
        let object = |name: &str, value: Option<&Value>| match value {
            Some(Value::Object(inner)) => Ok(Some(inner.clone())),
            Some(other) => Err(Self::wrong(name, other, "an object")),
            None => Ok(None),
        };
        let (new, old) = (self.get("rope_parameters"), self.get("rope_scaling"));
        let (new, old) = (object("rope_parameters", new)?, object("rope_scaling", old)?);
        let theta = (Some("rope_theta"), family.defaults.theta);
        let table = |name: &str, inner| Table { name: name.to_owned(), inner: Keys(inner), outer: self, theta, family };
        let Some(WindowedRope { key, theta: local }) = family.windowed_rope else {
            agree(new.as_ref(), old.as_ref())?;
            let every = match (&new, &old) {
                (Some(new), _) => table("rope_parameters", new),
                (None, Some(old)) => table("rope_scaling", old),
                (None, None) => table("rope_parameters", &empty),
            };
            return Ok(Ropes { every: every.rope(head_dim)?, windowed: None, query_scale: every.query_scale()? });
        };
        // One table for each kind of block; the old style's is that of blocks without windows.
        const KINDS_OF_BLOCKS: [&str; 2] = ["full_attention", "sliding_attention"];
        if let Some(key) = new.iter().flat_map(Map::keys).find(|key| !KINDS_OF_BLOCKS.contains(&key.as_str())) {
            let text = format!("`rope_parameters` has `{key}`; wanted `full_attention` and `sliding_attention` alone");
            return Err(Error::input(text));
        }
        let of = |kind: &str| object(kind, new.as_ref().and_then(|new| new.get(kind)).filter(|value| !value.is_null()));
        let [full, sliding] = [of(KINDS_OF_BLOCKS[0])?, of(KINDS_OF_BLOCKS[1])?];
        agree(full.as_ref(), old.as_ref())?;
        let every = match (&full, &old) {
            (Some(full), _) => table("rope_parameters.full_attention", full),
            (None, Some(old)) => table("rope_scaling", old),
            (None, None) => table("rope_parameters", &empty),
        };
        let windowed = table("rope_parameters.sliding_attention", sliding.as_ref().unwrap_or(&empty));
        let windowed = Table { theta: (key, local), ..windowed };
        let windowed = Some(windowed.rope(head_dim)?);
        Ok(Ropes { every: every.rope(head_dim)?, windowed, query_scale: every.query_scale()? })
    }
}

/// Beside each other, tables of the new and the old style have to say the same: which of them a model was trained with
/// is not known here.
fn agree(new: Option<&Map<String, Value>>, old: Option<&Map<String, Value>>) -> Result<()> {
    let (Some(new), Some(old)) = (new, old) else { return Ok(()) };
    let of = |table: &Map<String, Value>, key: &str| match key {
        "type" | "rope_type" => {
            let kind = table.get("rope_type").or_else(|| table.get("type"));
            Some(kind.cloned().unwrap_or_else(|| "default".into()))
        }
        _ => table.get(key).cloned(),
    };
    let differs = |key: &&String| !old[*key].is_null() && of(new, key) != of(old, key);
    match old.keys().find(differs) {
        Some(key) => Err(Error::input(format!(
            "`rope_scaling` and `rope_parameters` differ in `{key}`; leave only the one that the model was trained with"
        ))),
        None => Ok(()),
    }
}

impl Table<'_> {
    fn within(&self, error: Error) -> Error {
        Error::input(format!("in `{}`: {error}", self.name))
    }

    fn number(&self, key: &str, default: Option<f64>) -> Result<f64> {
        self.inner.number(key, default).map_err(|error| self.within(error))
    }

    fn rope(&self, head_dim: usize) -> Result<Rope> {
        let theta = match (self.inner.get("rope_theta"), self.theta) {
            (Some(_), _) => self.number("rope_theta", None)?,
            (None, (Some(key), default)) => self.outer.number(key, Some(default))?,
            (None, (None, default)) => default,
        };
        const SHARE: &str = "partial_rotary_factor";
        let mut share = 1.0;
        for keys in [self.outer, &self.inner] {
            let Some(value) = keys.get(SHARE) else { continue };
            share = keys.number(SHARE, None)?;
            if share != 1.0 && !self.family.partial_rotation {
                return Err(Keys::wrong(SHARE, value, "1: heads of this family are rotated as a whole"));
            }
            if !(share > 0.0 && share <= 1.0 && (head_dim as f64 * share) as usize > 0) {
                return Err(Keys::wrong(SHARE, value, "a share of a head's columns, above 0 and at most 1"));
            }
        }
        let mut rope = Rope { theta, kind: RopeKind::Default, share };
        rope.kind = self.kind(rope.pairs(head_dim))?;
        Ok(rope)
    }

    fn query_scale(&self) -> Result<Option<QueryScale>> {
        if !self.family.query_scale || self.inner.get("llama_4_scaling_beta").is_none() {
            return Ok(None);
        }
        Ok(Some(QueryScale { beta: self.number("llama_4_scaling_beta", None)?, context: self.original()? }))
    }

    fn kind(&self, pairs: usize) -> Result<RopeKind> {
        let Some(value) = self.inner.get("rope_type").or_else(|| self.inner.get("type")) else {
            let known = ["rope_theta", "partial_rotary_factor"];
            return match self.inner.0.keys().find(|key| !known.contains(&key.as_str())) {
                Some(_) => Err(Error::input(format!("`{}` has no `rope_type`", self.name))),
                None => Ok(RopeKind::Default),
            };
        };
        Ok(match value.as_str() {
            Some("default" | "dynamic") => RopeKind::Default,
            Some("linear") => RopeKind::Linear { factor: self.factor("factor")? },
            Some("llama3") => RopeKind::Llama3 {
                factor: self.factor("factor")?,
                low_freq_factor: self.number("low_freq_factor", None)?,
                high_freq_factor: self.number("high_freq_factor", None)?,
                original_max_position_embeddings: self.original()?,
            },
            // As the first Phi 3 models call it.
            Some("su" | "yarn") if self.inner.get("short_factor").is_some() => self.longrope(pairs)?,
            Some("longrope") => self.longrope(pairs)?,
            Some("yarn") => self.yarn()?,
            _ => return Err(self.within(Keys::wrong("rope_type", value, KINDS))),
        })
    }

    /// A number above 0.
    fn factor(&self, key: &str) -> Result<f64> {
        match self.number(key, None)? {
            factor if factor > 0.0 && factor.is_finite() => Ok(factor),
            factor => Err(self.within(Error::input(format!("`{key}` is {factor}; wanted a number above 0")))),
        }
    }

    /// The first context: beside the table, in it, or all positions.
    fn original(&self) -> Result<usize> {
        const KEY: &str = "original_max_position_embeddings";
        let size = match (self.outer.get(KEY), self.inner.get(KEY)) {
            (Some(_), _) => self.outer.size(KEY, None)?,
            (None, Some(_)) => self.inner.size(KEY, None).map_err(|error| self.within(error))?,
            (None, None) => self.outer.size("max_position_embeddings", Some(self.family.defaults.max_positions))?,
        };
        match size {
            0 => Err(self.within(Error::input(format!("`{KEY}` is 0; wanted 1 at least")))),
            size => Ok(size),
        }
    }

    /// By how much the first context is extended.
    fn extension(&self, original: usize) -> Result<f64> {
        match self.inner.get("factor") {
            Some(_) => self.factor("factor"),
            None => {
                let all = self.outer.size("max_position_embeddings", Some(self.family.defaults.max_positions))?;
                Ok(all as f64 / original as f64)
            }
        }
    }

    fn longrope(&self, pairs: usize) -> Result<RopeKind> {
        let original = self.original()?;
        let list = |key: &str| -> Result<Vec<f64>> {
            let value = self.inner.get(key).unwrap_or(&Value::Null);
            let numbers: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
            match numbers.filter(|list| list.len() == pairs && list.iter().all(|factor| *factor > 0.0)) {
                Some(numbers) => Ok(numbers),
                None => {
                    let got = value.as_array().map_or(value.clone(), |list| format!("{} entries", list.len()).into());
                    Err(self.within(Keys::wrong(key, &got, &format!("a list of {pairs} numbers above 0"))))
                }
            }
        };
        let factor = self.extension(original)?;
        let attention_factor = match self.inner.get("attention_factor") {
            Some(_) => self.factor("attention_factor")?,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        let [short_factor, long_factor] = [list("short_factor")?, list("long_factor")?];
        Ok(RopeKind::LongRope {
            short_factor,
            long_factor,
            attention_factor,
            original_max_position_embeddings: original,
        })
    }

    fn yarn(&self) -> Result<RopeKind> {
        let original = self.original()?;
        let factor = self.extension(original)?;
        let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        let by = [self.number("mscale", Some(0.0))?, self.number("mscale_all_dim", Some(0.0))?];
        let attention_factor = match self.inner.get("attention_factor") {
            Some(_) => self.factor("attention_factor")?,
            None if by.iter().all(|by| *by != 0.0) => scale(by[0]) / scale(by[1]),
            None => scale(1.0),
        };
        let beta = |key: &str, default: f64| -> Result<f64> {
            let beta = self.number(key, Some(default))?;
            Ok(if beta == 0.0 { default } else { beta })
        };
        Ok(RopeKind::Yarn {
            factor,
            beta_fast: beta("beta_fast", 32.0)?,
            beta_slow: beta("beta_slow", 1.0)?,
            truncate: self.inner.flag("truncate", true).map_err(|error| self.within(error))?,
            attention_factor,
            original_max_position_embeddings: original,
        })
    }
}

impl Rope {
    /// Pairs of columns of a head that are rotated, from the first ones on.
    pub(crate) fn pairs(&self, head_dim: usize) -> usize {
        ((head_dim as f64 * self.share) as usize).div_ceil(2)
    }

    /// The length above which texts are rotated as long ones, where there is another rotation for these.
    pub(crate) fn long_beyond(&self) -> Option<usize> {
        match &self.kind {
            RopeKind::LongRope { original_max_position_embeddings, .. } => Some(*original_max_position_embeddings),
            _ => None,
        }
    }

    /// The angle per position of each pair of columns that are rotated, in long texts or in others.
    pub(crate) fn frequencies(&self, head_dim: usize, long: bool) -> Vec<f64> {
        let width = (head_dim as f64 * self.share).floor();
        let plain = (0..self.pairs(head_dim)).map(|i| self.theta.powf(-2.0 * i as f64 / width));
        match &self.kind {
            RopeKind::Default => plain.collect(),
            RopeKind::Linear { factor } => plain.map(|w| w / factor).collect(),
            RopeKind::LongRope { short_factor, long_factor, .. } => {
                plain.zip(if long { long_factor } else { short_factor }).map(|(w, factor)| w / factor).collect()
            }
            RopeKind::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let context = *original_max_position_embeddings as f64;
                plain
                    .map(|w| {
                        // Full turns within the original context.
                        let turns = context * w / (2.0 * std::f64::consts::PI);
                        let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        let smooth = smooth.clamp(0.0, 1.0);
                        (1.0 - smooth) * w / factor + smooth * w
                    })
                    .collect()
            }
            RopeKind::Yarn {
                factor,
                beta_fast,
                beta_slow,
                truncate,
                original_max_position_embeddings: context,
                ..
            } => {
                // The number of the pair that makes so many turns within the original context.
                let pair = |turns: f64| {
                    width * (*context as f64 / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * self.theta.ln())
                };
                let (low, high) = (pair(*beta_fast), pair(*beta_slow));
                let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(width - 1.0));
                let high = if low == high { high + 0.001 } else { high };
                plain
                    .enumerate()
                    .map(|(i, w)| {
                        let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        divided * w / factor + (1.0 - divided) * w
                    })
                    .collect()
            }
        }
    }

    /// The factor of cosines and sines.
    pub(crate) fn scale(&self) -> f64 {
        match self.kind {
            RopeKind::Yarn { attention_factor, .. } | RopeKind::LongRope { attention_factor, .. } => attention_factor,
            RopeKind::Default | RopeKind::Linear { .. } | RopeKind::Llama3 { .. } => 1.0,
        }
    }
}
