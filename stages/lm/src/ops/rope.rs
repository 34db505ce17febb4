//! Rotary positions, with the norm of queries and keys that Qwen3 has before them.

use crate::Result;
use crate::ops::angles::{HeadNorm, RopeTable, SavedHeadNorm};
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::indices::Indices;
use crate::ops::norm::{self, norm_row_backward};
use crate::ops::real::{Real, dot, vectorised};
use crate::ops::tiles::Shape;
use crate::ops::{Kernel, add_in_order, change, kernel_for, rows_per_task, view};
use candle_core::{D, Tensor};
use rayon::prelude::*;

// T rows, A query heads, G key-value heads, D head width.

/// True where the kernels of a GPU serve: heads with norms are rotated as a whole.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn cuda_fits(shape: &Shape, norm: bool, table: &RopeTable) -> bool {
    !norm || (2 * table.pairs() == shape.head_dim && shape.head_dim <= cuda::rope::MOST_NORMED)
}

/// Rotates the queries and keys of q | k | v [T, (A + 2 G) D] by the position of each row, after their norm where the
/// model has one. Values pass unchanged. Takes q | k | v, which may be changed in place.
pub(crate) fn forward<'a>(
    qkv: Tensor,
    shape: &Shape,
    norm: Option<HeadNorm>,
    table: &RopeTable,
    depths: impl Into<Indices<'a>>,
) -> Result<Tensor> {
    let depths = depths.into();
    let mut all = vec![&qkv, &table.cos, &table.sin];
    all.extend(norm.iter().flat_map(|norm| [norm.query, norm.key]));
    #[cfg(any(feature = "cuda", test))]
    let fits = cuda_fits(shape, norm.is_some(), table);
    match kernel_for(&all) {
        Kernel::F32 => forward_on_cpu::<f32>(&qkv, shape, norm, table, &depths)?,
        Kernel::F64 => forward_on_cpu::<f64>(&qkv, shape, norm, table, &depths)?,
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda if fits => cuda::rope::forward(&qkv, shape, norm, table, depths)?,
        _ => return forward_plain(&qkv, shape, norm, table, &depths),
    }
    Ok(qkv)
}

fn forward_on_cpu<T: Real>(
    qkv: &Tensor,
    shape: &Shape,
    norm: Option<HeadNorm>,
    table: &RopeTable,
    depths: &[u32],
) -> Result<()> {
    let width = qkv.dim(1)?;
    let (cos, sin) = (view::<T>(&table.cos)?, view::<T>(&table.sin)?);
    let weights = match &norm {
        Some(norm) => Some((view::<T>(norm.query)?, view::<T>(norm.key)?, T::of(norm.eps))),
        None => None,
    };
    let weights = weights.as_ref().map(|(query, key, eps)| (&**query, &**key, *eps));
    let chunk = rows_per_task(width);
    change::<T>(qkv, |qkv| {
        (qkv.par_chunks_mut(chunk * width), depths.par_chunks(chunk)).into_par_iter().for_each(|(rows, depths)| {
            let Shape { heads, kv_heads, head_dim, .. } = *shape;
            rotate_rows(rows, width, heads, kv_heads, head_dim, table.pairs(), weights, &cos, &sin, depths);
        });
    })
}

