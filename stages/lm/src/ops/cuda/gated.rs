//! Gated activations. See `ops::swiglu` and `ops::geglu` for what is computed.

use super::{Launch, fresh};
use crate::Result;
use candle_core::Tensor;

const THREADS: u32 = 256;

/// The activation of the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gate {
    Silu,
    Gelu,
}

pub(crate) fn forward(gate: Gate, gate_up: &Tensor) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let y = fresh((rows, double / 2), gate_up.dtype(), gate_up.device())?;
    let name = match gate {
        Gate::Silu => "swiglu_forward",
        Gate::Gelu => "geglu_forward",
    };
    let call = Launch::like("gated", name, gate_up).tensor(gate_up)?.tensor(&y)?.count(double / 2)?;
    call.run((rows, 1), THREADS, 0)?;
    Ok(y)
}

pub(crate) fn backward(gate: Gate, gate_up: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, double) = gate_up.dims2()?;
    let y = fresh((rows, double / 2), gate_up.dtype(), gate_up.device())?;
    let d = fresh((rows, double), gate_up.dtype(), gate_up.device())?;
    let name = match gate {
        Gate::Silu => "swiglu_backward",
        Gate::Gelu => "geglu_backward",
    };
    Launch::like("gated", name, gate_up).tensor(gate_up)?.tensor(g)?.tensor(&y)?.tensor(&d)?.count(double / 2)?.run(
        (rows, 1),
        THREADS,
        0,
    )?;
    Ok((y, d))
}
