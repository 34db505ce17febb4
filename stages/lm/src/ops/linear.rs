//! Linear layers: y = x W^T + b, with W stored as [out, in] as in model folders.

use crate::Result;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::matrix::{By, Into, Matrix, MatrixMut, multiply};
use crate::ops::rounded::Products;
use crate::ops::{Kernel, Real, add_in_order, add_plain, change, kernel_for, rows_per_task, tensor, view};
use candle_core::Tensor;
use rayon::prelude::*;

// T rows, K inputs, N outputs.

/// residual + x W^T + b: [T, N] of x [T, K], W [N, K], b [N], residual [T, N].
pub(crate) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    products: Products,
) -> Result<Tensor> {
    let mut all = vec![x, weight];
    all.extend(bias);
    all.extend(residual);
    match kernel_for(&all) {
        Kernel::F32 => forward_on_cpu::<f32>(x, weight, bias, residual, products),
        Kernel::F64 => forward_on_cpu::<f64>(x, weight, bias, residual, products),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::linear::forward(x, weight, bias, residual),
        Kernel::Plain => {
            let mut y = x.matmul(&weight.t()?)?;
            if let Some(bias) = bias {
                y = y.broadcast_add(bias)?;
            }
            if let Some(residual) = residual {
                y = (y + residual)?;
            }
            Ok(y)
        }
    }
}

fn forward_on_cpu<T: Real>(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    products: Products,
) -> Result<Tensor> {
    let ((rows, inner), (outer, _)) = (x.dims2()?, weight.dims2()?);
    let (x, weight) = (view::<T>(x)?, view::<T>(weight)?);
    let (x, weight) = (Matrix::new(&x, rows, inner, inner), Matrix::new(&weight, outer, inner, inner).t());
    let mut y = match (residual, bias) {
        (None, None) => return tensor(products.product(x, weight), (rows, outer)),
        (Some(residual), _) => T::copied(&view::<T>(residual)?),
        (None, Some(_)) => T::zeros(rows * outer),
    };
    if let Some(bias) = bias {
        let bias = view::<T>(bias)?;
        y.par_chunks_mut(outer * rows_per_task(outer)).for_each(|rows| {
            for row in rows.chunks_exact_mut(outer) {
                for (y, &b) in row.iter_mut().zip(&*bias) {
                    *y += b;
                }
            }
        });
    }
    products.multiply(x, weight, MatrixMut::new(&mut y, rows, outer, outer), Into::Added);
    tensor(y, (rows, outer))
}

/// y with x W^T added to its columns from `start` on: [T, M] of x [T, K], W [N, K], y [T, M]. Takes y to change it.
pub(crate) fn add_columns(x: &Tensor, weight: &Tensor, y: Tensor, start: usize) -> Result<Tensor> {
    match kernel_for(&[x, weight, &y]) {
        Kernel::F32 => add_columns_on_cpu::<f32>(x, weight, &y, start)?,
        Kernel::F64 => add_columns_on_cpu::<f64>(x, weight, &y, start)?,
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::linear::add_columns(x, weight, &y, start)?,
        Kernel::Plain => {
            let (rows, width) = (weight.dim(0)?, y.dim(1)?);
            let own = (y.narrow(1, start, rows)? + x.matmul(&weight.t()?)?)?;
            let parts = [y.narrow(1, 0, start)?, own, y.narrow(1, start + rows, width - start - rows)?];
            let parts: Vec<&Tensor> = parts.iter().filter(|part| part.elem_count() > 0).collect();
            return Ok(Tensor::cat(&parts, 1)?.contiguous()?);
        }
    }
    Ok(y)
}

fn add_columns_on_cpu<T: Real>(x: &Tensor, weight: &Tensor, y: &Tensor, start: usize) -> Result<()> {
    let ((rows, inner), outer, width) = (x.dims2()?, weight.dim(0)?, y.dim(1)?);
    let (x, weight) = (view::<T>(x)?, view::<T>(weight)?);
    change::<T>(y, |y| {
        multiply(
            Matrix::new(&x, rows, inner, inner),
            Matrix::new(&weight, outer, inner, inner).t(),
            MatrixMut::new(&mut y[start..], rows, outer, width),
            Into::Added,
            By::All,
        );
    })
}

/// The gradient by x, dy W: [T, K] of dy [T, N] and W [N, K].
pub(crate) fn backward(weight: &Tensor, dy: &Tensor, products: Products) -> Result<Tensor> {
    match kernel_for(&[weight, dy]) {
        Kernel::F32 => backward_on_cpu::<f32>(weight, dy, products),
        Kernel::F64 => backward_on_cpu::<f64>(weight, dy, products),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::linear::backward(weight, dy),
        Kernel::Plain => Ok(dy.contiguous()?.matmul(weight)?),
    }
}

fn backward_on_cpu<T: Real>(weight: &Tensor, dy: &Tensor, products: Products) -> Result<Tensor> {
    let ((outer, inner), rows) = (weight.dims2()?, dy.dim(0)?);
    let (weight, dy) = (view::<T>(weight)?, view::<T>(dy)?);
    let (weight, dy) = (Matrix::new(&weight, outer, inner, inner), Matrix::new(&dy, rows, outer, outer));
    tensor(products.product(dy, weight), (rows, inner))
}

