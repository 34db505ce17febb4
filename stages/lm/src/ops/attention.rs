//! Causal attention of packed rows over the paths of a forest, and of new rows over a cache.
//!
//! The work is cut into tiles: up to 64 query rows of one path, and the spans of key rows on that path. Along a
//! path depths run without a gap, so that what a query sees is one interval of depths: from its window's edge to
//! itself. Scores exist for one tile and one head at a time; [T, T] never exists.

use crate::model::forest::Span;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::matrix::{By, Into, Matrix, MatrixMut, multiply};
use crate::ops::real::{Real, exp_in_place, largest, vectorised};
use crate::ops::tiles::{Shape, Tile, Tiles, visible};
use crate::ops::{Kernel, kernel_for, tensor, view};
use crate::{DType, Device, Error, Result};
use candle_core::{D, Tensor};
use rayon::prelude::*;

// T rows, A query heads, G key-value heads, D head width, K keys of a tile.

/// Attention of packed rows q | k | v [T, (A + 2 G) D]: gives the output [T, A D] and, where asked for, the
/// log-sum-exp of each row's scores [T, A], which the backward needs.
pub(crate) fn forward(qkv: &Tensor, tiles: &Tiles, shape: &Shape, lse: bool) -> Result<(Tensor, Option<Tensor>)> {
    match kernel_for(&[qkv]) {
        Kernel::F32 => packed_on_cpu::<f32>(qkv, tiles, shape, lse),
        Kernel::F64 => packed_on_cpu::<f64>(qkv, tiles, shape, lse),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda if cuda::attention::fits(shape) => cuda::attention::packed(qkv, tiles, shape, lse),
        _ => {
            let (width, keys) = (shape.query_width(), shape.key_width());
            let q = qkv.narrow(D::Minus1, 0, width)?;
            let k = qkv.narrow(D::Minus1, width, keys)?;
            let v = qkv.narrow(D::Minus1, width + keys, keys)?;
            forward_plain(&q, &k, &v, tiles, shape)
        }
    }
}

/// Attention of the queries of new rows q | k | v [T, (A + 2 G) D] over cached keys and values [C, G D]: [T, A D].
pub(crate) fn forward_cached(qkv: &Tensor, k: &Tensor, v: &Tensor, tiles: &Tiles, shape: &Shape) -> Result<Tensor> {
    match kernel_for(&[qkv, k, v]) {
        Kernel::F32 => cached_on_cpu::<f32>(qkv, k, v, tiles, shape),
        Kernel::F64 => cached_on_cpu::<f64>(qkv, k, v, tiles, shape),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda if cuda::attention::fits(shape) => cuda::decode::cached(qkv, k, v, tiles, shape),
        _ => {
            let q = qkv.narrow(D::Minus1, 0, shape.query_width())?;
            Ok(forward_plain(&q, k, v, tiles, shape)?.0)
        }
    }
}

fn packed_on_cpu<T: Real>(qkv: &Tensor, tiles: &[Tile], shape: &Shape, lse: bool) -> Result<(Tensor, Option<Tensor>)> {
    let rows = qkv.dim(0)?;
    let qkv = view::<T>(qkv)?;
    let (width, keys) = (shape.query_width(), shape.key_width());
    let stride = shape.width();
    let q = Rows { data: &qkv, stride };
    let k = Rows { data: &qkv[width.min(qkv.len())..], stride };
    let v = Rows { data: &qkv[(width + keys).min(qkv.len())..], stride };
    let (out, sums) = attend(q, k, v, rows, tiles, shape);
    let sums = if lse { Some(tensor(sums, (rows, shape.heads))?) } else { None };
    Ok((tensor(out, (rows, width))?, sums))
}

fn cached_on_cpu<T: Real>(qkv: &Tensor, k: &Tensor, v: &Tensor, tiles: &[Tile], shape: &Shape) -> Result<Tensor> {
    let rows = qkv.dim(0)?;
    let (qkv, k, v) = (view::<T>(qkv)?, view::<T>(k)?, view::<T>(v)?);
    let q = Rows { data: &qkv, stride: shape.width() };
    let stride = shape.key_width();
    let (out, _) = attend(q, Rows { data: &k, stride }, Rows { data: &v, stride }, rows, tiles, shape);
    tensor(out, (rows, shape.query_width()))
}

/// Rows of numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Rows of a span, the columns of one head.
    pub fn block(&self, row: usize, rows: usize, head: usize, head_dim: usize) -> Matrix<'a, T> {
        Matrix::new(&self.data[row * self.stride + head * head_dim..], rows, head_dim, self.stride)
    }
}

