//! The norm of all queries together and of all keys together. See `ops::whole_norm` for what is computed.

use super::{Launch, add_partials, columns, fresh};
use crate::ops::angles::{HeadNorm, SavedHeadNorm};
use crate::ops::tiles::Shape;
use crate::{DType, Result};
use candle_core::Tensor;

const THREADS: u32 = 128;

/// Queries, keys and values.
const PARTS: usize = 3;

// T rows, A query heads, G key-value heads, D head width.

pub(crate) fn forward(qkv: &Tensor, shape: &Shape, norm: HeadNorm) -> Result<Tensor> {
    let y = fresh(qkv.dims(), qkv.dtype(), qkv.device())?;
    Launch::like("whole_norm", "whole_norm", qkv)
        .tensor(qkv)?
        .weights(norm.query)?
        .weights(norm.key)?
        .tensor(&y)?
        .count(shape.query_width())?
        .count(shape.key_width())?
        .f32(norm.eps)
        .run((qkv.dim(0)?, PARTS), THREADS, 0)?;
    Ok(y)
}

pub(crate) fn backward(g: &Tensor, shape: &Shape, saved: SavedHeadNorm) -> Result<Tensor> {
    let SavedHeadNorm { norm, before, gradients } = saved;
    let (rows, queries, keys) = (g.dim(0)?, shape.query_width(), shape.key_width());
    let (dx, inverse) = (fresh(g.dims(), g.dtype(), g.device())?, fresh((rows, 2), DType::F32, g.device())?);
    Launch::like("whole_norm", "whole_norm_backward", g)
        .tensor(before)?
        .weights(norm.query)?
        .weights(norm.key)?
        .tensor(g)?
        .tensor(&dx)?
        .of(DType::F32, &inverse)?
        .count(queries)?
        .count(keys)?
        .f32(norm.eps)
        .run((rows, PARTS), THREADS, 0)?;
    if rows == 0 || (gradients.query.is_none() && gradients.key.is_none()) {
        return Ok(dx);
    }
    let ((_, chunk), width) = (columns(rows, queries), queries + keys);
    let pack = if queries.is_multiple_of(8) && keys.is_multiple_of(8) { 8 } else { 1 };
    let partial = fresh((rows.div_ceil(chunk), width), DType::F32, g.device())?;
    Launch::like("whole_norm", "whole_norm_weight", g)
        .tensor(before)?
        .of(DType::F32, &inverse)?
        .tensor(g)?
        .of(DType::F32, &partial)?
        .count(rows)?
        .count(queries)?
        .count(keys)?
        .count(chunk)?
        .count(pack)?
        .run((width.div_ceil(pack * THREADS as usize), rows.div_ceil(chunk)), THREADS, 0)?;
    for (gradient, start) in [(gradients.query, 0), (gradients.key, queries)] {
        if let Some(gradient) = gradient {
            add_partials(&partial, start, gradient)?;
        }
    }
    Ok(dx)
}
