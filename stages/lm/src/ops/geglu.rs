//! The gated activation of the feed-forward part of Gemma: gelu(gate) * up, gelu by tanh.

use crate::Result;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda::gated::{self, Gate};
use crate::ops::real::{Real, vectorised};
use crate::ops::{Kernel, kernel_for, rows_per_task, tensor, view};
use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

// T rows, F width of the feed-forward part.

/// sqrt(2 / pi) and the factor of the cube: with u = ROOT (x + CUBE x^3),
/// gelu(x) = x (1 + tanh u) / 2 = x sigmoid(2 u).
const ROOT: f64 = 0.797_884_560_802_865_4;
const CUBE: f64 = 0.044_715;

/// gelu(gate) * up [T, F] of the packed pair gate | up [T, 2F].
pub(crate) fn forward(gate_up: &Tensor) -> Result<Tensor> {
    match kernel_for(&[gate_up]) {
        Kernel::F32 => forward_on_cpu::<f32>(gate_up),
        Kernel::F64 => forward_on_cpu::<f64>(gate_up),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => gated::forward(Gate::Gelu, gate_up),
        Kernel::Plain => {
            let (gate, up) = plain_halves(gate_up)?;
            Ok(((&gate * plain_sigmoid(&gate)?)? * up)?.to_dtype(gate_up.dtype())?)
        }
    }
}

/// Gate and up in f32 at least.
fn plain_halves(gate_up: &Tensor) -> Result<(Tensor, Tensor)> {
    let wide = if gate_up.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let width = gate_up.dim(D::Minus1)? / 2;
    let half = |from: usize| gate_up.narrow(D::Minus1, from, width)?.to_dtype(wide)?.contiguous();
    Ok((half(0)?, half(width)?))
}

/// sigmoid(2 u).
fn plain_sigmoid(gate: &Tensor) -> Result<Tensor> {
    let cube = (gate.sqr()? * gate)?;
    let u = ((gate + (cube * CUBE)?)? * (-2.0 * ROOT))?;
    Ok((u.exp()? + 1.0)?.recip()?)
}

fn forward_on_cpu<T: Real>(gate_up: &Tensor) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let width = double / 2;
    let gate_up = view::<T>(gate_up)?;
    let mut out = T::zeros(rows * width);
    let chunk = rows_per_task(double);
    (out.par_chunks_mut(chunk * width), gate_up.par_chunks(chunk * double))
        .into_par_iter()
        .for_each(|(out, gate_up)| gelu_rows(gate_up, width, out));
    tensor(out, (rows, width))
}

vectorised! {
    /// gelu(gate) * up, row by row.
    fn gelu_rows<T: Real>(gate_up: &[T], width: usize, out: &mut [T]) {
        let (factor, cube) = (T::of(-2.0 * ROOT), T::of(CUBE));
        for (pair, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = pair.split_at(width);
            for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                let s = T::one() / (T::one() + (factor * (g + cube * g * g * g)).exp());
                *out = g * s * u;
            }
        }
    }
}

/// The activation again [T, F], and the gradient by gate | up [T, 2 F], given that by the activation [T, F].
///
/// With s = sigmoid(2 u): d gate = g up (s + gate s (1 - s) 2 u'), d up = g gate s.
pub(crate) fn backward(gate_up: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    match kernel_for(&[gate_up, g]) {
        Kernel::F32 => backward_on_cpu::<f32>(gate_up, g),
        Kernel::F64 => backward_on_cpu::<f64>(gate_up, g),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => gated::backward(Gate::Gelu, gate_up, g),
        Kernel::Plain => {
            let (gate, up) = plain_halves(gate_up)?;
            let g = g.to_dtype(gate.dtype())?;
            let s = plain_sigmoid(&gate)?;
            let gelu = (&gate * &s)?;
            let inner = ((gate.sqr()? * (6.0 * ROOT * CUBE))? + 2.0 * ROOT)?; // 2 u'
            let slope = (&s + ((&gelu * (1.0 - &s)?)? * inner)?)?;
            let d_gate = ((&g * &up)? * slope)?;
            let d_up = (g * &gelu)?;
            let dtype = gate_up.dtype();
            let d = Tensor::cat(&[d_gate, d_up], D::Minus1)?.to_dtype(dtype)?;
            Ok(((gelu * up)?.to_dtype(dtype)?, d))
        }
    }
}

