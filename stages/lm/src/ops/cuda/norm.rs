//! RMSNorm. See `ops::norm` for what is computed.

use super::{Launch, add_partials, columns, fresh};
use crate::{DType, Result};
use candle_core::Tensor;

const THREADS: u32 = 128;

// T rows, H width.

pub(crate) fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let width = weight.elem_count();
    let leading = &x.dims()[..x.rank() - 1];
    let (y, inverse) = (fresh(x.dims(), x.dtype(), x.device())?, fresh(leading, DType::F32, x.device())?);
    Launch::like("norm", "norm_forward", x)
        .tensor(x)?
        .weights(weight)?
        .tensor(&y)?
        .of(DType::F32, &inverse)?
        .count(width)?
        .f32(eps)
        .run((inverse.elem_count(), 1), THREADS, 0)?;
    Ok((y, inverse))
}

pub(crate) fn again(x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let y = fresh(x.dims(), x.dtype(), x.device())?;
    Launch::like("norm", "norm_again", x)
        .tensor(x)?
        .weights(weight)?
        .of(DType::F32, inverse)?
        .tensor(&y)?
        .count(weight.elem_count())?
        .run((inverse.elem_count(), 1), THREADS, 0)?;
    Ok(y)
}

pub(crate) fn backward(
    x: &Tensor,
    weight: &Tensor,
    inverse: &Tensor,
    g: &Tensor,
    onto: Option<&Tensor>,
    weight_gradient: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, width) = (inverse.elem_count(), weight.elem_count());
    let dx = fresh(x.dims(), x.dtype(), x.device())?;
    Launch::like("norm", "norm_backward", x)
        .tensor(x)?
        .weights(weight)?
        .of(DType::F32, inverse)?
        .tensor(g)?
        .optional(onto)?
        .tensor(&dx)?
        .count(width)?
        .run((rows, 1), THREADS, 0)?;
    if let Some(gradient) = weight_gradient
        && rows > 0
    {
        let (pack, chunk) = columns(rows, width);
        let partial = fresh((rows.div_ceil(chunk), width), DType::F32, x.device())?;
        Launch::like("norm", "norm_weight", x)
            .tensor(x)?
            .of(DType::F32, inverse)?
            .tensor(g)?
            .of(DType::F32, &partial)?
            .count(rows)?
            .count(width)?
            .count(chunk)?
            .count(pack)?
            .run((width.div_ceil(pack * THREADS as usize), rows.div_ceil(chunk)), THREADS, 0)?;
        add_partials(&partial, 0, gradient)?;
    }
    Ok(dx)
}
