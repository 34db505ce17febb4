//! The gated activation of the feed-forward part: silu(gate) * up.

use crate::Result;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda::gated::{self, Gate};
use crate::ops::real::{Real, vectorised};
use crate::ops::{Kernel, kernel_for, rows_per_task, tensor, view};
use candle_core::{D, Tensor};
use rayon::prelude::*;

// T rows, F width of the feed-forward part.

/// silu(gate) * up [T, F] of the packed pair gate | up [T, 2F].
pub(crate) fn forward(gate_up: &Tensor) -> Result<Tensor> {
    match kernel_for(&[gate_up]) {
        Kernel::F32 => forward_on_cpu::<f32>(gate_up),
        Kernel::F64 => forward_on_cpu::<f64>(gate_up),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => gated::forward(Gate::Silu, gate_up),
        Kernel::Plain => {
            let width = gate_up.dim(D::Minus1)? / 2;
            let (gate, up) = (gate_up.narrow(D::Minus1, 0, width)?, gate_up.narrow(D::Minus1, width, width)?);
            Ok((gate.silu()? * up)?)
        }
    }
}

fn forward_on_cpu<T: Real>(gate_up: &Tensor) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let width = double / 2;
    let gate_up = view::<T>(gate_up)?;
    let mut out = T::zeros(rows * width);
    let chunk = rows_per_task(double);
    (out.par_chunks_mut(chunk * width), gate_up.par_chunks(chunk * double))
        .into_par_iter()
        .for_each(|(out, gate_up)| gate_rows(gate_up, width, out));
    tensor(out, (rows, width))
}

vectorised! {
    /// silu(gate) * up, row by row.
    fn gate_rows<T: Real>(gate_up: &[T], width: usize, out: &mut [T]) {
        for (pair, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = pair.split_at(width);
            for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *out = g / (T::one() + (T::zero() - g).exp()) * u;
            }
        }
    }
}

/// The activation again [T, F], and the gradient by gate | up [T, 2 F], given that by the activation [T, F].
///
/// With s = sigmoid(gate): d gate = g up s (1 + gate (1 - s)), d up = g gate s.
pub(crate) fn backward(gate_up: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    match kernel_for(&[gate_up, g]) {
        Kernel::F32 => backward_on_cpu::<f32>(gate_up, g),
        Kernel::F64 => backward_on_cpu::<f64>(gate_up, g),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => gated::backward(Gate::Silu, gate_up, g),
        Kernel::Plain => {
            let width = gate_up.dim(D::Minus1)? / 2;
            let (gate, up) = (gate_up.narrow(D::Minus1, 0, width)?, gate_up.narrow(D::Minus1, width, width)?);
            let (gate, up) = (gate.contiguous()?, up.contiguous()?);
            let s = (gate.neg()?.exp()? + 1.0)?.recip()?;
            let silu = (&gate * &s)?;
            let slope = (&s * ((&gate * (1.0 - &s)?)? + 1.0)?)?;
            let d_gate = ((g * &up)? * slope)?;
            let d_up = (g * &silu)?;
            Ok(((silu * up)?, Tensor::cat(&[d_gate, d_up], D::Minus1)?))
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
        .for_each(|(out, d, gate_up, g)| gate_rows_backward(gate_up, g, width, out, d));
    Ok((tensor(out, (rows, width))?, tensor(d, (rows, double))?))
}

vectorised! {
    /// The backward of rows, and their activation.
    fn gate_rows_backward<T: Real>(gate_up: &[T], g: &[T], width: usize, out: &mut [T], d: &mut [T]) {
        let rows = gate_up.chunks_exact(2 * width).zip(g.chunks_exact(width));
        for (((pair, g), out), d) in rows.zip(out.chunks_exact_mut(width)).zip(d.chunks_exact_mut(2 * width)) {
            let (gate, up) = pair.split_at(width);
            let (d_gate, d_up) = d.split_at_mut(width);
            let ins = gate.iter().zip(up).zip(g);
            let outs = out.iter_mut().zip(d_gate).zip(d_up);
            for (((&gate, &up), &g), ((out, d_gate), d_up)) in ins.zip(outs) {
                let s = T::one() / (T::one() + (T::zero() - gate).exp());
                *out = gate * s * up;
                *d_gate = g * up * s * (T::one() + gate * (T::one() - s));
                *d_up = g * gate * s;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};

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

    #[test]
    fn far_out_values_saturate() {
        let far = candle_core::Tensor::new(&[[-200f32, 200., 3., 3.]], &candle_core::Device::Cpu).unwrap();
        assert_eq!(super::forward(&far).unwrap().to_vec2::<f32>().unwrap(), [[0., 600.]]);
    }
}