fn backward_on_cpu<T: Real>(gate_up: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, double) = gate_up.dims2()?;
    let width = double / 2;
    let (gate_up, g) = (view::<T>(gate_up)?, view::<T>(g)?);
    let (mut out, mut d) = (T::zeros(rows * width), T::zeros(rows * double));
    let chunk = rows_per_task(double);
    (
        out.par_chunks_mut(chunk * width),
        d.par_chunks_mut(chunk * double),
        gate_up.par_chunks(chunk * double),
        g.par_chunks(chunk * width),
    )
        .into_par_iter()
        .for_each(|(out, d, gate_up, g)| gelu_rows_backward(gate_up, g, width, out, d));
    Ok((tensor(out, (rows, width))?, tensor(d, (rows, double))?))
}

vectorised! {
    /// The backward of rows, and their activation.
    fn gelu_rows_backward<T: Real>(gate_up: &[T], g: &[T], width: usize, out: &mut [T], d: &mut [T]) {
        let (factor, cube) = (T::of(-2.0 * ROOT), T::of(CUBE));
        let (flat, bent) = (T::of(2.0 * ROOT), T::of(6.0 * ROOT * CUBE));
        let rows = gate_up.chunks_exact(2 * width).zip(g.chunks_exact(width));
        for (((pair, g), out), d) in rows.zip(out.chunks_exact_mut(width)).zip(d.chunks_exact_mut(2 * width)) {
            let (gate, up) = pair.split_at(width);
            let (d_gate, d_up) = d.split_at_mut(width);
            let ins = gate.iter().zip(up).zip(g);
            let outs = out.iter_mut().zip(d_gate).zip(d_up);
            for (((&gate, &up), &g), ((out, d_gate), d_up)) in ins.zip(outs) {
                let s = T::one() / (T::one() + (factor * (gate + cube * gate * gate * gate)).exp());
                let gelu = gate * s;
                *out = gelu * up;
                *d_gate = g * up * (s + gelu * (T::one() - s) * (flat + bent * gate * gate));
                *d_up = g * gelu;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};
    use candle_core::{Device, Tensor};

    #[test]
    fn gradient() {
        let inputs = [numbers(1, &[4, 10])];
        gradients(&inputs, |t| {
            Ok(Case::new(super::forward(&t[0])?, |t, g, _| Ok(vec![(0, super::backward(&t[0], g)?.1)])))
        });
        plain_agrees(&inputs, |t| {
            let y = super::forward(&t[0])?;
            let (again, d) = super::backward(&t[0], &y)?;
            Ok(vec![y, again, d])
        });
    }

    /// torch.nn.functional.gelu(x, approximate="tanh") of -3, -0.5, 0.25 and 2.
    #[test]
    fn values_are_those_of_pytorch_and_far_ones_saturate() {
        let rows = Tensor::new(&[[-3f64, -0.5, 0.25, 2.0, 1., 1., 1., 1.]], &Device::Cpu).unwrap();
        let want = [-0.003_637_392_08, -0.154_285_990_17, 0.149_675_350_70, 1.954_597_694_09];
        for (got, want) in super::forward(&rows).unwrap().to_vec2::<f64>().unwrap()[0].iter().zip(want) {
            assert!((got - want).abs() < 1e-8, "{got}, {want}");
        }
        let far = Tensor::new(&[[-200f32, 200., 3., 3.]], &Device::Cpu).unwrap();
        assert_eq!(super::forward(&far).unwrap().to_vec2::<f32>().unwrap()[0][1], 600.0);
        let (y, d) =
            super::backward(&far, &Tensor::ones((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        let (y, d) = (y.to_vec2::<f32>().unwrap(), d.to_vec2::<f32>().unwrap());
        assert!(y[0][0].abs() < 1e-30 && d[0][0].abs() < 1e-30, "{y:?} {d:?}");
        assert_eq!(d[0][1], 3.0);
    }
}