vectorised! {
    /// Norm and rotation of rows in place.
    fn rotate_rows<T: Real>(
        rows: &mut [T],
        width: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        half: usize,
        norm: Option<(&[T], &[T], T)>,
        cos: &[T],
        sin: &[T],
        depths: &[u32],
    ) {
        for (row, &depth) in rows.chunks_exact_mut(width).zip(depths) {
            let (cos, sin) = (&cos[depth as usize * half..][..half], &sin[depth as usize * half..][..half]);
            for (i, head) in row[..(heads + kv_heads) * head_dim].chunks_exact_mut(head_dim).enumerate() {
                if let Some((query, key, eps)) = norm {
                    let weight = if i < heads { query } else { key };
                    let r = T::one() / (dot(head, head) / T::of(head_dim as f64) + eps).sqrt();
                    for (x, &w) in head.iter_mut().zip(weight) {
                        *x = *x * r * w;
                    }
                }
                let (first, second) = head[..2 * half].split_at_mut(half);
                for (((a, b), &c), &s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        }
    }
}

fn forward_plain(
    qkv: &Tensor,
    shape: &Shape,
    norm: Option<HeadNorm>,
    table: &RopeTable,
    depths: &[u32],
) -> Result<Tensor> {
    let (cos, sin) = plain_angles(table, depths, qkv)?;
    let part = |from: usize, heads: usize, weight: Option<&Tensor>| -> Result<Tensor> {
        let x = qkv.narrow(1, from, heads * shape.head_dim)?.reshape(((), heads, shape.head_dim))?;
        let x = match (weight, norm) {
            (Some(weight), Some(norm)) => norm::forward(&x.contiguous()?, weight, norm.eps)?.0,
            _ => x,
        };
        Ok(plain_rotation(&x, &cos, &sin)?.flatten_from(1)?)
    };
    let (queries, keys) = (shape.query_width(), shape.key_width());
    let q = part(0, shape.heads, norm.map(|norm| norm.query))?;
    let k = part(queries, shape.kv_heads, norm.map(|norm| norm.key))?;
    Ok(Tensor::cat(&[&q, &k, &qkv.narrow(1, queries + keys, keys)?], 1)?)
}

/// Cosines and sines of the rows, [T, 1, D/2] each, in f32 or f64.
fn plain_angles(table: &RopeTable, depths: &[u32], like: &Tensor) -> Result<(Tensor, Tensor)> {
    let depths = Tensor::new(depths, like.device())?;
    let rows = |t: &Tensor| -> Result<Tensor> { Ok(t.index_select(&depths, 0)?.unsqueeze(1)?) };
    Ok((rows(&table.cos)?, rows(&table.sin)?))
}

/// Rotates [T, heads, D] in the precision of the angles.
fn plain_rotation(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (width, half) = (x.dim(D::Minus1)?, cos.dim(D::Minus1)?);
    let wide = x.to_dtype(cos.dtype())?;
    let (a, b) = (wide.narrow(D::Minus1, 0, half)?, wide.narrow(D::Minus1, half, half)?);
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    let mut all = vec![first, second];
    if 2 * half < width {
        all.push(wide.narrow(D::Minus1, 2 * half, width - 2 * half)?);
    }
    Ok(Tensor::cat(&all, D::Minus1)?.to_dtype(x.dtype())?)
}

/// The gradient by the input of `forward`, given that by its output. The gradients by the norms' weights are added to
/// their buffers. The rotation's backward is the rotation by the opposite angle. Takes the gradient, which may be
/// changed in place.
pub(crate) fn backward<'a>(
    g: Tensor,
    shape: &Shape,
    norm: Option<SavedHeadNorm>,
    table: &RopeTable,
    depths: impl Into<Indices<'a>>,
) -> Result<Tensor> {
    let depths = depths.into();
    let mut all = vec![&g, &table.cos, &table.sin];
    if let Some(norm) = &norm {
        all.extend([norm.before, norm.norm.query, norm.norm.key]);
        all.extend(norm.gradients.query);
        all.extend(norm.gradients.key);
    }
    #[cfg(any(feature = "cuda", test))]
    let fits = cuda_fits(shape, norm.is_some(), table);
    match kernel_for(&all) {
        Kernel::F32 => backward_on_cpu::<f32>(&g, shape, norm, table, &depths)?,
        Kernel::F64 => backward_on_cpu::<f64>(&g, shape, norm, table, &depths)?,
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda if fits => cuda::rope::backward(&g, shape, norm, table, depths)?,
        _ => return backward_plain(&g, shape, norm, table, &depths),
    }
    Ok(g)
}

fn backward_on_cpu<T: Real>(
    g: &Tensor,
    shape: &Shape,
    saved: Option<SavedHeadNorm>,
    table: &RopeTable,
    depths: &[u32],
) -> Result<()> {
    let width = g.dim(1)?;
    let (cos, sin) = (view::<T>(&table.cos)?, view::<T>(&table.sin)?);
    let chunk = rows_per_task(width);
    let (heads, kv_heads, head_dim) = (shape.heads, shape.kv_heads, shape.head_dim);
    change::<T>(g, |g| {
        (g.par_chunks_mut(chunk * width), depths.par_chunks(chunk)).into_par_iter().for_each(|(rows, depths)| {
            unrotate_rows(rows, width, (heads + kv_heads) * head_dim, head_dim, table.pairs(), &cos, &sin, depths);
        });
    })?;
    if let Some(saved) = saved {
        let (before, query, key) = (view::<T>(saved.before)?, view::<T>(saved.norm.query)?, view::<T>(saved.norm.key)?);
        let eps = T::of(saved.norm.eps);
        let mut partial: Vec<(Vec<T>, Vec<T>)> = Vec::new();
        change::<T>(g, |g| {
            (g.par_chunks_mut(chunk * width), before.par_chunks(chunk * width))
                .into_par_iter()
                .map(|(g, before)| {
                    let (mut dq, mut dk) = (T::zeros(head_dim), T::zeros(head_dim));
                    let keys = heads * head_dim..(heads + kv_heads) * head_dim;
                    head_norm_backward(g, before, width, 0, heads, &query, eps, &mut dq);
                    head_norm_backward(g, before, width, keys.start, kv_heads, &key, eps, &mut dk);
                    (dq, dk)
                })
                .collect_into_vec(&mut partial);
        })?;
        let (dq, dk): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
        for (gradient, partial) in [(saved.gradients.query, dq), (saved.gradients.key, dk)] {
            if let Some(gradient) = gradient {
                change::<T>(gradient, |gradient| add_in_order(&partial, gradient))?;
            }
        }
    }
    Ok(())
}

vectorised! {
    /// Rotation of the first `rotated` columns of rows by the opposite angles, in place.
    fn unrotate_rows<T: Real>(
        rows: &mut [T],
        width: usize,
        rotated: usize,
        head_dim: usize,
        half: usize,
        cos: &[T],
        sin: &[T],
        depths: &[u32],
    ) {
        for (row, &depth) in rows.chunks_exact_mut(width).zip(depths) {
            let (cos, sin) = (&cos[depth as usize * half..][..half], &sin[depth as usize * half..][..half]);
            for head in row[..rotated].chunks_exact_mut(head_dim) {
                let (first, second) = head[..2 * half].split_at_mut(half);
                for (((a, b), &c), &s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c + *b * s, *b * c - *a * s);
                }
            }
        }
    }
}

