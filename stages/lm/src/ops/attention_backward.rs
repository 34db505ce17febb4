//! The gradient of packed attention.
//!
//! The work is cut by dependence: a tree's root, and each of its branches, whose rows nothing outside them reads. What
//! the branches add to the keys and values of the root is summed aside for each and added in their order, so that the
//! result does not depend on who computed which branch.

use crate::model::forest::{Forest, Span};
use crate::ops::attention::{Rows, plain_again, plain_keys, plain_queries, plain_rows, score};
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::matrix::{By, Into, Matrix, MatrixMut, multiply};
use crate::ops::real::{Real, dot, vectorised};
use crate::ops::tiles::{Saved, Shape, Tile, Tiles, visible};
use crate::ops::{Kernel, kernel_for, tensor, view};
use crate::{Error, Result};
use candle_core::{D, Tensor};
use rayon::prelude::*;
use std::ops::Range;

// T rows, A query heads, G key-value heads, D head width, K keys of a tile.

/// The gradient by q | k | v, given that by the output: [T, (A + 2 G) D].
///
/// With P = exp(scale q k^T - lse): dV = P^T dO, dS = scale P (dO V^T - rowsum(dO O)), dQ = dS K, dK = dS^T Q. Where
/// scores are bounded, P = exp(cap t - lse), t = tanh(scale q k^T / cap), and dS has the factor 1 - t^2.
pub(crate) fn backward(saved: &Saved, g: &Tensor, forest: &Forest, tiles: &Tiles, shape: &Shape) -> Result<Tensor> {
    match kernel_for(&[saved.qkv, saved.out, saved.lse, g]) {
        Kernel::F32 => backward_on_cpu::<f32>(saved, g, forest, tiles, shape),
        Kernel::F64 => backward_on_cpu::<f64>(saved, g, forest, tiles, shape),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda if cuda::attention::fits(shape) => cuda::attention::backward(saved, g, tiles, shape),
        _ => backward_plain(saved, g, tiles, shape),
    }
}

/// A root or a branch.
struct Unit {
    rows: Range<usize>,
    /// The rows of the root above a branch; empty for a root.
    root: Range<usize>,
    /// For a root, how many branches follow it.
    branches: usize,
}

fn units(forest: &Forest) -> Vec<Unit> {
    let mut units = Vec::new();
    for tree in &forest.trees {
        units.push(Unit { rows: tree.root.clone(), root: 0..0, branches: tree.branches.len() });
        let branch = |rows: &Range<usize>| Unit { rows: rows.clone(), root: tree.root.clone(), branches: 0 };
        units.extend(tree.branches.iter().map(branch));
    }
    units
}

/// The gradient of the rows of a unit for one key-value head and its query heads.
struct Part<T> {
    /// dq of the group's heads | dk | dv: [rows, (A/G + 2) D].
    own: Vec<T>,
    /// Sums of a branch for dk | dv of its root: [root rows, 2 D].
    root: Vec<T>,
}

fn backward_on_cpu<T: Real>(
    saved: &Saved,
    g: &Tensor,
    forest: &Forest,
    tiles: &[Tile],
    shape: &Shape,
) -> Result<Tensor> {
    let rows = g.dim(0)?;
    let (qkv, out, lse, g) = (view::<T>(saved.qkv)?, view::<T>(saved.out)?, view::<T>(saved.lse)?, view::<T>(g)?);
    let slices = Slices { qkv: &qkv, out: &out, lse: &lse, g: &g };
    let units = units(forest);
    let tasks: Vec<(usize, usize)> =
        (0..units.len() * shape.kv_heads).map(|i| (i / shape.kv_heads, i % shape.kv_heads)).collect();
    let parts: Vec<Part<T>> = tasks
        .into_par_iter()
        .map_init(Scratch::default, |scratch, (unit, kv_head)| {
            let unit = &units[unit];
            let from = tiles.partition_point(|tile| tile.queries.row < unit.rows.start);
            let to = tiles.partition_point(|tile| tile.queries.row < unit.rows.end);
            unit_backward(&slices, unit, &tiles[from..to], kv_head, shape, scratch)
        })
        .collect();
    // Units cover the rows in order: each writes its stretch of the result.
    let width = shape.width();
    let mut result = T::zeros(rows * width);
    let mut rest = &mut result[..];
    let mut work = Vec::with_capacity(units.len());
    for (i, unit) in units.iter().enumerate() {
        let (rows, after) = std::mem::take(&mut rest).split_at_mut(unit.rows.len() * width);
        rest = after;
        let heads = shape.kv_heads;
        let branches = &parts[(i + 1) * heads..(i + 1 + unit.branches) * heads];
        work.push((rows, &parts[i * heads..(i + 1) * heads], branches));
    }
    work.into_par_iter().for_each(|(rows, own, branches)| assemble(rows, own, branches, shape));
    tensor(result, (rows, width))
}

