//! RMSNorm over the last dimension.

#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::real::{Real, dot, dot3, vectorised};
use crate::ops::{Kernel, add_in_order, add_plain, change, kernel_for, rows_per_task, tensor, view};
use crate::{DType, Result};
use candle_core::{D, Tensor};
use rayon::prelude::*;

// T rows, H width.

/// y = w x / rms(x). Gives y [T, H] and 1 / rms [T], which the backward needs.
pub(crate) fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    match kernel_for(&[x, weight]) {
        Kernel::F32 => forward_on_cpu::<f32>(x, weight, eps),
        Kernel::F64 => forward_on_cpu::<f64>(x, weight, eps),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::norm::forward(x, weight, eps),
        Kernel::Plain => forward_plain(x, weight, eps),
    }
}

/// The normalised rows again, from the saved 1 / rms.
pub(crate) fn again(x: &Tensor, weight: &Tensor, rms_inverse: &Tensor) -> Result<Tensor> {
    match kernel_for(&[x, weight, rms_inverse]) {
        Kernel::F32 => again_on_cpu::<f32>(x, weight, rms_inverse),
        Kernel::F64 => again_on_cpu::<f64>(x, weight, rms_inverse),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::norm::again(x, weight, rms_inverse),
        _ => {
            let wide = wide(x)?;
            let scaled = x.to_dtype(wide)?.broadcast_mul(&rms_inverse.unsqueeze(D::Minus1)?)?;
            Ok(scaled.broadcast_mul(&weight.to_dtype(wide)?)?.to_dtype(x.dtype())?)
        }
    }
}

fn forward_plain(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let x_wide = x.to_dtype(wide(x)?)?;
    let rms_inverse = (x_wide.sqr()?.mean(D::Minus1)? + eps)?.sqrt()?.recip()?; // [T]
    Ok((again(x, weight, &rms_inverse)?, rms_inverse))
}

/// Half-precision rows are normalised in f32.
fn wide(x: &Tensor) -> Result<DType> {
    Ok(if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 })
}

fn forward_on_cpu<T: Real>(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let width = weight.elem_count();
    let (x_view, weight) = (view::<T>(x)?, view::<T>(weight)?);
    let (mut y, mut inverse) = (T::zeros(x_view.len()), T::zeros(x_view.len() / width));
    let rows = rows_per_task(width);
    (y.par_chunks_mut(rows * width), inverse.par_chunks_mut(rows), x_view.par_chunks(rows * width))
        .into_par_iter()
        .for_each(|(y, inverse, x)| norm_rows(x, &weight, T::of(eps), y, inverse));
    let leading = x.dims()[..x.rank() - 1].to_vec();
    Ok((tensor(y, x.dims())?, tensor(inverse, leading)?))
}

fn again_on_cpu<T: Real>(x: &Tensor, weight: &Tensor, inverse: &Tensor) -> Result<Tensor> {
    let width = weight.elem_count();
    let (x_view, weight, inverse) = (view::<T>(x)?, view::<T>(weight)?, view::<T>(inverse)?);
    let mut y = T::zeros(x_view.len());
    let rows = rows_per_task(width);
    (y.par_chunks_mut(rows * width), inverse.par_chunks(rows), x_view.par_chunks(rows * width))
        .into_par_iter()
        .for_each(|(y, inverse, x)| scale_rows(x, &weight, inverse, y));
    tensor(y, x.dims())
}

vectorised! {
    /// Normalises rows and notes 1 / rms of each.
    fn norm_rows<T: Real>(x: &[T], weight: &[T], eps: T, y: &mut [T], inverse: &mut [T]) {
        let width = weight.len();
        for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse) {
            let r = T::one() / (dot(x, x) / T::of(width as f64) + eps).sqrt();
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * r * w;
            }
            *inverse = r;
        }
    }
}

vectorised! {
    /// Normalises rows by a known 1 / rms.
    fn scale_rows<T: Real>(x: &[T], weight: &[T], inverse: &[T], y: &mut [T]) {
        let width = weight.len();
        for ((x, y), &r) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse) {
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * r * w;
            }
        }
    }
}

