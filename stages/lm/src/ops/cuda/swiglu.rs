//! The gated activation. See `ops::swiglu` for what is computed.

use super::{Launch, fresh};
use crate::Result;
use candle_core::Tensor;

const THREADS: u32 = 256;

pub(crate) fn forward(gate_up: &Tensor) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let y = fresh((rows, double / 2), gate_up.dtype(), gate_up.device())?;
    Launch::like("swiglu", "swiglu_forward", gate_up).tensor(gate_up)?.tensor(&y)?.count(double / 2)?.run(
        (rows, 1),
        THREADS,
        0,
    )?;
    Ok(y)
}

pub(crate) fn backward(gate_up: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, double) = gate_up.dims2()?;
    let y = fresh((rows, double / 2), gate_up.dtype(), gate_up.device())?;
    let d = fresh((rows, double), gate_up.dtype(), gate_up.device())?;
    Launch::like("swiglu", "swiglu_backward", gate_up)
        .tensor(gate_up)?
        .tensor(g)?
        .tensor(&y)?
        .tensor(&d)?
        .count(double / 2)?
        .run((rows, 1), THREADS, 0)?;
    Ok((y, d))
}