/// The saved tensors as slices.
#[derive(Clone, Copy)]
struct Slices<'a, T> {
    qkv: &'a [T],
    out: &'a [T],
    lse: &'a [T],
    g: &'a [T],
}

/// Buffers that a task uses again and again.
struct Scratch<T> {
    /// Probabilities, then kept for dV: [rows of a tile, K].
    p: Vec<T>,
    /// dO V^T, then dS: [rows of a tile, K].
    ds: Vec<T>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Scratch { p: Vec::new(), ds: Vec::new() }
    }
}

fn unit_backward<T: Real>(
    slices: &Slices<T>,
    unit: &Unit,
    tiles: &[Tile],
    kv_head: usize,
    shape: &Shape,
    scratch: &mut Scratch<T>,
) -> Part<T> {
    let (width, head_dim, group) = (shape.width(), shape.head_dim, shape.group());
    let columns = (group + 2) * head_dim;
    let mut own = T::zeros(unit.rows.len() * columns);
    let mut root = T::zeros(unit.root.len() * 2 * head_dim);
    let q = Rows { data: slices.qkv, stride: width };
    let k = Rows { data: &slices.qkv[shape.query_width()..], stride: width };
    let v = Rows { data: &slices.qkv[shape.query_width() + shape.key_width()..], stride: width };
    let outs = Rows { data: slices.out, stride: shape.query_width() };
    let gs = Rows { data: slices.g, stride: shape.query_width() };
    for tile in tiles {
        let (spans, keys) = visible(tile, shape);
        let Span { row, len, depth } = tile.queries;
        scratch.p.resize(len * keys, T::zero());
        scratch.ds.resize(len * keys, T::zero());
        for in_group in 0..group {
            let head = kv_head * group + in_group;
            let (q, g) = (q.block(row, len, head, head_dim), gs.block(row, len, head, head_dim));
            score(q, k, &spans, kv_head, shape, &mut scratch.p, keys);
            score(g, v, &spans, kv_head, shape, &mut scratch.ds, keys);
            let rows = scratch.p.chunks_exact_mut(keys).zip(scratch.ds.chunks_exact_mut(keys)).enumerate();
            for (i, (p, ds)) in rows {
                let at = (row + i) * shape.query_width() + head * head_dim;
                let sum = dot(&outs.data[at..][..head_dim], &gs.data[at..][..head_dim]);
                let lse = slices.lse[(row + i) * shape.heads + head];
                let seen = shape.seen(depth + i, spans[0].depth);
                for outside in [0..seen.start, seen.end..keys] {
                    p[outside.clone()].fill(T::zero());
                    ds[outside].fill(T::zero());
                }
                let (p, ds, scale) = (&mut p[seen.clone()], &mut ds[seen], T::of(shape.scale));
                match shape.cap {
                    None => score_gradient(p, ds, scale, lse, sum),
                    Some(cap) => bounded_score_gradient(p, ds, scale, T::of(cap), lse, sum),
                }
            }
            let at = (row - unit.rows.start) * columns + in_group * head_dim;
            let mut column = 0;
            for (i, span) in spans.iter().enumerate() {
                let into = if i == 0 { Into::Fresh } else { Into::Added };
                let p = Matrix::new(&scratch.p[column..], len, span.len, keys);
                let ds = Matrix::new(&scratch.ds[column..], len, span.len, keys);
                let dq = MatrixMut::new(&mut own[at..], len, head_dim, columns);
                multiply(ds, k.block(span.row, span.len, kv_head, head_dim), dq, into, By::One);
                let in_root = unit.root.contains(&span.row);
                let (buffer, start, stride) = if in_root {
                    (&mut root, (span.row - unit.root.start) * 2 * head_dim, 2 * head_dim)
                } else {
                    (&mut own, (span.row - unit.rows.start) * columns + group * head_dim, columns)
                };
                let dk = MatrixMut::new(&mut buffer[start..], span.len, head_dim, stride);
                multiply(ds.t(), q, dk, Into::Added, By::One);
                let dv = MatrixMut::new(&mut buffer[start + head_dim..], span.len, head_dim, stride);
                multiply(p.t(), g, dv, Into::Added, By::One);
                column += span.len;
            }
        }
    }
    Part { own, root }
}