/// The gradient by x of `forward`, given that by y, added to `onto` where that is given: [T, H]. Takes `onto`, which
/// may be changed in place. The gradient by w is added to `weight_gradient`.
///
/// With r = 1 / rms: dx = r (g w - x r^2 mean(g w x)), dw = sum over rows of g x r.
pub(crate) fn backward(
    x: &Tensor,
    weight: &Tensor,
    rms_inverse: &Tensor,
    g: &Tensor,
    onto: Option<Tensor>,
    weight_gradient: Option<&Tensor>,
) -> Result<Tensor> {
    let mut all = vec![x, weight, rms_inverse, g];
    all.extend(&onto);
    all.extend(weight_gradient);
    match kernel_for(&all) {
        Kernel::F32 => backward_on_cpu::<f32>(x, weight, rms_inverse, g, onto, weight_gradient),
        Kernel::F64 => backward_on_cpu::<f64>(x, weight, rms_inverse, g, onto, weight_gradient),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::norm::backward(x, weight, rms_inverse, g, onto.as_ref(), weight_gradient),
        _ => {
            let dtype = wide(x)?;
            let (x_wide, g_wide) = (x.to_dtype(dtype)?, g.to_dtype(dtype)?);
            let r = rms_inverse.unsqueeze(D::Minus1)?;
            if let Some(gradient) = weight_gradient {
                let dw = (&g_wide * &x_wide)?.broadcast_mul(&r)?.reshape(((), weight.elem_count()))?.sum(0)?;
                add_plain(gradient, &dw)?;
            }
            let gw = g_wide.broadcast_mul(&weight.to_dtype(dtype)?)?;
            let mean = (&gw * &x_wide)?.mean_keepdim(D::Minus1)?;
            let dx = (gw - x_wide.broadcast_mul(&(r.sqr()? * mean)?)?)?.broadcast_mul(&r)?.to_dtype(x.dtype())?;
            Ok(if let Some(onto) = onto { (dx + onto)? } else { dx })
        }
    }
}

fn backward_on_cpu<T: Real>(
    x: &Tensor,
    weight: &Tensor,
    rms_inverse: &Tensor,
    g: &Tensor,
    onto: Option<Tensor>,
    weight_gradient: Option<&Tensor>,
) -> Result<Tensor> {
    let width = weight.elem_count();
    let dx = match onto {
        Some(onto) => onto,
        None => tensor(T::zeros(x.elem_count()), x.dims())?,
    };
    let (x_view, weight, inverse, g) = (view::<T>(x)?, view::<T>(weight)?, view::<T>(rms_inverse)?, view::<T>(g)?);
    let rows = rows_per_task(width);
    let mut partial: Vec<Vec<T>> = Vec::new();
    change::<T>(&dx, |dx| {
        (
            dx.par_chunks_mut(rows * width),
            x_view.par_chunks(rows * width),
            inverse.par_chunks(rows),
            g.par_chunks(rows * width),
        )
            .into_par_iter()
            .map(|(dx, x, inverse, g)| {
                let mut dw = T::zeros(if weight_gradient.is_some() { width } else { 0 });
                norm_rows_backward(x, &weight, inverse, g, dx, &mut dw);
                dw
            })
            .collect_into_vec(&mut partial);
    })?;
    if let Some(gradient) = weight_gradient {
        change::<T>(gradient, |gradient| add_in_order(&partial, gradient))?;
    }
    Ok(dx)
}

vectorised! {
    /// The backward of rows; `dw` is empty where it is not wanted.
    fn norm_rows_backward<T: Real>(x: &[T], weight: &[T], inverse: &[T], g: &[T], dx: &mut [T], dw: &mut [T]) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(g.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(inverse);
        for (((x, g), dx), &r) in rows {
            norm_row_backward(x, weight, r, g, dx, dw);
        }
    }
}

/// The backward of one row: adds to `dx` and `dw`.
#[inline(always)]
pub(crate) fn norm_row_backward<T: Real>(x: &[T], weight: &[T], r: T, g: &[T], dx: &mut [T], dw: &mut [T]) {
    let mean = dot3(x, weight, g) / T::of(weight.len() as f64) * r * r;
    for (((dx, &x), &w), &g) in dx.iter_mut().zip(x).zip(weight).zip(g) {
        *dx += r * (g * w - x * mean);
    }
    for ((dw, &x), &g) in dw.iter_mut().zip(x).zip(g) {
        *dw += g * x * r;
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};

    #[test]
    fn gradient() {
        let inputs = [numbers(1, &[5, 19]), numbers(2, &[19])];
        gradients(&inputs, |t| {
            let (y, r) = super::forward(&t[0], &t[1], 1e-2)?;
            Ok(Case::new(y, move |t, g, d| {
                let onto = g.zeros_like()?;
                Ok(vec![(0, super::backward(&t[0], &t[1], &r, g, Some(onto), Some(&d[1]))?)])
            }))
        });
        plain_agrees(&inputs, |t| {
            let (y, r) = super::forward(&t[0], &t[1], 1e-2)?;
            let again = super::again(&t[0], &t[1], &r)?;
            let dw = t[1].zeros_like()?;
            let dx = super::backward(&t[0], &t[1], &r, &y, None, Some(&dw))?;
            Ok(vec![y, r, again, dx, dw])
        });
    }
}