/// The output [rows, A D] and the log-sum-exps [rows, A] of tiles that cover the rows in order.
fn attend<T: Real>(q: Rows<T>, k: Rows<T>, v: Rows<T>, rows: usize, tiles: &[Tile], shape: &Shape) -> (Vec<T>, Vec<T>) {
    let (width, heads) = (shape.query_width(), shape.heads);
    let (mut out, mut lse) = (T::zeros(rows * width), T::zeros(rows * heads));
    let (mut out_rest, mut lse_rest) = (&mut out[..], &mut lse[..]);
    let mut work = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let (out_rows, rest) = std::mem::take(&mut out_rest).split_at_mut(tile.queries.len * width);
        out_rest = rest;
        let (lse_rows, rest) = std::mem::take(&mut lse_rest).split_at_mut(tile.queries.len * heads);
        lse_rest = rest;
        work.push((tile, out_rows, lse_rows));
    }
    work.into_par_iter().for_each_init(Vec::new, |scores, (tile, out, lse)| {
        let (spans, keys) = visible(tile, shape);
        let len = tile.queries.len;
        scores.resize(len * keys, T::zero());
        for head in 0..heads {
            let q = q.block(tile.queries.row, len, head, shape.head_dim);
            score(q, k, &spans, head / shape.group(), shape, scores, keys);
            soften(scores, keys, spans[0].depth, tile.queries.depth, shape, head, lse);
            let mut into = Into::Fresh;
            let mut column = 0;
            for span in &spans {
                let weights = Matrix::new(&scores[column..], len, span.len, keys);
                let v = v.block(span.row, span.len, head / shape.group(), shape.head_dim);
                let out = MatrixMut::new(&mut out[head * shape.head_dim..], len, shape.head_dim, width);
                multiply(weights, v, out, into, By::One);
                into = Into::Added;
                column += span.len;
            }
        }
    });
    (out, lse)
}

/// Scores q k^T, not scaled, of one head over key spans: [len, K].
pub(crate) fn score<T: Real>(
    q: Matrix<T>,
    k: Rows<T>,
    spans: &[Span],
    kv_head: usize,
    shape: &Shape,
    scores: &mut [T],
    keys: usize,
) {
    let len = scores.len() / keys;
    let mut column = 0;
    for span in spans {
        let k = k.block(span.row, span.len, kv_head, shape.head_dim).t();
        multiply(q, k, MatrixMut::new(&mut scores[column..], len, span.len, keys), Into::Fresh, By::One);
        column += span.len;
    }
}

/// Turns scores into probabilities in place, 0 where a key is not visible, and notes the log-sum-exp of each row.
fn soften<T: Real>(
    scores: &mut [T],
    keys: usize,
    first_depth: usize,
    query_depth: usize,
    shape: &Shape,
    head: usize,
    lse: &mut [T],
) {
    for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
        let seen = shape.seen(query_depth + i, first_depth);
        row[..seen.start].fill(T::zero());
        row[seen.end..].fill(T::zero());
        let row = &mut row[seen];
        lse[i * shape.heads + head] = match shape.cap {
            None => softmax_row(row, T::of(shape.scale)),
            Some(cap) => {
                bound_row(row, T::of(shape.scale / cap));
                softmax_row(row, T::of(cap))
            }
        };
    }
}

vectorised! {
    /// Softmax of scale * row in place; gives the log-sum-exp.
    fn softmax_row<T: Real>(row: &mut [T], scale: T) -> T {
        let shift = largest(row) * scale;
        let sum = exp_in_place(row, scale, shift);
        let inverse = T::one() / sum;
        for x in row.iter_mut() {
            *x *= inverse;
        }
        shift + T::of(sum.to_f64().ln())
    }
}

vectorised! {
    /// Replaces each x of a row by tanh(factor * x).
    fn bound_row<T: Real>(row: &mut [T], factor: T) {
        for x in row.iter_mut() {
            *x = (*x * factor).tanh();
        }
    }
}

/// The same by tensor operations, one tile at a time, all heads at once.
fn forward_plain(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    tiles: &[Tile],
    shape: &Shape,
) -> Result<(Tensor, Option<Tensor>)> {
    let (mut outs, mut sums) = (Vec::new(), Vec::new());
    for tile in tiles {
        let (spans, _) = visible(tile, shape);
        let (scores, _) =
            plain_scores(&plain_queries(q, tile, shape)?, &plain_keys(k, &spans, shape)?, tile, &spans, shape)?;
        let shift = scores.max_keepdim(D::Minus1)?;
        let weights = scores.broadcast_sub(&shift)?.exp()?;
        let sum = weights.sum_keepdim(D::Minus1)?;
        let weights = weights.broadcast_div(&sum)?.to_dtype(q.dtype())?;
        let out = weights.matmul(&plain_keys(v, &spans, shape)?)?; // [G, A/G len, D]
        outs.push(plain_rows(&out, tile, shape)?);
        sums.push(plain_rows(&(shift + sum.log()?)?, tile, shape)?);
    }
    if outs.is_empty() {
        return Err(Error::internal("attention over no rows"));
    }
    Ok((Tensor::cat(&outs, 0)?, Some(Tensor::cat(&sums, 0)?)))
}

