//! ModernBERT: blocks with a norm before each part, rotary positions, most blocks seeing near tokens alone.

use std::path::Path;

use candle_core::{D, Tensor};
use candle_transformers::models::bert::HiddenAct;
use rayon::prelude::*;
use serde_json::Value as Json;

use crate::encode::parts::{Affine, Attention, Named, Norm, Source, Texts, attended, gated};
use crate::ops::angles::RopeTable;
use crate::ops::rounded::Products;
use crate::ops::tiles::Shape;
use crate::ops::{Kernel, change, embed, kernel_for, rope, rows_per_task};
use crate::{DType, Device, Error, Result};

// T tokens of all texts, H hidden width, A heads, F feed-forward width.

/// The form of a ModernBERT encoder, from its `config.json`.
pub(crate) struct ModernForm {
    vocabulary: usize,
    pub hidden: usize,
    inner: usize,
    pub heads: usize,
    eps: f64,
    act: HiddenAct,
    /// The longest text, tokens.
    pub positions: usize,
    /// Of each block: true where it sees near tokens alone.
    near: Vec<bool>,
    /// The largest distance that such a block sees.
    reach: usize,
    /// Bases of the rotation in other blocks and in those.
    theta: [f64; 2],
    biases: Biases,
}

/// Which parts have biases.
struct Biases {
    attention: bool,
    mlp: bool,
    norm: bool,
}

impl ModernForm {
    /// Reads the keys of `config.json`.
    ///
    /// Errors name the file and the key.
    pub fn read(config: &Json, file: &Path) -> Result<ModernForm> {
        let wrong = |key: &str, wanted: &str| Error::file(file, format!("`{key}` is {}, wanted {wanted}", config[key]));
        let or = |key: &str, default: usize| match &config[key] {
            Json::Null => Ok(default),
            value => value.as_u64().and_then(|x| usize::try_from(x).ok()).ok_or_else(|| wrong(key, "a number")),
        };
        let flag = |key: &str| match &config[key] {
            Json::Null => Ok(false),
            value => value.as_bool().ok_or_else(|| wrong(key, "true or false")),
        };
        let number =
            |key: &str| or(key, 0).and_then(|x| if x == 0 { Err(wrong(key, "a number above 0")) } else { Ok(x) });
        let layers = number("num_hidden_layers")?;
        let every = or("global_attn_every_n_layers", 3)?.max(1);
        let near = match &config["layer_types"] {
            Json::Null => (0..layers).map(|layer| layer % every != 0).collect(),
            Json::Array(kinds) if kinds.len() == layers => {
                let near = kinds.iter().map(|kind| match kind.as_str() {
                    Some("sliding_attention") => Ok(true),
                    Some("full_attention") => Ok(false),
                    _ => Err(wrong("layer_types", "full_attention and sliding_attention")),
                });
                near.collect::<Result<_>>()?
            }
            _ => return Err(wrong("layer_types", "one of each block")),
        };
        let theta = |kind: &str, old: &str, default: f64| {
            let rope = &config["rope_parameters"][kind];
            if let Some(other) = rope["rope_type"].as_str().filter(|name| *name != "default") {
                return Err(Error::file(file, format!("`rope_parameters.{kind}.rope_type` {other} is not known here")));
            }
            Ok(rope["rope_theta"].as_f64().or(config[old].as_f64()).unwrap_or(default))
        };
        let form = ModernForm {
            vocabulary: number("vocab_size")?,
            hidden: number("hidden_size")?,
            inner: number("intermediate_size")?,
            heads: number("num_attention_heads")?,
            eps: config["norm_eps"].as_f64().unwrap_or(1e-5),
            act: super::form::activation(config, "hidden_activation", file)?,
            positions: or("max_position_embeddings", 8192)?,
            near,
            reach: or("local_attention", 128)? / 2,
            theta: [
                theta("full_attention", "global_rope_theta", 160_000.0)?,
                theta("sliding_attention", "local_rope_theta", 10_000.0)?,
            ],
            biases: Biases { attention: flag("attention_bias")?, mlp: flag("mlp_bias")?, norm: flag("norm_bias")? },
        };
        if !form.hidden.is_multiple_of(form.heads) || !(form.hidden / form.heads).is_multiple_of(2) {
            return Err(Error::file(file, format!("{} heads do not divide a width of {}", form.heads, form.hidden)));
        }
        Ok(form)
    }
}

