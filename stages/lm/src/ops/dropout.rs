//! Dropout with masks that are a function of keys: no state, and nothing is kept for the backward.

use crate::Result;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::mask::Mask;
use crate::ops::real::{Real, vectorised};
use crate::ops::{Kernel, kernel_for, rows_per_task, tensor, view};
use crate::random::bits;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

// T rows, K columns.

/// x with its mask [T, K]. It is its own backward: the gradient by x is that by the result under the same mask.
pub(crate) fn apply(x: &Tensor, mask: &Mask) -> Result<Tensor> {
    match kernel_for(&[x]) {
        Kernel::F32 => apply_on_cpu::<f32>(x, mask),
        Kernel::F64 => apply_on_cpu::<f64>(x, mask),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::dropout::apply(x, mask),
        Kernel::Plain => {
            let dtype = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let factors = Tensor::from_vec(mask.factors(x.dim(1)?), x.shape(), &candle_core::Device::Cpu)?;
            let factors = factors.to_dtype(dtype)?.to_device(x.device())?;
            Ok((x.to_dtype(dtype)? * factors)?.to_dtype(x.dtype())?)
        }
    }
}

fn apply_on_cpu<T: Real>(x: &Tensor, mask: &Mask) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let x = view::<T>(x)?;
    let mut out = T::zeros(rows * width);
    let chunk = rows_per_task(width);
    (out.par_chunks_mut(chunk * width), x.par_chunks(chunk * width)).into_par_iter().enumerate().for_each(
        |(task, (out, x))| {
            let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate();
            for (row, (out, x)) in rows {
                mask_row(x, mask.key(task * chunk + row), mask.threshold(), T::of(mask.scale()), out);
            }
        },
    );
    tensor(out, (rows, width))
}

vectorised! {
    /// A row under its mask.
    fn mask_row<T: Real>(x: &[T], key: u64, threshold: u32, scale: T, out: &mut [T]) {
        let (x_pairs, out_pairs) = (x.chunks(2), out.chunks_mut(2));
        for (pair, (x, out)) in x_pairs.zip(out_pairs).enumerate() {
            let both = bits(key, pair as u64);
            for (half, (&x, out)) in x.iter().zip(out).enumerate() {
                let kept = (both >> (32 * half)) as u32 >= threshold;
                *out = if kept { x * scale } else { T::zero() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};
    use crate::ops::cuda::tests::{agrees, numbers as draws};
    use crate::random::mix;

    fn keys(n: u64) -> Vec<u64> {
        (0..n).map(|row| mix(row + 1)).collect()
    }

    #[test]
    fn gradient() {
        for (rows, width) in [(4, 7), (3, 8)] {
            let keys = keys(rows);
            let mask = Mask { rows: &keys, place: 5, share: 0.4 };
            let inputs = [numbers(1, &[rows as usize, width])];
            gradients(&inputs, |t| Ok(Case::new(apply(&t[0], &mask)?, |_, g, _| Ok(vec![(0, apply(g, &mask)?)]))));
            plain_agrees(&inputs, |t| Ok(vec![apply(&t[0], &mask)?]));
        }
    }

    #[test]
    fn the_share_is_left_out_and_the_rest_is_scaled() {
        let keys = keys(300);
        for share in [0.0, 0.05, 0.5, 0.9] {
            let mask = Mask { rows: &keys, place: 5, share };
            let ones = Tensor::ones((300, 101), DType::F64, &candle_core::Device::Cpu).unwrap();
            let got = apply(&ones, &mask).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(got.iter().all(|&x| x == 0.0 || x == 1.0 / (1.0 - share)));
            // Four deviations of the mean of so many draws.
            let mean = got.iter().sum::<f64>() / got.len() as f64;
            let most = 4.0 * (share / (1.0 - share) / got.len() as f64).sqrt();
            assert!((mean - 1.0).abs() <= most, "{share}: {mean}");
            // Neighbours in a row and in a column know nothing of each other.
            for by in [1, 2, 101] {
                let both = got.iter().zip(&got[by..]).filter(|(a, b)| **a == 0.0 && **b == 0.0).count() as f64;
                let off = both / (got.len() - by) as f64 - share * share;
                assert!(off.abs() < 0.01, "{share}, {by} apart: {off}");
            }
        }
    }

    #[test]
    fn places_and_rows_have_masks_of_their_own() {
        let keys = keys(2);
        let zeros = |place: u64, row: usize| -> Vec<bool> {
            let mask = Mask { rows: &keys, place, share: 0.5 };
            mask.factors(64)[64 * row..64 * row + 64].iter().map(|&factor| factor == 0.0).collect()
        };
        let all = [zeros(1, 0), zeros(1, 1), zeros(2, 0), zeros(2, 1)];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one));
        }
    }

    #[test]
    fn gpu_kernels_have_the_same_masks() {
        let keys = keys(70);
        for width in [1, 7, 24, 600] {
            let mask = Mask { rows: &keys, place: u64::MAX - 3, share: 0.3 };
            agrees(0.01, &[draws(1, &[70, width])], |t| Ok(vec![apply(&t[0], &mask)?]));
        }
    }
}