vectorised! {
    /// Backward of the norm of `heads` heads from `column` on, in place in the gradient's rows.
    fn head_norm_backward<T: Real>(
        g: &mut [T],
        before: &[T],
        width: usize,
        column: usize,
        heads: usize,
        weight: &[T],
        eps: T,
        dw: &mut [T],
    ) {
        let head_dim = weight.len();
        let columns = column..column + heads * head_dim;
        let mut dx = T::zeros(head_dim);
        for (g, before) in g.chunks_exact_mut(width).zip(before.chunks_exact(width)) {
            let heads = g[columns.clone()].chunks_exact_mut(head_dim).zip(before[columns.clone()].chunks_exact(head_dim));
            for (g, x) in heads {
                let r = T::one() / (dot(x, x) / T::of(head_dim as f64) + eps).sqrt();
                dx.fill(T::zero());
                norm_row_backward(x, weight, r, g, &mut dx, dw);
                g.copy_from_slice(&dx);
            }
        }
    }
}

fn backward_plain(
    g: &Tensor,
    shape: &Shape,
    saved: Option<SavedHeadNorm>,
    table: &RopeTable,
    depths: &[u32],
) -> Result<Tensor> {
    let (cos, sin) = plain_angles(table, depths, g)?;
    let sin = sin.neg()?;
    let part = |from: usize, heads: usize, query: bool| -> Result<Tensor> {
        let columns = |t: &Tensor| -> Result<Tensor> {
            Ok(t.narrow(1, from, heads * shape.head_dim)?.reshape(((), heads, shape.head_dim))?.contiguous()?)
        };
        let mut dx = plain_rotation(&columns(g)?, &cos, &sin)?;
        if let Some(SavedHeadNorm { norm, before, gradients }) = &saved {
            let (weight, gradient) = if query { (norm.query, gradients.query) } else { (norm.key, gradients.key) };
            let x = columns(before)?;
            let (_, inverse) = norm::forward(&x, weight, norm.eps)?;
            dx = norm::backward(&x, weight, &inverse, &dx, None, gradient)?;
        }
        Ok(dx.flatten_from(1)?)
    };
    let (queries, keys) = (shape.query_width(), shape.key_width());
    let (q, k) = (part(0, shape.heads, true)?, part(queries, shape.kv_heads, false)?);
    Ok(Tensor::cat(&[&q, &k, &g.narrow(1, queries + keys, keys)?], 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RopeKind;
    use crate::model::rope::Rope;
    use crate::ops::angles::HeadNormGradients;
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};

    const SHAPE: Shape = Shape { heads: 4, kv_heads: 2, head_dim: 6, window: None, scale: 0.3, cap: None };
    const DEPTHS: [u32; 5] = [0, 1, 2, 1, 9];

    fn table(like: &Tensor) -> RopeTable {
        table_of(1.0, like)
    }

    fn table_of(share: f64, like: &Tensor) -> RopeTable {
        let rope = Rope { theta: 100.0, kind: RopeKind::Default, share };
        RopeTable::new(&rope, SHAPE.head_dim, false, 10, like.dtype(), like.device()).unwrap()
    }

    #[test]
    fn gradient_of_the_rotation() {
        let inputs = [numbers(1, &[5, SHAPE.width()])];
        for share in [1.0, 0.7] {
            gradients(&inputs, |t| {
                let y = forward(t[0].copy()?, &SHAPE, None, &table_of(share, &t[0]), &DEPTHS)?;
                Ok(Case::new(y, move |t, g, _| {
                    Ok(vec![(0, backward(g.copy()?, &SHAPE, None, &table_of(share, &t[0]), &DEPTHS)?)])
                }))
            });
            plain_agrees(&inputs, |t| {
                let y = forward(t[0].copy()?, &SHAPE, None, &table_of(share, &t[0]), &DEPTHS)?;
                Ok(vec![backward(y.sqr()?, &SHAPE, None, &table_of(share, &t[0]), &DEPTHS)?, y])
            });
        }
    }

    #[test]
    fn gradient_with_norms() {
        let inputs = [numbers(1, &[5, SHAPE.width()]), numbers(2, &[6]), numbers(3, &[6])];
        let run = |t: &[Tensor]| {
            let norm = HeadNorm { query: &t[1], key: &t[2], eps: 1e-2 };
            forward(t[0].copy()?, &SHAPE, Some(norm), &table(&t[0]), &DEPTHS)
        };
        let back = |t: &[Tensor], g: &Tensor, dq: &Tensor, dk: &Tensor| {
            let norm = HeadNorm { query: &t[1], key: &t[2], eps: 1e-2 };
            let gradients = HeadNormGradients { query: Some(dq), key: Some(dk) };
            let saved = SavedHeadNorm { norm, before: &t[0], gradients };
            backward(g.copy()?, &SHAPE, Some(saved), &table(&t[0]), &DEPTHS)
        };
        gradients(&inputs, |t| Ok(Case::new(run(t)?, move |t, g, d| Ok(vec![(0, back(t, g, &d[1], &d[2])?)]))));
        plain_agrees(&inputs, |t| {
            let y = run(t)?;
            let (dq, dk) = (t[1].ones_like()?, t[2].ones_like()?);
            Ok(vec![back(t, &y.sqr()?, &dq, &dk)?, y, dq, dk])
        });
    }
}
