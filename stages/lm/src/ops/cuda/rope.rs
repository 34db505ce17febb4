//! Rotary positions and the norm of heads, in place. See `ops::rope` for what is computed.

use super::{Launch, add_partials, fresh};
use crate::model::rope::QueryScale;
use crate::ops::angles::{HeadNorm, RopeTable, SavedHeadNorm};
use crate::ops::indices::Indices;
use crate::ops::tiles::Shape;
use crate::{DType, Result};
use candle_core::Tensor;

/// Warps of a block, each of which takes a head of a row at a time.
const WARPS: usize = 8;

/// Columns of the widest heads with norms: `PAIRS` in the kernels.
pub(crate) const MOST_NORMED: usize = 256;

/// Rows of a block in the backward with norms.
const CHUNK: usize = 16;

// T rows, A query heads, G key-value heads, D head width.

pub(crate) fn forward(
    qkv: &Tensor,
    shape: &Shape,
    norm: Option<HeadNorm>,
    table: &RopeTable,
    depths: Indices,
) -> Result<()> {
    let Some(norm) = norm else { return turn(qkv, shape, table, depths, 1.0) };
    let rows = qkv.dim(0)?;
    Launch::like("rope", "rope_norm", qkv)
        .tensor(qkv)?
        .weights(norm.query)?
        .weights(norm.key)?
        .of(DType::F32, &table.cos)?
        .of(DType::F32, &table.sin)?
        .of(DType::U32, &depths.on(qkv.device())?)?
        .count(rows)?
        .count(shape.heads)?
        .count(shape.kv_heads)?
        .count(shape.head_dim)?
        .f32(norm.eps)
        .run(((rows * (shape.heads + shape.kv_heads)).div_ceil(WARPS), 1), WARPS as u32 * 32, 0)
}

/// The rotation alone; `sign` -1 turns back.
fn turn(qkv: &Tensor, shape: &Shape, table: &RopeTable, depths: Indices, sign: f64) -> Result<()> {
    const THREADS: usize = 256;
    let turned = shape.heads + shape.kv_heads;
    let pairs = table.pairs();
    let pack = if pairs.is_multiple_of(8) && shape.head_dim.is_multiple_of(8) { 8 } else { 1 };
    let count = qkv.dim(0)? * turned * (pairs / pack);
    Launch::like("rope", "rope_turn", qkv)
        .tensor(qkv)?
        .of(DType::F32, &table.cos)?
        .of(DType::F32, &table.sin)?
        .of(DType::U32, &depths.on(qkv.device())?)?
        .count(count)?
        .count(turned)?
        .count(shape.width())?
        .count(shape.head_dim)?
        .count(pairs)?
        .count(pack)?
        .f32(sign)
        .run((count.div_ceil(THREADS), 1), THREADS as u32, 0)
}

pub(crate) fn backward(
    g: &Tensor,
    shape: &Shape,
    saved: Option<SavedHeadNorm>,
    table: &RopeTable,
    depths: Indices,
) -> Result<()> {
    let Some(SavedHeadNorm { norm, before, gradients }) = saved else { return turn(g, shape, table, depths, -1.0) };
    let rows = g.dim(0)?;
    let (chunks, width) = (rows.div_ceil(CHUNK), shape.head_dim);
    let partial = fresh((chunks, 2 * width), DType::F32, g.device())?;
    Launch::like("rope", "rope_norm_backward", g)
        .tensor(g)?
        .tensor(before)?
        .weights(norm.query)?
        .weights(norm.key)?
        .of(DType::F32, &table.cos)?
        .of(DType::F32, &table.sin)?
        .of(DType::U32, &depths.on(g.device())?)?
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
    Ok(())
}

/// Queries that grow with their positions, in place. See `ops::query_scale` for what is computed.
pub(crate) fn scale_queries(qkv: &Tensor, shape: &Shape, scale: QueryScale, depths: Indices) -> Result<()> {
    Launch::like("rope", "scale_queries", qkv)
        .tensor(qkv)?
        .of(DType::U32, &depths.on(qkv.device())?)?
        .count(shape.query_width())?
        .count(shape.width())?
        .count(scale.context)?
        .f32(scale.beta)
        .run((qkv.dim(0)?, 1), 128, 0)
}
