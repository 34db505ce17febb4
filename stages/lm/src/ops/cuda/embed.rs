//! Rows of tables. See `ops::embed` for what is computed.

use super::{Launch, fresh, upload};
use crate::ops::indices::Indices;
use crate::{DType, Result};
use candle_core::Tensor;

const THREADS: u32 = 128;

pub(crate) fn forward(table: &Tensor, ids: Indices) -> Result<Tensor> {
    let width = table.dim(1)?;
    let y = fresh((ids.len(), width), table.dtype(), table.device())?;
    Launch::like("embed", "gather_rows", table)
        .tensor(table)?
        .of(DType::U32, &ids.on(table.device())?)?
        .tensor(&y)?
        .count(width)?
        .run((ids.len(), 1), THREADS, 0)?;
    Ok(y)
}

/// A row `u32::MAX` is none.
pub(crate) fn put(table: &Tensor, rows: Indices, source: &Tensor, column: usize) -> Result<()> {
    Launch::like("embed", "put_rows", table)
        .tensor(table)?
        .of(DType::U32, &rows.on(table.device())?)?
        .tensor(source)?
        .count(table.dim(1)?)?
        .count(source.dim(1)?)?
        .count(column)?
        .run((rows.len(), 1), THREADS, 0)
}

pub(crate) fn spread(dx: &Tensor, rows: &[u32], total: usize) -> Result<Tensor> {
    let width = dx.dim(1)?;
    let mut places = vec![0; total];
    for (i, &row) in rows.iter().enumerate() {
        places[row as usize] = i as u32 + 1;
    }
    let y = fresh((total, width), dx.dtype(), dx.device())?;
    Launch::like("embed", "spread_rows", dx)
        .tensor(dx)?
        .of(DType::U32, &upload(&places, dx.device())?)?
        .tensor(&y)?
        .count(width)?
        .run((total, 1), THREADS, 0)?;
    Ok(y)
}

/// One block for each distinct id, which takes the rows of that id in their order.
pub(crate) fn backward(dx: &Tensor, ids: &[u32], gradient: &Tensor) -> Result<()> {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&row| ids[row as usize]);
    let mut runs = Vec::new();
    for (i, &row) in order.iter().enumerate() {
        let id = ids[row as usize];
        if i == 0 || ids[order[i - 1] as usize] != id {
            runs.extend([id, i as u32]);
        }
    }
    let distinct = runs.len() / 2;
    runs.extend([0, ids.len() as u32]);
    let width = gradient.dim(1)?;
    Launch::like("embed", "embed_backward", dx)
        .tensor(dx)?
        .of(DType::U32, &upload(&runs, dx.device())?)?
        .of(DType::U32, &upload(&order, dx.device())?)?
        .of(DType::F32, gradient)?
        .count(width)?
        .run((distinct, width.div_ceil(THREADS as usize)), THREADS, 0)
}
