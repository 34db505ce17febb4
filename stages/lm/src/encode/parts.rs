//! Parts of encoders: texts stand one after the other without padding. On a CPU every step is parallel over rows.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;
use candle_transformers::models::bert::HiddenAct;
use rayon::prelude::*;

use crate::model::tensor_file::Stored;
use crate::ops::attention::{Rows, softmax_row};
use crate::ops::linear;
use crate::ops::matrix::{By, Into, Matrix, MatrixMut, multiply};
use crate::ops::real::{Real, vectorised};
use crate::ops::rounded::Products;
#[cfg(any(feature = "cuda", test))]
use crate::ops::{Kernel, cuda, kernel_for};
use crate::ops::{change, rows_per_task, tensor, view};
use crate::{DType, Device, Error, Result};

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

/// The tensors of a file: read, or by its header alone. Of these an encoder is put together that stands for the whole: it
/// has the same faults and computes nothing.
pub(crate) enum Source {
    Read(HashMap<String, Tensor>),
    Listed(BTreeMap<String, Stored>),
}

/// Numbers of a tensor that stands for one of a header, at most.
const STAND_IN: usize = 1 << 17;

/// The tensors of a file, under the names of an architecture with or without its prefix, such as `bert.`.
pub(crate) struct Named<'a> {
    pub tensors: Source,
    pub file: &'a Path,
    pub prefix: &'static str,
    /// Where matrices and tables go, and in which dtype; norms stay in f32.
    pub device: &'a Device,
    pub dtype: DType,
}

impl Named<'_> {
    /// The tensor under the first of some names that is there, in f32.
    ///
    /// Errors: none is there, or it has another shape.
    pub fn get(&self, names: &[String], shape: &[usize]) -> Result<Tensor> {
        let stored = |name: String| match &self.tensors {
            Source::Read(tensors) => tensors.get(&name).map(|tensor| (tensor.dims(), Some(tensor))),
            Source::Listed(header) => header.get(&name).map(|stored| (&stored.shape[..], None)),
        };
        let both = |name: &String| [name.clone(), format!("{}{name}", self.prefix)];
        let found = names.iter().flat_map(both).find_map(stored);
        let (got, tensor) = found.ok_or_else(|| Error::file(self.file, format!("tensor {} is missing", names[0])))?;
        if got != shape {
            let what = format!("tensor {} is {got:?}; config.json wants {shape:?}", names[0]);
            return Err(Error::file(self.file, what));
        }
        match tensor {
            Some(tensor) => Ok(tensor.to_dtype(DType::F32)?.contiguous()?),
            None => {
                let small = shape.iter().product::<usize>() <= STAND_IN;
                let shape = shape.iter().map(|size| if small { *size } else { 1 }).collect::<Vec<_>>();
                Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
            }
        }
    }

    /// A tensor where it is computed with.
    pub fn placed(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.to_device(self.device)?.to_dtype(self.dtype)?)
    }

    /// A linear layer with a bias.
    pub fn affine(&self, name: &str, outputs: usize, inputs: usize) -> Result<Affine> {
        let of = |kind: &str, shape: &[usize]| self.get(&[format!("{name}.{kind}")], shape);
        let (weight, bias) = (of("weight", &[outputs, inputs])?, of("bias", &[outputs])?);
        Ok(Affine { weight: self.placed(&weight)?, bias: Some(self.placed(&bias)?) })
    }

    /// A norm; older files say gamma and beta.
    pub fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let of = |new: &str, old: &str| self.get(&[format!("{name}.{new}"), format!("{name}.{old}")], &[width]);
        self.norm_of(&of("weight", "gamma")?, &of("bias", "beta")?)
    }

    /// A norm of these numbers.
    pub fn norm_of(&self, weight: &Tensor, bias: &Tensor) -> Result<Norm> {
        Ok(Norm { weight: weight.to_device(self.device)?, bias: bias.to_device(self.device)? })
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
        #[cfg(any(feature = "cuda", test))]
        if kernel_for(&[x]) == Kernel::Cuda {
            return cuda::encode::layer_norm(x, &self.weight, &self.bias, eps);
        }
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

/// Texts of an encoder's call, one after the other.
pub(crate) struct Texts<'a> {
    ids: &'a [&'a [u32]],
    #[cfg(any(feature = "cuda", test))]
    there: Option<cuda::encode::Texts>,
}

impl<'a> Texts<'a> {
    /// Of an encoder whose states are like a tensor.
    pub fn new(ids: &'a [&'a [u32]], like: &Tensor) -> Result<Texts<'a>> {
        #[cfg(any(feature = "cuda", test))]
        let there = match kernel_for(&[like]) {
            Kernel::Cuda => {
                let lengths: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
                Some(cuda::encode::Texts::new(&lengths, like.device())?)
            }
            _ => None,
        };
        #[cfg(not(any(feature = "cuda", test)))]
        let _ = like;
        Ok(Texts {
            ids,
            #[cfg(any(feature = "cuda", test))]
            there,
        })
    }
}

