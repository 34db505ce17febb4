//! The norm of all queries together and of all keys together that OLMo has: by a kernel on a GPU, else composed of
//! `norm` on their columns.

use crate::Result;
use crate::ops::angles::{HeadNorm, SavedHeadNorm};
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::norm;
use crate::ops::tiles::Shape;
#[cfg(any(feature = "cuda", test))]
use crate::ops::{Kernel, kernel_for};
use candle_core::Tensor;

// T rows, A query heads, G key-value heads, D head width.

/// q | k | v [T, (A + 2 G) D] with the norm of queries, of weights [A D], and of keys [G D]. Values pass unchanged.
pub(crate) fn forward(qkv: &Tensor, shape: &Shape, norm: HeadNorm) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[qkv, norm.query, norm.key]) == Kernel::Cuda {
        return cuda::whole_norm::forward(qkv, shape, norm);
    }
    let (queries, keys) = (shape.query_width(), shape.key_width());
    let normed = |from: usize, width: usize, weight: &Tensor| -> Result<Tensor> {
        Ok(norm::forward(&qkv.narrow(1, from, width)?.contiguous()?, weight, norm.eps)?.0)
    };
    let (q, k) = (normed(0, queries, norm.query)?, normed(queries, keys, norm.key)?);
    Ok(Tensor::cat(&[&q, &k, &qkv.narrow(1, queries + keys, keys)?], 1)?)
}

/// The gradient by the input of `forward`, given that by its output. The gradients by the weights are added to their
/// buffers.
pub(crate) fn backward(g: &Tensor, shape: &Shape, saved: SavedHeadNorm) -> Result<Tensor> {
    let (queries, keys) = (shape.query_width(), shape.key_width());
    let SavedHeadNorm { norm, before, gradients } = saved;
    #[cfg(any(feature = "cuda", test))]
    {
        let mut all = vec![g, before, norm.query, norm.key];
        all.extend(gradients.query.into_iter().chain(gradients.key));
        if kernel_for(&all) == Kernel::Cuda {
            return cuda::whole_norm::backward(g, shape, saved);
        }
    }
    let by = |from: usize, width: usize, weight: &Tensor, gradient: Option<&Tensor>| -> Result<Tensor> {
        let columns = |t: &Tensor| t.narrow(1, from, width)?.contiguous();
        let x = columns(before)?;
        let (_, inverse) = norm::forward(&x, weight, norm.eps)?;
        norm::backward(&x, weight, &inverse, &columns(g)?, None, gradient)
    };
    let q = by(0, queries, norm.query, gradients.query)?;
    let k = by(queries, keys, norm.key, gradients.key)?;
    Ok(Tensor::cat(&[&q, &k, &g.narrow(1, queries + keys, keys)?], 1)?)
}
