//! BERT on a CPU: texts stand one after the other without padding, and every step is parallel over rows.
//!
//! Other devices compute it by candle-transformers, which this is tested against.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use candle_transformers::models::bert::{Config, HiddenAct};
use rayon::prelude::*;

use crate::ops::attention::{Rows, softmax_row};
use crate::ops::embed;
use crate::ops::linear;
use crate::ops::matrix::{By, Into, Matrix, MatrixMut, Products, multiply};
use crate::ops::real::{Real, vectorised};
use crate::ops::{change, rows_per_task, tensor, view};
use crate::{DType, Error, Result};

// T tokens of all texts, H hidden width, A heads, D head width, F feed-forward width.

/// A BERT encoder without its pooler, with weights and states in f32.
pub(crate) struct Bert {
    heads: usize,
    eps: f64,
    act: HiddenAct,
    /// [V, H]
    words: Tensor,
    /// [P, H], to which the embedding of the only token type used here is added.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    /// Of the linear layers.
    products: Products,
}

struct Layer {
    /// q | k | v: [3 H, H]
    qkv: Affine,
    output: Affine,
    attention_norm: Norm,
    /// [F, H]
    up: Affine,
    /// [H, F]
    down: Affine,
    norm: Norm,
}

struct Affine {
    weight: Tensor,
    bias: Tensor,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

/// The tensors of a file, under the names of BERT with or without its prefix.
struct Named<'a> {
    tensors: HashMap<String, Tensor>,
    file: &'a Path,
}

impl Named<'_> {
    fn get(&self, names: &[String], shape: &[usize]) -> Result<Tensor> {
        let found = names.iter().find_map(|name| {
            let prefixed = format!("bert.{name}");
            self.tensors.get(name).or_else(|| self.tensors.get(&prefixed))
        });
        let tensor = found.ok_or_else(|| Error::file(self.file, format!("tensor {} is missing", names[0])))?;
        if tensor.dims() != shape {
            let got = tensor.dims();
            let what = format!("tensor {} is {got:?}; config.json wants {shape:?}", names[0]);
            return Err(Error::file(self.file, what));
        }
        Ok(tensor.to_dtype(DType::F32)?.contiguous()?)
    }

    fn affine(&self, name: &str, outputs: usize, inputs: usize) -> Result<Affine> {
        let of = |kind: &str, shape: &[usize]| self.get(&[format!("{name}.{kind}")], shape);
        Ok(Affine { weight: of("weight", &[outputs, inputs])?, bias: of("bias", &[outputs])? })
    }

    /// Older files say gamma and beta.
    fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let of = |new: &str, old: &str| {
            self.get(&[format!("{name}.LayerNorm.{new}"), format!("{name}.LayerNorm.{old}")], &[width])
        };
        Ok(Norm { weight: of("weight", "gamma")?, bias: of("bias", "beta")? })
    }
}

impl Bert {
    /// Builds the encoder from the tensors of `file`.
    ///
    /// Errors name the file and a tensor that is missing or of another shape than the config says.
    pub fn new(config: &Config, tensors: HashMap<String, Tensor>, file: &Path, products: Products) -> Result<Bert> {
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
        if heads == 0 || hidden % heads != 0 {
            return Err(Error::file(file, format!("{heads} heads do not divide a width of {hidden}")));
        }
        let named = Named { tensors, file };
        let table =
            |name: &str, rows: usize| named.get(&[format!("embeddings.{name}_embeddings.weight")], &[rows, hidden]);
        let kind = table("token_type", config.type_vocab_size)?.narrow(0, 0, 1)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            let name = |part: &str| format!("encoder.layer.{index}.{part}");
            let part = |part: &str| named.affine(&name(&format!("attention.self.{part}")), hidden, hidden);
            let parts = [part("query")?, part("key")?, part("value")?];
            let qkv = Affine {
                weight: Tensor::cat(&parts.each_ref().map(|part| &part.weight), 0)?,
                bias: Tensor::cat(&parts.each_ref().map(|part| &part.bias), 0)?,
            };
            layers.push(Layer {
                qkv,
                output: named.affine(&name("attention.output.dense"), hidden, hidden)?,
                attention_norm: named.norm(&name("attention.output"), hidden)?,
                up: named.affine(&name("intermediate.dense"), inner, hidden)?,
                down: named.affine(&name("output.dense"), hidden, inner)?,
                norm: named.norm(&name("output"), hidden)?,
            });
        }
        Ok(Bert {
            heads,
            eps: config.layer_norm_eps,
            act: config.hidden_act,
            words: table("word", config.vocab_size)?,
            positions: table("position", config.max_position_embeddings)?.broadcast_add(&kind)?,
            norm: named.norm("embeddings", hidden)?,
            layers,
            products,
        })
    }

    /// The final states of all tokens of the texts, one text after the other: [T, H].
    ///
    /// Errors: a token outside the vocabulary, or more tokens in a text than there are positions.
    pub fn states(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let vocabulary = self.words.dim(0)?;
        let longest = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        if longest > self.positions.dim(0)? {
            return Err(Error::input(format!(
                "{longest} tokens; the encoder has {} positions",
                self.positions.dim(0)?
            )));
        }
        let ids: Vec<u32> = texts.iter().flat_map(|ids| ids.iter().copied()).collect();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::input(format!("token id {id} is outside the encoder's vocabulary of {vocabulary}")));
        }
        let depths: Vec<u32> = texts.iter().flat_map(|ids| 0..ids.len() as u32).collect();
        let mut x = (embed::forward(&self.words, &ids)? + embed::forward(&self.positions, &depths)?)?;
        self.norm.apply(&x, self.eps)?;
        for layer in &self.layers {
            let qkv = layer.qkv.forward(&x, None, self.products)?;
            x = layer.output.forward(&attended(&qkv, texts, self.heads)?, Some(&x), self.products)?;
            layer.attention_norm.apply(&x, self.eps)?;
            let inner = layer.up.forward(&x, None, self.products)?;
            activate(&inner, self.act)?;
            x = layer.down.forward(&inner, Some(&x), self.products)?;
            layer.norm.apply(&x, self.eps)?;
        }
        Ok(x)
    }
}

