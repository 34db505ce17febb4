//! Token embeddings: rows of a table.

use crate::Result;
#[cfg(any(feature = "cuda", test))]
use crate::ops::cuda;
use crate::ops::indices::Indices;
use crate::ops::{Kernel, Real, add_plain, change, kernel_for, rows_per_task, tensor, view};
use candle_core::Tensor;
use rayon::prelude::*;

// T rows, H width, V rows of the table.

/// The rows `ids` of a table [V, H]: [T, H]. Ids must lie below V.
pub(crate) fn forward<'a>(table: &Tensor, ids: impl Into<Indices<'a>>) -> Result<Tensor> {
    let ids = ids.into();
    match kernel_for(&[table]) {
        Kernel::F32 => forward_on_cpu::<f32>(table, &ids),
        Kernel::F64 => forward_on_cpu::<f64>(table, &ids),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::embed::forward(table, ids),
        Kernel::Plain => Ok(table.index_select(&Tensor::new(&*ids, table.device())?, 0)?),
    }
}

fn forward_on_cpu<T: Real>(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let width = table.dim(1)?;
    let table = view::<T>(table)?;
    let mut out = T::zeros(ids.len() * width);
    let rows = rows_per_task(width);
    (out.par_chunks_mut(rows * width), ids.par_chunks(rows)).into_par_iter().for_each(|(out, ids)| {
        for (row, &id) in out.chunks_exact_mut(width).zip(ids) {
            row.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
    tensor(out, (ids.len(), width))
}

/// Writes some columns of `source` [n, S], from `column` on, into the rows `rows` of `table` [C, W], in place.
pub(crate) fn put<'a>(table: &Tensor, rows: impl Into<Indices<'a>>, source: &Tensor, column: usize) -> Result<()> {
    let rows = rows.into();
    match kernel_for(&[table, source]) {
        Kernel::F32 => put_on_cpu::<f32>(table, &rows, source, column),
        Kernel::F64 => put_on_cpu::<f64>(table, &rows, source, column),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::embed::put(table, rows, source, column),
        Kernel::Plain => {
            let part = source.narrow(1, column, table.dim(1)?)?.contiguous()?;
            let rows = Tensor::new(&*rows, table.device())?.unsqueeze(1)?.broadcast_as(part.shape())?.contiguous()?;
            Ok(table.scatter_set(&rows, &part, 0)?)
        }
    }
}

fn put_on_cpu<T: Real>(table: &Tensor, rows: &[u32], source: &Tensor, column: usize) -> Result<()> {
    let (width, stride) = (table.dim(1)?, source.dim(1)?);
    let source = view::<T>(source)?;
    change::<T>(table, |table| {
        for (&row, source) in rows.iter().zip(source.chunks_exact(stride)) {
            table[row as usize * width..][..width].copy_from_slice(&source[column..][..width]);
        }
    })
}

/// Adds the gradient by the table: row t of `dx` [T, H] to row `ids[t]` of `gradient` [V, H], in the order of t.
pub(crate) fn backward(dx: &Tensor, ids: &[u32], gradient: &Tensor) -> Result<()> {
    match kernel_for(&[dx, gradient]) {
        Kernel::F32 => backward_on_cpu::<f32>(dx, ids, gradient),
        Kernel::F64 => backward_on_cpu::<f64>(dx, ids, gradient),
        #[cfg(any(feature = "cuda", test))]
        Kernel::Cuda => cuda::embed::backward(dx, ids, gradient),
        Kernel::Plain => {
            let ids = Tensor::new(ids, dx.device())?;
            let sum = gradient.zeros_like()?.index_add(&ids, &dx.to_dtype(gradient.dtype())?, 0)?;
            add_plain(gradient, &sum)
        }
    }
}

fn backward_on_cpu<T: Real>(dx: &Tensor, ids: &[u32], gradient: &Tensor) -> Result<()> {
    let width = gradient.dim(1)?;
    let dx = view::<T>(dx)?;
    // (id, row), sorted: each task takes a stretch of the table and finds its rows here.
    let mut order: Vec<(u32, u32)> = ids.iter().enumerate().map(|(row, &id)| (id, row as u32)).collect();
    order.sort_unstable();
    let stretch = rows_per_task(width);
    change::<T>(gradient, |gradient| {
        gradient.par_chunks_mut(stretch * width).enumerate().for_each(|(i, gradient)| {
            let first = (i * stretch) as u32;
            let (from, to) = (
                order.partition_point(|&(id, _)| id < first),
                order.partition_point(|&(id, _)| (id as usize) < (i + 1) * stretch),
            );
            for &(id, row) in &order[from..to] {
                let sum = &mut gradient[(id - first) as usize * width..][..width];
                for (sum, &x) in sum.iter_mut().zip(&dx[row as usize * width..][..width]) {
                    *sum += x;
                }
            }
        });
    })
}

/// The rows of `dx` [R, H] at the places `rows`, distinct, of T rows that are else 0: [T, H].
/// It is the backward of `forward` where no row is taken twice.
pub(crate) fn spread(dx: &Tensor, rows: &[u32], total: usize) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", test))]
    if kernel_for(&[dx]) == Kernel::Cuda {
        return cuda::embed::spread(dx, rows, total);
    }
    let out = Tensor::zeros((total, dx.dim(1)?), dx.dtype(), dx.device())?;
    put(&out, rows, dx, 0)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, gradients, numbers, plain_agrees};

    const IDS: [u32; 6] = [3, 0, 3, 4, 3, 0];

    #[test]
    fn gradient() {
        let inputs = [numbers(1, &[6, 3])];
        gradients(&inputs, |t| {
            Ok(Case::new(super::forward(&t[0], &IDS)?, |_, g, d| {
                super::backward(g, &IDS, &d[0])?;
                Ok(Vec::new())
            }))
        });
        plain_agrees(&inputs, |t| {
            let y = super::forward(&t[0], &IDS)?;
            let gradient = t[0].ones_like()?;
            super::backward(&y, &IDS, &gradient)?;
            let some = super::forward(&t[0], &[5, 1])?;
            let table = t[0].ones_like()?;
            super::put(&table.narrow(1, 0, 2)?.contiguous()?, &[2, 0], &some, 1)?;
            Ok(vec![y, gradient, super::spread(&some, &[4, 1], 7)?, table])
        });
    }

    #[test]
    fn gradient_over_several_stretches_of_the_table() {
        let dx = numbers(1, &[50, 3000]);
        let ids: Vec<u32> = (0..50).map(|i| (i * i) % 23).collect();
        let gradient = candle_core::Tensor::zeros((23, 3000), dx.dtype(), dx.device()).unwrap();
        super::backward(&dx, &ids, &gradient).unwrap();
        let want = gradient.zeros_like().unwrap();
        let want = want.index_add(&candle_core::Tensor::new(ids, dx.device()).unwrap(), &dx, 0).unwrap();
        assert_eq!(gradient.to_vec2::<f64>().unwrap(), want.to_vec2::<f64>().unwrap());
    }
}
