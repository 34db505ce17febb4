//! Numbers one by one. See `ops::pointwise` for what is computed.

use super::{Launch, fresh};
use crate::{DType, Result};
use candle_core::Tensor;

const THREADS: u32 = 256;

/// Blocks of which each thread takes so many numbers.
fn grid(count: usize, each: usize) -> (usize, usize) {
    (count.div_ceil(each * THREADS as usize), 1)
}

pub(crate) fn added(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (y, count) = (fresh(a.dims(), a.dtype(), a.device())?, a.elem_count());
    let call = Launch::like("pointwise", "add_numbers", a).tensor(a)?.tensor(b)?.tensor(&y)?.count(count)?;
    call.run(grid(count, 8), THREADS, 0)?;
    Ok(y)
}

pub(crate) fn scaled(x: &Tensor, factor: f64) -> Result<Tensor> {
    let (y, count) = (fresh(x.dims(), x.dtype(), x.device())?, x.elem_count());
    let call = Launch::like("pointwise", "scale_numbers", x).tensor(x)?.tensor(&y)?.count(count)?.f32(factor);
    call.run(grid(count, 8), THREADS, 0)?;
    Ok(y)
}

pub(crate) fn plus_one(x: &Tensor) -> Result<Tensor> {
    let (y, count) = (fresh(x.dims(), DType::F32, x.device())?, x.elem_count());
    let call = Launch::like("pointwise", "plus_one", x).tensor(x)?.of(DType::F32, &y)?.count(count)?;
    call.run(grid(count, 1), THREADS, 0)?;
    Ok(y)
}

/// In place.
pub(crate) fn cap(x: &Tensor, cap: f64) -> Result<()> {
    let count = x.elem_count();
    let call = Launch::new("pointwise", "cap_numbers", x.device()).of(DType::F32, x)?.count(count)?.f32(cap);
    call.run(grid(count, 8), THREADS, 0)
}