impl Affine {
    /// residual + x W^T + b
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, products: Products) -> Result<Tensor> {
        linear::forward(x, &self.weight, Some(&self.bias), residual, products)
    }
}

impl Norm {
    /// Changes rows in place: to mean 0 and variance 1, times the weight, plus the bias.
    fn apply(&self, x: &Tensor, eps: f64) -> Result<()> {
        let width = x.dim(1)?;
        let (weight, bias) = (view::<f32>(&self.weight)?, view::<f32>(&self.bias)?);
        change::<f32>(x, |x| {
            x.par_chunks_mut(width * rows_per_task(width)).for_each(|rows| normalise(rows, &weight, &bias, eps as f32));
        })
    }
}

vectorised! {
    fn normalise<T: Real>(rows: &mut [T], weight: &[T], bias: &[T], eps: T) {
        const LANES: usize = 16;
        let count = T::of(weight.len() as f64);
        for row in rows.chunks_exact_mut(weight.len()) {
            let mut lanes = [T::zero(); LANES];
            for block in row.chunks(LANES) {
                for (lane, &x) in lanes.iter_mut().zip(block) {
                    *lane += x;
                }
            }
            let mut mean = T::zero();
            for lane in lanes {
                mean += lane;
            }
            mean /= count;
            let mut lanes = [T::zero(); LANES];
            for block in row.chunks(LANES) {
                for (lane, &x) in lanes.iter_mut().zip(block) {
                    *lane += (x - mean) * (x - mean);
                }
            }
            let mut variance = T::zero();
            for lane in lanes {
                variance += lane;
            }
            let scale = T::one() / (variance / count + eps).sqrt();
            for ((x, &weight), &bias) in row.iter_mut().zip(weight).zip(bias) {
                *x = (*x - mean) * scale * weight + bias;
            }
        }
    }
}

/// Attention of every token to all tokens of its text: [T, H] of q | k | v [T, 3 H].
fn attended(qkv: &Tensor, texts: &[&[u32]], heads: usize) -> Result<Tensor> {
    let (rows, stride) = qkv.dims2()?;
    let width = stride / 3;
    let (head_dim, qkv) = (width / heads, view::<f32>(qkv)?);
    let mut out = vec![0_f32; rows * width];
    let (mut rest, mut first, mut work) = (&mut out[..], 0, Vec::with_capacity(texts.len()));
    for ids in texts {
        let (own, after) = rest.split_at_mut(ids.len() * width);
        work.push((first, ids.len(), own));
        (rest, first) = (after, first + ids.len());
    }
    let scale = 1.0 / (head_dim as f32).sqrt();
    work.into_par_iter().filter(|(_, len, _)| *len > 0).for_each_init(Vec::new, |scores, (first, len, out)| {
        scores.resize(len * len, 0_f32);
        let part = |part: usize| Rows { data: &qkv[part * width..], stride };
        for head in 0..heads {
            let of = |index: usize| part(index).block(first, len, head, head_dim);
            let into = MatrixMut::new(scores, len, len, len);
            multiply(of(0), of(1).t(), into, Into::Fresh, By::One);
            for row in scores.chunks_exact_mut(len) {
                softmax_row(row, scale);
            }
            let out = MatrixMut::new(&mut out[head * head_dim..], len, head_dim, width);
            multiply(Matrix::new(scores, len, len, len), of(2), out, Into::Fresh, By::One);
        }
    });
    tensor(out, (rows, width))
}

