//! The operations of a decoder, each with its backward, written by hand.
//!
//! Every operation takes and gives candle tensors. On a CPU, contiguous f32 and f64 tensors go through kernels written
//! here, parallel over rows; on an NVIDIA GPU, f32 and bf16 tensors go through those of `cuda`; anything else goes
//! through a plain form in tensor operations, which is also what the kernels are tested against. Nothing here uses
//! candle's autograd.
//!
//! Results do not depend on the number of threads: each output is computed by one task, and sums over rows are taken
//! in fixed chunks that are added in order.

pub(crate) mod real;

pub(crate) mod adamw;
pub(crate) mod angles;
pub(crate) mod attention;
pub(crate) mod attention_backward;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod cuda;
pub(crate) mod dropout;
pub(crate) mod embed;
pub(crate) mod geglu;
pub(crate) mod gpu_memory;
pub(crate) mod head;
pub(crate) mod indices;
pub(crate) mod linear;
pub(crate) mod mask;
pub(crate) mod matrix;
pub(crate) mod new_rows;
pub(crate) mod norm;
pub(crate) mod pointwise;
pub(crate) mod query_scale;
pub(crate) mod rope;
pub(crate) mod rounded;
pub(crate) mod swiglu;
pub(crate) mod targets;
pub(crate) mod tiles;
pub(crate) mod whole_norm;

#[cfg(test)]
pub(crate) mod check;

use crate::Result;
use candle_core::Tensor;

pub(crate) use real::{Kernel, Real, change, kernel_for, tensor, view};

/// Rows of `width` numbers that one task handles: enough work to be worth a task, and the same for any thread count.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (16_384 / width.max(1)).max(1)
}

/// Adds partial sums to a total, in their order.
pub(crate) fn add_in_order<T: Real>(partial: &[Vec<T>], total: &mut [T]) {
    for part in partial {
        for (total, &x) in total.iter_mut().zip(part) {
            *total += x;
        }
    }
}

/// Adds a tensor to a gradient buffer in place, by tensor operations.
pub(crate) fn add_plain(gradient: &Tensor, delta: &Tensor) -> Result<()> {
    let sum = (gradient + delta.to_dtype(gradient.dtype())?)?;
    Ok(gradient.slice_set(&sum.contiguous()?, 0, 0)?)
}

#[cfg(test)]
thread_local! {
    static PLAIN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs something with the plain forms in place of the kernels.
#[cfg(test)]
pub(crate) fn plainly<T>(work: impl FnOnce() -> T) -> T {
    PLAIN.set(true);
    let result = work();
    PLAIN.set(false);
    result
}