/// Rules of attention beside the products of queries and keys.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attention<'a> {
    /// Added to scaled scores: for each head, by the distance from a query to a key, from -(n - 1) to n - 1; and n.
    pub by_distance: Option<(&'a Tensor, usize)>,
    /// The largest distance from a token to one that it sees.
    pub reach: Option<usize>,
}

/// Rows of scores at once: the memory of long texts stays bounded.
const QUERIES: usize = 512;

/// Attention of every token to the tokens of its text: [T, H] of q | k | v [T, 3 H].
pub(crate) fn attended(qkv: &Tensor, texts: &Texts<'_>, heads: usize, rules: Attention<'_>) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if let Some(there) = &texts.there {
        return cuda::encode::attended(qkv, there, heads, rules.by_distance, rules.reach);
    }
    let (rows, stride) = qkv.dims2()?;
    let by_distance = rules.by_distance.map(|(bias, distances)| Ok::<_, Error>((view::<f32>(bias)?, distances)));
    let by_distance = by_distance.transpose()?;
    let width = stride / 3;
    let (head_dim, qkv) = (width / heads, view::<f32>(qkv)?);
    let mut out = vec![0_f32; rows * width];
    let (mut rest, mut first, mut work) = (&mut out[..], 0, Vec::with_capacity(texts.ids.len()));
    for ids in texts.ids {
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
                if let Some((bias, distances)) = &by_distance {
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

/// The activation of all numbers; takes x to change it.
pub(crate) fn activated(x: Tensor, act: HiddenAct) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[&x]) == Kernel::Cuda {
        return cuda::encode::activate(&x, of_kernels(act), false);
    }
    change::<f32>(&x, |x| {
        x.par_chunks_mut(rows_per_task(1)).for_each(|x| match act {
            HiddenAct::Gelu => gelu(x),
            HiddenAct::GeluApproximate => gelu_by_tanh(x),
            HiddenAct::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
        });
    })?;
    Ok(x)
}

/// The activation of the first half of the columns times the other half: [T, F] of [T, 2 F].
pub(crate) fn gated(both: &Tensor, act: HiddenAct) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[both]) == Kernel::Cuda {
        return cuda::encode::activate(both, of_kernels(act), true);
    }
    let inner = both.dim(1)? / 2;
    let half = |from: usize| both.narrow(1, from, inner)?.contiguous();
    Ok((activated(half(0)?.copy()?, act)? * half(inner)?)?)
}

#[cfg(any(feature = "cuda", test))]
fn of_kernels(act: HiddenAct) -> cuda::encode::Act {
    match act {
        HiddenAct::Gelu => cuda::encode::Act::Gelu,
        HiddenAct::GeluApproximate => cuda::encode::Act::GeluTanh,
        HiddenAct::Relu => cuda::encode::Act::Relu,
    }
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
    use crate::ops::cuda::tests::{agrees, numbers};

    /// Texts of one token and of several tiles; heads that a kernel fits and ones that it pads; near tokens alone, and
    /// a bias by distance.
    #[test]
    fn attention_on_a_gpu_is_that_of_the_cpu() {
        let lengths = [1, 70, 150, 64];
        let rows: usize = lengths.iter().sum();
        let owned = lengths.map(|length| vec![0; length]);
        let ids: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
        for (heads, head_dim, reach, biased) in
            [(2, 32, None, false), (1, 8, Some(4), false), (2, 24, None, true), (1, 64, Some(64), true)]
        {
            let bias = numbers(3, &[heads, 2 * 150 - 1]);
            agrees(0.03, &[numbers(1, &[rows, 3 * heads * head_dim]), bias], |t| {
                let bias = t[1].to_dtype(DType::F32)?;
                let rules = Attention { by_distance: biased.then_some((&bias, 150)), reach };
                Ok(vec![attended(&t[0], &Texts::new(&ids, &t[0])?, heads, rules)?])
            });
        }
    }

    #[test]
    fn norms_and_activations_on_a_gpu_are_those_of_the_cpu() {
        for (rows, width) in [(1, 3), (5, 19), (3, 1032)] {
            agrees(0.02, &[numbers(1, &[rows, 2 * width]), numbers(2, &[2 * width]), numbers(3, &[2 * width])], |t| {
                let norm = Norm { weight: t[1].to_dtype(DType::F32)?, bias: t[2].to_dtype(DType::F32)? };
                let normed = t[0].copy()?;
                norm.apply(&normed, 1e-5)?;
                let mut all = vec![normed];
                for act in [HiddenAct::Gelu, HiddenAct::GeluApproximate, HiddenAct::Relu] {
                    all.extend([activated(t[0].copy()?, act)?, gated(&t[0], act)?]);
                }
                Ok(all)
            });
        }
    }
}
