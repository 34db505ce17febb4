//! Linear layers: products by cuBLAS, those with something beside them by cublasLt where it is there. See `ops::linear`
//! for what is computed.

use super::{Launch, Operand, add_partials, columns, fresh, multiply, multiply_onto, multiply_summing};
use crate::{DType, Result};
use candle_core::Tensor;

// T rows, K inputs, N outputs.

pub(crate) fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
    let ((rows, inner), outer) = (x.dims2()?, weight.dim(0)?);
    let y = fresh((rows, outer), x.dtype(), x.device())?;
    let added = bias.is_some() || residual.is_some();
    let (factors, sizes) = ((Operand::new(x)?, Operand::new(weight)?.t()), [rows, inner, outer]);
    if added && multiply_onto(factors, (residual, bias), Operand::new(&y)?, sizes)? {
        return Ok(y);
    }
    if added {
        Launch::like("linear", "base_rows", x).optional(residual)?.optional(bias)?.tensor(&y)?.count(outer)?.run(
            (rows, 1),
            128,
            0,
        )?;
    }
    multiply(factors.0, factors.1, Operand::new(&y)?, rows, inner, outer, added)?;
    Ok(y)
}

/// Adds x W^T to the columns of y from `start` on.
pub(crate) fn add_columns(x: &Tensor, weight: &Tensor, y: &Tensor, start: usize) -> Result<()> {
    let ((rows, inner), outer) = (x.dims2()?, weight.dim(0)?);
    let columns = Operand { start, ..Operand::new(y)? };
    multiply(Operand::new(x)?, Operand::new(weight)?.t(), columns, rows, inner, outer, true)
}

pub(crate) fn backward(weight: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let ((outer, inner), rows) = (weight.dims2()?, dy.dim(0)?);
    let dx = fresh((rows, inner), dy.dtype(), dy.device())?;
    multiply(Operand::new(dy)?, Operand::new(weight)?, Operand::new(&dx)?, rows, outer, inner, false)?;
    Ok(dx)
}

pub(crate) fn backward_weight(x: &Tensor, dy: &Tensor, gradient: &Tensor) -> Result<()> {
    let ((rows, inner), outer) = (x.dims2()?, dy.dim(1)?);
    multiply(Operand::new(dy)?.t(), Operand::new(x)?, Operand::new(gradient)?, outer, rows, inner, true)
}

/// Both gradients; the sums of dy are taken where the product reads it.
pub(crate) fn backward_weight_and_bias(x: &Tensor, dy: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<()> {
    let ((rows, inner), outer) = (x.dims2()?, dy.dim(1)?);
    let sums = fresh((1, outer), DType::F32, dy.device())?;
    let (slopes, states) = (Operand::new(dy)?.t(), Operand::new(x)?);
    if multiply_summing(slopes, states, Operand::new(weight)?, &sums, [outer, rows, inner])? {
        return add_partials(&sums, 0, bias);
    }
    backward_weight(x, dy, weight)?;
    backward_bias(dy, bias)
}

pub(crate) fn backward_bias(dy: &Tensor, gradient: &Tensor) -> Result<()> {
    let (rows, width) = (dy.dim(0)?, gradient.elem_count());
    if rows == 0 {
        return Ok(());
    }
    let (pack, chunk) = columns(rows, width);
    let partial = fresh((rows.div_ceil(chunk), width), DType::F32, dy.device())?;
    Launch::like("linear", "column_sums", dy)
        .tensor(dy)?
        .of(DType::F32, &partial)?
        .count(rows)?
        .count(width)?
        .count(chunk)?
        .count(pack)?
        .run((width.div_ceil(pack * 128), rows.div_ceil(chunk)), 128, 0)?;
    add_partials(&partial, 0, gradient)
}