/// A tile as the backward needs it.
pub(crate) struct Again {
    /// The probabilities, from the log-sum-exps, in their dtype [G, A/G len, K].
    pub probabilities: Tensor,
    /// The derivative of scores by scaled ones [G, A/G len, K]; absent where they are the same.
    pub slope: Option<Tensor>,
    pub queries: Tensor,
    pub keys: Tensor,
}

/// The forward of a tile again.
pub(crate) fn plain_again(
    q: &Tensor,
    k: &Tensor,
    lse: &Tensor,
    tile: &Tile,
    spans: &[Span],
    shape: &Shape,
) -> Result<Again> {
    let (queries, keys) = (plain_queries(q, tile, shape)?, plain_keys(k, spans, shape)?);
    let (scores, slope) = plain_scores(&queries, &keys, tile, spans, shape)?;
    let probabilities = scores.broadcast_sub(&plain_queries(lse, tile, shape)?)?.exp()?;
    Ok(Again { probabilities, slope, queries, keys })
}

/// Scaled, bounded and masked scores, in f32 at least: [G, A/G len, K]; and the bound's slope, where there is one.
fn plain_scores(
    queries: &Tensor,
    keys: &Tensor,
    tile: &Tile,
    spans: &[Span],
    shape: &Shape,
) -> Result<(Tensor, Option<Tensor>)> {
    let scores = queries.matmul(&keys.transpose(1, 2)?.contiguous()?)?;
    let wide = if scores.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let scores = (scores.to_dtype(wide)? * shape.scale)?;
    let (scores, slope) = match shape.cap {
        None => (scores, None),
        Some(cap) => {
            let bounded = (scores / cap)?.tanh()?;
            ((&bounded * cap)?, Some((1.0 - bounded.sqr()?)?))
        }
    };
    Ok((scores.broadcast_add(&plain_mask(tile, spans, shape, wide, scores.device())?)?, slope))
}

/// Rows of a tile as [G, A/G len, D].
pub(crate) fn plain_queries(q: &Tensor, tile: &Tile, shape: &Shape) -> Result<Tensor> {
    let (len, group) = (tile.queries.len, shape.group());
    let q = q.narrow(0, tile.queries.row, len)?.reshape((len, shape.kv_heads, group, ()))?; // [len, G, A/G, D]
    Ok(q.permute((1, 2, 0, 3))?.contiguous()?.reshape((shape.kv_heads, group * len, ()))?)
}

/// The inverse of `plain_queries`.
pub(crate) fn plain_rows(x: &Tensor, tile: &Tile, shape: &Shape) -> Result<Tensor> {
    let (len, group) = (tile.queries.len, shape.group());
    let x = x.reshape((shape.kv_heads, group, len, ()))?.permute((2, 0, 1, 3))?;
    Ok(x.contiguous()?.reshape((len, ()))?)
}

/// Key or value rows of spans as [G, K, D].
pub(crate) fn plain_keys(k: &Tensor, spans: &[Span], shape: &Shape) -> Result<Tensor> {
    let parts: Vec<Tensor> = spans.iter().map(|s| k.narrow(0, s.row, s.len)).collect::<candle_core::Result<_>>()?;
    let k = Tensor::cat(&parts, 0)?;
    Ok(k.reshape((k.dim(0)?, shape.kv_heads, shape.head_dim))?.transpose(0, 1)?.contiguous()?)
}

/// 0 where a key is visible, else minus infinity: [1, A/G len, K].
pub(crate) fn plain_mask(tile: &Tile, spans: &[Span], shape: &Shape, dtype: DType, device: &Device) -> Result<Tensor> {
    let (first, keys) = (spans[0].depth, spans.iter().map(|s| s.len).sum::<usize>());
    let mut mask = Vec::with_capacity(tile.queries.len * keys);
    for i in 0..tile.queries.len {
        let depth = tile.queries.depth + i;
        let seen = shape.first_visible(depth)..=depth;
        mask.extend((0..keys).map(|key| if seen.contains(&(first + key)) { 0f32 } else { f32::NEG_INFINITY }));
    }
    let mask = Tensor::from_vec(mask, (tile.queries.len, keys), device)?.to_dtype(dtype)?;
    Ok(mask.repeat((shape.group(), 1))?.unsqueeze(0)?)
}