/// The encoder, with weights and states in f32.
pub(crate) struct ModernBert {
    form: ModernForm,
    /// [V, H]
    words: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    last_norm: Norm,
    /// Of each base.
    rotations: [Rotation; 2],
    products: Products,
}

struct Layer {
    /// None in the first block, whose input is normed already.
    attention_norm: Option<Norm>,
    /// q | k | v: [3 H, H]
    qkv: Affine,
    output: Affine,
    norm: Norm,
    /// What is activated | what it is multiplied by: [2 F, H]
    up: Affine,
    /// [H, F]
    down: Affine,
}

impl ModernBert {
    /// Builds the encoder from the tensors of `file`.
    ///
    /// Errors name the file and a tensor that is missing or of another shape than the config says.
    pub fn new(
        form: ModernForm,
        tensors: Source,
        file: &Path,
        (device, dtype, products): (&Device, DType, Products),
    ) -> Result<ModernBert> {
        let named = Named { tensors, file, prefix: "model.", device, dtype };
        let (hidden, inner) = (form.hidden, form.inner);
        let affine = |name: &str, outputs: usize, inputs: usize, bias: bool| {
            let of = |part: &str, shape: &[usize]| named.get(&[format!("{name}.{part}")], shape);
            let bias = if bias { Some(named.placed(&of("bias", &[outputs])?)?) } else { None };
            Ok::<_, Error>(Affine { weight: named.placed(&of("weight", &[outputs, inputs])?)?, bias })
        };
        let norm = |name: &str| {
            let weight = named.get(&[format!("{name}.weight")], &[hidden])?;
            let bias = match form.biases.norm {
                true => named.get(&[format!("{name}.bias")], &[hidden])?,
                false => weight.zeros_like()?,
            };
            named.norm_of(&weight, &bias)
        };
        let mut layers = Vec::with_capacity(form.near.len());
        for index in 0..form.near.len() {
            let name = |part: &str| format!("layers.{index}.{part}");
            layers.push(Layer {
                attention_norm: if index == 0 { None } else { Some(norm(&name("attn_norm"))?) },
                qkv: affine(&name("attn.Wqkv"), 3 * hidden, hidden, form.biases.attention)?,
                output: affine(&name("attn.Wo"), hidden, hidden, form.biases.attention)?,
                norm: norm(&name("mlp_norm"))?,
                up: affine(&name("mlp.Wi"), 2 * inner, hidden, form.biases.mlp)?,
                down: affine(&name("mlp.Wo"), hidden, inner, form.biases.mlp)?,
            });
        }
        let words = named.get(&["embeddings.tok_embeddings.weight".to_owned()], &[form.vocabulary, hidden])?;
        let [far, near] = form.theta.map(|theta| Rotation::new(form.positions, hidden / form.heads, theta, device));
        Ok(ModernBert {
            norm: norm("embeddings.norm")?,
            last_norm: norm("final_norm")?,
            words: named.placed(&words)?,
            layers,
            rotations: [far?, near?],
            products,
            form,
        })
    }