/// Adds the gradient by W, dy^T x, to `gradient` [N, K].
pub(crate) fn backward_weight(x: &Tensor, dy: &Tensor, gradient: &Tensor, products: Products) -> Result<()> {
    match kernel_for(&[x, dy, gradient]) {
        Kernel::F32 => backward_weight_on_cpu::<f32>(x, dy, gradient, products),
        Kernel::F64 => backward_weight_on_cpu::<f64>(x, dy, gradient, products),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::linear::backward_weight(x, dy, gradient),
        Kernel::Plain => add_plain(gradient, &dy.t()?.contiguous()?.matmul(x)?),
    }
}

fn backward_weight_on_cpu<T: Real>(x: &Tensor, dy: &Tensor, gradient: &Tensor, products: Products) -> Result<()> {
    let ((rows, inner), outer) = (x.dims2()?, dy.dim(1)?);
    let (x, dy) = (view::<T>(x)?, view::<T>(dy)?);
    change::<T>(gradient, |gradient| {
        products.multiply(
            Matrix::new(&dy, rows, outer, outer).t(),
            Matrix::new(&x, rows, inner, inner),
            MatrixMut::new(gradient, outer, inner, inner),
            Into::Added,
        );
    })
}

/// Adds both gradients, by W to `weight` [N, K] and by b to `bias` [N].
pub(crate) fn backward_weight_and_bias(
    x: &Tensor,
    dy: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    products: Products,
) -> Result<()> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[x, dy, weight, bias]) == Kernel::Cuda {
        return cuda::linear::backward_weight_and_bias(x, dy, weight, bias);
    }
    backward_weight(x, dy, weight, products)?;
    backward_bias(dy, bias)
}

/// Adds the gradient by b, the sum of the rows of dy, to `gradient` [N].
pub(crate) fn backward_bias(dy: &Tensor, gradient: &Tensor) -> Result<()> {
    match kernel_for(&[dy, gradient]) {
        Kernel::F32 => backward_bias_on_cpu::<f32>(dy, gradient),
        Kernel::F64 => backward_bias_on_cpu::<f64>(dy, gradient),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::linear::backward_bias(dy, gradient),
        Kernel::Plain => add_plain(gradient, &dy.to_dtype(gradient.dtype())?.sum(0)?),
    }
}

fn backward_bias_on_cpu<T: Real>(dy: &Tensor, gradient: &Tensor) -> Result<()> {
    let width = gradient.elem_count();
    let dy = view::<T>(dy)?;
    let partial: Vec<Vec<T>> = dy
        .par_chunks(rows_per_task(width) * width)
        .map(|rows| {
            let mut sum = T::zeros(width);
            for row in rows.chunks_exact(width) {
                for (sum, &x) in sum.iter_mut().zip(row) {
                    *sum += x;
                }
            }
            sum
        })
        .collect();
    change::<T>(gradient, |gradient| add_in_order(&partial, gradient))
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};
    use crate::ops::rounded::Products::Exact;

    #[test]
    fn gradient() {
        let inputs = [numbers(1, &[5, 3]), numbers(2, &[4, 3]), numbers(3, &[4]), numbers(4, &[5, 4])];
        gradients(&inputs, |t| {
            let y = super::forward(&t[0], &t[1], Some(&t[2]), Some(&t[3]), Exact)?;
            Ok(Case::new(y, |t, g, d| {
                super::backward_weight(&t[0], g, &d[1], Exact)?;
                super::backward_bias(g, &d[2])?;
                Ok(vec![(0, super::backward(&t[1], g, Exact)?), (3, g.clone())])
            }))
        });
        plain_agrees(&inputs, |t| {
            let y = super::forward(&t[0], &t[1], Some(&t[2]), Some(&t[3]), Exact)?;
            let bare = super::forward(&t[0], &t[1], None, None, Exact)?;
            let (dw, db) = (t[1].ones_like()?, t[2].ones_like()?);
            super::backward_weight(&t[0], &y, &dw, Exact)?;
            super::backward_bias(&y, &db)?;
            Ok(vec![super::backward(&t[1], &y, Exact)?, y, bare, dw, db])
        });
    }

    #[test]
    fn columns_are_added_in_place() {
        for (start, width) in [(0, 4), (0, 6), (1, 6), (2, 6)] {
            plain_agrees(&[numbers(1, &[5, 3]), numbers(2, &[4, 3]), numbers(3, &[5, width])], |t| {
                let got = super::add_columns(&t[0], &t[1], t[2].copy()?, start)?;
                let pad = |n: usize| candle_core::Tensor::zeros((5, n), t[0].dtype(), t[0].device());
                let product = super::forward(&t[0], &t[1], None, None, Exact)?;
                let mut parts = vec![product];
                // A device need not give memory for nothing.
                if start > 0 {
                    parts.insert(0, pad(start)?);
                }
                if width > start + 4 {
                    parts.push(pad(width - start - 4)?);
                }
                let want = (candle_core::Tensor::cat(&parts, 1)? + &t[2])?;
                let off = (&got - want)?.abs()?.flatten_all()?.max(0)?.to_dtype(candle_core::DType::F64)?;
                assert!(off.to_scalar::<f64>()? < 1e-5, "from {start} of {width}");
                Ok(vec![got])
            });
        }
    }

    /// More rows than one task sums.
    #[test]
    fn bias_gradient_of_many_rows() {
        let dy = candle_core::Tensor::ones((40_000, 2), candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
        let gradient = candle_core::Tensor::new(&[1f64, 2.], &candle_core::Device::Cpu).unwrap();
        super::backward_bias(&dy, &gradient).unwrap();
        assert_eq!(gradient.to_vec1::<f64>().unwrap(), [40_001., 40_002.]);
    }
}
