//! Queries that grow with their positions, as Ministral 3 has them: by a kernel on a GPU, else by tensor operations.

use crate::Result;
use crate::model::rope::QueryScale;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::indices::Indices;
use crate::ops::tiles::Shape;
#[cfg(any(feature = "cuda", test))]
use crate::ops::{Kernel, kernel_for};
use candle_core::{DType, Tensor};

// T rows, A query heads, G key-value heads, D head width.

/// q | k | v [T, (A + 2 G) D] with the queries of each row times 1 + beta ln(1 + floor(depth / context)). That is its
/// own backward. Within the context nothing is computed. Takes q | k | v, which may be changed in place.
pub(crate) fn scaled(qkv: Tensor, shape: &Shape, scale: QueryScale, depths: Indices) -> Result<Tensor> {
    if depths.always_below(scale.context) {
        return Ok(qkv);
    }
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[&qkv]) == Kernel::Cuda {
        cuda::rope::scale_queries(&qkv, shape, scale, depths)?;
        return Ok(qkv);
    }
    let factor = |&depth: &u32| 1.0 + scale.beta * f64::from(depth / scale.context as u32).ln_1p();
    let wide = if qkv.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let factors = Tensor::from_vec(depths.iter().map(factor).collect(), (depths.len(), 1), qkv.device())?;
    let queries = qkv.narrow(1, 0, shape.query_width())?.to_dtype(wide)?;
    let queries = queries.broadcast_mul(&factors.to_dtype(wide)?)?.to_dtype(qkv.dtype())?;
    Ok(Tensor::cat(&[&queries, &qkv.narrow(1, shape.query_width(), 2 * shape.key_width())?], 1)?)
}