vectorised! {
    /// Scores become probabilities, and the gradient by probabilities becomes that by scores before scaling.
    fn score_gradient<T: Real>(p: &mut [T], ds: &mut [T], scale: T, lse: T, sum: T) {
        for (p, ds) in p.iter_mut().zip(ds) {
            *p = (*p * scale - lse).exp();
            *ds = *p * (*ds - sum) * scale;
        }
    }
}

vectorised! {
    /// The same where scores are bounded.
    fn bounded_score_gradient<T: Real>(p: &mut [T], ds: &mut [T], scale: T, cap: T, lse: T, sum: T) {
        for (p, ds) in p.iter_mut().zip(ds) {
            let t = (*p * (scale / cap)).tanh();
            *p = (t * cap - lse).exp();
            *ds = *p * (*ds - sum) * scale * (T::one() - t * t);
        }
    }
}

/// Puts the heads' parts beside each other and adds what branches give to a root, in the branches' order.
fn assemble<T: Real>(rows: &mut [T], own: &[Part<T>], branches: &[Part<T>], shape: &Shape) {
    let (head_dim, group) = (shape.head_dim, shape.group());
    let (queries, columns) = (group * head_dim, (group + 2) * head_dim);
    for (i, row) in rows.chunks_exact_mut(shape.width()).enumerate() {
        let (dq, dkv) = row.split_at_mut(shape.query_width());
        let (dk, dv) = dkv.split_at_mut(shape.key_width());
        for (head, part) in own.iter().enumerate() {
            let part = &part.own[i * columns..][..columns];
            dq[head * queries..][..queries].copy_from_slice(&part[..queries]);
            dk[head * head_dim..][..head_dim].copy_from_slice(&part[queries..][..head_dim]);
            dv[head * head_dim..][..head_dim].copy_from_slice(&part[queries + head_dim..]);
        }
        for branch in branches.chunks_exact(shape.kv_heads) {
            for (head, part) in branch.iter().enumerate() {
                let (from_k, from_v) = part.root[i * 2 * head_dim..][..2 * head_dim].split_at(head_dim);
                let (dk, dv) = (&mut dk[head * head_dim..][..head_dim], &mut dv[head * head_dim..][..head_dim]);
                for (sum, &x) in dk.iter_mut().chain(dv).zip(from_k.iter().chain(from_v)) {
                    *sum += x;
                }
            }
        }
    }
}