/// Applies the activation to all numbers, in place.
fn activate(x: &Tensor, act: HiddenAct) -> Result<()> {
    change::<f32>(x, |x| {
        x.par_chunks_mut(rows_per_task(1)).for_each(|x| match act {
            HiddenAct::Gelu => gelu(x),
            HiddenAct::GeluApproximate => gelu_by_tanh(x),
            HiddenAct::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
        });
    })
}

vectorised! {
    /// x Phi(x), with erf as Abramowitz and Stegun 7.1.26 have it: within 1.5e-7.
    fn gelu<T: Real>(row: &mut [T]) {
        let of = T::of;
        for x in row.iter_mut() {
            let z = if *x < T::zero() { T::zero() - *x } else { *x } * of(std::f64::consts::FRAC_1_SQRT_2);
            let t = T::one() / (T::one() + of(0.327_591_1) * z);
            let p = ((((of(1.061_405_429) * t - of(1.453_152_027)) * t + of(1.421_413_741)) * t - of(0.284_496_736)) * t
                + of(0.254_829_592)) * t;
            let tail = p * (T::zero() - z * z).exp() * of(0.5); // 1 - Phi(|x|)
            *x = if *x < T::zero() { *x * tail } else { *x * (T::one() - tail) };
        }
    }
}

vectorised! {
    /// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which is x sigma(2 ...).
    fn gelu_by_tanh<T: Real>(row: &mut [T]) {
        let of = T::of;
        for x in row.iter_mut() {
            let inner = of(2.0 * 0.797_884_560_802_865_4) * (*x + of(0.044_715) * *x * *x * *x);
            *x /= T::one() + (T::zero() - inner).exp();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use candle_nn::VarBuilder;
    use candle_transformers::models::bert::BertModel;

    fn random(name: &str, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        Tensor::from_vec(crate::random::normal(7, name, n, 0.2), shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn packed_texts_have_the_states_that_candle_gives_them_one_by_one() {
        for act in [HiddenAct::Gelu, HiddenAct::GeluApproximate, HiddenAct::Relu] {
            let config = Config {
                vocab_size: 50,
                hidden_size: 24,
                num_hidden_layers: 2,
                num_attention_heads: 3,
                intermediate_size: 40,
                hidden_act: act,
                max_position_embeddings: 70,
                ..Config::default()
            };
            let mut tensors = HashMap::new();
            let mut add = |name: String, shape: &[usize]| {
                let tensor = random(&name, shape);
                tensors.insert(name, tensor);
            };
            for (name, rows) in [("word", 50), ("position", 70), ("token_type", 2)] {
                add(format!("embeddings.{name}_embeddings.weight"), &[rows, 24]);
            }
            let mut affine = vec![("embeddings.LayerNorm".to_owned(), vec![24])];
            for layer in 0..2 {
                for (name, shape) in [
                    ("attention.self.query", vec![24, 24]),
                    ("attention.self.key", vec![24, 24]),
                    ("attention.self.value", vec![24, 24]),
                    ("attention.output.dense", vec![24, 24]),
                    ("attention.output.LayerNorm", vec![24]),
                    ("intermediate.dense", vec![40, 24]),
                    ("output.dense", vec![24, 40]),
                    ("output.LayerNorm", vec![24]),
                ] {
                    affine.push((format!("encoder.layer.{layer}.{name}"), shape));
                }
            }
            for (name, shape) in affine {
                add(format!("{name}.weight"), &shape);
                add(format!("{name}.bias"), &shape[..1]);
            }
            let builder = VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
            let candle = BertModel::load(builder, &config).unwrap();
            let rounded = Bert::new(&config, tensors.clone(), Path::new("here"), Products::Rounded).unwrap();
            let bert = Bert::new(&config, tensors, Path::new("here"), Products::Exact).unwrap();
            let texts: Vec<Vec<u32>> =
                [5, 1, 70, 33].iter().map(|&n| (0..n).map(|i| (i * 7 + n) % 50).collect()).collect();
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let packed = bert.states(&slices).unwrap().to_vec2::<f32>().unwrap();
            let rounded = rounded.states(&slices).unwrap().to_vec2::<f32>().unwrap();
            let off = packed.iter().flatten().zip(rounded.iter().flatten()).map(|(a, b)| (a - b).abs());
            let off = off.fold(0_f32, f32::max);
            assert!(off > 1e-4 && off < 0.05, "{act:?}: states in bf16 are {off} off");
            let mut row = 0;
            for ids in &texts {
                let ids = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
                let want = candle.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap().squeeze(0).unwrap();
                for want in want.to_vec2::<f32>().unwrap() {
                    for (got, want) in packed[row].iter().zip(want) {
                        assert!((got - want).abs() < 2e-5, "{act:?} row {row}: {got}, want {want}");
                    }
                    row += 1;
                }
            }
            assert_eq!(row, packed.len());
            assert!(bert.states(&[&[50]]).unwrap_err().to_string().contains("outside"));
            assert!(bert.states(&[&[1; 71]]).unwrap_err().to_string().contains("70 positions"));
        }
    }
}
