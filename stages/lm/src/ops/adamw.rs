//! The optimizer's step, and the norm of gradients that decides how they are clipped.

#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::real::{Real, dot, vectorised};
use crate::ops::{Kernel, change, kernel_for, view};
use crate::{DType, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// Numbers that one task handles.
const STRETCH: usize = 1 << 15;

/// The sum of the squares of each gradient, in f64.
pub(crate) fn sums_of_squares(gradients: &[&Tensor]) -> Result<Vec<f64>> {
    #[cfg(any(feature = "cuda", test))]
    if !gradients.is_empty() && kernel_for(gradients) == Kernel::Cuda {
        return cuda::adamw::sums_of_squares(gradients);
    }
    gradients.iter().map(|gradient| sum_of_squares(gradient)).collect()
}

fn sum_of_squares(gradient: &Tensor) -> Result<f64> {
    match kernel_for(&[gradient]) {
        Kernel::F32 => sum_on_cpu::<f32>(gradient),
        Kernel::F64 => sum_on_cpu::<f64>(gradient),
        _ => Ok(gradient.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar()?),
    }
}

fn sum_on_cpu<T: Real>(gradient: &Tensor) -> Result<f64> {
    let gradient = view::<T>(gradient)?;
    let parts: Vec<f64> = gradient
        .par_chunks(STRETCH)
        .map(|stretch| stretch.chunks(256).map(|few| square(few).to_f64()).sum::<f64>())
        .collect();
    Ok(parts.iter().sum())
}

vectorised! {
    fn square<T: Real>(row: &[T]) -> T {
        dot(row, row)
    }
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// Factor of the gradients: below 1 where they are clipped.
    pub clip: f64,
    /// The number of this step, from 1 on.
    pub t: u64,
}

/// One step of AdamW as torch makes it, in place; the gradient becomes 0.
///
/// g = clip gradient; w -= lr decay w; m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2;
/// w -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps).
///
/// Where the model computes in half precision, `half` are its weights, which become the rounded ones.
pub(crate) fn step(
    weight: &Tensor,
    gradient: &Tensor,
    m: &Tensor,
    v: &Tensor,
    half: Option<&Tensor>,
    step: &Step,
) -> Result<()> {
    match kernel_for(&[weight, gradient, m, v]) {
        Kernel::F32 => step_on_cpu::<f32>(weight, gradient, m, v, step)?,
        Kernel::F64 => step_on_cpu::<f64>(weight, gradient, m, v, step)?,
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda if half.is_none_or(|half| half.dtype() == DType::BF16) => {
            return cuda::adamw::step(weight, gradient, m, v, half, numbers(step));
        }
        _ => step_plain(weight, gradient, m, v, step)?,
    }
    if let Some(half) = half {
        half.slice_set(&weight.to_dtype(half.dtype())?, 0, 0)?;
    }
    Ok(())
}

fn corrections(step: &Step) -> (f64, f64) {
    let t = step.t as f64;
    (step.lr / (1.0 - step.beta1.powf(t)), (1.0 - step.beta2.powf(t)).sqrt())
}

/// clip, 1 - lr decay, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), eps.
fn numbers(step: &Step) -> [f64; 8] {
    let (rate, root) = corrections(step);
    [
        step.clip,
        1.0 - step.lr * step.weight_decay,
        1.0 - step.beta1,
        step.beta2,
        1.0 - step.beta2,
        rate,
        1.0 / root,
        step.eps,
    ]
}

fn step_on_cpu<T: Real>(weight: &Tensor, gradient: &Tensor, m: &Tensor, v: &Tensor, step: &Step) -> Result<()> {
    let numbers = numbers(step).map(T::of);
    let mut inner = Ok(());
    change::<T>(weight, |weight| {
        inner = change::<T>(gradient, |gradient| {
            // Errors of the two innermost would need other dtypes or strides than those checked above.
            change::<T>(m, |m| {
                change::<T>(v, |v| {
                    (
                        weight.par_chunks_mut(STRETCH),
                        gradient.par_chunks_mut(STRETCH),
                        m.par_chunks_mut(STRETCH),
                        v.par_chunks_mut(STRETCH),
                    )
                        .into_par_iter()
                        .for_each(|(w, g, m, v)| step_numbers(w, g, m, v, &numbers));
                })
                .expect("`kernel_for` checked the second moments");
            })
            .expect("`kernel_for` checked the first moments");
        });
    })?;
    inner
}

vectorised! {
    /// The step of some numbers.
    fn step_numbers<T: Real>(weight: &mut [T], gradient: &mut [T], m: &mut [T], v: &mut [T], numbers: &[T; 8]) {
        let [clip, keep, new_m, keep_v, new_v, rate, root_inverse, eps] = *numbers;
        for (((w, g), m), v) in weight.iter_mut().zip(gradient).zip(m).zip(v) {
            let clipped = *g * clip;
            *g = T::zero();
            *m += new_m * (clipped - *m);
            *v = keep_v * *v + new_v * clipped * clipped;
            *w = *w * keep - rate * *m / ((*v).sqrt() * root_inverse + eps);
        }
    }
}

fn step_plain(weight: &Tensor, gradient: &Tensor, m: &Tensor, v: &Tensor, step: &Step) -> Result<()> {
    let (rate, root) = corrections(step);
    let g = (gradient * step.clip)?;
    let new_m = (m + ((&g - m)? * (1.0 - step.beta1))?)?;
    let new_v = ((v * step.beta2)? + (g.sqr()? * (1.0 - step.beta2))?)?;
    let change = (&new_m / ((new_v.sqrt()? / root)? + step.eps)?)?;
    let new_weight = ((weight * (1.0 - step.lr * step.weight_decay))? - (change * rate)?)?;
    weight.slice_set(&new_weight, 0, 0)?;
    m.slice_set(&new_m, 0, 0)?;
    v.slice_set(&new_v, 0, 0)?;
    Ok(gradient.zero_set()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{self, plain_agrees};

    const STEP: Step = Step { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.05, clip: 0.5, t: 1 };

    /// torch.optim.AdamW on w = [1, -2] with gradients [3, 0.5] halved, then [-1, 2] halved; lr 0.1, decay 0.05.
    #[test]
    fn two_steps_by_hand() {
        let new = |numbers: [f64; 2]| Tensor::new(&numbers, &candle_core::Device::Cpu).unwrap();
        let (w, m, v) = (new([1., -2.]), new([0., 0.]), new([0., 0.]));
        let mut want = [1f64, -2.];
        let (mut want_m, mut want_v) = ([0f64; 2], [0f64; 2]);
        for (t, gradient) in [[3., 0.5], [-1., 2.]].into_iter().enumerate() {
            let g = new(gradient);
            step(&w, &g, &m, &v, None, &Step { t: t as u64 + 1, ..STEP }).unwrap();
            assert_eq!(g.to_vec1::<f64>().unwrap(), [0., 0.]);
            for i in 0..2 {
                let g = gradient[i] * 0.5;
                want[i] *= 1.0 - 0.1 * 0.05;
                want_m[i] = 0.9 * want_m[i] + 0.1 * g;
                want_v[i] = 0.99 * want_v[i] + 0.01 * g * g;
                let (bias1, bias2) = (1.0 - 0.9f64.powi(t as i32 + 1), 1.0 - 0.99f64.powi(t as i32 + 1));
                want[i] -= 0.1 / bias1 * want_m[i] / (want_v[i].sqrt() / bias2.sqrt() + 1e-8);
            }
        }
        for (got, want) in w.to_vec1::<f64>().unwrap().into_iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
    }

    #[test]
    fn forms_agree() {
        plain_agrees(&[1, 2, 3, 4].map(|seed| check::numbers(seed, &[7, 3])), |t| {
            let [w, g, m, v] = [0, 1, 2, 3].map(|i| t[i].copy().unwrap());
            let v = v.abs()?;
            let squares = Tensor::new(sums_of_squares(&[&g])?, t[0].device())?;
            step(&w, &g, &m, &v, None, &Step { t: 3, ..STEP })?;
            Ok(vec![w, g, m, v, squares])
        });
    }
}