/// The same by tensor operations, one tile at a time, all heads at once.
fn backward_plain(saved: &Saved, g: &Tensor, tiles: &[Tile], shape: &Shape) -> Result<Tensor> {
    let (width, keys) = (shape.query_width(), shape.key_width());
    let wide = saved.lse.dtype();
    let part = |start: usize, len: usize| -> Result<Tensor> { Ok(saved.qkv.narrow(D::Minus1, start, len)?) };
    let (q, k, v) = (part(0, width)?, part(width, keys)?, part(width + keys, keys)?);
    // dk and dv are summed in place, in the order of the tiles.
    let sums = |t: &Tensor| -> Result<Tensor> { Ok(Tensor::zeros(t.shape(), wide, t.device())?) };
    let (dk, dv) = (sums(&k)?, sums(&v)?);
    let mut dq = Vec::new();
    for tile in tiles {
        let (spans, _) = visible(tile, shape);
        let again = plain_again(&q, &k, saved.lse, tile, &spans, shape)?;
        let (p, queries, keys_of) = (again.probabilities, again.queries, again.keys);
        let values = plain_keys(&v, &spans, shape)?;
        let (out, g) = (plain_queries(saved.out, tile, shape)?, plain_queries(g, tile, shape)?);
        let sum = (out.to_dtype(wide)? * g.to_dtype(wide)?)?.sum_keepdim(D::Minus1)?;
        let dp = g.matmul(&values.transpose(1, 2)?.contiguous()?)?.to_dtype(wide)?;
        let ds = ((&p * dp.broadcast_sub(&sum)?)? * shape.scale)?;
        let ds = match again.slope {
            Some(slope) => (ds * slope)?,
            None => ds,
        };
        let ds = ds.to_dtype(q.dtype())?;
        dq.push(plain_rows(&ds.matmul(&keys_of)?, tile, shape)?);
        let transposed = |t: &Tensor| -> Result<Tensor> { Ok(t.transpose(1, 2)?.contiguous()?) };
        let keys_sum = transposed(&ds)?.matmul(&queries)?; // [G, K, D]
        let values_sum = transposed(&p.to_dtype(q.dtype())?)?.matmul(&g)?;
        for (total, sum) in [(&dk, keys_sum), (&dv, values_sum)] {
            let sum = sum.to_dtype(wide)?.transpose(0, 1)?.contiguous()?.reshape(((), keys))?; // [K, G D]
            let mut start = 0;
            for span in &spans {
                let more = (total.narrow(0, span.row, span.len)? + sum.narrow(0, start, span.len)?)?;
                total.slice_set(&more.contiguous()?, 0, span.row)?;
                start += span.len;
            }
        }
    }
    if dq.is_empty() {
        return Err(Error::internal("attention over no rows"));
    }
    let (dk, dv) = (dk.to_dtype(q.dtype())?, dv.to_dtype(q.dtype())?);
    Ok(Tensor::cat(&[&Tensor::cat(&dq, 0)?, &dk, &dv], 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequence;
    use crate::model::forest::{Want, forests};
    use crate::ops::attention::forward;
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};
    use crate::ops::tiles::tiles;

    /// Two trees; the first one forks twice.
    fn forest() -> Forest {
        let texts: [&[u32]; 5] = [&[1, 2, 3, 4, 5], &[1, 2, 3, 6], &[1, 2, 7, 8], &[1, 2, 7, 9, 9], &[2, 2, 2]];
        let owned: Vec<Sequence> = texts.iter().map(|ids| Sequence::new(ids.to_vec(), 1)).collect();
        forests(&owned.iter().collect::<Vec<_>>(), Want::States, 10, 100).unwrap().remove(0)
    }

    fn check(window: Option<usize>, cap: Option<f64>) {
        let shape = Shape { heads: 4, kv_heads: 2, head_dim: 2, window, scale: 0.3, cap };
        let forest = forest();
        assert_eq!(forest.trees.iter().map(|tree| tree.branches.len()).collect::<Vec<_>>(), [2, 0]);
        let tiles = tiles(&forest);
        let inputs = [numbers(1, &[forest.ids.len(), shape.width()])];
        let both = |t: &Tensor| -> Result<(Tensor, Tensor)> {
            let (out, lse) = forward(t, &tiles, &shape, true)?;
            Ok((out, lse.unwrap()))
        };
        gradients(&inputs, |t| {
            let (out, lse) = both(&t[0])?;
            let (forest, tiles, shape) = (&forest, &tiles, &shape);
            Ok(Case::new(out.clone(), move |t, g, _| {
                let saved = Saved { qkv: &t[0], out: &out, lse: &lse };
                Ok(vec![(0, backward(&saved, g, forest, tiles, shape)?)])
            }))
        });
        plain_agrees(&inputs, |t| {
            let (out, lse) = both(&t[0])?;
            let g = out.sqr()?;
            let saved = Saved { qkv: &t[0], out: &out, lse: &lse };
            let d = backward(&saved, &g, &forest, &tiles, &shape)?;
            Ok(vec![out, lse, d])
        });
    }

    #[test]
    fn gradient_over_a_forest() {
        check(None, None);
    }

    #[test]
    fn gradient_with_a_window() {
        check(Some(2), None);
        check(Some(1), None);
    }

    #[test]
    fn gradient_of_bounded_scores() {
        check(None, Some(0.1));
        check(Some(2), Some(0.7));
    }

    /// More rows than a tile, with and without a window: the forms agree, and so do their gradients.
    #[test]
    fn long_sequences() {
        for window in [None, Some(40)] {
            let shape = Shape { heads: 2, kv_heads: 1, head_dim: 4, window, scale: 0.3, cap: None };
            let trunk: Vec<u32> = (0..150).collect();
            let owned: Vec<Sequence> = (0..3u32)
                .map(|i| {
                    let ids = trunk.iter().copied().chain((0..70).map(|j| i * 7 + j)).collect();
                    Sequence::new(ids, 1)
                })
                .collect();
            let forest = forests(&owned.iter().collect::<Vec<_>>(), Want::States, 150, 1000).unwrap().remove(0);
            let tiles = tiles(&forest);
            plain_agrees(&[numbers(1, &[forest.ids.len(), shape.width()])], |t| {
                let (out, lse) = forward(&t[0], &tiles, &shape, true)?;
                let lse = lse.unwrap();
                let saved = Saved { qkv: &t[0], out: &out, lse: &lse };
                let d = backward(&saved, &out.sqr()?, &forest, &tiles, &shape)?;
                Ok(vec![out, d])
            });
        }
    }
}
