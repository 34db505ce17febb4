//! Parts of encoders on a CPU: texts stand one after the other without padding, and every step is parallel over rows.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use candle_transformers::models::bert::HiddenAct;
use rayon::prelude::*;

use crate::ops::attention::{Rows, softmax_row};
use crate::ops::linear;
use crate::ops::matrix::{By, Into, Matrix, MatrixMut, Products, multiply};
use crate::ops::real::{Real, vectorised};
use crate::ops::{change, rows_per_task, tensor, view};
use crate::{DType, Error, Result};

// T tokens of all texts, H hidden width.

/// x W^T + b, b where there is one.
pub(crate) struct Affine {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

/// The norm of a row to mean 0 and variance 1, times the weight, plus the bias.
pub(crate) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
}

/// The tensors of a file, under the names of an architecture with or without its prefix, such as `bert.`.
pub(crate) struct Named<'a> {
    pub tensors: HashMap<String, Tensor>,
    pub file: &'a Path,
    pub prefix: &'static str,
}

impl Named<'_> {
    /// The tensor under the first of some names that is there, in f32.
    ///
    /// Errors: none is there, or it has another shape.
    pub fn get(&self, names: &[String], shape: &[usize]) -> Result<Tensor> {
        let found = names.iter().find_map(|name| {
            let prefixed = format!("{}{name}", self.prefix);
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

    /// A linear layer with a bias.
    pub fn affine(&self, name: &str, outputs: usize, inputs: usize) -> Result<Affine> {
        let of = |kind: &str, shape: &[usize]| self.get(&[format!("{name}.{kind}")], shape);
        Ok(Affine { weight: of("weight", &[outputs, inputs])?, bias: Some(of("bias", &[outputs])?) })
    }

    /// A norm; older files say gamma and beta.
    pub fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let of = |new: &str, old: &str| self.get(&[format!("{name}.{new}"), format!("{name}.{old}")], &[width]);
        Ok(Norm { weight: of("weight", "gamma")?, bias: of("bias", "beta")? })
    }
}

impl Affine {
    /// residual + x W^T + b
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>, products: Products) -> Result<Tensor> {
        linear::forward(x, &self.weight, self.bias.as_ref(), residual, products)
    }
}

impl Norm {
    /// Changes rows in place: to mean 0 and variance 1, times the weight, plus the bias.
    pub fn apply(&self, x: &Tensor, eps: f64) -> Result<()> {
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

/// Rules of attention beside the products of queries and keys.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attention<'a> {
    /// Added to scaled scores: for each head, by the distance from a query to a key, from -(n - 1) to n - 1; and n.
    pub by_distance: Option<(&'a [f32], usize)>,
    /// The largest distance from a token to one that it sees.
    pub reach: Option<usize>,
}

/// Rows of scores at once: the memory of long texts stays bounded.
const QUERIES: usize = 512;

/// Attention of every token to the tokens of its text: [T, H] of q | k | v [T, 3 H].
pub(crate) fn attended(qkv: &Tensor, texts: &[&[u32]], heads: usize, rules: Attention<'_>) -> Result<Tensor> {
    let (rows, stride) = qkv.dims2()?;
    let width = stride / 3;
    let (head_dim, qkv) = (width / heads, view::<f32>(qkv)?);
    let mut out = vec![0_f32; rows * width];
    let (mut rest, mut first, mut work) = (&mut out[..], 0, Vec::with_capacity(texts.len()));
    for ids in texts {
        let (own, after) = rest.split_at_mut(ids.len() * width);
        for (block, own) in own.chunks_mut(QUERIES * width).enumerate() {
            work.push((first, ids.len(), block * QUERIES, own));
        }
        (rest, first) = (after, first + ids.len());
    }
    let scale = 1.0 / (head_dim as f32).sqrt();
    work.into_par_iter().for_each_init(Vec::new, |scores, (first, len, query, out)| {
        let queries = out.len() / width;
        let from = rules.reach.map_or(0, |reach| query.saturating_sub(reach));
        let to = rules.reach.map_or(len, |reach| (query + queries + reach).min(len));
        let keys = to - from;
        scores.resize(queries * keys, 0_f32);
        let part = |part: usize| Rows { data: &qkv[part * width..], stride };
        for head in 0..heads {
            let of = |index: usize, row: usize, rows: usize| part(index).block(first + row, rows, head, head_dim);
            let into = MatrixMut::new(scores, queries, keys, keys);
            multiply(of(0, query, queries), of(1, from, keys).t(), into, Into::Fresh, By::One);
            for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
                let at = query + row;
                if let Some((bias, distances)) = rules.by_distance {
                    let zero = head * (2 * distances - 1) + distances - 1;
                    let bias = &bias[zero + from - at..][..keys];
                    scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias / scale);
                }
                if let Some(reach) = rules.reach {
                    scores[..at.saturating_sub(from + reach)].fill(f32::NEG_INFINITY);
                    scores[(at + reach + 1 - from).min(keys)..].fill(f32::NEG_INFINITY);
                }
                softmax_row(scores, scale);
            }
            let out = MatrixMut::new(&mut out[head * head_dim..], queries, head_dim, width);
            multiply(Matrix::new(scores, queries, keys, keys), of(2, from, keys), out, Into::Fresh, By::One);
        }
    });
    tensor(out, (rows, width))
}

/// Applies the activation to all numbers, in place.
pub(crate) fn activate(x: &Tensor, act: HiddenAct) -> Result<()> {
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
