//! Rotary positions and the norm of heads. See `ops::rope` for what is computed.

use super::{Launch, add_partials, fresh, upload};
use crate::ops::attention::Shape;
use crate::ops::rope::{HeadNorm, RopeTable, SavedHeadNorm};
use crate::{DType, Result};
use candle_core::Tensor;

/// Warps of a block, each of which takes a head of a row at a time.
const WARPS: usize = 8;

/// Rows of a block in the backward with norms.
const CHUNK: usize = 16;

// T rows, A query heads, G key-value heads, D head width.

pub(crate) fn forward(
    qkv: &Tensor,
    shape: &Shape,
    norm: Option<HeadNorm>,
    table: &RopeTable,
    depths: &[u32],
) -> Result<Tensor> {
    let rows = qkv.dim(0)?;
    let y = fresh(qkv.dims(), qkv.dtype(), qkv.device())?;
    Launch::like("rope", "rope_forward", qkv)
        .tensor(qkv)?
        .optional(norm.map(|norm| norm.query))?
        .optional(norm.map(|norm| norm.key))?
        .of(DType::F32, &table.cos)?
        .of(DType::F32, &table.sin)?
        .of(DType::U32, &upload(depths, qkv.device())?)?
        .tensor(&y)?
        .count(rows)?
        .count(shape.heads)?
        .count(shape.kv_heads)?
        .count(shape.head_dim)?
        .f32(norm.map_or(0.0, |norm| norm.eps))
        .run((heads_of(rows, shape).div_ceil(WARPS), 1), WARPS as u32 * 32, 0)?;
    Ok(y)
}

fn heads_of(rows: usize, shape: &Shape) -> usize {
    rows * (shape.heads + 2 * shape.kv_heads)
}

pub(crate) fn backward(
    g: &Tensor,
    shape: &Shape,
    saved: Option<SavedHeadNorm>,
    table: &RopeTable,
    depths: &[u32],
) -> Result<Tensor> {
    let rows = g.dim(0)?;
    let d = fresh(g.dims(), g.dtype(), g.device())?;
    let depths = upload(depths, g.device())?;
    let Some(SavedHeadNorm { norm, before, gradients }) = saved else {
        Launch::like("rope", "rope_backward", g)
            .tensor(g)?
            .of(DType::F32, &table.cos)?
            .of(DType::F32, &table.sin)?
            .of(DType::U32, &depths)?
            .tensor(&d)?
            .count(rows)?
            .count(shape.heads)?
            .count(shape.kv_heads)?
            .count(shape.head_dim)?
            .run((heads_of(rows, shape).div_ceil(WARPS), 1), WARPS as u32 * 32, 0)?;
        return Ok(d);
    };
    let (chunks, width) = (rows.div_ceil(CHUNK), shape.head_dim);
    let partial = fresh((chunks, 2 * width), DType::F32, g.device())?;
    Launch::like("rope", "rope_norm_backward", g)
        .tensor(g)?
        .tensor(before)?
        .tensor(norm.query)?
        .tensor(norm.key)?
        .of(DType::F32, &table.cos)?
        .of(DType::F32, &table.sin)?
        .of(DType::U32, &depths)?
        .tensor(&d)?
        .of(DType::F32, &partial)?
        .count(rows)?
        .count(shape.heads)?
        .count(shape.kv_heads)?
        .count(width)?
        .f32(norm.eps)
        .count(CHUNK)?
        .run((chunks, 1), WARPS as u32 * 32, WARPS * 2 * width * size_of::<f32>())?;
    for (gradient, start) in [(gradients.query, 0), (gradients.key, width)] {
        if let Some(gradient) = gradient {
            add_partials(&partial, start, gradient)?;
        }
    }
    Ok(d)
}
