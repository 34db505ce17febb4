//! Queries that grow with their positions, as Ministral 3 has them. It is composed of tensor operations.

use crate::Result;
use crate::model::rope::QueryScale;
use crate::ops::tiles::Shape;
use candle_core::{DType, Tensor};

// T rows, A query heads, G key-value heads, D head width.

/// q | k | v [T, (A + 2 G) D] with the queries of each row times 1 + beta ln(1 + floor(depth / context)). That is its
/// own backward. Within the context nothing is computed.
pub(crate) fn scaled(qkv: Tensor, shape: &Shape, scale: QueryScale, depths: &[u32]) -> Result<Tensor> {
    if depths.iter().all(|&depth| (depth as usize) < scale.context) {
        return Ok(qkv);
    }
    let factor = |&depth: &u32| 1.0 + scale.beta * f64::from(depth / scale.context as u32).ln_1p();
    let wide = if qkv.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let factors = Tensor::from_vec(depths.iter().map(factor).collect(), (depths.len(), 1), qkv.device())?;
    let queries = qkv.narrow(1, 0, shape.query_width())?.to_dtype(wide)?;
    let queries = queries.broadcast_mul(&factors.to_dtype(wide)?)?.to_dtype(qkv.dtype())?;
    Ok(Tensor::cat(&[&queries, &qkv.narrow(1, shape.query_width(), 2 * shape.key_width())?], 1)?)
}