    /// The final states of all tokens of the texts, one text after the other: [T, H].
    ///
    /// Errors: a token outside the vocabulary, or more tokens in a text than there are positions.
    pub fn states(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let form = &self.form;
        let longest = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        if longest > form.positions {
            return Err(Error::input(format!("{longest} tokens; the encoder has {} positions", form.positions)));
        }
        let ids: Vec<u32> = texts.iter().flat_map(|ids| ids.iter().copied()).collect();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= form.vocabulary) {
            let text = format!("token id {id} is outside the encoder's vocabulary of {}", form.vocabulary);
            return Err(Error::input(text));
        }
        let depths: Vec<u32> = texts.iter().flat_map(|ids| 0..ids.len() as u32).collect();
        let mut x = embed::forward(&self.words, &ids)?;
        self.norm.apply(&x, form.eps)?;
        let texts = &Texts::new(texts, &x)?;
        for (layer, near) in self.layers.iter().zip(&form.near) {
            let normed = |norm: &Norm| -> Result<Tensor> {
                let h = x.copy()?;
                norm.apply(&h, form.eps)?;
                Ok(h)
            };
            let h = layer.attention_norm.as_ref().map_or_else(|| Ok(x.clone()), normed)?;
            let qkv = layer.qkv.forward(&h, None, self.products)?;
            let qkv = self.rotations[usize::from(*near)].turned(qkv, &depths, form.heads)?;
            let rules = Attention { reach: near.then_some(form.reach), ..Attention::default() };
            x = layer.output.forward(&attended(&qkv, texts, form.heads, rules)?, Some(&x), self.products)?;
            let h = x.copy()?;
            layer.norm.apply(&h, form.eps)?;
            let both = layer.up.forward(&h, None, self.products)?;
            x = layer.down.forward(&gated(&both, form.act)?, Some(&x), self.products)?;
        }
        self.last_norm.apply(&x, form.eps)?;
        Ok(x)
    }
}

/// The turns of queries and keys by their positions.
struct Rotation {
    /// cos | sin [P, D], D the width of a head.
    rows: Vec<f32>,
    /// The same as GPUs take it.
    table: RopeTable,
}

impl Rotation {
    fn new(positions: usize, head_dim: usize, theta: f64, device: &Device) -> Result<Rotation> {
        let rows = rotation(positions, head_dim, theta);
        let all = Tensor::from_slice(&rows, (positions, head_dim), &Device::Cpu)?;
        let half = |from: usize| all.narrow(1, from, head_dim / 2)?.contiguous()?.to_device(device);
        let table = RopeTable { cos: half(0)?, sin: half(head_dim / 2)? };
        Ok(Rotation { rows, table })
    }

    /// Queries and keys of q | k | v [T, 3 H] turned to their positions; takes it to change it.
    fn turned(&self, qkv: Tensor, depths: &[u32], heads: usize) -> Result<Tensor> {
        if kernel_for(&[&qkv]) == Kernel::F32 {
            rotate(&qkv, depths, heads, &self.rows)?;
            return Ok(qkv);
        }
        let head_dim = qkv.dim(D::Minus1)? / 3 / heads;
        let shape = Shape { heads, kv_heads: heads, head_dim, window: None, scale: 1.0, cap: None };
        rope::forward(qkv, &shape, None, &self.table, depths)
    }
}

/// cos | sin of the angles of each position, [P, D]: half of D pairs, computed in f32 as transformers does.
fn rotation(positions: usize, head_dim: usize, theta: f64) -> Vec<f32> {
    let half = head_dim / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|pair| 1.0 / (theta as f32).powf((2 * pair) as f32 / head_dim as f32)).collect();
    let row = |position: usize| {
        let angles = frequencies.iter().map(move |frequency| position as f32 * frequency);
        angles.clone().map(f32::cos).chain(angles.map(f32::sin)).collect::<Vec<_>>()
    };
    (0..positions).flat_map(row).collect()
}

/// Turns the queries and keys of q | k | v [T, 3 H] by their positions, in place: the pairs of a head are its halves.
fn rotate(qkv: &Tensor, depths: &[u32], heads: usize, rotation: &[f32]) -> Result<()> {
    let stride = qkv.dim(D::Minus1)?;
    let (width, head_dim) = (stride / 3, stride / 3 / heads);
    let half = head_dim / 2;
    debug_assert_eq!(qkv.dtype(), DType::F32);
    change::<f32>(qkv, |rows| {
        let chunk = rows_per_task(stride);
        rows.par_chunks_mut(chunk * stride).zip(depths.par_chunks(chunk)).for_each(|(rows, depths)| {
            for (row, depth) in rows.chunks_exact_mut(stride).zip(depths) {
                let (cos, sin) = rotation[*depth as usize * head_dim..][..head_dim].split_at(half);
                for head in row[..2 * width].chunks_exact_mut(head_dim) {
                    let (first, second) = head.split_at_mut(half);
                    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        });
    })
}
