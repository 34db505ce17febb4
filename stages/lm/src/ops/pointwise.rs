//! Numbers one by one: by kernels on a GPU, else by tensor operations.

#[cfg(any(feature = "cuda", test))]
use crate::ops::{Kernel, cuda, kernel_for};
use crate::{DType, Result};
use candle_core::Tensor;

/// The sum of two tensors of one shape.
pub(crate) fn added(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[a, b]) == Kernel::Cuda && a.dtype() == b.dtype() {
        return cuda::pointwise::added(a, b);
    }
    Ok((a + b)?)
}

/// A tensor multiplied with a constant in f32 at least. A factor of 1 costs nothing.
pub(crate) fn scaled(x: &Tensor, factor: f64) -> Result<Tensor> {
    if factor == 1.0 {
        return Ok(x.clone());
    }
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[x]) == Kernel::Cuda {
        return cuda::pointwise::scaled(x, factor);
    }
    match matches!(x.dtype(), DType::BF16 | DType::F16) {
        // candle rounds the factor itself to half precision where x has that.
        true => Ok((x.to_dtype(DType::F32)? * factor)?.to_dtype(x.dtype())?),
        false => Ok((x * factor)?),
    }
}

/// 1 + x, in f32 at least.
pub(crate) fn plus_one(x: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[x]) == Kernel::Cuda {
        return cuda::pointwise::plus_one(x);
    }
    let wide = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok((x.to_dtype(wide)? + 1.0)?)
}

/// Numbers within bounds: cap tanh(x / cap) of each, where there is a cap. Takes x, which may be changed in place.
pub(crate) fn capped(x: Tensor, cap: Option<f64>) -> Result<Tensor> {
    let Some(cap) = cap else { return Ok(x) };
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[&x]) == Kernel::Cuda && x.dtype() == DType::F32 {
        cuda::pointwise::cap(&x, cap)?;
        return Ok(x);
    }
    Ok(((x / cap)?.tanh()? * cap)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cuda::emulator::{calls, emulated};
    use crate::ops::cuda::tests::{agrees, numbers};

    /// By kernels alone, of numbers that packs fit and do not fit.
    #[test]
    fn kernels_give_what_the_host_gives() {
        for (rows, width) in [(3, 5), (7, 296), (1, 1)] {
            let inputs = [numbers(1, &[rows, width]), numbers(2, &[rows, width])];
            let run = |t: &[Tensor]| {
                let wide = t[1].to_dtype(DType::F32)?.copy()?;
                Ok(vec![added(&t[0], &t[1])?, scaled(&t[0], 0.37)?, plus_one(&t[1])?, capped(wide, Some(0.7))?])
            };
            agrees(0.01, &inputs, run);
            calls();
            let called = emulated(|| run(&inputs).map(|_| calls()).unwrap());
            let want = ["add_numbers_bf16", "scale_numbers_bf16", "plus_one_bf16", "cap_numbers"];
            assert!(called.is_none_or(|called| called == want));
        }
    }
}
