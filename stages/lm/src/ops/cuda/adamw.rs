//! The optimizer. See `ops::adamw` for what is computed.

use super::{Launch, fresh, upload};
use crate::{DType, Result};
use candle_core::Tensor;

const THREADS: u32 = 256;

/// Blocks that share the sum of the squares of a tensor.
fn parts(tensor: &Tensor) -> usize {
    tensor.elem_count().div_ceil(1 << 14).clamp(1, 1024)
}

/// The sums of the squares of several gradients, by one copy to the host.
pub(crate) fn sums_of_squares(gradients: &[&Tensor]) -> Result<Vec<f64>> {
    let device = gradients[0].device();
    let mut starts = vec![0u32];
    for gradient in gradients {
        starts.push(starts[starts.len() - 1] + parts(gradient) as u32);
    }
    let partial = fresh(starts[gradients.len()] as usize, DType::F64, device)?;
    for (gradient, &start) in gradients.iter().zip(&starts) {
        Launch::new("adamw", "squares", device)
            .of(DType::F32, gradient)?
            .of(DType::F64, &partial)?
            .count(start as usize)?
            .count(gradient.elem_count())?
            .run((parts(gradient), 1), THREADS, 0)?;
    }
    let sums = fresh(gradients.len(), DType::F64, device)?;
    Launch::new("adamw", "sum_parts", device)
        .of(DType::F64, &partial)?
        .of(DType::U32, &upload(&starts, device)?)?
        .of(DType::F64, &sums)?
        .run((gradients.len(), 1), 32, 0)?;
    Ok(sums.to_vec1()?)
}

/// One step with the numbers clip, 1 - lr decay, 1 - beta1, beta2, 1 - beta2, the rate, 1 / root and eps. `half` gets
/// the weights in bf16.
pub(crate) fn step(
    weight: &Tensor,
    gradient: &Tensor,
    m: &Tensor,
    v: &Tensor,
    half: Option<&Tensor>,
    numbers: [f64; 8],
) -> Result<()> {
    let count = weight.elem_count();
    let call = Launch::new("adamw", "adamw_step", weight.device())
        .of(DType::F32, weight)?
        .of(DType::F32, gradient)?
        .of(DType::F32, m)?
        .of(DType::F32, v)?
        .optional_of(DType::BF16, half)?
        .count(count)?;
    let call = numbers.into_iter().fold(call, Launch::f32);
    call.run((count.div_ceil(4 * THREADS as usize).min(4096), 1), THREADS, 0)
}
